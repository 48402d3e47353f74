"""Geometric action units: how far the rendered face moves like the real one, upper and lower half."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from adapt.evaluate.measures.base import Column, Measure, Tracks, Value
from adapt.evaluate.measures.lmd import NO_FACE
from heads.measures.face import distance, eye_distance
from heads.rig.facemesh import LOWER_UNITS, UPPER_UNITS

Units = Mapping[str, tuple[tuple[int, int], ...]]


def unit_curves(landmarks: np.ndarray, units: Units) -> dict[str, np.ndarray]:
    """Signals ``[T]`` of action units of ``landmarks [T, 478, 3]``, in percent of the eye distance."""
    scale = 100.0 / eye_distance(landmarks)
    curves = {}
    for name, pairs in units.items():
        lengths = [distance(landmarks, a, b) for a, b in pairs]
        curves[name] = np.mean(lengths, 0) * scale
    return curves


def action_unit_error(found: np.ndarray, real: np.ndarray, units: Units) -> float:
    """AUE: mean over units of the root-mean-square difference of their signals, percent of the eye distance."""
    ours, theirs = unit_curves(found, units), unit_curves(real, units)
    return float(np.mean([np.sqrt(((ours[name] - theirs[name]) ** 2).mean()) for name in units]))


class ActionUnits(Measure):
    """Over the frames in which a face was found."""

    place = 60
    columns: ClassVar[Mapping[str, Column]] = {
        "aue_u": Column("AUE-U", "% eye distance", 3, "lower", "geometric action units, upper face"),
        "aue_l": Column("AUE-L", "% eye distance", 3, "lower", "geometric action units, lower face"),
    }

    def whole(self, tracks: Tracks) -> Mapping[str, Value]:
        """Both halves."""
        if not tracks.valid.any():
            return {}
        found, real = tracks.found[tracks.valid], tracks.real[tracks.valid]
        return {
            "aue_u": action_unit_error(found, real, UPPER_UNITS),
            "aue_l": action_unit_error(found, real, LOWER_UNITS),
        }

    def absent(self, name: str) -> str:
        """No face, no units."""
        return NO_FACE
