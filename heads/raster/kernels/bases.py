"""Weighted sums of a few long vectors, which are stored in 16 bits: reading them is what such a sum costs."""

# mypy: disable-error-code="no-untyped-def"
# Numba gives kernels their types.
from __future__ import annotations

import numpy as np

from heads.raster.simd.jit import kernel

BLOCK = 2048  # numbers of a sum that stay in the L1 cache while all vectors are added · guess
TOGETHER = 4  # vectors added in one pass over a block


class StoredBasis:
    """Vectors ``[R, N]`` in 16 bits, each with its own unit: the error is a 65,000th of its largest number."""

    def __init__(self, vectors: np.ndarray) -> None:
        count, self.size = vectors.shape
        self._count = count
        largest = np.maximum(np.abs(vectors).max(axis=1, initial=0.0), np.finfo(np.float32).tiny)
        self._units = (largest / np.iinfo(np.int16).max).astype(np.float32)
        self._rows = np.zeros((-(-count // TOGETHER) * TOGETHER, self.size), np.int16)
        self._rows[:count] = np.rint(vectors / self._units[:, None])

    def add(self, coefficients: np.ndarray, out: np.ndarray) -> np.ndarray:
        """``out [N]`` float32, to which ``coefficients [R] @ vectors`` is added in place."""
        weights = np.zeros(len(self._rows), np.float32)
        weights[: self._count] = coefficients * self._units
        add_weighted(weights, self._rows.reshape(-1), out)
        return out


@kernel
def add_weighted(weights, rows, out):
    """``out [N] += weights [R] @ rows [R, N]``; ``rows`` int16, flat, R a multiple of ``TOGETHER``."""
    size = len(out)
    for begin in range(0, size, BLOCK):
        end = min(begin + BLOCK, size)
        for r in range(0, len(weights), TOGETHER):
            w0, w1, w2, w3 = weights[r], weights[r + 1], weights[r + 2], weights[r + 3]
            a, b = rows[r * size + begin : r * size + end], rows[(r + 1) * size + begin : (r + 1) * size + end]
            c, d = (
                rows[(r + 2) * size + begin : (r + 2) * size + end],
                rows[(r + 3) * size + begin : (r + 3) * size + end],
            )
            to = out[begin:end]
            for i in range(end - begin):
                to[i] += (w0 * np.float32(a[i]) + w1 * np.float32(b[i])) + (
                    w2 * np.float32(c[i]) + w3 * np.float32(d[i])
                )
