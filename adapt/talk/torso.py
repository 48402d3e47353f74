"""Where the torso is while an avatar talks: as in the clip, or behind a generated head with a lag, breathing.

A regression on the clip says how far the torso goes with the head. The head's pose is low-passed first, because a body is
heavier than a head; the time constant is the one that explains the clip's torso best.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from scipy.signal import lfilter

from adapt.talk.poses import Poses
from heads.geometry.rotation import turn_vectors
from heads.person.backdrop import RIDGE
from heads.person.image_registration import SPREADS
from heads.ridge import ridge_weights
from shards.media.rates import FPS

LAGS = (0.0, 2.0, 5.0, 10.0, 20.0)  # frames, time constants that are tried
REACH = 2.5  # standard deviations of the clip's poses beyond which the torso follows no further
BREATHS, LIFT = 14 / 60, 0.024  # Hz, and rig units (eye distances) by which shoulders rise: 1.5 mm · guess


class Torso:
    """The torso's displacement in each frame; frames must be asked for in order, each once.

    Args:
        track: ``rotation, translation, body`` of the avatar's clip.
        scale: half pictures per rig unit at the head's distance.
    """

    def __init__(self, track: Mapping[str, np.ndarray], scale: float) -> None:
        poses = _vectors(track["rotation"], track["translation"])
        self.centre, self.spread = poses.mean(0), np.maximum(poses.std(0), 1e-3)
        self.mean, self.scale = track["body"].mean(0).astype(np.float64), scale
        x, y = (poses - self.centre) / self.spread, track["body"] - self.mean
        fits = [(lag, *_fit(low_passed(x, lag), y)) for lag in LAGS]
        self.lag, self.weights, _ = min(fits, key=lambda fit: fit[2])
        self._state: np.ndarray | None = None

    def __call__(self, numbers: np.ndarray, poses: Poses) -> np.ndarray:
        """Displacements ``[T, 6]`` float32 (docs/dataset-format.md) of the frames with these numbers ``[T]``."""
        if poses.body is not None and poses.share is None:
            return poses.body
        x = (_vectors(poses.rotation, poses.translation) - self.centre) / self.spread
        x = low_passed(x.clip(-REACH, REACH), self.lag, self._state)
        self._state = x[-1]
        body = self.mean + x @ self.weights
        body[:, 3] -= self.scale * LIFT * np.sin(2 * math.pi * BREATHS / FPS * np.asarray(numbers))
        return body.astype(np.float32) if poses.body is None else poses.mixed(poses.body, body)


def low_passed(series: np.ndarray, lag: float, before: np.ndarray | None = None) -> np.ndarray:
    """A series ``[T, D]`` through a one-pole filter with a time constant of ``lag`` frames, from the state ``before [D]``."""
    keep = math.exp(-1 / lag) if lag else 0.0
    start = series[0] if before is None else before
    filtered, _ = lfilter([1 - keep], [1, -keep], np.asarray(series, np.float64), axis=0, zi=keep * start[None])
    return np.asarray(filtered)


def _vectors(rotation: np.ndarray, translation: np.ndarray) -> np.ndarray:
    """Poses as vectors ``[T, 6]``."""
    turns = turn_vectors(np.asarray(rotation, np.float32))
    return np.concatenate([turns, translation], 1).astype(np.float64)


def _fit(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, float]:
    """Weights ``[6, 6]`` of a ridge regression, and the error they leave, each entry in its usual spread."""
    weights = ridge_weights(x.T @ x / len(x), x.T @ y / len(x), RIDGE)
    usual = np.array([SPREADS[0], SPREADS[2], SPREADS[2]] * 2)
    return weights, float((((y - x @ weights) / usual) ** 2).mean())
