"""``talkinggaussian``: TalkingGaussian (ECCV 2024, arXiv 2404.15264) with our components. No prior.

Two branches of persistent Gaussians, the face and the inside of the mouth, are first fitted without motion. Then each
learns a motion field from audio (the face also from the upper-face units), with incremental sampling over eye closure
and mouth opening. Last, both are fused and their colours fine-tuned with D-SSIM 0.2 (and LPIPS 0.5 if weights are given).
Body and background are our backdrop; the paper pastes those of the original.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from adapt.avatar.document import AvatarContent, ModelShape
from adapt.fit.clouds import build_branches, fuse, incremental, train_static
from adapt.fit.config import BranchConfig
from adapt.fit.context import Context
from adapt.fit.groups import backdrop_groups, cloud_groups, field_and_audio_groups
from adapt.fit.loop import Fit
from adapt.fit.losses import face_branch_loss, mouth_branch_loss
from adapt.fit.optimizers import Group
from adapt.fit.schedule import shares_to_ends
from adapt.models.action_units import N_UNITS
from adapt.models.branches import AUDIO_SIZE, MOUTH, BranchHead, Field
from heads.motion.fields import FaceMotion, MouthMotion
from heads.rig import Rig


@dataclass(frozen=True, kw_only=True)
class Config(BranchConfig):
    """See ``configs/adapt/talkinggaussian.yaml`` for what each key does."""

    face_share: float
    mouth_share: float


def fields(config: Config) -> dict[str, Field]:
    """The motion fields of the branches."""
    face = Field(FaceMotion(AUDIO_SIZE, N_UNITS), ("audio", "units"))
    return (
        {"face": face, "mouth": Field(MouthMotion(AUDIO_SIZE), ("audio",))} if config.mouth_branch else {"face": face}
    )


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
    """Static clouds, motion of the face, motion of the mouth, fusion."""
    config, model = context.config, fit.model
    assert isinstance(model, BranchHead)
    ends = shares_to_ends(
        static=config.static_share,
        face=config.face_share,
        mouth=config.mouth_share if config.mouth_branch else 0.0,
        fuse=config.fuse_share,
    )
    middle = ends["static"] * (config.face_static if config.mouth_branch else 1.0)
    body = backdrop_groups(model, config.rate)
    face, mouth = face_branch_loss(config), mouth_branch_loss(config)
    train_static(fit, model, "face", 0.0, middle, face, config, densify=config.densify, extra=body)
    if config.mouth_branch:
        train_static(fit, model, "mouth", middle, ends["static"], mouth, config, densify=False)

    def moving(branch: str) -> list[Group]:
        clouds = cloud_groups(model, (branch,), config.clouds.rates(), config.moving_rate * config.rate)
        return field_and_audio_groups(model, (branch,), config.rate) + clouds

    model.still, model.active = False, ("face",)
    sample = incremental(fit, config, "eyes")
    fit.stage("motion face", ends["static"], ends["face"], moving("face") + body, face, sample=sample)
    if config.mouth_branch:
        model.active = ("mouth",)
        sample = incremental(fit, config, "mouth")
        fit.stage("motion mouth", ends["face"], ends["mouth"], moving("mouth"), mouth, sample=sample)
    model.active = tuple(model.clouds)
    fuse(fit, model, ends["mouth"], 1.0, config)
