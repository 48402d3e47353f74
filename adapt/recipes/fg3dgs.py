"""``fg3dgs``: FG-3DGS (arXiv 2602.09736): frequency-aware regions and post-render alignment, on our parts.

The face is of low frequency: a light MLP field with coarse grids moves it. Eyes and mouth are of high frequency:
gated cross-modal networks predict translations alone. The three are composed by alpha (eyes over face over mouth);
last, the sync expert's loss with weight 0.03 updates only the mouth's network and colours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from adapt.clip import Batch
from adapt.fit.alignment import align_with_sound
from adapt.fit.context import Context
from adapt.fit.loop import Fit
from adapt.fit.losses import coverage_loss, picture_loss
from adapt.models.action_units import N_UNITS
from adapt.models.base import Rendered
from adapt.models.branches import AUDIO_SIZE, EYES, MOUTH, BranchHead, seed_cloud, train_static
from adapt.recipes.headstart import check_numbers, shares_to_ends
from adapt.recipes.talkinggaussian import empty_branches, face_loss, fuse, mouth_loss, sampler, shape_of

__all__ = ["Config", "build", "empty", "run", "shape_of"]


@dataclass(frozen=True, kw_only=True)
class Config:
    """See ``configs/adapt/fg3dgs.yaml`` for what each key does."""

    size: int = 0
    face_points: int = 7000
    eye_points: int = 1500
    mouth_points: int = 1500
    densify: bool = True
    incremental_sampling: bool = True
    mouth_branch: bool = True
    eye_branch: bool = True
    alignment: bool = True
    static_share: float = 0.3
    motion_share: float = 0.4
    joint_share: float = 0.15
    fuse_share: float = 0.1
    alignment_share: float = 0.05
    alignment_weight: float = 0.03
    rate: float = 1.0
    ssim: float = 0.2
    coverage: float = 0.05
    boost_eyes: float = 2.0
    boost_mouth: float = 2.0
    lpips: str = ""
    lpips_weight: float = 0.5

    def check(self) -> None:
        """Raise :class:`InputError` for impossible values."""
        check_numbers(self)


def fields(config: Config) -> dict[str, torch.nn.Module]:
    """The motion fields, front-most branch first; ``listens`` names what each is given."""
    from heads.motion.fields import CrossModalMotion, FaceMotion

    found: dict[str, torch.nn.Module] = {}
    if config.eye_branch:
        found["eyes"] = CrossModalMotion({"units": N_UNITS, "eyes": 6}, base=16, finest=256)
        found["eyes"].listens = ("units", "eyes")
    # Low frequencies: a quarter of TalkingGaussian's finest grid.
    found["face"] = FaceMotion(AUDIO_SIZE, N_UNITS, base=8, finest=64, hidden=32)
    found["face"].listens = ("audio", "units")
    if config.mouth_branch:
        found["mouth"] = CrossModalMotion({"audio": AUDIO_SIZE, "units": N_UNITS})
        found["mouth"].listens = ("audio", "units")
    return found


def build(context: Context) -> BranchHead:
    """Clouds on the tracked head by region, coloured by the frontal frame."""
    from heads.gaussians.free import FreeGaussians
    from shards.features import FEATURES

    config = context.config
    taken = (EYES if config.eye_branch else ()) + (MOUTH if config.mouth_branch else ())
    seeds = {
        "eyes": (EYES, (), config.eye_points),
        "face": (None, taken, config.face_points),
        "mouth": (MOUTH, (), config.mouth_points),
    }
    motion = fields(config)
    model = BranchHead(
        context.clip.size,
        context.intrinsics,
        rig=context.rig,
        identity=context.identity,
        clouds={name: FreeGaussians(*seed_cloud(context, *seeds[name])) for name in motion},
        fields=motion,
        audio_features=FEATURES["logmel"],
    )
    model.backdrop.calibrate(model.pose_condition(context.drive()))
    context.start_backdrop(model.backdrop)
    return model.to(context.device)


def empty(config: Config, document: dict[str, Any], tensors: dict[str, Tensor], rig: Any) -> BranchHead:
    """A model of the right shapes for an avatar's weights."""
    return empty_branches(fields(config), document, tensors, rig)


def run(fit: Fit, context: Context) -> None:
    """Static clouds, motion of all regions, joint refinement, fusion, alignment."""
    config, model = context.config, fit.model
    expert = context.priors.get("sync-expert") if config.alignment else None
    ends = shares_to_ends(
        static=config.static_share,
        motion=config.motion_share,
        joint=config.joint_share,
        fuse=config.fuse_share,
        alignment=config.alignment_share if expert is not None else 0.0,
    )
    front = tuple(name for name in model.clouds if name != "mouth")
    _static(fit, model, config, ends["static"], front)
    model.still, model.active = False, front
    groups = model.motion_groups(front, config.rate) + model.cloud_groups(front, 0.3 * config.rate)
    middle = ends["static"] + (ends["motion"] - ends["static"]) * (0.65 if config.mouth_branch else 1.0)
    loss = face_loss(config)
    groups += model.backdrop_groups(config.rate)
    fit.stage("motion face", ends["static"], middle, groups, loss, sample=sampler(fit, config, "eyes"))
    if config.mouth_branch:
        model.active = ("mouth",)
        groups = model.motion_groups(("mouth",), config.rate) + model.cloud_groups(("mouth",), 0.3 * config.rate)
        mouth = mouth_loss(config)
        fit.stage("motion mouth", middle, ends["motion"], groups, mouth, sample=sampler(fit, config, "mouth"))
    model.active = tuple(model.clouds)
    whole = joint_loss(config)
    groups = model.motion_groups(model.active, 0.3 * config.rate) + model.cloud_groups(model.active, 0.1 * config.rate)
    fit.stage("joint", ends["motion"], ends["joint"], groups + model.backdrop_groups(0.5 * config.rate), whole)
    fuse(fit, model, ends["joint"], config, ends["fuse"])
    if expert is not None and config.mouth_branch:
        groups = model.fields["mouth"].parameter_groups(1e-4, 1e-3) + model.cloud_groups(("mouth",), 0.2, ("colors",))
        align_with_sound(fit, expert, groups, ends["fuse"], 1.0, whole, config.alignment_weight)


def _static(fit: Fit, model: BranchHead, config: Config, until: float, front: tuple[str, ...]) -> None:
    """Canonical clouds: the face densified, eyes and mouth as seeded."""
    extra = model.backdrop_groups(config.rate)
    end = until * (0.8 if config.mouth_branch else 1.0)
    train_static(fit, model, "face", 0.0, end, face_loss(config), densify=config.densify, extra=extra, beside=front)
    if config.mouth_branch:
        train_static(fit, model, "mouth", end, until, mouth_loss(config), densify=False, extra=[])


def joint_loss(config: Config):
    """Pixels of the composed head, eyes and mouth weighted, and the silhouette."""
    boosts = {"eyes": config.boost_eyes, "mouth_inside": config.boost_mouth, "lips": config.boost_mouth, "face": 1.0}

    def loss(rendered: Rendered, batch: Batch) -> Tensor:
        return picture_loss(rendered.image, batch, boosts, config.ssim) + config.coverage * coverage_loss(
            rendered, batch
        )

    return loss
