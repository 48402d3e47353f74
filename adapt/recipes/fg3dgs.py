"""``fg3dgs``: FG-3DGS (arXiv 2602.09736): frequency-aware regions and post-render alignment, with our components.

The face moves at low frequency, by a light MLP field with coarse grids. Eyes and mouth move at high frequency, by gated
cross-modal networks that predict translations only. The three are composed by alpha (eyes over face over mouth). Last, the
sync expert's loss with weight 0.03 updates only the mouth's network and colours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from adapt.avatar.document import AvatarContent, ModelShape
from adapt.clip import Batch
from adapt.fit.alignment import align_with_sound
from adapt.fit.clouds import build_branches, fuse, train_branch
from adapt.fit.config import BranchConfig
from adapt.fit.context import Context
from adapt.fit.groups import backdrop_groups, cloud_groups, correction_groups, field_and_audio_groups, field_groups
from adapt.fit.loop import Fit
from adapt.fit.losses import Loss, coverage_loss, face_branch_loss, mouth_branch_loss, picture_loss
from adapt.fit.optimizers import Group
from adapt.fit.schedule import shares_to_ends
from adapt.models.action_units import N_UNITS
from adapt.models.base import Rendered
from adapt.models.branches import AUDIO_SIZE, EYES, MOUTH, BranchHead, Field
from configs.bounds import Count
from heads.motion.fields import CrossModalMotion, FaceMotion
from heads.rig import Rig


@dataclass(frozen=True, kw_only=True)
class Config(BranchConfig):
    """See ``configs/adapt/fg3dgs.yaml`` for what each key does."""

    eye_points: Count
    eye_branch: bool
    alignment: bool
    joint_share: float
    alignment_share: float
    joint_rate: float
    joint_cloud_rate: float
    boost_face: float
    boost_eyes: float
    boost_mouth: float
    alignment_weight: float
    alignment_rate: float
    alignment_grid_rate: float
    alignment_cloud_rate: float


def fields(config: Config) -> dict[str, Field]:
    """The motion fields, front-most branch first."""
    eyes = CrossModalMotion({"units": N_UNITS, "eyes": 6}, base=16, finest=256) if config.eye_branch else None
    # Low frequencies: a quarter of TalkingGaussian's finest grid.
    face = FaceMotion(AUDIO_SIZE, N_UNITS, base=8, finest=64, hidden=32)
    mouth = CrossModalMotion({"audio": AUDIO_SIZE, "units": N_UNITS}) if config.mouth_branch else None
    found = {
        "eyes": (eyes, ("units", "eyes")),
        "face": (face, ("audio", "units")),
        "mouth": (mouth, ("audio", "units")),
    }
    return {name: Field(module, inputs) for name, (module, inputs) in found.items() if module is not None}


def build(context: Context[Config]) -> BranchHead:
    """Clouds on the tracked head by region, coloured by the frontal frame."""
    config = context.config
    taken = (EYES if config.eye_branch else ()) + (MOUTH if config.mouth_branch else ())
    seeds = {
        "eyes": (EYES, (), config.eye_points),
        "face": (None, taken, config.face_points),
        "mouth": (MOUTH, (), config.mouth_points),
    }
    return build_branches(context, fields(config), seeds)


def shape_of(model: BranchHead) -> ModelShape:
    """What :func:`empty` needs besides the configuration."""
    return model.shape()


def empty(config: Config, document: AvatarContent, tensors: Mapping[str, Tensor], rig: Rig) -> BranchHead:
    """A model of the right shapes for an avatar's weights."""
    return BranchHead.empty(fields(config), document, tensors, rig)


def run(fit: Fit, context: Context[Config]) -> None:
    """Face and eyes with their motion, the mouth with its motion, joint refinement, fusion, alignment."""
    config, model = context.config, fit.model
    assert isinstance(model, BranchHead)
    expert = context.priors.sync if config.alignment and config.mouth_branch else None
    ends = shares_to_ends(
        face=config.face_share,
        mouth=config.mouth_share if config.mouth_branch else 0.0,
        joint=config.joint_share,
        fuse=config.fuse_share,
        alignment=config.alignment_share if expert is not None else 0.0,
    )
    front = tuple(name for name in model.clouds if name != "mouth")
    body = [*backdrop_groups(model, config.rate), *correction_groups(model, config.rate)]
    loss, rates = joint_loss(config), config.clouds.rates()
    train_branch(fit, model, "face", 0.0, ends["face"], face_branch_loss(config), config, extra=body, beside=front)
    if config.mouth_branch:
        train_branch(fit, model, "mouth", ends["face"], ends["mouth"], mouth_branch_loss(config), config)
    model.active = tuple(model.clouds)
    groups = field_and_audio_groups(model, model.active, config.motion, config.joint_rate * config.rate)
    groups += cloud_groups(model, model.active, rates, config.joint_cloud_rate * config.rate)
    groups += backdrop_groups(model, config.fuse_backdrop * config.rate)
    fit.stage("joint", ends["mouth"], ends["joint"], groups, loss, anneal=(ends["mouth"], ends["joint"]))
    fuse(fit, model, ends["joint"], ends["fuse"], config)
    if expert is not None:
        align_with_sound(fit, expert, _aligned(model, config), ends["fuse"], 1.0, loss, config.alignment_weight)


def _aligned(model: BranchHead, config: Config) -> list[Group]:
    """What the alignment may change: the mouth's network and colours."""
    rates = {"rate": config.alignment_rate, "grid_rate": config.alignment_grid_rate}
    colors = cloud_groups(model, ("mouth",), config.clouds.rates(), config.alignment_cloud_rate, ("colors",))
    return field_groups(model.field("mouth"), "motion.mouth", **rates) + colors


def joint_loss(config: Config) -> Loss:
    """Pixels of the composed head, eyes and mouth weighted, and the silhouette."""
    mouth = {"mouth_inside": config.boost_mouth, "lips": config.boost_mouth}
    boosts = {"eyes": config.boost_eyes, **mouth, "face": config.boost_face}

    def loss(rendered: Rendered, batch: Batch) -> Tensor:
        value = picture_loss(rendered.image, batch, boosts, config.ssim)
        return value + config.coverage * coverage_loss(rendered, batch)

    return loss
