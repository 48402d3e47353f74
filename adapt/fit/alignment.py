"""The last stages that recipes share: body inpainter, alignment of lips and sound by the sync expert."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from adapt.clip import Batch
from adapt.fit.loop import Fit
from adapt.fit.losses import pixel_weights
from adapt.models.base import HeadModel, Rendered, feather
from heads.losses import d_ssim, weighted_mean


class Inpainting(nn.Module):
    """The body inpainter with the model's own body behind the head, so that it only has to repair.

    The network sees half the resolution: what it repairs (a shade along the neck, hair against the wall) is smooth,
    and a quarter of the pixels is a quarter of the time. Its correction is added to the composition at full size.
    The region in which it may answer is the frame's dilated head region, grown and feathered; pixels beyond it come
    from the frame bit for bit.
    """

    def __init__(self, width: int = 12, depth: int = 3) -> None:
        from heads.person.inpaint import BodyInpainter

        super().__init__()
        self.net = BodyInpainter(width, depth)

    def forward(self, rendered: Rendered, frame: Tensor, head: Tensor) -> Tensor:
        """Final frames for real frames ``[B, H, W, 3]`` with head regions ``[B, H, W, 1]``."""
        region = inpainted_region(head, rendered.alpha)
        plain = rendered.color + (1 - rendered.alpha) * rendered.body
        plain = plain * region + frame * (1 - region)
        small = [_halved(x) for x in (plain, rendered.alpha, frame, region)]
        # A full alpha: the composition is done already, so the network starts as the identity.
        fixed = self.net(small[0], torch.ones_like(small[1]), small[2], torch.ones_like(small[3]))
        return plain + region * _doubled(fixed - small[0], plain.shape[1:3])


def _halved(images: Tensor) -> Tensor:
    return functional.avg_pool2d(images.permute(0, 3, 1, 2), 2, ceil_mode=True).permute(0, 2, 3, 1)


def _doubled(images: Tensor, size: tuple[int, int]) -> Tensor:
    wide = functional.interpolate(images.permute(0, 3, 1, 2), size, mode="bilinear", align_corners=False)
    return wide.permute(0, 2, 3, 1)


def inpainted_region(head: Tensor, alpha: Tensor) -> Tensor:
    """The frame's own head and the rendered one, with a soft rim: where pixels are made, not copied."""
    return feather(torch.maximum(head, (alpha > 0.02).to(head.dtype)), max(2, head.shape[2] // 64))


def train_inpainter(fit: Fit, inpainting: Inpainting, begin: float, until: float, ssim_share: float) -> None:
    """Teach the inpainter on the clip's own frames with head and body frozen."""
    model = fit.model
    own = set(map(id, inpainting.parameters()))
    frozen = [p for p in model.parameters() if p.requires_grad and id(p) not in own]
    for parameter in frozen:
        parameter.requires_grad_(False)

    def loss(rendered: Rendered, batch: Batch) -> Tensor:
        image = inpainting(rendered, batch.image, batch.masks["head"])
        region = inpainted_region(batch.masks["head"], rendered.alpha)
        value = weighted_mean((image - batch.image).abs(), region * pixel_weights(batch, {"face": 0.5}))
        return value + ssim_share * d_ssim(image, batch.image, region)

    groups = [{"params": list(inpainting.parameters()), "lr": 2e-3, "name": "inpainter"}]
    try:
        fit.stage("inpainter", begin, until, groups, loss, anneal=(begin, until))
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)


def align_with_sound(
    fit: Fit,
    expert,
    parameters: list[dict],
    begin: float,
    until: float,
    picture: object,
    weight: float = 0.03,
) -> None:
    """Post-render alignment (FG-3DGS section 3.4): the expert's distance of rendered lips and sound, weight 0.03.

    Args:
        expert: the sync-expert prior; it looks at windows of five frames.
        parameters: Adam groups that may move: mouth network and colours alone.
        picture: the recipe's ordinary loss of (rendered, batch), kept beside it so that the pixels stay.
    """
    clip, window = fit.clip, expert.window
    held = int(fit.held.min()) if len(fit.held) else len(clip)

    def sample(progress: float) -> np.ndarray:
        start = fit.rng.integers(0, max(1, min(held, len(clip)) - window + 1))
        return np.arange(start, min(start + window, len(clip)))

    def loss(rendered: Rendered, batch: Batch) -> Tensor:
        value = picture(rendered, batch)
        if fit.features is None or len(batch.index) < window:
            return value
        heard, mean = fit.features[batch.index][None], fit.features.mean(0)
        return value + weight * expert.loss(rendered.image[None], batch.track["landmarks"][None], heard, mean)

    fit.stage("alignment", begin, until, parameters, loss, sample=sample, whole_every=0)


def freeze(model: HeadModel) -> None:
    """No gradients: for rendering."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)
