"""``headstart``: a prior-initialised rigged head with residual motion, colour MLP, joint tracks, inpainter, alignment.

The default recipe. From GGTalker it takes the UV map, the joint optimisation of map and tracks, the colour MLP and
the body inpainter; from FG-3DGS the motion networks of eyes and mouth (as residuals on the rig) and the post-render
alignment; from both an audio-expression prior, fine-tuned with an early stop.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from adapt.clip import Batch
from adapt.fit.alignment import align_with_sound, train_inpainter
from adapt.fit.context import Context
from adapt.fit.initial_maps import build_rigged
from adapt.fit.loop import Fit
from adapt.fit.losses import coverage_loss, picture_loss
from adapt.models.base import Rendered
from adapt.models.rigged import RiggedHead
from configs import InputError
from heads.person.talking_head import FEW_FRAMES, HeadConfig


@dataclass(frozen=True, kw_only=True)
class Config:
    """See ``configs/adapt/headstart.yaml`` for what each key does.

    The switches turn parts off for ablations; the shares are fractions of the budget and need not add up to one.
    """

    size: int = 0
    resolution: int = 0
    visual_prior: bool = True
    audio_prior: bool = True
    audio_finetune: bool = True
    appearance_basis: bool = True
    color_mlp: bool = True
    offsets: bool = True
    residual_motion: bool = False
    track_correction: bool = True
    track_refinement: bool = True
    inpainter: bool = True
    alignment: bool = True
    fit_share: float = 0.85
    inpainter_share: float = 0.1
    alignment_share: float = 0.05
    refine_from: float = 0.12
    rate: float = 1.0
    ssim: float = 0.2
    coverage: float = 0.01
    anchor: float = 0.05
    boost_face: float = 1.0
    boost_eyes: float = 2.0
    boost_mouth: float = 2.0
    alignment_weight: float = 0.03

    def check(self) -> None:
        """Raise :class:`InputError` for impossible values."""
        check_numbers(self)
        if self.fit_share <= 0:
            raise InputError(f"fit_share is {self.fit_share:g}, expected a fraction of the budget above 0")


def check_numbers(config: Any) -> None:
    """Raise :class:`InputError` for a negative or unbounded number, or a size, that no recipe can train with."""
    for name, value in vars(config).items():
        if isinstance(value, int | float) and not 0 <= value < math.inf:
            raise InputError(f"{name} is {value:g}, expected a number from 0 on")
    if config.size and (config.size < 64 or config.size % 16):
        raise InputError(f"size is {config.size}, expected a multiple of 16 from 64 on, or 0 to choose")


def parts_of(config: Any) -> HeadConfig:
    """The parts of the rigged head that a configuration switches on."""
    usual = HeadConfig()
    return HeadConfig(
        color_rank=usual.color_rank if config.color_mlp else 0,
        offset_rank=usual.offset_rank if config.offsets else 0,
        correction_rank=usual.correction_rank if config.track_correction else 0,
    )


def build(context: Context) -> RiggedHead:
    """The model before the first step: the prior's map, or the frontal frame's texture on the mesh."""
    config = context.config
    return build_rigged(
        context, parts_of(config), residual=config.residual_motion, appearance_basis=config.appearance_basis
    )


def shape_of(model: RiggedHead) -> dict[str, Any]:
    """What :func:`empty` needs beside the configuration."""
    appearance_basis = model.talking.appearance_basis
    shape = (
        {}
        if appearance_basis is None
        else {"appearance_basis": {"rank": appearance_basis.rank, "rows": appearance_basis.rows}}
    )
    return {"resolution": model.resolution, **shape}


def empty(config: Config, document: dict[str, Any], tensors: dict[str, Tensor], rig: Any) -> RiggedHead:
    """A model of the right shapes for an avatar's weights."""
    model = RiggedHead(
        document["size"],
        tensors["intrinsics"],
        rig=rig,
        identity=tensors["talking.identity"].float(),
        parts=replace(parts_of(config), resolution=document["model"]["resolution"]),
        residual=config.residual_motion,
    )
    if "appearance_basis" in document["model"]:
        model.talking.add_appearance_basis(**document["model"]["appearance_basis"])
    return model


