"""What the recipes' stages minimise: pixels where it matters, silhouettes, and penalties."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from adapt.clip import Batch
from adapt.fit.config import BranchConfig, RiggedConfig
from adapt.fit.schedule import anchor_share
from adapt.fit.track_refinement import TrackRefinement
from adapt.models.base import Rendered
from adapt.models.rigged import RiggedHead
from configs import InputError
from configs.devices import constant
from heads import pictures
from heads.losses import LPIPS, weighted_mean

Loss = Callable[[Rendered, Batch], Tensor]
"""A scalar of a rendered batch and the real one."""

# Confidence that the head covers nothing of torso, neck and long hair, which the body layer can show [benchmarks outline]: 1
# shows a little less of collars on a turned head, and more holes in its neck
BARE = 0.2


def pixel_weights(batch: Batch, boosts: Mapping[str, float]) -> Tensor:
    """``[B, H, W, 1]``: 1 everywhere, plus each boost in its region (a mouth is small, and people look at it)."""
    if not boosts:
        return torch.ones_like(batch.matte)
    weight = constant((1.0,), batch.matte)
    for name, boost in boosts.items():
        weight = weight.add(batch.masks[name], alpha=boost)
    return weight


def picture_loss(image: Tensor, batch: Batch, boosts: Mapping[str, float], ssim_share: float) -> Tensor:
    """:func:`heads.pictures.picture_loss` of a batch, with more weight on the boosted regions."""
    return pictures.picture_loss(image, batch.image, pixel_weights(batch, boosts), ssim_share)


def head_target(batch: Batch) -> tuple[Tensor, Tensor]:
    """Target of the head's coverage and confidence in it, ``[B, H, W, 1]`` in [0, 1] each.

    In the region ``sure_head`` the person's matte is the head, and where there is no person there is no head. The rest of the
    person is torso, neck and long hair, which head and body layer may share: the target is 0 there, with confidence ``BARE``.
    """
    head = batch.head
    return head, 1 - batch.matte + head + BARE * (batch.matte - head)


def coverage_loss(rendered: Rendered, batch: Batch) -> Tensor:
    """L1 between the head's coverage and :func:`head_target`."""
    target, sure = head_target(batch)
    return weighted_mean((rendered.alpha - target).abs(), sure)


def rigged_loss(config: RiggedConfig, model: RiggedHead, frames: int) -> Loss:
    """Pixels, silhouette and penalties of a rigged head; the anchor's weight falls with the number of frames."""
    anchor, boosts = config.anchor * anchor_share(frames), config.boosts()

    def loss(rendered: Rendered, batch: Batch) -> Tensor:
        value = picture_loss(rendered.image, batch, boosts, config.ssim)
        value = value + model.penalty(anchor, config.smoothness)
        if config.coverage:
            value = value.add(coverage_loss(rendered, batch), alpha=config.coverage)
        if isinstance(model.refiner, TrackRefinement):
            value = value + model.refiner.penalty(batch.index)
        return value

    return loss


def face_branch_loss(config: BranchConfig) -> Loss:
    """The head over a colour drawn for the step, against the real head over it; and the body, where it is trained.

    Only what is opaque can hide a colour that is new in every step (TalkingGaussian's code takes green). Inside the mouth,
    which belongs to the other branch, the face is to leave it bare. Hair beside the jaw is the head's, as in the papers.
    """

    def loss(rendered: Rendered, batch: Batch) -> Tensor:
        inside = batch.masks["mouth_inside"] if config.mouth_branch else torch.zeros_like(batch.matte)
        behind = torch.rand(3, device=inside.device).expand_as(batch.image)
        real = torch.lerp(behind, batch.image, batch.matte * batch.masks["head"] * (1 - inside))
        weight = 1 + config.face_boost * batch.masks["face"]
        value = pictures.picture_loss(pictures.over(rendered.color, rendered.alpha, behind), real, weight, config.ssim)
        if rendered.body.requires_grad:
            image = pictures.over(rendered.color.detach(), rendered.alpha.detach(), rendered.body)
            value = value + weighted_mean((image - batch.image).abs(), 1 - inside)
        return value

    return loss


def mouth_branch_loss(config: BranchConfig) -> Loss:
    """Pixels inside the open mouth, coverage there, and none of it away from the lips."""

    def loss(rendered: Rendered, batch: Batch) -> Tensor:
        inside = batch.masks["mouth_inside"]
        value = weighted_mean((rendered.color - batch.image).abs(), inside)
        value = value + config.mouth_filled * weighted_mean(1 - rendered.alpha, inside)
        away = (1 - batch.masks["lips"]) * (1 - inside)
        return value + config.mouth_away * weighted_mean(rendered.alpha, away)

    return loss


def fused_loss(config: BranchConfig) -> Loss:
    """Pixels of the composed branches, with LPIPS where weights are given."""
    perceptual = lpips_of(config.lpips)

    def loss(rendered: Rendered, batch: Batch) -> Tensor:
        value = picture_loss(rendered.image, batch, {}, config.ssim)
        if perceptual is not None:
            value = value + config.lpips_weight * perceptual(rendered.image, batch.image).mean()
        return value

    return loss


def lpips_of(weights: str) -> LPIPS | None:
    """The perceptual loss of ``BACKBONE,LINEAR`` weight files; ``None`` where no weights are given.

    Raises:
        InputError: not two files, or files that do not hold such weights.
    """
    if not weights:
        return None
    paths = weights.split(",")
    if len(paths) != 2:
        raise InputError(f"lpips is '{weights}', expected two weight files: BACKBONE,LINEAR")
    return LPIPS(*paths)
