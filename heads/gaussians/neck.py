"""Where the neck of a head ends: behind the jaw it fades out, since the body layer, which moves with the torso, shows it."""

from __future__ import annotations

import torch
from torch import Tensor

from heads.gaussians.uv import UVGaussians
from heads.rig import Rig, facemesh

# Heights, in ways from the chin down to the base of the neck: where it begins to fade, and where it is transparent
# [docs/fitting.md, a neck of the body]
FADE = (-0.7, -0.25)
EARLIER_FADE = (0.2, 0.6)  # of avatars whose record does not say it


def neck_fade(uv: UVGaussians, rig: Rig, heights: tuple[float, float] = FADE) -> Tensor:
    """How far the neck has faded at each texel ``[N]``: 0 above the neck and in all other regions, 1 where nothing is drawn.

    Args:
        heights: as :data:`FADE`.
    """
    fade, number = torch.zeros(uv.n), rig.regions.get("neck", -1)
    neck, faces = (regions.cpu() == number for regions in (uv.regions, rig.face_regions))
    if not bool(neck.any()):
        return fade
    mean = rig.mean.detach().float().cpu()
    places = (mean[uv._faces.cpu()[uv.triangles.cpu()[neck]], 1] * uv.barycentric.cpu()[neck]).sum(-1)
    chin, base = rig.landmarks(rig.mean)[facemesh.CHIN, 1].cpu(), mean[rig.faces.cpu()[faces].flatten(), 1].max()
    fade[neck] = (((places - chin) / (base - chin) - heights[0]) / (heights[1] - heights[0])).clamp(0, 1)
    return fade
