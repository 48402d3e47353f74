"""``ggtalker``: GGTalker's prior-adaptation (ICCV 2025, arXiv 2506.21513), section 3.4.

The expression-visual prior predicts the UV map. The map is optimised with tracks frozen, then map and tracks jointly. A
colour MLP makes colours depend on expression and pose. A body inpainter blends head and body. The audio-expression prior
is fine-tuned with its audio encoder frozen and with early stopping.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from adapt.avatar.document import AvatarContent, ModelShape
from adapt.fit.alignment import train_inpainter
from adapt.fit.config import RiggedConfig
from adapt.fit.context import Context
from adapt.fit.groups import rigged_groups
from adapt.fit.initial_maps import build_rigged, calibrate
from adapt.fit.loop import Fit
from adapt.fit.losses import rigged_loss
from adapt.fit.schedule import shares_to_ends
from adapt.models.rigged import RiggedHead
from configs import InputError
from heads.person.talking_head import HeadConfig
from heads.rig import Rig


@dataclass(frozen=True, kw_only=True)
class Config(RiggedConfig):
    """See ``configs/adapt/ggtalker.yaml`` for what each key does."""

    map_share: float
    joint_share: float
    color_share: float

    def check(self) -> None:
        """See :meth:`adapt.fit.config.RecipeConfig.check`; the map's stage must have a share of the budget."""
        super().check()
        if self.map_share <= 0:
            raise InputError(f"map_share is {self.map_share:g}, expected a fraction of the budget above 0")


def parts_of(config: Config) -> HeadConfig:
    """Map and colour MLP; no residual offsets and no learned correction, which the paper does not have."""
    return HeadConfig(color_rank=HeadConfig().color_rank if config.color_mlp else 0, offset_rank=0, correction_rank=0)


def build(context: Context[Config]) -> RiggedHead:
    """The model before the first step."""
    return build_rigged(context, parts_of(context.config), residual=False)


def shape_of(model: RiggedHead) -> ModelShape:
    """What :func:`empty` needs besides the configuration."""
    return model.shape()


def empty(config: Config, document: AvatarContent, tensors: Mapping[str, Tensor], rig: Rig) -> RiggedHead:
    """A model of the right shapes for an avatar's weights."""
    return RiggedHead.empty(parts_of(config), False, document, tensors, rig)


def run(fit: Fit, context: Context[Config]) -> None:
    """Map with tracks frozen, map and tracks jointly, colour MLP, inpainter."""
    config, model = context.config, fit.model
    assert isinstance(model, RiggedHead)
    ends = shares_to_ends(
        map=config.map_share,
        joint=config.joint_share if config.track_refinement else 0.0,
        color=config.color_share if config.color_mlp else 0.0,
        inpainter=config.inpainter_share if config.inpainter else 0.0,
    )
    loss = rigged_loss(config, model, context.frames)
    groups = rigged_groups(model, config.rate, leave=("color", "identity"))
    fit.stage("map", 0.0, ends["map"], groups, loss)
    fit.once("calibrate", lambda: calibrate(model, context))
    if config.track_refinement:
        fit.stage("joint", ends["map"], ends["joint"], groups + fit.start_refinement().groups(), loss)
    if config.color_mlp:
        # The refined tracks are kept while colours are trained, so that colours explain light and not misalignment.
        fit.stage("color", ends["joint"], ends["color"], rigged_groups(model, config.rate), loss)
    model.refine_with(None)
    if config.inpainter:
        train_inpainter(fit, ends["color"], 1.0, config.ssim)
