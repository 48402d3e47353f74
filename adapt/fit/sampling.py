"""Which frames a step sees. Samplers have no mutable state: what they draw is a function of the step."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from adapt.fit.state import Place

# Share of a stage after which the window of incremental sampling has passed all motion, and of the frames that have the
# largest motion · TalkingGaussian's code (39,000 of 50,000 steps; the 95th percentile)
SLID, WIDEST = 0.78, 0.05

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
    """TalkingGaussian's incremental sampling: now and then a step sees a frame whose motion lies in a window that slides.

    The window moves over the range of a motion metric (opening of the mouth, closure of the eyes), so that rare motion is
    learned step by step; all other steps see any frame. After ``SLID`` of the stage, every step does.

    Args:
        frames: ``[T]`` frame numbers.
        metric: ``[T]`` size of the motion per frame.
        width: half of the window, as a share of the metric's range.
        every: one step in so many draws from the window.
        widest: share of the stage at whose beginning only the ``WIDEST`` largest motions are seen. The window then grows from
            these downwards instead of sliding upwards.
    """

    def __init__(
        self, frames: np.ndarray, metric: np.ndarray, *, width: float, every: int, widest: float | None = None
    ) -> None:
        self.frames, self.width, self.every, self.widest = frames, width, every, widest
        lowest, highest = float(metric.min()), float(metric.max())
        self._level = (metric - lowest) / max(highest - lowest, 1e-12)

    def __call__(self, progress: float, step: int, rng: np.random.Generator) -> np.ndarray:
        """One frame number ``[1]``."""
        chosen = self._inside(progress, step)
        return self.frames[chosen][rng.integers(0, int(chosen.sum()), 1)]

    def _inside(self, progress: float, step: int) -> np.ndarray:
        level, slid = self._level, progress / SLID
        if self.widest is not None and progress < self.widest:
            return level >= np.quantile(level, 1 - WIDEST)
        if slid >= 1 or (step + 1) % self.every:
            return np.ones(len(level), bool)
        if self.widest is not None:
            return level >= min(1 - slid, float(level.max()))
        away = np.abs(level - slid)
        return away <= max(self.width, float(away.min()))
