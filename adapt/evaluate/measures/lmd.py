"""Distance of the lips' landmarks, found again in the rendered frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from adapt.evaluate.measures.base import Column, Measure, Tracks, Value
from heads.rig.facemesh import LIPS

NO_FACE = "no face was found in any rendered frame"


def lmd(found: np.ndarray, real: np.ndarray, width: int, centred: bool = True) -> float:
    """Mean distance of the 40 lip landmarks, px at 512.

    Args:
        found, real: ``[T, 478, 3]`` px.
        width: of the frames, px.
        centred: subtract the mean lip position of each frame first, as the published evaluation of ER-NeRF and
            TalkingGaussian does: this measures the shape of the mouth, not the position of the head.
    """
    a, b = found[:, LIPS, :2], real[:, LIPS, :2]
    if centred:
        a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    return float(np.linalg.norm(a - b, axis=-1).mean() * 512.0 / width)


class Lmd(Measure):
    """Over the frames in which a face was found; ``redetected`` is their share."""

    place = 50
    columns: ClassVar[Mapping[str, Column]] = {
        "lmd": Column("LMD", "px at 512", 3, "lower", "lip landmarks re-detected, centred per frame"),
        "lmd_absolute": Column("LMD, absolute", "px at 512", 3, "lower", "lip landmarks re-detected, not centred"),
    }

    def whole(self, tracks: Tracks) -> Mapping[str, Value]:
        """Both, and the share of frames with a face."""
        share = {"redetected": float(tracks.valid.mean())}
        if not tracks.valid.any():
            return share
        found, real = tracks.found[tracks.valid], tracks.real[tracks.valid]
        centred, absolute = (lmd(found, real, tracks.width, centred=c) for c in (True, False))
        return {**share, "lmd": centred, "lmd_absolute": absolute}

    def absent(self, name: str) -> str:
        """No face, no lips."""
        return NO_FACE