def loss_of(config: Any, model: RiggedHead, frames: int):
    """Pixels + silhouette + penalties, as a function of (rendered, batch), for a clip of so many frames."""
    anchor = config.anchor * anchor_share(frames)
    boosts = {
        "face": config.boost_face,
        "eyes": config.boost_eyes,
        "mouth_inside": config.boost_mouth,
        "lips": config.boost_mouth,
    }

    def loss(rendered: Rendered, batch: Batch) -> Tensor:
        value = picture_loss(rendered.image, batch, boosts, config.ssim) + model.penalty()
        if anchor:
            value = value + anchor * model.drift()
        if config.coverage:
            value = value + config.coverage * coverage_loss(rendered, batch)
        if model.refiner is not None:
            value = value + model.refiner.penalty(batch.index)
        return value

    return loss


def anchor_share(frames: int) -> float:
    """How much of the anchor a clip gets: all of it for a frame, a quarter for a second, next to nothing for ten."""
    return (FEW_FRAMES / (FEW_FRAMES + frames)) ** 2


# What follows pose and expression, and the shape: a second of video does not tell them from the tracker's noise.
SLOW_GROUPS = ("color", "offset", "correction", "identity", "appearance_basis")
# Power of the share where a prior knows how heads follow: then a few seconds' own residuals come in more slowly.
SLOWLY = 3.0


def groups_of(model: RiggedHead, rate: float, frames: int) -> list[dict]:
    """Adam groups for a clip of so many frames: up to a second the map and the body alone, all in full from ten on."""
    share = min(1.0, max(0.0, (frames - FEW_FRAMES) / (9 * FEW_FRAMES)))
    share = share if model.talking.appearance_basis is None else share**SLOWLY
    follow = (
        [group for group in model.groups(rate * share) if group["name"].split(".")[1] in SLOW_GROUPS] if share else []
    )
    return model.groups(rate, leave=SLOW_GROUPS) + follow


def run(fit: Fit, context: Context) -> None:
    """The stages, each between two fractions of the budget."""
    config, model = context.config, fit.model
    expert = context.priors.get("sync-expert") if config.alignment else None
    ends = shares_to_ends(
        fit=config.fit_share,
        inpainter=config.inpainter_share if config.inpainter else 0.0,
        alignment=config.alignment_share if expert is not None else 0.0,
    )
    loss = loss_of(config, model, context.frames)
    groups = groups_of(model, config.rate, context.frames) + model.motion_groups(config.rate)
    refinement = None
    if config.track_refinement and context.frames > FEW_FRAMES:
        refinement = fit.start_refinement(context.rig.n_expression, context.frames)
        groups += refinement.groups()
    model.refine_with(None)
    first = ends["fit"] * config.refine_from
    # A quarter of the pixels for the first steps, while colours and places are far off and the clip is being tracked.
    fit.shrink = 2 if fit.clock.fraction < first and context.clip.size >= 128 else 1

    coarse = True

    def after(progress: float) -> None:
        nonlocal coarse
        if coarse and fit.clock.fraction >= first:
            coarse, fit.shrink = False, 1
            model.refine_with(refinement)
            calibrate(fit, context)

    fit.stage("fit", 0.0, ends["fit"], groups, loss, after=after, anneal=(0.0, ends["fit"]))
    fit.shrink = 1
    model.refine_with(None)
    if config.inpainter:
        train_inpainter(fit, fit.inpainting(), ends["fit"], ends["inpainter"], config.ssim)
    if expert is not None:
        align_with_sound(
            fit, expert, mouth_groups(model, 0.2 * config.rate), ends["inpainter"], 1.0, loss, config.alignment_weight
        )


def calibrate(fit: Fit, context: Context) -> None:
    """Once more frames are tracked: what is usual in this clip, and the body and background that they show."""
    if fit.clock.resumed:
        return
    fit.model.talking.calibrate(context.tracked())
    if len(context.clip) > 1.5 * context.pictured:
        context.start_backdrop(fit.model.backdrop)


def mouth_groups(model: RiggedHead, scale: float) -> list[dict]:
    """What alignment may move: the mouth network and the colours (FG-3DGS)."""
    colors = [g for g in model.groups(scale) if g["name"] in ("head.colors", "head.color")]
    return colors + model.motion_groups(scale, only="mouth")


def shares_to_ends(**shares: float) -> dict[str, float]:
    """Where each stage ends, as fractions of the budget; stages that are off leave their share to the others."""
    total, end, ends = sum(shares.values()), 0.0, {}
    for name, share in shares.items():
        end += share / total
        ends[name] = end
    return ends
