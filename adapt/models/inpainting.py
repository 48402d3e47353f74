"""The body inpainter: the rendered head over a real frame's body, joined without a seam."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from adapt.models.base import Rendered, feather
from heads.person.inpaint import BodyInpainter

# Coverage from which on a pixel counts as the head's.
COVERED = 0.02


class Inpainting(nn.Module):
    """The body inpainter with the model's own body behind the head, so that it only has to repair.

    The network sees half the resolution: what it repairs (a shade along the neck, hair against the wall) is smooth,
    and a quarter of the pixels is a quarter of the time. Its correction is added to the composition at full size.
    The region in which it may answer is the frame's dilated head region, grown and feathered; pixels beyond it come
    from the frame bit for bit.
    """

    def __init__(self, width: int = 12, depth: int = 3) -> None:
        super().__init__()
        self.net = BodyInpainter(width, depth)

    def forward(self, rendered: Rendered, frame: Tensor, head: Tensor) -> Tensor:
        """Final frames for real frames ``[B, H, W, 3]`` with head regions ``[B, H, W, 1]``."""
        region = inpainted_region(head, rendered.alpha)
        plain = rendered.color + (1 - rendered.alpha) * rendered.body
        plain = plain * region + frame * (1 - region)
        # The composition is done already, so the network starts as the identity.
        return plain + region * _doubled(self.net.correction(_halved(plain)), (plain.shape[1], plain.shape[2]))


def _halved(images: Tensor) -> Tensor:
    return functional.avg_pool2d(images.permute(0, 3, 1, 2), 2, ceil_mode=True).permute(0, 2, 3, 1)


def _doubled(images: Tensor, size: tuple[int, int]) -> Tensor:
    wide = functional.interpolate(images.permute(0, 3, 1, 2), size, mode="bilinear", align_corners=False)
    return wide.permute(0, 2, 3, 1)


def inpainted_region(head: Tensor, alpha: Tensor) -> Tensor:
    """The frame's own head and the rendered one, with a soft rim: where pixels are made, not copied."""
    return feather(torch.maximum(head, (alpha > COVERED).to(head.dtype)), max(2, head.shape[2] // 64))
