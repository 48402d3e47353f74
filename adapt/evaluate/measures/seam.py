"""The seam around the head: how much more the picture changes across the head's border than the real frame does."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import ClassVar

import numpy as np
from scipy.ndimage import binary_dilation, binary_erosion

from adapt.evaluate.measures.base import Column, Frame, Measure, masked_mean


@lru_cache(maxsize=8)
def _disk(radius: int) -> np.ndarray:
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    return (x * x + y * y) <= radius * radius


def ring(mask: np.ndarray, width: float = 0.02) -> np.ndarray:
    """A band ``[H, W]`` around the border of ``mask [H, W]``, half of ``width`` times the image width on either side."""
    radius = max(1, round(width * mask.shape[1] / 2))
    inside = mask > 0.5
    band = binary_dilation(inside, _disk(radius)) & ~binary_erosion(inside, _disk(radius))
    return band.astype(np.float32)


def seam_error(picture: np.ndarray, real: np.ndarray, head: np.ndarray) -> float:
    """Mean absolute gradient of the difference in the ring around ``head [H, W]``, in 8-bit steps.

    A displaced or hard border counts, a uniform change of light does not. 0 means that no border is visible that the
    real frame does not have.

    Args:
        picture, real: ``[H, W, 3]`` in [0, 1].
    """
    gradients = [np.abs(np.gradient(picture - real, axis=axis)).mean(-1) for axis in (0, 1)]
    return 255.0 * masked_mean(gradients[0] + gradients[1], ring(head))


class Seam(Measure):
    """Per frame, then the mean."""

    place = 110
    columns: ClassVar[Mapping[str, Column]] = {
        "seam": Column("seam", "8-bit steps", 2, "lower", "gradient difference in the ring around the head")
    }

    def frame(self, frame: Frame) -> Mapping[str, float]:
        """Around the head's region."""
        return {"seam": seam_error(frame.picture, frame.real, frame.masks["head"])}
