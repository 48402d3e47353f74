"""``talkinggaussian``: TalkingGaussian (ECCV 2024, arXiv 2404.15264) on our parts. No prior.

Two branches of persistent Gaussians, the face and the inside of the mouth, are first fitted still; then each learns a
motion field from sound (the face from the upper-face units as well), with incremental sampling over mouth opening and
eye closure; last, both are fused and their colours fine-tuned with D-SSIM 0.2 (and LPIPS 0.5, where weights are
given). Body and background are our backdrop, where the paper pastes the original's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from adapt.clip import Batch
from adapt.fit.context import Context
from adapt.fit.loop import Fit
from adapt.fit.losses import coverage_loss, lpips_of, picture_loss
from adapt.models.action_units import N_UNITS
from adapt.models.base import Rendered
from adapt.models.branches import (
    AUDIO_SIZE,
    MOUTH,
    BranchHead,
    IncrementalSampling,
    seed_cloud,
    train_static,
)
from adapt.recipes.headstart import check_numbers, shares_to_ends
from heads.losses import d_ssim, weighted_mean


@dataclass(frozen=True, kw_only=True)
class Config:
    """See ``configs/adapt/talkinggaussian.yaml`` for what each key does."""

    size: int = 0
    face_points: int = 8000
    mouth_points: int = 1500
    densify: bool = True
    incremental_sampling: bool = True
    mouth_branch: bool = True
    static_share: float = 0.3
    face_share: float = 0.35
    mouth_share: float = 0.2
    fuse_share: float = 0.15
    rate: float = 1.0
    ssim: float = 0.2
    coverage: float = 0.05
    lpips: str = ""
    lpips_weight: float = 0.5

    def check(self) -> None:
        """Raise :class:`InputError` for impossible values."""
        check_numbers(self)


def fields(config: Config) -> dict[str, torch.nn.Module]:
    """The motion fields of the branches; ``listens`` names what each is given."""
    from heads.motion.fields import FaceMotion, MouthMotion

    face, mouth = FaceMotion(AUDIO_SIZE, N_UNITS), MouthMotion(AUDIO_SIZE)
    face.listens, mouth.listens = ("audio", "units"), ("audio",)
    return {"face": face, "mouth": mouth} if config.mouth_branch else {"face": face}


def build(context: Context) -> BranchHead:
    """Clouds on the tracked head, coloured by the frontal frame."""
    from heads.gaussians.free import FreeGaussians
    from shards.features import FEATURES

    config = context.config
    clouds = {
        "face": FreeGaussians(*seed_cloud(context, None, MOUTH if config.mouth_branch else (), config.face_points))
    }
    if config.mouth_branch:
        clouds["mouth"] = FreeGaussians(*seed_cloud(context, MOUTH, (), config.mouth_points))
    model = BranchHead(
        context.clip.size,
        context.intrinsics,
        rig=context.rig,
        identity=context.identity,
        clouds=clouds,
        fields=fields(config),
        audio_features=FEATURES["logmel"],
    )
    model.backdrop.calibrate(model.pose_condition(context.drive()))
    context.start_backdrop(model.backdrop)
    return model.to(context.device)


def shape_of(model: BranchHead) -> dict[str, Any]:
    """How many Gaussians each branch has come to have."""
    return {"gaussians": {name: cloud.n for name, cloud in model.clouds.items()}}


def empty(config: Config, document: dict[str, Any], tensors: dict[str, Tensor], rig: Any) -> BranchHead:
    """A model of the right shapes for an avatar's weights."""
    return empty_branches(fields(config), document, tensors, rig)


def empty_branches(
    motion: dict[str, torch.nn.Module], document: dict[str, Any], tensors: dict[str, Tensor], rig: Any
) -> BranchHead:
    """The same for any recipe of branches."""
    from heads.gaussians.free import FreeGaussians

    counts = document["model"]["gaussians"]
    model = BranchHead(
        document["size"],
        tensors["intrinsics"],
        rig=rig,
        identity=tensors["identity"],
        clouds={name: FreeGaussians(torch.zeros(counts[name], 3), scale=1.0) for name in motion},
        fields=motion,
        audio_features=document["features"]["size"],
    )
    model.still = False
    return model


