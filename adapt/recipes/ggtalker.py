"""``ggtalker``: GGTalker's prior-adaptation (ICCV 2025, arXiv 2506.21513), section 3.4.

The expression-visual prior gives the UV map; the map is optimised with tracks frozen, then map and tracks jointly;
a colour MLP makes colours follow expression and pose; the audio-expression prior is fine-tuned with its audio encoder
frozen and an early stop; a body inpainter joins head and body.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from adapt.fit.alignment import train_inpainter
from adapt.fit.context import Context
from adapt.fit.initial_maps import build_rigged
from adapt.fit.loop import Fit
from adapt.models.rigged import RiggedHead
from adapt.recipes.headstart import calibrate, check_numbers, loss_of, shape_of, shares_to_ends
from configs import InputError
from heads.person.talking_head import HeadConfig

__all__ = ["Config", "build", "empty", "run", "shape_of"]


@dataclass(frozen=True, kw_only=True)
class Config:
    """See ``configs/adapt/ggtalker.yaml`` for what each key does."""

    size: int = 0
    resolution: int = 0
    visual_prior: bool = True
    audio_prior: bool = True
    audio_finetune: bool = True
    color_mlp: bool = True
    track_refinement: bool = True
    inpainter: bool = True
    map_share: float = 0.35
    joint_share: float = 0.35
    color_share: float = 0.2
    inpainter_share: float = 0.1
    rate: float = 1.0
    ssim: float = 0.2
    coverage: float = 0.05
    anchor: float = 0.0
    boost_face: float = 1.0
    boost_eyes: float = 1.0
    boost_mouth: float = 1.0

    def check(self) -> None:
        """Raise :class:`InputError` for impossible values."""
        check_numbers(self)
        if self.map_share <= 0:
            raise InputError(f"map_share is {self.map_share:g}, expected a fraction of the budget above 0")


def parts_of(config: Config) -> HeadConfig:
    """Map and colour MLP; no residual offsets and no learned correction, which the paper does not have."""
    return HeadConfig(color_rank=HeadConfig().color_rank if config.color_mlp else 0, offset_rank=0, correction_rank=0)


def build(context: Context) -> RiggedHead:
    """The model before the first step."""
    return build_rigged(context, parts_of(context.config), residual=False)


def empty(config: Config, document: dict[str, Any], tensors: dict[str, Tensor], rig: Any) -> RiggedHead:
    """A model of the right shapes for an avatar's weights."""
    return RiggedHead(
        document["size"],
        tensors["intrinsics"],
        rig=rig,
        identity=tensors["talking.identity"].float(),
        parts=replace(parts_of(config), resolution=document["model"]["resolution"]),
        residual=False,
    )


def run(fit: Fit, context: Context) -> None:
    """Map with tracks frozen, map and tracks jointly, colour MLP, inpainter."""
    config, model = context.config, fit.model
    ends = shares_to_ends(
        map=config.map_share,
        joint=config.joint_share if config.track_refinement else 0.0,
        color=config.color_share if config.color_mlp else 0.0,
        inpainter=config.inpainter_share if config.inpainter else 0.0,
    )
    loss = loss_of(config, model, context.frames)
    groups = model.groups(config.rate, leave=("color", "identity"))
    fit.stage("map", 0.0, ends["map"], groups, loss)
    calibrate(fit, context)
    if config.track_refinement:
        joint = groups + fit.start_refinement(context.rig.n_expression, context.frames).groups()
        fit.stage("joint", ends["map"], ends["joint"], joint, loss)
    if config.color_mlp:
        # The tracks found jointly stay in place while colours learn, so that they explain light and not misplacement.
        colors = model.groups(config.rate)
        fit.stage("color", ends["joint"], ends["color"], colors, loss)
    model.refine_with(None)
    if config.inpainter:
        train_inpainter(fit, fit.inpainting(), ends["color"], 1.0, config.ssim)
