"""Which frames a step sees. Samplers have no mutable state: what they draw is a function of the step."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from adapt.fit.state import Place

Sampler = Callable[[float, int, np.random.Generator], np.ndarray]
"""``(progress of the stage 0..1, number of the step in the stage, the step's generator) -> frame numbers``."""


def next_frame(place: Place, available: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The next frame ``[1]`` of a random order of the available ones, ascending; all are used before any is repeated.

    Frames that have become available meanwhile are mixed into the order: a short budget on a clip that is still being
    tracked would otherwise see its beginning alone. A run that is resumed before the tracker has come as far begins a new order.
    """
    if not place.order or place.newest > available[-1]:
        place.order, place.newest = [], -1
    fresh = available[available > place.newest]
    if len(fresh):
        place.order, place.newest = rng.permutation([*place.order, *fresh]).tolist(), int(fresh[-1])
    return np.array([place.order.pop()])


def windows_of(frames: int, length: int) -> Sampler:
    """Random stretches of ``length`` consecutive frames among the first ``frames``."""

    def sample(progress: float, step: int, rng: np.random.Generator) -> np.ndarray:
        start = rng.integers(0, max(1, frames - length + 1))
        return np.arange(start, min(start + length, frames))

    return sample


class IncrementalSampling:
    """TalkingGaussian's incremental sampling: a window slides over the frames sorted by a motion metric.

    Fields that see extreme motion first learn to smear, so sampling begins with nearly still frames and ends with all.

    Args:
        frames: ``[T]`` frame numbers.
        metric: ``[T]`` size of the motion (mouth opening, eye closure) per frame.
        width: share of the frames inside the window.
        every: one draw in this many is from the window alone; the others also reach below it.
    """

    def __init__(self, frames: np.ndarray, metric: np.ndarray, *, width: float, every: int) -> None:
        self.frames, self.width, self.every = frames[np.argsort(metric, kind="stable")], width, every

    def __call__(self, progress: float, step: int, rng: np.random.Generator) -> np.ndarray:
        """One frame number ``[1]``."""
        count = len(self.frames)
        top = max(1, int(np.ceil(count * min(1.0, self.width + (1 - self.width) * progress * 1.25))))
        low = max(0, top - max(1, int(count * self.width)))
        if (step + 1) % self.every:
            low = 0 if progress >= 0.8 else low // 2
        return self.frames[rng.integers(low, top, 1)]
