"""Ridge regression: ``argmin_w ||rows w - targets||² + penalty ||w||²``.

:func:`ridge_weights` solves one penalty directly. :class:`RidgePath` solves any number of penalties from one
eigendecomposition, and a penalty of its own for each target. :func:`apply_ridge` applies weights to rows in time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

Array = TypeVar("Array", np.ndarray, Tensor)


def ridge_weights(gram: Array, cross: Array, penalty: float) -> Array:
    """Weights ``[D, K]`` of the normal equations, of their type and device.

    Args:
        gram: ``rowsᵀ rows [D, D]``.
        cross: ``rowsᵀ targets [D, K]`` or ``[D]``.
        penalty: in the units of ``gram``; with coefficients of unit variance, the variance of the noise.
    """
    if isinstance(gram, np.ndarray):
        return np.linalg.solve(gram + penalty * np.eye(len(gram)), cross)
    identity = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    return torch.linalg.solve(gram + penalty * identity, cross)


@dataclass(frozen=True)
class RidgePath:
    """A regression in the eigenbasis of its Gram matrix: each further penalty costs only a matrix product.

    Attributes:
        values: ``[M]`` eigenvalues of the smaller Gram matrix.
        basis: ``[D, M]``; weights are ``basis @ coefficients(penalty)``.
        aims: ``[M, K]`` the targets, projected onto that basis.
    """

    values: np.ndarray
    basis: np.ndarray
    aims: np.ndarray

    @classmethod
    def of_rows(cls, rows: np.ndarray, targets: np.ndarray) -> RidgePath:
        """From ``rows [T, D]`` and ``targets [T, K]``; with fewer rows than columns the T x T matrix is used."""
        rows = rows.astype(np.float64)
        if len(rows) < rows.shape[1]:
            values, vectors = np.linalg.eigh(rows @ rows.T)
            return cls(values, rows.T @ vectors, vectors.T @ targets)
        return cls.of_moments(rows.T @ rows, rows.T @ targets)

    @classmethod
    def of_moments(cls, gram: np.ndarray, cross: np.ndarray) -> RidgePath:
        """From ``rowsᵀ rows [D, D]`` and ``rowsᵀ targets [D, K]``, which can be summed over parts of the data."""
        values, vectors = np.linalg.eigh(gram)
        return cls(values, vectors, vectors.T @ cross)

    def project(self, rows: np.ndarray) -> np.ndarray:
        """Coordinates ``[T, M]`` of ``rows [T, D]``, to be multiplied by :meth:`coefficients`."""
        return rows.astype(np.float64) @ self.basis

    def coefficients(self, penalty: float | np.ndarray) -> np.ndarray:
        """Coefficients ``[M, K]`` for one penalty, or for one per target ``[K]``."""
        return self.aims / (np.maximum(self.values, 0.0)[:, None] + penalty)

    def weights(self, penalty: float | np.ndarray) -> np.ndarray:
        """Weights ``[D, K]`` for one penalty, or for one per target ``[K]``."""
        return self.basis @ self.coefficients(penalty)


def stack_context(features: np.ndarray, context: int) -> np.ndarray:
    """Each row of ``features [T, C]`` with ``context`` neighbours to each side, flat; the end rows are repeated.

    Returns:
        ``[T, (2 * context + 1) * C]``, the earliest row first.
    """
    padded = np.pad(features, ((context, context), (0, 0)), mode="edge")
    return np.concatenate([padded[i : i + len(features)] for i in range(2 * context + 1)], axis=1)


def apply_ridge(weight: np.ndarray, features: np.ndarray, centre: bool = True) -> np.ndarray:
    """Predictions ``[T, D]`` of filters ``weight [D, C, 2 * context + 1]`` on ``features [T, C]``.

    ``centre`` subtracts the features' mean over the ``T`` rows first.
    """
    features = features - features.mean(0) if centre else features
    stacked = stack_context(features, weight.shape[2] // 2)
    return stacked @ weight.transpose(0, 2, 1).reshape(len(weight), -1).T
