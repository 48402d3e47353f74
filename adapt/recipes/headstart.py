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
from adapt.fit.groups import groups_for_clip, mouth_groups, residual_motion_groups
from adapt.fit.initial_maps import build_rigged, calibrate
from adapt.fit.loop import Fit
from adapt.fit.losses import rigged_loss
from adapt.fit.schedule import shares_to_ends
from adapt.models.rigged import RiggedHead
from configs import InputError
from heads.person.talking_head import FEW_FRAMES, HeadConfig
from heads.rig import Rig

# Smaller frames (side, px) are not halved: the face would be a few dozen pixels wide.
HALVED_FROM = 128


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
        context, parts_of(config), residual=config.residual_motion, appearance_basis=config.appearance_basis
    )


def shape_of(model: RiggedHead) -> ModelShape:
    """What :func:`empty` needs besides the configuration."""
    return model.shape()


def empty(config: Config, document: AvatarContent, tensors: Mapping[str, Tensor], rig: Rig) -> RiggedHead:
    """A model of the right shapes for an avatar's weights."""
    return RiggedHead.empty(parts_of(config), config.residual_motion, document, tensors, rig)


def run(fit: Fit, context: Context[Config]) -> None:
    """The stages, each between two fractions of the budget."""
    config, model = context.config, fit.model
    assert isinstance(model, RiggedHead)
    expert = context.priors.sync if config.alignment else None
    ends = shares_to_ends(
        fit=config.fit_share,
        inpainter=config.inpainter_share if config.inpainter else 0.0,
        alignment=config.alignment_share if expert is not None else 0.0,
    )
    loss = rigged_loss(config, model, context.frames)
    groups = groups_for_clip(model, config.rate, context.frames, config.patience)
    groups += residual_motion_groups(model, config.rate)
    refinement = None
    if config.track_refinement and context.frames > FEW_FRAMES:
        refinement = fit.start_refinement()
        groups += refinement.groups()
    fine_from = ends["fit"] * config.refine_from

    def before(progress: float) -> None:
        # A quarter of the pixels for the first steps, while colours and places are far off and the clip is tracked.
        coarse = fit.clock.fraction < fine_from
        fit.shrink = 2 if coarse and context.clip.size >= HALVED_FROM else 1
        model.refine_with(None if coarse else refinement)
        if not coarse:
            fit.once("calibrate", lambda: calibrate(model, context))

    fit.stage("fit", 0.0, ends["fit"], groups, loss, before=before, anneal=(0.0, ends["fit"]))
    fit.shrink = 1
    model.refine_with(None)
    if config.inpainter:
        train_inpainter(fit, ends["fit"], ends["inpainter"], config.ssim)
    if expert is not None:
        moving = mouth_groups(model, config.alignment_rate * config.rate)
        align_with_sound(fit, expert, moving, ends["inpainter"], 1.0, loss, config.alignment_weight)
