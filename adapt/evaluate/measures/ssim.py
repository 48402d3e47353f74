"""Structural similarity: whole frame and face."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch

from adapt.evaluate.measures.base import Column, Frame, Measure, masked_mean
from heads import ssim_kernel


def ssim_map(picture: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Structural similarity per pixel ``[H, W]``, mean over channels (Wang et al. 2004; Gaussian 11x11, sigma 1.5).

    Pictures are mirrored at their edges, so that every pixel has a whole window.
    """
    radius = ssim_kernel.RADIUS
    edge = ((radius, radius), (radius, radius), (0, 0))
    a, b = (torch.from_numpy(np.pad(x.astype(np.float32), edge, mode="symmetric"))[None] for x in (picture, real))
    return ssim_kernel.ssim_map(a, b)[0].mean(-1).numpy()


class Ssim(Measure):
    """Mean of the map over the region, per frame, then the mean."""

    place = 20
    columns: ClassVar[Mapping[str, Column]] = {
        "ssim": Column("SSIM, whole frame", "", 4, "higher", "Gaussian window 11, sigma 1.5"),
        "ssim_face": Column("SSIM, face", "", 4, "higher"),
    }

    def frame(self, frame: Frame) -> Mapping[str, float]:
        """Both regions from one map."""
        similarity = ssim_map(frame.picture, frame.real)
        return {"ssim": float(similarity.mean()), "ssim_face": masked_mean(similarity, frame.masks["face"])}
