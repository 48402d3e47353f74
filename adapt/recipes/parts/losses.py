"""What the recipes' stages minimise: pixels where it matters, and silhouettes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from adapt.clip import Batch
from adapt.recipes.parts.model import Rendered, feather
from heads.losses import d_ssim, weighted_mean


def pixel_weights(batch: Batch, boosts: Mapping[str, float]) -> Tensor:
    """``[B, H, W, 1]``: 1 everywhere, more in the named regions (a mouth is small, and what people look at)."""
    weight = torch.ones_like(batch.matte)
    for name, boost in boosts.items():
        weight = weight + boost * batch.masks[name]
    return weight


def picture_loss(image: Tensor, batch: Batch, boosts: Mapping[str, float], ssim_share: float) -> Tensor:
    """Weighted L1 and D-SSIM, ``(1 - share) L1 + share D-SSIM`` (Kerbl et al. 2023, eq. 7)."""
    weight = pixel_weights(batch, boosts)
    value = weighted_mean((image - batch.image).abs(), weight)
    if ssim_share:
        value = (1 - ssim_share) * value + ssim_share * d_ssim(image, batch.image, weight)
    return value


def head_target(batch: Batch) -> tuple[Tensor, Tensor]:
    """Where the head's coverage is known: target ``[B, H, W, 1]`` and how sure of it we are.

    Inside the head region the person's matte is the head; outside the head is not. The border of the region crosses
    the neck, where head and torso share the picture as they like: nothing is said there.
    """
    head = batch.masks["head"]
    wide = feather(head, max(2, head.shape[2] // 32))
    border = ((wide > 0.02) & (head < 0.98)).float()
    return batch.matte * (head > 0.5).float(), 1 - border * (batch.matte > 0.1).float()


def coverage_loss(rendered: Rendered, batch: Batch) -> Tensor:
    """L1 between the head's coverage and :func:`head_target`."""
    target, sure = head_target(batch)
    return weighted_mean((rendered.alpha - target).abs(), sure)
