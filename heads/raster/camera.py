"""What all images of one call share."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Camera:
    """What all images of a call share: size in pixels, clipping planes, and the constants of splatting."""

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
