"""A SyncNet-like pair of encoders: windows of lips and windows of sound to one space (Chung & Zisserman 2016)."""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from configs.devices import is_accelerator
from pretrain.sync_expert.config import SyncExpertConfig, SyncModelConfig

SHAPES = 3  # columns of lips.lip_shape


def strided_layers(model: SyncModelConfig) -> tuple[list[nn.Conv2d], int]:
    """Four convolutions of 3 px with stride 2, and how many cells they leave of a crop."""
    sizes = [3, *(factor * model.channels for factor in (1, 2, 4, 4))]
    layers = [nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in itertools.pairwise(sizes)]
    return layers, -(-model.height // 16) * -(-model.breadth // 16)


def patch_layers(model: SyncModelConfig) -> tuple[list[nn.Conv2d], int]:
    """Convolutions of 4, 2 and 2 px that do not overlap, and how many cells they leave of a crop."""
    layers, (tall, wide) = [nn.Conv2d(3, model.channels, 4, stride=4)], (model.height // 4, model.breadth // 4)
    for size in (model.channels, 2 * model.channels):
        # A row or column of zeros at both ends where the number is odd.
        layers.append(nn.Conv2d(size, 2 * size, 2, stride=2, padding=(tall % 2, wide % 2)))
        tall, wide = -(-tall // 2), -(-wide // 2)
    return layers, tall * wide


class LipEncoder(nn.Module):
    """Each frame by itself through convolutions, then ``window`` frames together.

    The per-frame part is shared by all windows that hold a frame, which makes long runs cheap.
    """

    def __init__(self, config: SyncExpertConfig) -> None:
        super().__init__()
        model = config.model
        layers, cells = patch_layers(model) if model.patches else strided_layers(model)
        self.layers = nn.ModuleList(layers)
        self.norms = nn.ModuleList(nn.GroupNorm(4, layer.out_channels) for layer in layers)
        self.frame = nn.Linear(layers[-1].out_channels * cells, model.width)
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
        x = x - x.mean((1, 2, 3), keepdim=True)
        spread = torch.linalg.vector_norm(x, dim=(1, 2, 3), keepdim=True) / math.sqrt(x[0].numel() - 1)
        x = x * (spread + 0.05).reciprocal()
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
        embedded, shape = self._windows(x)
        return embedded.reshape(*lead, -1), shape.reshape(*lead, SHAPES)

    def run(self, rows: Tensor, window: int) -> tuple[Tensor, Tensor]:
        """:meth:`forward` of all windows of ``rows [B, T, C]``: ``[B, M, E]`` and ``[B, M, 3]``, M = T - window + 1.

        A row passes the layers once for all windows that hold it, apart from the first and the last row of a window: there
        the convolution over time sees nothing beyond. On an accelerator windows pass one by one: launches cost more there
        than products do.
        """
        if is_accelerator(rows.device):
            return self(sliding(rows, window))
        x = self.drop(F.gelu(self.first(rows)))
        # The convolution's three taps, for all rows at once.
        weight, bias = self.over_time.weight, self.over_time.bias
        before, own, after = F.linear(x, weight.permute(2, 0, 1).flatten(0, 1)).chunk(3, -1)
        before, own = F.pad(before[:, :-1], (0, 0, 1, 0)), own if bias is None else own + bias
        after = F.pad(after[:, 1:], (0, 0, 0, 1))
        alone, first, inner, last = own, own + after, own + before + after, own + before
        count = rows.shape[1] - window + 1
        ends = {0: alone} if window == 1 else {0: first, window - 1: last}
        used = {name: self.norm(x + F.gelu(taps)) for name, taps in {**ends, -1: inner}.items()}
        return self._windows(torch.stack([used.get(i, used[-1])[:, i : i + count] for i in range(window)], 2))

    def _windows(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Windows ``[..., L, W]`` after the convolution over time to embeddings ``[..., E]`` and lip geometry ``[..., 3]``."""
        x = self.join(x.flatten(-2))
        return F.normalize(self.out(x), dim=-1), self.shape(x)


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
    if is_accelerator(x.device):
        return x.unfold(1, window, 1).transpose(2, 3)
    # Slices rather than a view by unfold, whose backward pass takes several times as long on a CPU.
    count = x.shape[1] - window + 1
    return torch.stack([x[:, first : first + count] for first in range(window)], 2)
