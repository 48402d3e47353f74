"""Pixel measures shared by fitting, benchmarks and evaluation; images are RGB ``[..., H, W, C]`` in [0, 1]."""

from __future__ import annotations

import math

from torch import Tensor


def psnr(image: Tensor, target: Tensor, mask: Tensor | None = None) -> float:
    """Peak signal-to-noise ratio in dB over all pixels, or under a soft ``mask [..., H, W]``.

    100 dB for equal images (never infinite, so that means stay finite); NaN where the mask is empty, since nothing
    was measured.
    """
    if image.shape != target.shape:
        raise ValueError(f"images differ in shape: got {tuple(image.shape)}, expected {tuple(target.shape)}")
    error = (image.float() - target.float()).square().mean(dim=-1)
    if mask is None:
        value = error.mean()
    else:
        total = mask.expand_as(error).sum()
        if total <= 0:
            return math.nan
        value = (error * mask).sum() / total
    return min(100.0, -10.0 * math.log10(max(float(value), 1e-12)))


def mean_psnr(images: Tensor, targets: Tensor, masks: Tensor | None = None) -> float:
    """Mean over frames of :func:`psnr`, for ``[T, H, W, C]``; frames with an empty mask are left out."""
    rows = [psnr(images[t], targets[t], None if masks is None else masks[t]) for t in range(len(images))]
    rows = [row for row in rows if not math.isnan(row)]
    return sum(rows) / len(rows) if rows else math.nan
