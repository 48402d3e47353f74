"""``headstart``: a prior-initialised rigged head with colour MLP, residual offsets, joint tracks, inpainter, alignment.

The default recipe. From GGTalker it takes the UV map, the joint optimisation of map and tracks, the colour MLP, the body
inpainter, and the audio-expression prior with early-stopped fine-tuning; from FG-3DGS the post-render alignment and the
motion networks of eyes and mouth (as residuals on the rig, off by default).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from adapt.avatar.document import AvatarContent, ModelShape
from adapt.fit.alignment import align_with_sound, train_inpainter
from adapt.fit.config import RiggedConfig
from adapt.fit.context import Context
from adapt.fit.finer import finer
from adapt.fit.groups import groups_for_clip, mouth_groups, residual_motion_groups
from adapt.fit.initial_maps import build_rigged, calibrate, full_resolution
from adapt.fit.loop import Fit
from adapt.fit.losses import rigged_loss
from adapt.fit.schedule import shares_to_ends
from adapt.fit.track_refinement import TrackRefinement
from adapt.models.rigged import RiggedHead
from configs import InputError
from heads.person.talking_head import FEW_FRAMES, HeadConfig
from heads.rig import Rig

# Smaller frames (side, px) are not halved: the face would be a few dozen pixels wide.
HALVED_FROM = 128
# Larger ones begin with half the side of the map, too (python -m benchmarks fit).
COARSE_FROM = 384
FINER = "finer map"  # work that is done once


@dataclass(frozen=True, kw_only=True)
class Config(RiggedConfig):
    """See ``configs/adapt/headstart.yaml`` for what each key does.

    The switches turn parts off for ablations; the shares are fractions of the budget and need not add up to one.
    """

    appearance_basis: bool
    offsets: bool
    residual_motion: bool
    track_correction: bool
    alignment: bool
    fit_share: float
    alignment_share: float
    coarse: float
    refine_from: float
    patience: float
    alignment_rate: float
    alignment_weight: float

    def check(self) -> None:
        """See :meth:`adapt.fit.config.RecipeConfig.check`; the fit must have a share of the budget."""
        super().check()
        if self.fit_share <= 0:
            raise InputError(f"fit_share is {self.fit_share:g}, expected a fraction of the budget above 0")


def parts_of(config: Config) -> HeadConfig:
    """The parts of the rigged head that a configuration switches on."""
    usual = HeadConfig()
    return HeadConfig(
        color_rank=usual.color_rank if config.color_mlp else 0,
        offset_rank=usual.offset_rank if config.offsets else 0,
        correction_rank=usual.correction_rank if config.track_correction else 0,
    )


def build(context: Context[Config]) -> RiggedHead:
    """The model before the first step: the prior's map, or the frontal frame's texture on the mesh."""
    config = context.config
    return build_rigged(
        context,
        parts_of(config),
        residual=config.residual_motion,
        appearance_basis=config.appearance_basis,
        resolution=full_resolution(context) // (2 if begins_coarse(context) else 1),
    )


def begins_coarse(context: Context[Config]) -> bool:
    """Whether the fit begins with a quarter of the Gaussians, on frames of half the side."""
    return context.config.coarse > 0 and context.clip.size >= COARSE_FROM


def shape_of(model: RiggedHead) -> ModelShape:
    """What :func:`empty` needs besides the configuration."""
    return model.shape()


def empty(config: Config, document: AvatarContent, tensors: Mapping[str, Tensor], rig: Rig) -> RiggedHead:
    """A model of the right shapes for an avatar's weights."""
    return RiggedHead.empty(parts_of(config), config.residual_motion, document, tensors, rig)


def run(fit: Fit, context: Context[Config]) -> None:
    """The stages, each between two fractions of the budget."""
    config = context.config
    expert = context.priors.sync if config.alignment else None
    ends = shares_to_ends(
        fit=config.fit_share,
        inpainter=config.inpainter_share if config.inpainter else 0.0,
        alignment=config.alignment_share if expert is not None else 0.0,
    )
    refinement = None
    if config.track_refinement and context.frames > FEW_FRAMES:
        refinement = fit.start_refinement()
    begin, refined = 0.0, FINER in fit.place.once
    # An avatar that is resumed with another budget does not become coarse again, nor one of a version without this stage.
    if begins_coarse(context) and (fit.exact if refined else _head(fit).resolution < full_resolution(context)):
        begin = config.coarse * ends["fit"]
        _fit_head(fit, context, "coarse", 0.0, begin, ends["fit"], refinement)
        fit.once(FINER, lambda: _refine(fit, full_resolution(context)))
    _fit_head(fit, context, "fit", begin, ends["fit"], ends["fit"], refinement)
    model = _head(fit)
    model.refine_with(None)
    if config.inpainter:
        train_inpainter(fit, ends["fit"], ends["inpainter"], config.ssim)
    if expert is not None:
        moving = mouth_groups(model, config.alignment_rate * config.rate)
        loss = rigged_loss(config, model, context.frames)
        align_with_sound(fit, expert, moving, ends["inpainter"], 1.0, loss, config.alignment_weight)


def _head(fit: Fit) -> RiggedHead:
    assert isinstance(fit.model, RiggedHead)
    return fit.model


def _refine(fit: Fit, resolution: int) -> None:
    fit.model = finer(_head(fit), resolution)


def _fit_head(
    fit: Fit,
    context: Context[Config],
    name: str,
    begin: float,
    until: float,
    end: float,
    refinement: TrackRefinement | None,
) -> None:
    """One stage of the fit of head, tracks and body, whose rates fall until ``end``."""
    config, model = context.config, _head(fit)
    groups = groups_for_clip(model, config.rate, context.frames, config.patience)
    groups += residual_motion_groups(model, config.rate)
    groups += refinement.groups() if refinement is not None else []

    def before(progress: float) -> None:
        # A quarter of the pixels for the first steps, while colours and places are far off and the clip is tracked.
        early = fit.clock.fraction < config.refine_from * end
        halved = (early or name == "coarse") and context.clip.size >= HALVED_FROM
        fit.shrink = 2 if halved else 1
        model.refine_with(None if early else refinement)
        if not early:
            fit.once("calibrate", lambda: calibrate(model, context))

    loss = rigged_loss(config, model, context.frames)
    fit.stage(name, begin, until, groups, loss, before=before, anneal=(0.0, end))
    fit.shrink = 1
