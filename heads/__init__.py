"""The head that training and adaptation share: rig, Gaussians on it, motion, colour, rendering, losses.

Names are imported when they are first used, so that ``import heads`` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_NAMES = {
    "rasterization": "heads.raster.api",
    "set_num_threads": "heads.raster.threads",
    "get_num_threads": "heads.raster.threads",
    "Rig": "heads.rig",
    "load_rig": "heads.rig",
    "Gaussians": "heads.gaussians.cloud",
    "UVGaussians": "heads.gaussians.uv",
    "FreeGaussians": "heads.gaussians.free",
    "Densifier": "heads.gaussians.free",
    "render_head": "heads.gaussians.render",
    "TriPlaneHash": "heads.motion.encoding",
    "FaceMotion": "heads.motion.fields",
    "MouthMotion": "heads.motion.fields",
    "CrossModalMotion": "heads.motion.fields",
    "AudioNet": "heads.motion.audio",
    "AudioAttention": "heads.motion.audio",
    "BodyInpainter": "heads.person.inpaint",
    "region_masks": "heads.masks",
}

__all__ = sorted(_NAMES)


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'heads' has no attribute {name!r}")
    return getattr(import_module(_NAMES[name]), name)


def __dir__() -> list[str]:
    return __all__
