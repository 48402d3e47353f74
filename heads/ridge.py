"""Ridge regression: ``argmin_w ||rows w - targets||² + penalty ||w||²``.

:func:`ridge_weights` solves one penalty directly. :class:`RidgePath` solves any number of penalties from one
eigendecomposition, and a penalty of its own for each target.
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
    """A regression in the eigenbasis of its Gram matrix: any penalty costs one product.

    Attributes:
        values: ``[M]`` eigenvalues of the smaller Gram matrix.
        basis: ``[D, M]``; weights are ``basis @ coefficients(penalty)``.
        aims: ``[M, K]`` the targets in that basis.
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
