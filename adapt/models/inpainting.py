"""The body inpainter: blends the rendered head over a real frame's body without a seam."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from adapt.models.base import Rendered, feather
from heads.person.inpaint import BodyInpainter

# Coverage above which a pixel belongs to the head.
COVERED = 0.02


class Inpainting(nn.Module):
    """The body inpainter, applied to a composition with the model's own body behind the head, so that it only corrects.

    The network sees half the resolution: what it corrects (a shade along the neck, hair against the wall) is smooth,
    and a quarter of the pixels takes a quarter of the time. Its correction is added to the composition at full size,
    within :func:`inpainted_region`; pixels beyond it are those of the frame, bit for bit.
    """

    def __init__(self, width: int = 12, depth: int = 3) -> None:
        super().__init__()
        self.net = BodyInpainter(width, depth)

    def forward(self, rendered: Rendered, frame: Tensor, head: Tensor) -> Tensor:
        """Final frames ``[B, H, W, 3]`` for real frames ``[B, H, W, 3]`` with dilated head regions ``[B, H, W, 1]``."""
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
    """Where pixels are generated, ``[B, H, W, 1]`` in [0, 1]: the frame's head region and the rendered head, feathered."""
    return feather(torch.maximum(head, (alpha > COVERED).to(head.dtype)), max(2, head.shape[2] // 64))
