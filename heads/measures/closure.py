"""Lip closures: whether rendered lips meet when the real ones do."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Inner lip gap, in eye distances, below which lips count as closed · measured on 96 frames of 66 people, labelled by eye without
# the gap (landmarks averaged with the mirrored picture's, tracks refined): lips are open in 3 of 36 frames below 0.02, in 3 of
# 24 from 0.02 to 0.026, in 4 of 12 from 0.026 to 0.03 and in 6 of 12 from 0.03 to 0.035.
TOGETHER = 0.026
TOLERANCE = 1  # frames by which a rendered closure may be early or late · guess


def closures(gap: np.ndarray) -> list[tuple[int, int]]:
    """Runs of frames ``(first, end)`` in which the lips are closed; ``gap`` ``[T]`` as :func:`heads.measures.face.lip_gap`."""
    closed = np.concatenate([[False], gap < TOGETHER, [False]])
    edges = np.flatnonzero(closed[1:] != closed[:-1])
    return [(int(first), int(end)) for first, end in zip(edges[::2], edges[1::2])]


def closure_f1(rendered: np.ndarray, real: np.ndarray) -> float | None:
    """F1 score of the rendered closures, see :func:`closure_scores`; ``None`` when the real lips never close."""
    scores = closure_scores(rendered, real)
    return None if scores is None else scores.f1


@dataclass(frozen=True)
class ClosureScores:
    """How rendered closures agree with real ones, each from 0 to 1."""

    precision: float
    recall: float

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total else 0.0


def closure_scores(rendered: np.ndarray, real: np.ndarray) -> ClosureScores | None:
    """Precision and recall of the rendered closures, within ``TOLERANCE`` frames.

    Recall is the share of real closures during which the rendered lips close. Precision is the share of rendered closed
    frames at which the real lips are closed. It counts frames, because lips that never open would meet every closure.

    Args:
        rendered, real: ``[T]`` gaps, as :func:`heads.measures.face.lip_gap`.

    Returns:
        ``None`` when the real lips never close.
    """
    true, ours, theirs = closures(real), rendered < TOGETHER, real < TOGETHER
    if not true:
        return None
    near = _widened(ours)
    recall = float(np.mean([near[first:end].any() for first, end in true]))
    precision = float(_widened(theirs)[ours].mean()) if ours.any() else 0.0
    return ClosureScores(precision, recall)


def _widened(shut: np.ndarray) -> np.ndarray:
    """Frames ``[T]`` within the tolerance of those in ``shut [T]``."""
    padded = np.pad(shut, TOLERANCE)
    return np.lib.stride_tricks.sliding_window_view(padded, 2 * TOLERANCE + 1).any(axis=1)
