"""Head poses for speech: pure functions of the frame number, so that memory does not grow with the length.

Poses are head -> camera: ``rotation [T, 3, 3]`` and ``translation [T, 3]`` in rig units, OpenCV axes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from heads.geometry.rotation import euler_to_rotation, rotation_to_euler
from heads.person.inputs import BEHIND
from shards.media.rates import FPS


def ping_pong(frames: np.ndarray, length: int) -> np.ndarray:
    """Indices 0, 1, ..., L-1, L-2, ..., 1, 0, 1, ... for frame numbers of any size.

    A clip played forward and back has no jump where it loops, in the pose or in the body's pixels.
    """
    if length < 2:
        return np.zeros(np.shape(frames), np.int64)
    phase = np.mod(frames, 2 * (length - 1))
    return np.minimum(phase, 2 * (length - 1) - phase).astype(np.int64)


def still_pose(rotation: np.ndarray, translation: np.ndarray) -> int:
    """The frame whose pose is nearest to the clip's median pose."""
    angles = rotation_to_euler(rotation)
    away = np.abs(angles - np.median(angles, 0)).sum(1)
    spread = np.linalg.norm(translation - np.median(translation, 0), axis=1)
    return int(np.argmin(away + 0.2 * spread))


# The middle of the neck in head space, rig units (1 = eye distance); and the rotation (rad) a clip needs to outweigh it.
NECK = np.array([0.0, 2.3, 0.9])
NECK_DOUBT = math.radians(8.0)


def neck_pivot(rotation: np.ndarray, translation: np.ndarray) -> np.ndarray:
    """The point ``[3]`` of head space about which a clip's head turns: the one that moves least in camera space.

    Ridge regression of ``R_t p + T_t = constant`` over the frames, regularised towards ``NECK``, which wins if the head
    hardly turns.
    """
    turns, shifts = rotation - rotation.mean(0), translation - translation.mean(0)
    doubt = len(rotation) * NECK_DOUBT**2
    gram = np.einsum("tij,tik->jk", turns, turns) + doubt * np.eye(3)
    return np.linalg.solve(gram, doubt * NECK - np.einsum("tij,ti->j", turns, shifts))


@dataclass(frozen=True)
class Poses:
    """``rotation [T, 3, 3]``, ``translation [T, 3]``, and the clip frame ``source [T]`` whose body is shown behind each.

    ``body [T, 6]`` is where the torso is and ``background [T, 6]`` where the background is, if the poses say so, and
    ``share [T]`` is their weight: at 0 the torso follows the head and the camera stands still; 1 where it is not given.
    """

    rotation: np.ndarray
    translation: np.ndarray
    source: np.ndarray
    body: np.ndarray | None = None
    background: np.ndarray | None = None
    share: np.ndarray | None = None

    def mixed(self, given: np.ndarray, other: np.ndarray) -> np.ndarray:
        """``given [T, 6]`` by its share, ``other`` by the rest of it, float32."""
        if self.share is None:
            return given.astype(np.float32)
        return (other + self.share[:, None] * (given - other)).astype(np.float32)


class PoseSource(Protocol):
    """Where the head is in each output frame."""

    def at(self, frames: np.ndarray) -> Poses:
        """Poses of the output frames with these numbers ``[T]``."""


class _Turning:
    """The clip's middle pose, turned to other angles about its neck, so that the shoulders stay where they are."""

    def __init__(self, rotation: np.ndarray, translation: np.ndarray) -> None:
        self.source = still_pose(rotation, translation)
        self.base = rotation[self.source], translation[self.source]
        self.pivot = neck_pivot(rotation, translation)

    def turned(self, rotation: np.ndarray) -> Poses:
        """Poses with these rotations ``[T, 3, 3]``."""
        shift = (self.base[0] - rotation) @ self.pivot
        source = np.full(len(rotation), self.source, np.int64)
        return Poses(rotation, (self.base[1] + shift).astype(np.float32), source)


