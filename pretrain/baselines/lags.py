"""How much later than its pictures a clip's sound is, found by what sound tells about the lips of people left out.

Film and television are rarely in step to the frame. A regression that learns from clips out of step learns a blur, so
training clips are moved first. A lag is trusted as far as its clip is long: the likelihood of each lag is weighed against
how lags are distributed, and a short clip stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from heads.ridge import apply_ridge
from pretrain.baselines.baselines import RidgeFit, correlation
from pretrain.data.sequences import Sequence

STEP = 0.5  # frames between two lags that are tried
EXPECTED = 2.0  # frames: spread of the clips' lags before anything is known of them
CORRELATED = 3.0  # frames of a mouth that count as one observation
LEAST_FRAMES = 60

Rows = Callable[[Sequence], np.ndarray]


def clip_lags(
    fit: RidgeFit, runs: Iterable[Sequence], rows: Rows, opening: Rows, direction: np.ndarray, most: float
) -> dict[str, float]:
    """Frames by which each clip's sound is late, at most ``most``; negative when it is early.

    Clips that are too short to tell are left out, and so are all of a single person.

    Args:
        fit: of ``rows(run)`` (T, C) to targets (T, D), of all people; each person is judged by the others.
        opening: of a run, (T,); direction: (D,) what the targets do to it.
    """
    if len(fit.people) < 2:
        return {}
    weights = fit.held_out()
    scores: dict[str, np.ndarray] = {}
    lags = np.arange(-round(most / STEP), round(most / STEP) + 1) * STEP
    for run in runs:
        if len(run) >= LEAST_FRAMES:
            guess = apply_ridge(weights[run.identity], rows(run), fit.centre) @ direction
            found = likelihood(guess, opening(run), lags)
            scores[run.clip] = scores.get(run.clip, np.zeros(len(lags))) + found
    return {clip: likeliest(lags, score) for clip, score in scores.items()}


def likeliest(lags: np.ndarray, scores: np.ndarray) -> float:
    """The one of ``lags`` (L,) with the most of its likelihood's logarithm ``scores`` (L,) and of what is usual."""
    return float(lags[np.argmax(scores - 0.5 * (lags / EXPECTED) ** 2)])


def likelihood(guess: np.ndarray, real: np.ndarray, lags: np.ndarray) -> np.ndarray:
    """Logarithm of the likelihood (L,) that ``guess`` (T,) is late by each of ``lags``, over the frames all of them share."""
    most = int(np.ceil(np.abs(lags).max()))
    inner = slice(most, len(real) - most)
    r = np.array([correlation(moved(guess, lag)[inner], real[inner]) for lag in lags])
    independent = (len(real) - 2 * most) / CORRELATED
    return -0.5 * independent * np.log(1 - np.clip(r, 0.0, 0.99) ** 2)


def moved(rows: np.ndarray, lag: float) -> np.ndarray:
    """``rows`` (T,) or (T, D) read ``lag`` frames later, linear between frames; the ends are repeated."""
    at = np.clip(np.arange(len(rows)) + lag, 0, len(rows) - 1)
    low = np.floor(at).astype(int)
    share = (at - low).reshape(-1, *[1] * (rows.ndim - 1))
    return rows[low] * (1 - share) + rows[np.minimum(low + 1, len(rows) - 1)] * share


def in_step(features: np.ndarray, targets: np.ndarray, lag: float) -> tuple[np.ndarray, np.ndarray]:
    """Features (T, C) and targets (T, D) of one clip whose sound is ``lag`` frames late, paired; the ends are cut."""
    first, last = max(0, int(np.ceil(lag))), len(targets) + min(0, int(np.floor(lag)))
    return features[first:last], moved(targets, -lag)[first:last].astype(targets.dtype)
