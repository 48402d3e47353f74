"""The baseline: the frame's texture copied onto the person's tracked mesh."""

from __future__ import annotations

import torch
from torch import Tensor

from pretrain.expression_visual.model import COLOUR, VisualModel
from pretrain.expression_visual.unwrap import mean_under, visibility


@torch.no_grad()
def texture_copy(model: VisualModel, image: Tensor, matte: Tensor, identity: Tensor, pose: dict[str, Tensor]) -> Tensor:
    """Map ``[N, 14]`` of one person: neutral Gaussians, coloured by the frames in which a texel is visible.

    Several frames are averaged, weighted by how well they show a texel, as the prior's own input is. Texels that no frame
    shows get the mean colour of the others. Uses the model's tables and none of its weights.

    Args:
        image: ``[R, S, S, 3]``; matte: ``[R, S, S]``, both in [0, 1].
        identity: ``[1, K_id]``.
        pose: pose fields ``[R, ...]``.
    """
    surface, frames = model.surface.to(image.device), len(image)
    pixels, seen = visibility(surface, model.vertices(identity.expand(frames, -1), pose), pose, matte)
    colour = mean_under(image, pixels, seen, [0, frames], 1.0)[0]
    known = (seen.amax(0) > 0.2).float()[:, None]
    mean = (colour * known).sum(0) / known.sum(0).clamp_min(1)
    maps = model.neutral.clone()
    maps[..., COLOUR] = colour * known + mean * (1 - known)
    return maps
