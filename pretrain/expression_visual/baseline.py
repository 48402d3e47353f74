"""The baseline: the frame's texture copied onto the person's tracked mesh."""

from __future__ import annotations

import torch
from torch import Tensor

from pretrain.expression_visual.model import COLOUR, VisualModel
from pretrain.expression_visual.unwrap import sample_pixels, visibility


@torch.no_grad()
def texture_copy(model: VisualModel, image: Tensor, matte: Tensor, identity: Tensor, pose: dict[str, Tensor]) -> Tensor:
    """Maps ``[B, N, 14]``: neutral Gaussians, coloured by the frame where a texel is visible in it.

    Texels that are not visible get the mean colour of those that are. Uses the model's tables and none of its weights.
    """
    surface = model.surface.to(image.device)
    pixels, seen = visibility(surface, model.vertices(identity, pose), pose, matte)
    colour, known = sample_pixels(image, pixels), (seen > 0.2).float()[..., None]
    mean = (colour * known).sum(1, keepdim=True) / known.sum(1, keepdim=True).clamp_min(1)
    maps = model.neutral.expand(len(image), -1, -1).clone()
    maps[..., COLOUR] = colour * known + mean * (1 - known)
    return maps
