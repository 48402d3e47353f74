"""Sums of vectors that are stored in 16 bits."""

from __future__ import annotations

import numpy as np
import pytest

from heads.raster.kernels.bases import BLOCK, StoredBasis


@pytest.mark.parametrize(("count", "size"), [(1, 3), (4, 8), (7, BLOCK + 5), (16, 3 * BLOCK)])
def test_a_sum_is_that_of_the_vectors_to_a_part_in_thousands_of_the_largest(count, size):
    rng = np.random.default_rng(0)
    vectors, start = rng.normal(0, 1, (count, size)).astype(np.float32), rng.normal(0, 1, size).astype(np.float32)
    vectors *= 10.0 ** rng.uniform(-6, 3, (count, 1)).astype(np.float32)
    coefficients = rng.normal(0, 1, count).astype(np.float32)
    found = StoredBasis(vectors).add(coefficients, start.copy())
    expected = start + coefficients.astype(np.float64) @ vectors
    allowed = (np.abs(coefficients) * np.abs(vectors).max(1)).sum() / 2**15
    assert np.abs(found - expected).max() < allowed + 1e-5 * np.abs(expected).max()


def test_vectors_of_zeros_and_no_vectors_change_nothing():
    start = np.arange(5, dtype=np.float32)
    assert np.array_equal(StoredBasis(np.zeros((3, 5), np.float32)).add(np.ones(3, np.float32), start.copy()), start)
    assert np.array_equal(StoredBasis(np.zeros((0, 5), np.float32)).add(np.zeros(0, np.float32), start.copy()), start)
