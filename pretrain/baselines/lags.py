"""Estimates by how much a clip's audio lags its pictures, from regressions of the lips on audio of other people.

Film and television are rarely in sync to the frame. A regression that learns from clips out of sync learns a blur, so
training clips are shifted first. Each lag's likelihood is combined with a prior over lags, so that short clips, which say
little, are hardly shifted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from heads.ridge import apply_ridge
from pretrain.baselines.baselines import RidgeFit, correlation
from pretrain.data.sequences import Sequence

STEP = 0.5  # frames between two lags that are tried
EXPECTED = 2.0  # frames: standard deviation of the prior over lags · guess
CORRELATED = 3.0  # consecutive frames that count as one independent observation of a mouth · guess
LEAST_FRAMES = 60  # of a clip whose lag is estimated · guess

Rows = Callable[[Sequence], np.ndarray]


def clip_lags(
    fit: RidgeFit, runs: Iterable[Sequence], rows: Rows, opening: Rows, direction: np.ndarray, most: float
) -> dict[str, float]:
    """Frames by which each clip's audio is late, at most ``most``; negative if it is early.

    Clips that are too short are left out, and so are all clips if there is only one person.

    Args:
        fit: regression of ``rows(run) [T, C]`` to targets ``[T, D]`` on all people; each person is judged by the others.
        opening: the mouth opening ``[T]`` of a run; direction: ``[D]``, change of it by each target.
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
    """The most probable of ``lags [L]``, given log-likelihoods ``scores [L]`` and the prior over lags."""
    return float(lags[np.argmax(scores - 0.5 * (lags / EXPECTED) ** 2)])


def likelihood(guess: np.ndarray, real: np.ndarray, lags: np.ndarray) -> np.ndarray:
    """Log-likelihoods ``[L]`` that ``guess [T]`` is late by each of ``lags [L]``, over the frames that they share."""
    most = int(np.ceil(np.abs(lags).max()))
    inner = slice(most, len(real) - most)
    r = np.array([correlation(moved(guess, lag)[inner], real[inner]) for lag in lags])
    independent = (len(real) - 2 * most) / CORRELATED
    return -0.5 * independent * np.log(1 - np.clip(r, 0.0, 0.99) ** 2)


def moved(rows: np.ndarray, lag: float) -> np.ndarray:
    """``rows``, ``[T]`` or ``[T, D]``, read ``lag`` frames later, linearly interpolated; the ends are repeated."""
    at = np.clip(np.arange(len(rows)) + lag, 0, len(rows) - 1)
    low = np.floor(at).astype(int)
    share = (at - low).reshape(-1, *[1] * (rows.ndim - 1))
    return rows[low] * (1 - share) + rows[np.minimum(low + 1, len(rows) - 1)] * share


def in_step(features: np.ndarray, targets: np.ndarray, lag: float) -> tuple[np.ndarray, np.ndarray]:
    """Features ``[t, C]`` and targets ``[t, D]`` of a clip in sync, whose audio is ``lag`` frames late; the ends are cut off."""
    first, last = max(0, int(np.ceil(lag))), len(targets) + min(0, int(np.floor(lag)))
    return features[first:last], moved(targets, -lag)[first:last].astype(targets.dtype)
