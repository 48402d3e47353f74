"""``talkinggaussian``: TalkingGaussian (ECCV 2024, arXiv 2404.15264) with our components. No prior.

Two branches of persistent Gaussians, the face and the inside of the mouth, are trained one after the other: without motion
at first, then with a motion field that hears audio (and, in the face, the upper-face units), with incremental sampling over
eye closure and mouth opening, densified all the while. Last, both are fused and their colours fine-tuned with D-SSIM 0.2
(and LPIPS 0.5 if weights are given). Shares and rates follow the published code (50,000 + 50,000 + 10,000 steps).
Body and background are our backdrop; the paper pastes those of the original.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from adapt.avatar.document import AvatarContent, ModelShape
from adapt.fit.clouds import build_branches, fuse, train_branch
from adapt.fit.config import BranchConfig
from adapt.fit.context import Context
from adapt.fit.groups import backdrop_groups, correction_groups
from adapt.fit.loop import Fit
from adapt.fit.losses import face_branch_loss, mouth_branch_loss
from adapt.fit.schedule import shares_to_ends
from adapt.models.action_units import N_UNITS
from adapt.models.branches import AUDIO_SIZE, MOUTH, BranchHead, Field
from configs.bounds import Count
from heads.motion.fields import FaceMotion, MouthMotion
from heads.rig import Rig

MOUTH_BASE = 58  # cells of the coarsest grid inside the mouth


@dataclass(frozen=True, kw_only=True)
class Config(BranchConfig):
    """See ``configs/adapt/talkinggaussian.yaml`` for what each key does."""

    face_finest: Count
    mouth_finest: Count


def fields(config: Config) -> dict[str, Field]:
    """The motion fields of the branches."""
    found = {"face": Field(FaceMotion(AUDIO_SIZE, N_UNITS, finest=config.face_finest), ("audio", "units"))}
    if config.mouth_branch:
        base = min(MOUTH_BASE, config.mouth_finest)
        found["mouth"] = Field(MouthMotion(AUDIO_SIZE, base=base, finest=config.mouth_finest), ("audio",))
    return found


def build(context: Context[Config]) -> BranchHead:
    """Clouds on the tracked head, coloured by the frontal frame."""
    config = context.config
    without = MOUTH if config.mouth_branch else ()
    seeds = {"face": (None, without, config.face_points), "mouth": (MOUTH, (), config.mouth_points)}
    return build_branches(context, fields(config), seeds)


def shape_of(model: BranchHead) -> ModelShape:
    """What :func:`empty` needs besides the configuration."""
    return model.shape()


def empty(config: Config, document: AvatarContent, tensors: Mapping[str, Tensor], rig: Rig) -> BranchHead:
    """A model of the right shapes for an avatar's weights."""
    return BranchHead.empty(fields(config), document, tensors, rig)


def run(fit: Fit, context: Context[Config]) -> None:
    """The face with its motion, the mouth with its motion, fusion."""
    config, model = context.config, fit.model
    assert isinstance(model, BranchHead)
    ends = shares_to_ends(
        face=config.face_share, mouth=config.mouth_share if config.mouth_branch else 0.0, fuse=config.fuse_share
    )
    body = [*backdrop_groups(model, config.rate), *correction_groups(model, config.rate)]
    train_branch(fit, model, "face", 0.0, ends["face"], face_branch_loss(config), config, extra=body)
    if config.mouth_branch:
        train_branch(fit, model, "mouth", ends["face"], ends["mouth"], mouth_branch_loss(config), config)
    fuse(fit, model, ends["mouth"], 1.0, config)
