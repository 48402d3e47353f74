"""Composition of separately rendered branches into one head image.

Each branch is a rendered colour, premultiplied by its own alpha (as every rasteriser returns it over a black
background), and that alpha. Source: TalkingGaussian (2024) eq. 11; FG-3DGS (2026) adds the eyes by the same rule.
"""

from __future__ import annotations

import torch
from torch import Tensor


def over(layers: list[tuple[Tensor, Tensor]], background: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Front-to-back composition of premultiplied layers, the nearest first, over an optional opaque background.

    Args:
        layers: (colour ``[..., H, W, C]``, alpha ``[..., H, W, 1]``) pairs.
        background: ``[..., H, W, C]`` or anything that broadcasts to it.

    Returns:
        colour ``[..., H, W, C]``, premultiplied, and alpha ``[..., H, W, 1]``, which is one over a background.

    Raises:
        ValueError: no layer, or sizes that differ.
    """
    if not layers:
        raise ValueError("composition needs at least one layer")
    color, alpha = layers[0]
    for below, below_alpha in layers[1:]:
        if below.shape[-3:-1] != color.shape[-3:-1]:
            raise ValueError(f"layers differ in size: {tuple(color.shape)} and {tuple(below.shape)}")
        rest = 1 - alpha
        color, alpha = color + rest * below, alpha + rest * below_alpha
    if background is not None:
        color = color + (1 - alpha) * background
        alpha = torch.ones_like(alpha)
    return color, alpha
