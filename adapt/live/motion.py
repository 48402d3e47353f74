"""Head motion of a live session: pose modes that fade into each other, breathing, requested turns, eyes that look around.

Poses and gaze are functions of the frame number alone as long as no setting changes, so a live head moves in the same way
at rest and while it speaks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from adapt.talk.poses import ClipPoses, FixedPose, GeneratedPoses, Poses, PoseSource, neck_pivot
from adapt.talk.torso import BREATHS, LIFT
from configs import InputError
from heads.geometry.rotation import euler_matrix, rotation_to_euler
from shards.media.rates import FPS

MODES = ("still", "generated", "clip")
MOST_YAW, MOST_PITCH = 60.0, 40.0  # degrees that a head can be turned beyond its own pose · guess
FADE = 20  # frames from one pose mode to another, 0.8 s
FOLLOW = 0.35  # share of the way to a new target in a frame
TILT = math.radians(0.25)  # by which breathing tilts the head, which it also lifts with the shoulders · guess
# Eyes at rest: fixations of about 1.6 s, small targets around where the clip's eyes looked · guess.
FIXATION, EARLIER = 40, 14  # frames, and by how many frames a fixation may begin earlier
GLANCE = np.radians([3.0, 1.4])  # spread of yaw and pitch


class LivePoses:
    """Poses of a live head; each frame must be requested once, in order.

    Args:
        track: of the training clip: ``rotation``, ``translation``, and perhaps ``body`` and ``background``, which move in the
            mode ``clip`` only.
        mode: ``still``, ``generated`` or ``clip``.

    Attributes:
        turn: requested yaw and pitch, degrees; reached gradually.
    """

    def __init__(self, track: Mapping[str, np.ndarray], mode: str = "generated", seed: int = 0) -> None:
        rotation, translation = track["rotation"], track["translation"]
        self.sources: dict[str, PoseSource] = {
            "still": FixedPose(rotation, translation),
            "generated": GeneratedPoses(rotation, translation, seed),
            "clip": ClipPoses(track),
        }
        self.pivot = neck_pivot(rotation, translation)
        self.mode = self.before = _known(mode)
        self.turn = (0.0, 0.0)
        self._turned, self._faded = np.zeros(2), FADE

    def hold(self, mode: str) -> None:
        """Change to another mode within ``FADE`` frames.

        Raises:
            InputError: no such mode.
        """
        if _known(mode) != self.mode:
            self.before, self.mode, self._faded = self.mode, mode, 0

    def at(self, frames: np.ndarray) -> Poses:
        """Poses of the frames with these numbers ``[T]``."""
        rows = [self._one(int(number)) for number in frames]
        rotation, translation, source, share = zip(*rows, strict=True)
        clip = self.sources["clip"].at(frames)
        return Poses(
            np.stack(rotation),
            np.stack(translation).astype(np.float32),
            np.array(source, np.int64),
            clip.body,
            clip.background,
            np.array(share),
        )

    def _one(self, number: int) -> tuple[np.ndarray, np.ndarray, int, float]:
        angles, translation, source = self._of_mode(self.mode, number)
        clips = float(self.mode == "clip")
        if self._faded < FADE:
            self._faded += 1
            share = _eased(self._faded / FADE)
            old = self._of_mode(self.before, number)
            angles, translation = old[0] + share * (angles - old[0]), old[1] + share * (translation - old[1])
            before = float(self.before == "clip")
            clips = before + share * (clips - before)
        self._turned += FOLLOW * (np.radians(self.turn) - self._turned)
        breath = math.sin(2 * math.pi * BREATHS * number / FPS)
        base = euler_matrix(*angles)
        moved = angles + np.array([self._turned[0], self._turned[1] + TILT * breath, 0.0])
        rotation = euler_matrix(*moved)
        lift = np.array([0.0, -LIFT * breath, 0.0])
        return rotation, translation + (base - rotation) @ self.pivot + lift, source, clips

    def _of_mode(self, mode: str, number: int) -> tuple[np.ndarray, np.ndarray, int]:
        poses = self.sources[mode].at(np.array([number]))
        return rotation_to_euler(poses.rotation)[0], poses.translation[0], int(poses.source[0])


class LiveGaze:
    """Where a live head looks: short fixations around the clip's middle gaze; with the clip's poses, the clip's own.

    Args:
        gaze: ``[T, 2, 2]`` of the training clip, radians.
        poses: whose mode decides.
    """

    def __init__(self, gaze: np.ndarray, poses: LivePoses, seed: int = 0) -> None:
        self.clip, self.poses, self.seed = gaze, poses, seed
        self.middle = np.median(gaze, 0)
        # Every frame asks for the same two fixations.
        self._start, self._target = lru_cache(8)(self._start_of), lru_cache(8)(self._target_of)

    def __call__(self, numbers: np.ndarray, poses: Poses) -> np.ndarray:
        """Gaze ``[T, 2, 2]`` in radians of the frames with these numbers ``[T]`` and poses."""
        if self.poses.mode == "clip":
            return self.clip[poses.source]
        return self.middle + np.stack([self.glance(int(number)) for number in numbers])[:, None]

    def glance(self, number: int) -> np.ndarray:
        """Yaw and pitch ``[2]``, radians, relative to the middle gaze; a saccade takes two frames."""
        index = number // FIXATION
        # The next fixation may have begun early.
        if number >= self._start(index + 1):
            index += 1
        share = 0.5 if number == self._start(index) else 1.0
        return (1 - share) * self._target(index - 1) + share * self._target(index)

    def _start_of(self, index: int) -> int:
        return index * FIXATION - int(self._random(index).integers(0, EARLIER))

    def _target_of(self, index: int) -> np.ndarray:
        return np.clip(self._random(index).standard_normal(2), -2, 2) * GLANCE

    def _random(self, index: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, index + 1))


def _eased(share: float) -> float:
    return share * share * (3 - 2 * share)


def _known(mode: str) -> str:
    if mode not in MODES:
        raise InputError(f"pose '{mode}': expected {', '.join(MODES)}")
    return mode