class ClipPoses:
    """The poses of a tracked clip, forward and back, and where torso and background are if its track says so.

    Args:
        track: ``rotation, translation``, and perhaps ``body`` and ``background``, ``[T, ...]``.
    """

    def __init__(self, track: Mapping[str, np.ndarray]) -> None:
        self.track = {name: track[name] for name in ("rotation", "translation", *BEHIND) if name in track}

    def at(self, frames: np.ndarray) -> Poses:
        """Poses of the output frames with these numbers ``[T]``."""
        index = ping_pong(np.asarray(frames), len(self.track["rotation"]))
        return Poses(**{name: rows[index] for name, rows in self.track.items()}, source=index)


class FixedPose(_Turning):
    """One pose for all frames: the clip's middle one, its angles replaced where they are given (degrees)."""

    def __init__(
        self,
        rotation: np.ndarray,
        translation: np.ndarray,
        *,
        yaw: float | None = None,
        pitch: float | None = None,
        roll: float | None = None,
    ) -> None:
        super().__init__(rotation, translation)
        angles = rotation_to_euler(self.base[0][None])[0]
        given = [a if g is None else math.radians(g) for a, g in zip(angles, (yaw, pitch, roll))]
        self.rotation = euler_to_rotation(*(np.array([g]) for g in given))[0]

    def at(self, frames: np.ndarray) -> Poses:
        """The same pose for each of the frame numbers ``[T]``."""
        return self.turned(np.repeat(self.rotation[None], len(frames), 0))


class AnglePoses(_Turning):
    """Given angles, degrees, one row (yaw, pitch, roll) per frame, played forward and back when they run out."""

    def __init__(self, rotation: np.ndarray, translation: np.ndarray, angles: np.ndarray) -> None:
        super().__init__(rotation, translation)
        self.angles = np.radians(np.asarray(angles, np.float64).reshape(-1, 3))

    def at(self, frames: np.ndarray) -> Poses:
        """Poses of the output frames with these numbers ``[T]``."""
        return self.turned(euler_to_rotation(*self.angles[ping_pong(np.asarray(frames), len(self.angles))].T))


class GeneratedPoses:
    """Slow random sway with the clip's own spread of angles and positions.

    A sum of sinusoids at incommensurate frequencies (0.07-0.6 Hz, amplitudes falling with frequency, as head motion
    of speakers does) is smooth, never repeats in practice and needs no state.
    """

    def __init__(self, rotation: np.ndarray, translation: np.ndarray, seed: int = 0, waves: int = 7) -> None:
        rng = np.random.default_rng(seed)
        angles = rotation_to_euler(rotation)
        self.source = still_pose(rotation, translation)
        self.centre = np.concatenate([np.median(angles, 0), np.median(translation, 0)])
        spread = np.concatenate([angles.std(0), translation.std(0)])
        # Largest spread, degrees and rig units: beyond it a person no longer looks into the camera.
        limit = np.concatenate([np.radians([8.0, 5.0, 4.0]), np.full(3, 0.15)])
        self.spread = np.minimum(np.maximum(spread, 0.15 * limit), limit)
        self.hertz = rng.uniform(0.07, 0.6, (waves, 6))
        self.phase = rng.uniform(0, 2 * np.pi, (waves, 6))
        weight = self.hertz**-0.7
        self.weight = weight / np.sqrt(0.5 * (weight**2).sum(0))

    def at(self, frames: np.ndarray) -> Poses:
        """Poses of the output frames with these numbers ``[T]``."""
        seconds = np.asarray(frames, np.float64)[:, None, None] / FPS
        waves = np.sin(2 * np.pi * self.hertz * seconds + self.phase) * self.weight
        value = self.centre + self.spread * waves.sum(1)
        return Poses(
            euler_to_rotation(value[:, 0], value[:, 1], value[:, 2]),
            value[:, 3:].astype(np.float32),
            np.full(len(value), self.source, np.int64),
        )
