"""Transformer layers with relative positions: attention with a learned bias on distance, FiLM."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RelativeBias(nn.Module):
    """A learned attention bias per head and distance in frames, initialised to a mild preference for near frames.

    There is no other positional encoding, so the model works at any length and a window's position does not matter.
    """

    def __init__(self, heads: int, reach: int) -> None:
        super().__init__()
        self.reach = reach
        slopes = torch.tensor([2.0 ** (-1 - 5 * i / max(1, heads - 1)) for i in range(heads)])
        self.table = nn.Parameter(-slopes[:, None] * torch.arange(-reach, reach + 1).abs()[None])

    def forward(self, queries: int, keys: int, extra: int, device: torch.device) -> Tensor:
        """Bias ``[heads, queries, extra + keys]``; the first ``extra`` keys are tokens without a position."""
        distance = torch.arange(keys, device=device)[None] - torch.arange(queries, device=device)[:, None]
        bias = self.table[:, distance.clamp(-self.reach, self.reach) + self.reach]
        return F.pad(bias, (extra, 0))


class Attention(nn.Module):
    """Multi-head attention from ``[B, T, W]`` to a memory ``[B, extra + S, W]``."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, memory: Tensor, bias: Tensor) -> Tensor:
        """Attend; ``bias [heads, T, extra + S]`` is added to the scores."""
        query = self._split(self.query(x))
        key, value = (self._split(part) for part in self.key_value(memory).chunk(2, dim=-1))
        # No dropout of attention weights: it would need as many random numbers as all other layers together.
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias.to(query.dtype))
        return self.out(mixed.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def feed_forward(width: int, dropout: float) -> nn.Sequential:
    """Two linear layers with GELU, four times as wide inside."""
    return nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(4 * width, width))


class EncoderLayer(nn.Module):
    """Pre-norm self-attention and feed-forward."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm_a, self.norm_f = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention, self.feed = Attention(width, heads), feed_forward(width, dropout)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """``x [B, T, W]`` to the same shape ``[B, T, W]``."""
        y = self.norm_a(x)
        x = x + self.drop(self.attention(y, y, bias))
        return x + self.drop(self.feed(self.norm_f(x)))


class FiLM(nn.Module):
    """Scale and shift of features by a condition (Perez et al. 2018); the identity at initialisation."""

    def __init__(self, condition: int, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(condition, 2 * width)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """``x [B, T, W]`` under ``condition [B, G]``: ``[B, T, W]``."""
        scale, shift = self.project(condition)[:, None].chunk(2, dim=-1)
        return x * (1 + scale) + shift


class DenoiserLayer(nn.Module):
    """Self-attention over the motion, cross-attention to the audio, feed-forward; each modulated by FiLM."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.films = nn.ModuleList(FiLM(width, width) for _ in range(3))
        self.own, self.cross = Attention(width, heads), Attention(width, heads)
        self.feed, self.drop = feed_forward(width, dropout), nn.Dropout(dropout)

    def forward(
        self, x: Tensor, audio: Tensor, tokens: Tensor, condition: Tensor, bias: Tensor, cross_bias: Tensor
    ) -> Tensor:
        """``x [B, T, W]`` and ``audio [B, T, W]`` to ``[B, T, W]``; ``tokens [B, 2, W]`` (time, utterance) join both memories."""
        y = self.films[0](self.norms[0](x), condition)
        x = x + self.drop(self.own(y, torch.cat([tokens, y], 1), bias))
        y = self.films[1](self.norms[1](x), condition)
        x = x + self.drop(self.cross(y, torch.cat([tokens, audio], 1), cross_bias))
        y = self.films[2](self.norms[2](x), condition)
        return x + self.drop(self.feed(y))


def sinusoid(t: Tensor, width: int) -> Tensor:
    """Sinusoidal embedding ``[B, W]``, W = ``width``, of diffusion times ``t [B]``."""
    frequencies = torch.exp(-math.log(10000.0) * torch.arange(width // 2, device=t.device) / (width // 2))
    angles = t.float()[:, None] * frequencies[None]
    return torch.cat([angles.cos(), angles.sin()], dim=-1)
