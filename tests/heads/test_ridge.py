"""Ridge regression against its definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from heads.ridge import RidgePath, ridge_weights


def problem(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(rows)
    return rng.standard_normal((rows, columns)), rng.standard_normal((rows, 3))


def loss(w: np.ndarray, x: np.ndarray, y: np.ndarray, penalty: float) -> float:
    return float(((x @ w - y) ** 2).sum() + penalty * (w**2).sum())


@pytest.mark.parametrize("shape", [(40, 6), (5, 12)])
def test_weights_have_the_least_penalised_error(shape):
    x, y = problem(*shape)
    w = RidgePath.of_rows(x, y).weights(2.0)
    best = loss(w, x, y, 2.0)
    rng = np.random.default_rng(0)
    assert all(loss(w + 0.01 * rng.standard_normal(w.shape), x, y, 2.0) > best for _ in range(20))
    np.testing.assert_allclose(ridge_weights(x.T @ x, x.T @ y, 2.0), w, atol=1e-12)


def test_each_target_has_its_own_penalty():
    x, y = problem(40, 6)
    path = RidgePath.of_rows(x, y)
    w = path.weights(np.array([0.1, 1.0, 10.0]))
    for k, penalty in enumerate((0.1, 1.0, 10.0)):
        np.testing.assert_allclose(w[:, k], path.weights(penalty)[:, k], atol=1e-12)
    np.testing.assert_allclose(path.project(x) @ path.coefficients(1.0), x @ path.weights(1.0), atol=1e-12)


def test_moments_summed_over_parts_give_the_same_weights():
    x, y = problem(40, 6)
    parts = [slice(0, 15), slice(15, 40)]
    path = RidgePath.of_moments(sum(x[p].T @ x[p] for p in parts), sum(x[p].T @ y[p] for p in parts))
    np.testing.assert_allclose(path.weights(3.0), RidgePath.of_rows(x, y).weights(3.0), atol=1e-12)


def test_arrays_and_tensors_give_the_same_weights():
    x, y = problem(40, 6)
    tensors = ridge_weights(torch.from_numpy(x.T @ x), torch.from_numpy(x.T @ y), 0.5)
    np.testing.assert_allclose(tensors, ridge_weights(x.T @ x, x.T @ y, 0.5), atol=1e-13)
