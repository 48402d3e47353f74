"""A SyncNet-like pair of encoders: windows of lips and windows of sound to one space (Chung & Zisserman 2016)."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pretrain.sync_expert.config import SyncExpertConfig

SHAPES = 3  # columns of lips.lip_shape


class LipEncoder(nn.Module):
    """Each frame by itself through convolutions, then ``window`` frames together.

    The per-frame part is shared by all windows that hold a frame, which makes long runs cheap.
    """

    def __init__(self, config: SyncExpertConfig) -> None:
        super().__init__()
        model = config.model
        sizes = [3, model.channels, 2 * model.channels, 4 * model.channels, 4 * model.channels]
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in itertools.pairwise(sizes))
        self.norms = nn.ModuleList(nn.GroupNorm(4, size) for size in sizes[1:])
        cells = -(-model.height // 16) * -(-model.breadth // 16)
        self.frame = nn.Linear(sizes[-1] * cells, model.width)
        self.drop = nn.Dropout(model.dropout)
        self.join = nn.Sequential(
            nn.Linear(config.window * model.width, 2 * model.width), nn.GELU(), nn.Dropout(model.dropout)
        )
        self.out = nn.Linear(2 * model.width, model.embedding)
        self.shape = nn.Linear(model.width, SHAPES)

    def frames(self, lips: Tensor) -> Tensor:
        """``lips [..., h, w, 3]`` RGB in [0, 1] to frame features ``[..., W]``."""
        x = lips.reshape(-1, *lips.shape[-3:]).permute(0, 3, 1, 2)
        # Brightness and contrast of a crop are independent of speech.
        mean = x.mean((1, 2, 3), keepdim=True)
        x = (x - mean) / (x.std((1, 2, 3), keepdim=True) + 0.05)
        for layer, norm in zip(self.layers, self.norms):
            x = F.gelu(norm(layer(x)))
        return self.drop(F.gelu(self.frame(x.flatten(1)))).reshape(*lips.shape[:-3], -1)

    def windows(self, features: Tensor) -> Tensor:
        """Frame ``features [..., L, W]`` of a window to unit embeddings ``[..., E]``."""
        # So is the appearance of the resting face.
        features = features - 0.5 * features.mean(-2, keepdim=True)
        return F.normalize(self.out(self.join(features.flatten(-2))), dim=-1)


class SpeechEncoder(nn.Module):
    """A window of feature rows to a unit embedding."""

    def __init__(self, config: SyncExpertConfig, size: int) -> None:
        super().__init__()
        model = config.model
        self.first = nn.Linear(size, model.width)
        self.over_time = nn.Conv1d(model.width, model.width, 3, padding=1)
        self.norm = nn.LayerNorm(model.width)
        self.drop = nn.Dropout(model.dropout)
        self.join = nn.Sequential(
            nn.Linear(config.window * model.width, 2 * model.width), nn.GELU(), nn.Dropout(model.dropout)
        )
        self.out = nn.Linear(2 * model.width, model.embedding)
        self.shape = nn.Linear(2 * model.width, SHAPES)

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised ``rows [..., L, C]`` to unit embeddings ``[..., E]`` and lip geometry of the middle frame ``[..., 3]``."""
        lead = rows.shape[:-2]
        x = self.drop(F.gelu(self.first(rows.reshape(-1, *rows.shape[-2:]))))
        x = self.norm(x + F.gelu(self.over_time(x.transpose(1, 2)).transpose(1, 2)))
        x = self.join(x.flatten(1))
        return F.normalize(self.out(x), dim=-1).reshape(*lead, -1), self.shape(x).reshape(*lead, SHAPES)


class SyncModel(nn.Module):
    """Both encoders with the statistics of their inputs."""

    feature_mean: Tensor
    feature_std: Tensor
    shape_std: Tensor

    def __init__(self, config: SyncExpertConfig, size: int) -> None:
        super().__init__()
        self.config, self.size = config, size
        self.lips, self.audio = LipEncoder(config), SpeechEncoder(config, size)
        self.sharpness = nn.Parameter(torch.tensor(2.0))  # log of the inverse temperature
        self.register_buffer("feature_mean", torch.zeros(size))
        self.register_buffer("feature_std", torch.ones(size))
        self.register_buffer("shape_std", torch.ones(SHAPES))

    def normalise(self, features: Tensor, mean: Tensor | None = None) -> Tensor:
        """``features [..., C]`` normalised for the encoder, ``[..., C]``; ``mean [..., C]`` is that of their clip."""
        return (features - (self.feature_mean if mean is None else mean)) / self.feature_std


def sliding(x: Tensor, window: int) -> Tensor:
    """``x [B, T, C]`` to its runs of ``window`` rows ``[B, M, L, C]``, M = T - window + 1."""
    return x.unfold(1, window, 1).transpose(2, 3)
