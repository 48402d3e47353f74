"""What every driver is: audio features in, expressions out, frame by frame.

A driver says how far it looks ahead (``lookahead`` frames) and gives streams. A stream takes feature rows as they come
and returns the expressions of the frames that became final. Offline driving is the same stream fed at once, so both
give the same frames.

Expressions are dictionaries of float32 arrays: ``expression`` ``[T, K]``, and ``eyelids`` ``[T, 2]``, ``gaze``
``[T, 2, 2]`` where the driver knows about them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import ClassVar, Protocol

import numpy as np

Expressions = dict[str, np.ndarray]


class Stream(Protocol):
    """Feature rows in, expressions of finished frames out."""

    def push(self, rows: np.ndarray) -> Expressions:
        """Take rows ``[n, C]``; expressions of the frames that became final, possibly none."""

    def finish(self) -> Expressions:
        """Expressions of the last frames."""


class Driver(Protocol):
    """Turns sound into expressions.

    Attributes:
        kind: how ``avatar.json`` names it.
        name: what results say moved the lips.
        lookahead: later frames whose sound a frame needs.
        by_sound: whether the sound moves the face; lips then rest in its pauses.
        feature: name of the audio feature that it takes; empty: the avatar's.
    """

    kind: ClassVar[str]
    by_sound: ClassVar[bool]
    name: str
    lookahead: int
    feature: str

    def stream(self) -> Stream:
        """A new stream."""


class Bounds:
    """Keeps driven expressions near those that the person's clip showed.

    A driver may be far off (a weak prior, an unfamiliar voice), and far from its training frames a head's learned
    corrections extrapolate and the face falls apart. Each component stays within the clip's range plus a margin, and the
    normalised vector within 1.25 times the distance of the clip's farthest frame from its mean, or 4 if that is more.

    Args:
        expression: ``[T, K]`` of the training clip, in deviations of the rig's basis.
    """

    def __init__(self, expression: np.ndarray) -> None:
        # Deviations. A short clip shows little of what a face can do, so it gets a wider margin.
        margin = 0.5 + 1.5 * float(np.exp(-len(expression) / 50.0))
        self.low, self.high = expression.min(0) - margin, expression.max(0) + margin
        self.mean = expression.mean(0)
        self.scale = np.sqrt(expression.var(0) + 0.25)
        self.farthest = max(4.0, 1.25 * float(self._distance(expression).max()))

    def _distance(self, expression: np.ndarray) -> np.ndarray:
        return np.linalg.norm((expression - self.mean) / self.scale, axis=1)

    def __call__(self, expression: np.ndarray) -> np.ndarray:
        """Bounded expressions ``[T, K]`` float32; values that are not finite become the clip's mean."""
        expression = np.where(np.isfinite(expression), expression, self.mean)
        expression = np.clip(expression, self.low, self.high)
        shrink = np.minimum(1.0, self.farthest / np.maximum(self._distance(expression), 1e-9))
        return (self.mean + (expression - self.mean) * shrink[:, None]).astype(np.float32)


class WindowStream:
    """Applies a function of windows of rows; the first and last rows are repeated past the ends.

    Args:
        past: rows before a frame in its window ``[1, past + 1 + ahead, C]``.
        apply: from such a window to the frame's expressions.
        ahead: rows after it; as many as before by default.
    """

    def __init__(self, past: int, apply: Callable[[np.ndarray], Expressions], ahead: int | None = None) -> None:
        self.past, self.ahead, self.apply = past, past if ahead is None else ahead, apply
        self.rows: np.ndarray | None = None

    def push(self, rows: np.ndarray) -> Expressions:
        """Expressions of the frames whose whole window has arrived."""
        rows = np.asarray(rows, np.float32)
        if self.rows is None:
            if not len(rows):
                return {}
            rows = np.concatenate([np.repeat(rows[:1], self.past, 0), rows])
            self.rows = rows[:0]
        self.rows = np.concatenate([self.rows, rows])
        return self._ready()

    def finish(self) -> Expressions:
        """Expressions of the last frames."""
        if self.rows is None or not len(self.rows):
            return {}
        self.rows = np.concatenate([self.rows, np.repeat(self.rows[-1:], self.ahead, 0)])
        return self._ready()

    def _ready(self) -> Expressions:
        assert self.rows is not None
        ready = len(self.rows) - self.past - self.ahead
        if ready <= 0:
            return {}
        windows = np.lib.stride_tricks.sliding_window_view(self.rows, self.past + 1 + self.ahead, 0)[:ready]
        # Window by window: a matrix product over more rows rounds differently, and streams must repeat bit for bit.
        parts = [self.apply(windows[i : i + 1].transpose(0, 2, 1)) for i in range(ready)]
        self.rows = self.rows[ready:]
        return joined(parts)


def joined(parts: Iterable[Expressions]) -> Expressions:
    """Parts of a sequence concatenated; parts without frames may be empty."""
    parts = [part for part in parts if part]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}


def drive(driver: Driver, features: np.ndarray) -> Expressions:
    """Expressions of a whole sequence ``features [T, C]``: the stream fed at once."""
    stream = driver.stream()
    return joined([stream.push(features), stream.finish()])
