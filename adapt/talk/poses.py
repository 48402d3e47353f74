"""Head poses and blinks for speech: pure functions of the frame number, so that any length needs no memory.

Poses are head -> camera: ``rotation [T, 3, 3]`` and ``translation [T, 3]`` in rig units, OpenCV axes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from shards.media.rates import FPS


def ping_pong(frames: np.ndarray, length: int) -> np.ndarray:
    """Indices 0, 1, ..., L-1, L-2, ..., 1, 0, 1, ... for frame numbers of any size.

    A clip played forward and back has no jump where it loops, in the pose or in the body's pixels.
    """
    if length < 2:
        return np.zeros(np.shape(frames), np.int64)
    phase = np.mod(frames, 2 * (length - 1))
    return np.minimum(phase, 2 * (length - 1) - phase).astype(np.int64)


def euler_to_rotation(yaw: np.ndarray, pitch: np.ndarray, roll: np.ndarray) -> np.ndarray:
    """Radians ``[T]`` each -> ``[T, 3, 3]``, ``R = R_y(yaw) R_x(pitch) R_z(roll)``.

    Positive yaw turns the nose to the image's right, positive pitch lowers it, positive roll tilts clockwise.
    """
    yaw, pitch, roll = np.broadcast_arrays(*(np.atleast_1d(np.asarray(a, np.float64)) for a in (yaw, pitch, roll)))
    # The nose points along -z: turning it to +x is a rotation about y by -yaw, and to +y about x by +pitch.
    cy, sy, cp, sp, cr, sr = np.cos(-yaw), np.sin(-yaw), np.cos(pitch), np.sin(pitch), np.cos(roll), np.sin(roll)
    zero, one = np.zeros_like(cy), np.ones_like(cy)
    about_y = np.stack([cy, zero, sy, zero, one, zero, -sy, zero, cy], -1).reshape(-1, 3, 3)
    about_x = np.stack([one, zero, zero, zero, cp, -sp, zero, sp, cp], -1).reshape(-1, 3, 3)
    about_z = np.stack([cr, -sr, zero, sr, cr, zero, zero, zero, one], -1).reshape(-1, 3, 3)
    return (about_y @ about_x @ about_z).astype(np.float32)


def rotation_to_euler(rotation: np.ndarray) -> np.ndarray:
    """``[T, 3, 3]`` -> ``[T, 3]`` yaw, pitch, roll in radians; the inverse of :func:`euler_to_rotation`."""
    pitch = np.arcsin(np.clip(-rotation[:, 1, 2], -1.0, 1.0))
    yaw = -np.arctan2(rotation[:, 0, 2], rotation[:, 2, 2])
    roll = np.arctan2(rotation[:, 1, 0], rotation[:, 1, 1])
    return np.stack([yaw, pitch, roll], -1)


def still_pose(rotation: np.ndarray, translation: np.ndarray) -> int:
    """The frame whose pose is nearest to the clip's median pose."""
    angles = rotation_to_euler(rotation)
    away = np.abs(angles - np.median(angles, 0)).sum(1)
    spread = np.linalg.norm(translation - np.median(translation, 0), axis=1)
    return int(np.argmin(away + 0.2 * spread))


# The middle of the neck in head space, rig units (1 = eye distance), and how much a clip must turn to say otherwise.
NECK = np.array([0.0, 2.3, 0.9])
NECK_DOUBT = math.radians(8.0)


def neck_pivot(rotation: np.ndarray, translation: np.ndarray) -> np.ndarray:
    """The point ``[3]`` of head space about which a clip's head turns: the one that moves least in the camera.

    Ridge regression of ``R_t p + T_t = constant`` over the frames, towards the middle of the neck where the clip
    hardly turns.
    """
    turns, shifts = rotation - rotation.mean(0), translation - translation.mean(0)
    doubt = len(rotation) * NECK_DOUBT**2
    gram = np.einsum("tij,tik->jk", turns, turns) + doubt * np.eye(3)
    return np.linalg.solve(gram, doubt * NECK - np.einsum("tij,ti->j", turns, shifts))


@dataclass(frozen=True)
class Poses:
    """Poses of some output frames and the clip frame ``source [T]`` whose body lies behind each of them."""

    rotation: np.ndarray
    translation: np.ndarray
    source: np.ndarray


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
    """The poses of a tracked clip, to and fro."""

    def __init__(self, rotation: np.ndarray, translation: np.ndarray) -> None:
        self.rotation, self.translation = rotation, translation

    def at(self, frames: np.ndarray) -> Poses:
        """Poses of the output frames with these numbers ``[T]``."""
        index = ping_pong(np.asarray(frames), len(self.rotation))
        return Poses(self.rotation[index], self.translation[index], index)


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
    """Given angles, degrees, one row (yaw, pitch, roll) per frame, played to and fro when they run out."""

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
        # Beyond these a person no longer looks into the camera, whatever the clip did.
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


# Closure per frame of one blink at 25 fps: about 0.12 s down, 0.2 s up, as measured for spontaneous blinks.
BLINK = np.array([0.35, 0.85, 1.0, 0.9, 0.6, 0.35, 0.15, 0.05])


class Blinks:
    """Eyelid closure ``[T, 2]``, 0 open .. 1 closed, one blink somewhere in every window of ``period`` seconds.

    Each window's moment comes from (seed, window), so closure is a function of the frame number alone. Uniform
    moments in windows of 4 s give 15 blinks a minute with intervals between 0 and 8 s, the usual rate in speech.
    """

    def __init__(self, period: float = 4.0, seed: int = 0, strength: float = 1.0) -> None:
        self.window, self.seed, self.strength = max(len(BLINK) + 2, round(period * FPS)), seed, strength

    def at(self, frames: np.ndarray) -> np.ndarray:
        """Closure of both eyes in the output frames with these numbers ``[T]``."""
        frames = np.asarray(frames, np.int64)
        closure = np.zeros(len(frames))
        for window in range(int(frames[0]) // self.window, int(frames[-1]) // self.window + 1):
            # A blink stays inside its window, so a window needs no neighbour.
            start = np.random.default_rng((self.seed, window)).integers(0, self.window - len(BLINK))
            phase = frames - window * self.window - start
            inside = (phase >= 0) & (phase < len(BLINK))
            closure[inside] = BLINK[phase[inside]]
        return np.repeat((self.strength * closure)[:, None], 2, 1).astype(np.float32)
