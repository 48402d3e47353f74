"""Jitter of head and lips: acceleration relative to the real video's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from adapt.evaluate.measures.base import Column, Measure, Tracks, Value
from adapt.evaluate.measures.lmd import NO_FACE
from heads.rig.facemesh import LIPS
from heads.rig.facemesh import STABLE_FOR_JITTER as STABLE


def without_head_motion(landmarks: np.ndarray) -> np.ndarray:
    """Landmarks ``[T, N, 2]`` aligned to frame 0 by the best planar similarity of the stable points (Procrustes)."""
    points = landmarks[..., :2]
    stable = points[:, STABLE]
    centre = stable.mean(1, keepdims=True)
    target = stable[0] - centre[0]
    flat = stable - centre
    # Planar similarity in closed form with complex numbers: argmin_z |z a - b|.
    a, b = flat[..., 0] + 1j * flat[..., 1], (target[..., 0] + 1j * target[..., 1])[None]
    turn = (np.conj(a) * b).sum(1) / (np.abs(a) ** 2).sum(1)
    moved = points - centre
    result = (moved[..., 0] + 1j * moved[..., 1]) * turn[:, None]
    return np.stack([result.real, result.imag], -1)


def _acceleration(points: np.ndarray) -> float:
    return float(np.sqrt((np.diff(points, n=2, axis=0) ** 2).sum(-1).mean()))


def jitter(found: np.ndarray, real: np.ndarray) -> tuple[float, float]:
    """Root-mean-square acceleration relative to the real video's: (head, lips); 1 means as lively as the real one.

    The head is measured at the stable points, the lips at theirs after the head's motion is removed.

    Args:
        found, real: landmarks ``[T, 478, 3]`` px.

    Raises:
        ValueError: fewer than three frames.
    """
    if len(found) < 3:
        raise ValueError("jitter needs three frames or more")
    head = _acceleration(found[:, STABLE, :2]) / max(_acceleration(real[:, STABLE, :2]), 1e-6)
    lips_found, lips_real = without_head_motion(found)[:, LIPS], without_head_motion(real)[:, LIPS]
    return head, _acceleration(lips_found) / max(_acceleration(lips_real), 1e-6)


class Jitter(Measure):
    """Over all frames; needs a face in each."""

    place = 100
    columns: ClassVar[Mapping[str, Column]] = {
        "jitter_head": Column("jitter, head", "x real", 2, "1", "acceleration relative to the real video"),
        "jitter_lips": Column("jitter, lips", "x real", 2, "1", "acceleration relative to the real video"),
    }

    def whole(self, tracks: Tracks) -> Mapping[str, Value]:
        """Both."""
        if not tracks.valid.any():
            return dict.fromkeys(self.columns, NO_FACE)
        if len(tracks.found) < 3 or not tracks.valid.all():
            return dict.fromkeys(self.columns, "needs three frames in a row with a face found in each")
        head, lips = jitter(tracks.found, tracks.real)
        return {"jitter_head": head, "jitter_lips": lips}
