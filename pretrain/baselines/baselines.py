"""Ridge regression from audio features, the baseline of audio-expression, and scores of comparisons."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from heads.ridge import RidgePath, stack_context

# Penalties tried by cross-validation, times an input's mean energy and the square root of the number of frames · guess
RIDGES = tuple(10.0**e for e in np.arange(-1.0, 4.51, 0.5))


class RidgeFit:
    """Ridge regression from a few feature rows to targets, in one pass over any number of sequences.

    It keeps normal equations per person, so that the penalty is cross-validated over people, not frames.

    Args:
        context: rows to each side of a frame.
        centre: subtract each sequence's mean features first.
        projection: ``[C, P]`` reduces the columns of a row first, see :func:`principal_columns`; None keeps them all.
    """

    def __init__(self, *, context: int, centre: bool = True, projection: np.ndarray | None = None) -> None:
        self.context, self.centre, self.projection = context, centre, projection
        self.people: dict[str, list[np.ndarray]] = {}

    def add(self, person: str, features: np.ndarray, targets: np.ndarray) -> None:
        """Add a sequence: features ``[T, C]`` and targets ``[T, D]``, whose mean is subtracted."""
        rows = features - features.mean(0) if self.centre else features
        rows = rows if self.projection is None else rows @ self.projection
        x = stack_context(rows, self.context).astype(np.float64)
        y = (targets - targets.mean(0)).astype(np.float64)
        gram, cross, energy = x.T @ x, x.T @ y, (y * y).sum(0)
        if person in self.people:
            for kept, new in zip(self.people[person], (gram, cross, energy, np.float64(len(x)))):
                kept += new
        else:
            self.people[person] = [gram, cross, energy, np.array(len(x), np.float64)]

    def solve(self, folds: int = 5, importance: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Filters ``[D, C, 2 * context + 1]`` and the share of each target's variance ``[D]`` unexplained on people left out.

        One penalty serves all targets: the one with the least error on people left out. That error is the squared error
        weighted by ``importance`` ``[D]``, or without it the mean share of unexplained variance.
        """
        total = _sums(self.people.values())
        errors, groups = np.zeros((len(RIDGES), total[1].shape[1])), 0
        for _, weights, held in self._folds(folds):
            errors += np.stack([_error(w, held) for w in weights])
            groups += 1
        shares = errors / np.maximum(total[2], 1e-12)
        wanted = shares.mean(1) if importance is None else errors @ importance
        best = int(np.argmin(wanted)) if groups else len(RIDGES) // 2
        weight = _solutions(total[0], total[1], float(total[3]), [RIDGES[best]])[0]
        unexplained = shares[best] if groups else np.ones(total[1].shape[1])
        return self._filters(weight), unexplained.astype(np.float32)

    def held_out(self, folds: int = 5) -> dict[str, np.ndarray]:
        """For each person, filters ``[D, C, 2 * context + 1]`` fitted on others; the penalty is chosen as in :meth:`solve`."""
        found = [(group, weights, held) for group, weights, held in self._folds(folds)]
        errors = np.sum([[_error(w, held) for w in weights] for _, weights, held in found], axis=0)
        best = int(np.argmin((errors / np.maximum(_sums(self.people.values())[2], 1e-12)).mean(1)))
        return {
            name: filters for group, weights, _ in found for filters in [self._filters(weights[best])] for name in group
        }

    def _folds(self, folds: int) -> Iterator[tuple[list[str], list[np.ndarray], list[np.ndarray]]]:
        """Folds: people left out, the solutions of all penalties without them, and their normal equations; none for one person."""
        names = sorted(self.people)
        total = _sums(self.people.values())
        for i in range(min(folds, len(names)) if len(names) > 1 else 0):
            held = _sums(self.people[name] for name in names[i::folds])
            rest = [whole - part for whole, part in zip(total, held)]
            yield names[i::folds], _solutions(rest[0], rest[1], float(rest[3])), held

    def _filters(self, weight: np.ndarray) -> np.ndarray:
        """A solution ``[inputs, D]`` as filters on unprojected rows."""
        rows = weight.T.reshape(weight.shape[1], 2 * self.context + 1, -1)
        rows = (rows if self.projection is None else rows @ self.projection.T).transpose(0, 2, 1)
        return np.ascontiguousarray(rows, np.float32)


def principal_columns(rows: Iterable[np.ndarray], most: int = 48, centre: bool = True) -> np.ndarray:
    """Principal directions ``[C, P]``, P at most ``most``, of feature rows ``[T, C]``.

    A regression on a few of them is well posed; on all columns of speech features with their context, the normal equations
    would have about ten thousand unknowns.
    """
    total: Any = 0.0
    for features in rows:
        x = (features - features.mean(0) if centre else features).astype(np.float64)
        total = total + x.T @ x
    values, vectors = np.linalg.eigh(total)
    count = min(most, int((values > values[-1] * 1e-8).sum()))
    return np.ascontiguousarray(vectors[:, ::-1][:, :count], np.float32)


def _sums(moments: Iterable[list[np.ndarray]]) -> list[np.ndarray]:
    """The summed normal equations of several people."""
    return [sum(parts[1:], start=parts[0]) for parts in zip(*moments)]


def _solutions(gram: np.ndarray, cross: np.ndarray, count: float, ridges: Sequence[float] = RIDGES) -> list[np.ndarray]:
    path = RidgePath.of_moments(gram, cross)
    # Relative to the mean energy of an input, so that the grid fits features of any scale.
    unit = np.trace(gram) / len(gram) / max(count, 1.0)
    return [path.weights(ridge * unit) for ridge in np.asarray(ridges) * count**0.5]


def _error(weight: np.ndarray, held: list[np.ndarray]) -> np.ndarray:
    gram, cross, energy, _ = held
    return energy - 2 * (weight * cross).sum(0) + (weight * (gram @ weight)).sum(0)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson correlation of two series; 0 when one of them is constant."""
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum() / scale) if scale > 1e-12 else 0.0


def area_under_curve(positive: np.ndarray, negative: np.ndarray) -> float:
    """Probability that a positive scores above a negative (ties count half): 0.5 is chance."""
    from scipy.stats import rankdata

    ranks = rankdata(np.concatenate([positive, negative]))
    n = len(positive)
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * len(negative)))
