"""Where the neck of a head ends: below the chin it fades out, since the body layer, which moves with the torso, shows it."""

from __future__ import annotations

import torch
from torch import Tensor

from heads.gaussians.uv import UVGaussians
from heads.rig import Rig, facemesh

# Of the way from the chin to the base of the neck: where it begins to fade, and where it is transparent · guess
FADE = (0.2, 0.6)


def neck_fade(uv: UVGaussians, rig: Rig) -> Tensor:
    """How far the neck has faded at each texel ``[N]``: 0 above the neck and in all other regions, 1 where nothing is drawn."""
    fade, number = torch.zeros(uv.n), rig.regions.get("neck", -1)
    neck, faces = (regions.cpu() == number for regions in (uv.regions, rig.face_regions))
    if not bool(neck.any()):
        return fade
    mean = rig.mean.detach().float().cpu()
    heights = (mean[uv._faces.cpu()[uv.triangles.cpu()[neck]], 1] * uv.barycentric.cpu()[neck]).sum(-1)
    chin, base = rig.landmarks(rig.mean)[facemesh.CHIN, 1].cpu(), mean[rig.faces.cpu()[faces].flatten(), 1].max()
    fade[neck] = (((heights - chin) / (base - chin) - FADE[0]) / (FADE[1] - FADE[0])).clamp(0, 1)
    return fade
