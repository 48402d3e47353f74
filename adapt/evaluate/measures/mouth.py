"""The mouth over time: does it open with the real one, and do the lips meet when the real lips do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from adapt.evaluate.measures.base import Column, Measure, Tracks, Value
from heads.measures.face import lip_gap

# Lips count as together below this gap of the inner lips over the eye distance: pressed lips measure 0.005 to 0.02
# with FaceMesh, parted ones 0.03 and more. Guess from a few clips.
TOGETHER = 0.02
# A closure is met when the rendered lips are together within so many frames of it.
TOLERANCE = 1
NO_FACE = "needs a face in every rendered frame"
NO_CLOSURE = "the real lips never close in the test frames"


def closures(gap: np.ndarray) -> list[tuple[int, int]]:
    """Runs of frames ``(first, end)`` in which the lips are together; ``gap`` ``[T]`` as :func:`heads.measures.face.lip_gap`."""
    closed = np.concatenate([[False], gap < TOGETHER, [False]])
    edges = np.flatnonzero(closed[1:] != closed[:-1])
    return [(int(first), int(end)) for first, end in zip(edges[::2], edges[1::2])]


def closure_f1(rendered: np.ndarray, real: np.ndarray) -> float | None:
    """F1 of closures: real ones that the rendered lips meet, rendered ones that the real lips have.

    Returns:
        ``None`` when the real lips never close.
    """
    true, found = closures(real), closures(rendered)
    if not true:
        return None
    recall = _met(true, rendered < TOGETHER)
    precision = _met(found, real < TOGETHER) if found else 0.0
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _met(runs: list[tuple[int, int]], closed: np.ndarray) -> float:
    """Share of runs beside which, within the tolerance, the other lips are together."""
    return float(np.mean([closed[max(0, first - TOLERANCE) : end + TOLERANCE].any() for first, end in runs]))


class Mouth(Measure):
    """Over all frames; needs a face in each."""

    place = 70
    columns: ClassVar[Mapping[str, Column]] = {
        "opening_r": Column("mouth opening, correlation", "", 3, "higher", "inner lip gap over frames, Pearson"),
        "closure_f1": Column("lip closures, F1", "", 3, "higher", "lips together within one frame of the real ones"),
    }

    def whole(self, tracks: Tracks) -> Mapping[str, Value]:
        """Both."""
        if not tracks.valid.all() or not len(tracks.valid):
            return dict.fromkeys(self.columns, NO_FACE)
        rendered, real = lip_gap(tracks.found), lip_gap(tracks.real)
        if len(real) < 3 or min(rendered.std(), real.std()) < 1e-9:
            correlation: Value = "a mouth that never moves has no correlation"
        else:
            correlation = float(np.corrcoef(rendered, real)[0, 1])
        f1 = closure_f1(rendered, real)
        return {"opening_r": correlation, "closure_f1": NO_CLOSURE if f1 is None else f1}
