"""Settings that all images of one rendering call share."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Camera:
    """Size in px, clipping planes in world units and the constants of splatting; see :func:`heads.rasterization`."""

    width: int
    height: int
    near_plane: float = 0.01
    far_plane: float = 1e10
    eps2d: float = 0.3
    radius_clip: float = 0.0
    alpha_clamp: float = 0.999

    @property
    def size(self) -> tuple[int, int]:
        return self.width, self.height