def run(fit: Fit, context: Context) -> None:
    """Static clouds, motion of the face, motion of the mouth, fusion."""
    config, model = context.config, fit.model
    branches = tuple(model.clouds)
    ends = shares_to_ends(
        static=config.static_share,
        face=config.face_share,
        mouth=config.mouth_share if config.mouth_branch else 0.0,
        fuse=config.fuse_share,
    )
    middle = ends["static"] * (0.75 if config.mouth_branch else 1.0)
    extra = model.backdrop_groups(config.rate)
    face, mouth = face_loss(config), mouth_loss(config)
    train_static(fit, model, "face", 0.0, middle, face, densify=config.densify, extra=extra)
    if config.mouth_branch:
        train_static(fit, model, "mouth", middle, ends["static"], mouth, densify=False, extra=[])
    model.still, model.active = False, ("face",)
    fit.stage(
        "motion face",
        ends["static"],
        ends["face"],
        model.motion_groups(("face",), config.rate) + model.cloud_groups(("face",), 0.3 * config.rate) + extra,
        face,
        sample=sampler(fit, config, "eyes"),
    )
    if config.mouth_branch:
        model.active = ("mouth",)
        groups = model.motion_groups(("mouth",), config.rate) + model.cloud_groups(("mouth",), 0.3 * config.rate)
        fit.stage("motion mouth", ends["face"], ends["mouth"], groups, mouth, sample=sampler(fit, config, "mouth"))
    model.active = branches
    fuse(fit, model, ends["mouth"], config)


def fuse(fit: Fit, model: BranchHead, begin: float, config: Any, until: float = 1.0) -> None:
    """Both branches composed; colours (and opacities) alone learn, with D-SSIM and LPIPS."""
    perceptual = lpips_of(config.lpips)

    def loss(rendered: Rendered, batch: Batch) -> Tensor:
        value = picture_loss(rendered.image, batch, {}, config.ssim)
        if perceptual is not None:
            value = value + config.lpips_weight * perceptual(rendered.image, batch.image).mean()
        return value

    groups = model.cloud_groups(tuple(model.clouds), config.rate, ("colors", "opacities"))
    fit.stage("fuse", begin, until, groups + model.backdrop_groups(0.5 * config.rate), loss)


def face_loss(config: Any) -> Callable[[Rendered, Batch], Tensor]:
    """Pixels everywhere but inside the mouth, which is the other branch's, and the silhouette."""

    def loss(rendered: Rendered, batch: Batch) -> Tensor:
        inside = batch.masks["mouth_inside"] if config.mouth_branch else torch.zeros_like(batch.matte)
        weight = 1 - inside + batch.masks["face"] * (1 - inside)
        value = (1 - config.ssim) * weighted_mean((rendered.image - batch.image).abs(), weight)
        value = value + config.ssim * d_ssim(rendered.image, batch.image, weight)
        # The face leaves the open mouth free for what lies behind it.
        return value + config.coverage * coverage_loss(rendered, batch) + 0.05 * weighted_mean(rendered.alpha, inside)

    return loss


def mouth_loss(config: Any) -> Callable[[Rendered, Batch], Tensor]:
    """Pixels inside the mouth; where it is closed the branch is hidden and nothing is known."""

    def loss(rendered: Rendered, batch: Batch) -> Tensor:
        inside = batch.masks["mouth_inside"]
        shown = rendered.color
        value = weighted_mean((shown - batch.image).abs(), inside) + 0.1 * weighted_mean(1 - rendered.alpha, inside)
        away = (1 - batch.masks["lips"]) * (1 - inside)
        return value + 0.02 * weighted_mean(rendered.alpha, away)

    return loss


def sampler(fit: Fit, config: Any, kind: str) -> Callable[[float], Any] | None:
    """Incremental sampling over the mouth's opening or the eyes' closure; ``None`` when it is switched off."""
    from heads.measures.face import lip_gap

    if not config.incremental_sampling:
        return None
    frames = fit.available()
    if kind == "mouth":
        metric = lip_gap(fit.clip.track["landmarks"][frames])
    else:
        metric = fit.clip.track["eyelids"][frames].mean(1)
    chosen = IncrementalSampling(metric, fit.rng)
    return lambda progress: frames[chosen(progress)]
