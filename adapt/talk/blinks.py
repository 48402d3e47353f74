"""Eyelids for speech: blinks as a pure function of the frame number, or whatever the caller asks for."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from adapt.talk.poses import Poses
from configs import InputError
from shards.media.rates import FPS

# Frame numbers ``[T]`` and their poses to closures ``[T, 2]``.
Lids = Callable[[np.ndarray, Poses], np.ndarray]

# Closure per frame of one blink at 25 fps: about 0.12 s down, 0.2 s up, as measured for spontaneous blinks.
BLINK = np.array([0.35, 0.85, 1.0, 0.9, 0.6, 0.35, 0.15, 0.05])


class Blinks:
    """Eyelid closure ``[T, 2]``, 0 open .. 1 closed, one blink at a random moment in every window of ``period`` seconds.

    Each window's moment comes from (seed, window), so closure is a function of the frame number alone. Uniform
    moments in windows of 4 s give 15 blinks a minute with intervals between 0 and 8 s, the usual rate in speech.
    """

    def __init__(self, period: float = 4.0, seed: int = 0, strength: float = 1.0) -> None:
        self.window, self.seed, self.strength = max(len(BLINK) + 2, round(period * FPS)), seed, strength
        self._start = lru_cache(8)(self._start_of)

    def _start_of(self, window: int) -> int:
        """The frame of a window in which its blink begins."""
        return int(np.random.default_rng((self.seed, window)).integers(0, self.window - len(BLINK)))

    def at(self, frames: np.ndarray) -> np.ndarray:
        """Closure of both eyes in the output frames with these numbers ``[T]``."""
        frames = np.asarray(frames, np.int64)
        closure = np.zeros(len(frames))
        for window in range(int(frames[0]) // self.window, int(frames[-1]) // self.window + 1):
            # A blink lies within its window, so windows are independent.
            start = self._start(window)
            phase = frames - window * self.window - start
            inside = (phase >= 0) & (phase < len(BLINK))
            closure[inside] = BLINK[phase[inside]]
        return np.repeat((self.strength * closure)[:, None], 2, 1).astype(np.float32)


def lids(blink: str | float, clip: np.ndarray, seed: int = 0) -> Lids:
    """The eyelids that ``--blink`` asks for.

    Args:
        blink: ``natural``, ``none``, ``clip`` or a closure from 0 (open) to 1 (closed).
        clip: eyelids ``[T, 2]`` of the training clip.

    Raises:
        InputError: none of these.
    """
    if blink == "natural":
        generator = Blinks(seed=seed)
        return lambda numbers, poses: generator.at(numbers)
    if blink == "none":
        return lambda numbers, poses: np.zeros((len(numbers), 2), np.float32)
    if blink == "clip":
        return lambda numbers, poses: clip[poses.source]
    try:
        closure = float(blink)
    except ValueError:
        raise InputError(f"blink '{blink}': expected natural, none, clip or a closure from 0 to 1") from None
    if not 0 <= closure <= 1:
        raise InputError(f"blink {closure:g}: expected a closure from 0 (open) to 1 (closed)")
    return lambda numbers, poses: np.full((len(numbers), 2), closure, np.float32)
