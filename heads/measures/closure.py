"""Closures: do lips meet when the real lips do."""

from __future__ import annotations

import numpy as np

# Lips count as together below this gap of the inner lips over the eye distance: pressed lips measure 0.005 to 0.02
# with FaceMesh, parted ones 0.03 and more. Guess from a few clips.
TOGETHER = 0.02
# A closure is met if the rendered lips are together within this number of frames of it.
TOLERANCE = 1


def closures(gap: np.ndarray) -> list[tuple[int, int]]:
    """Runs of frames ``(first, end)`` in which the lips are together; ``gap`` ``[T]`` as :func:`heads.measures.face.lip_gap`."""
    closed = np.concatenate([[False], gap < TOGETHER, [False]])
    edges = np.flatnonzero(closed[1:] != closed[:-1])
    return [(int(first), int(end)) for first, end in zip(edges[::2], edges[1::2])]


def closure_f1(rendered: np.ndarray, real: np.ndarray) -> float | None:
    """F1 of closures: real ones that the rendered lips meet, and rendered frames of shut lips beside which the real are shut.

    Recall counts closures, precision frames: lips that never open meet every closure and are still wrong.

    Returns:
        ``None`` when the real lips never close.
    """
    true, ours, theirs = closures(real), rendered < TOGETHER, real < TOGETHER
    if not true:
        return None
    near = _widened(ours)
    recall = float(np.mean([near[first:end].any() for first, end in true]))
    precision = float(_widened(theirs)[ours].mean()) if ours.any() else 0.0
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _widened(shut: np.ndarray) -> np.ndarray:
    """Frames ``[T]`` within the tolerance of those in ``shut [T]``."""
    padded = np.pad(shut, TOLERANCE)
    return np.lib.stride_tricks.sliding_window_view(padded, 2 * TOLERANCE + 1).any(axis=1)
