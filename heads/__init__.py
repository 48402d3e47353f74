"""The head that training and adaptation share: rig, Gaussians on it, motion, colour, rendering, losses.

Names are imported when they are first used, so that `import heads` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_NAMES = {
    "rasterization": "heads.rendering",
    "set_num_threads": "heads.raster.threads",
    "get_num_threads": "heads.raster.threads",
    "Rig": "heads.rig",
    "load_rig": "heads.rig",
    "Gaussians": "heads.gaussians",
    "UVGaussians": "heads.gaussians",
    "FreeGaussians": "heads.free_gaussians",
    "Densifier": "heads.free_gaussians",
    "render_head": "heads.gaussians",
    "TriPlaneHash": "heads.encoding",
    "FaceMotion": "heads.motion",
    "MouthMotion": "heads.motion",
    "CrossModalMotion": "heads.motion",
    "AudioNet": "heads.audio_net",
    "AudioAttention": "heads.audio_net",
    "ColorMLP": "heads.color",
    "BodyInpainter": "heads.inpaint",
    "region_masks": "heads.masks",
}

__all__ = sorted(_NAMES)


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'heads' has no attribute {name!r}")
    return getattr(import_module(_NAMES[name]), name)


def __dir__() -> list[str]:
    return __all__
