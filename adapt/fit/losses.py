"""What the recipes' stages minimise: pixels where it matters, and silhouettes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from adapt.clip import Batch
from adapt.models.base import Rendered
from configs import InputError
from heads.losses import LPIPS, d_ssim, weighted_mean


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

    Inside the head region the person's matte is the head; where nobody is, no head is. The rest of the person is
    torso and neck, which head and body layer share as they like: nothing is said there.
    """
    head = batch.masks["head"]
    return batch.matte * head, 1 - batch.matte * (1 - head)


def coverage_loss(rendered: Rendered, batch: Batch) -> Tensor:
    """L1 between the head's coverage and :func:`head_target`."""
    target, sure = head_target(batch)
    return weighted_mean((rendered.alpha - target).abs(), sure)


def lpips_of(weights: str) -> LPIPS | None:
    """The perceptual loss of ``BACKBONE,LINEAR`` weight files; ``None`` where no weights are given.

    Raises:
        InputError: not two files, or files that are no such weights.
    """
    if not weights:
        return None
    paths = weights.split(",")
    if len(paths) != 2:
        raise InputError(f"lpips is '{weights}', expected two weight files: BACKBONE,LINEAR")
    return LPIPS(*paths)
