"""The final stages that recipes share: body inpainter, alignment of lips and sound by the sync expert."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from adapt.clip import Batch
from adapt.fit.loop import Fit
from adapt.fit.losses import Loss, pixel_weights
from adapt.fit.optimizers import Group
from adapt.fit.sampling import windows_of
from adapt.models.base import Rendered
from adapt.models.inpainting import inpainted_region
from heads.losses import d_ssim, weighted_mean
from pretrain.roles import SyncPrior

# Adam's rate of the inpainter's network (a guess, kept since the first comparison).
INPAINTER_RATE = 2e-3
# Extra weight of the face's pixels inside the inpainted region.
FACE = {"face": 0.5}


def train_inpainter(fit: Fit, begin: float, until: float, ssim_share: float) -> None:
    """Train the inpainter on the clip's own frames, with head and body frozen.

    Args:
        begin, until: fractions of the budget.
        ssim_share: weight of D-SSIM relative to L1.
    """
    inpainting, model = fit.inpainting(), fit.model
    own = set(map(id, inpainting.parameters()))
    frozen = [p for p in model.parameters() if p.requires_grad and id(p) not in own]
    for parameter in frozen:
        parameter.requires_grad_(False)

    def loss(rendered: Rendered, batch: Batch) -> Tensor:
        image = inpainting(rendered, batch.image, batch.masks["head"])
        region = inpainted_region(batch.masks["head"], rendered.alpha)
        value = weighted_mean((image - batch.image).abs(), region * pixel_weights(batch, FACE))
        return value + ssim_share * d_ssim(image, batch.image, region)

    groups = [Group(params=list(inpainting.parameters()), lr=INPAINTER_RATE, name="inpainter")]
    try:
        fit.stage("inpainter", begin, until, groups, loss, anneal=(begin, until))
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)


def align_with_sound(
    fit: Fit,
    expert: SyncPrior,
    groups: Iterable[Group],
    begin: float,
    until: float,
    picture: Loss,
    weight: float,
) -> None:
    """Post-render alignment (FG-3DGS, section 3.4): minimise the expert's distance between rendered lips and sound.

    Args:
        expert: a prior of role ``sync``; a step renders ``expert.window`` consecutive frames.
        groups: what is trained: the mouth's network and the colours.
        begin, until: fractions of the budget.
        picture: the recipe's ordinary loss, added so that the pixels stay.
        weight: of the expert's distance.
    """
    held = int(fit.held.min()) if len(fit.held) else len(fit.clip)
    rows = fit.features()
    mean = None if rows is None else rows.mean(0)

    def loss(rendered: Rendered, batch: Batch) -> Tensor:
        value = picture(rendered, batch)
        if rows is None or len(batch.index) < expert.window:
            return value
        heard = rows[batch.index][None]
        return value + weight * expert.loss(rendered.image[None], batch.track["landmarks"][None], heard, mean)

    sample = windows_of(min(held, len(fit.clip)), expert.window)
    fit.stage("alignment", begin, until, groups, loss, sample=sample, whole_every=0)
