"""The fused penalties of UV maps against PyTorch: values and gradients."""

from __future__ import annotations

import pytest
import torch

from heads.raster import threads
from pretrain.expression_visual.fused.penalties import penalties, penalties_reference


def maps(batch: int = 3, count: int = 37) -> torch.Tensor:
    values = torch.randn(batch, count, 14, generator=torch.Generator().manual_seed(0))
    values[0, 0, :3] = 0  # no direction, and no gradient
    return values.requires_grad_()


@pytest.mark.parametrize("number", [1, 2])
def test_penalties_and_their_gradients_are_pytorchs(number):
    before = threads.get_num_threads()
    threads.set_num_threads(number)
    try:
        values, largest = maps(), torch.randn(37, 3, generator=torch.Generator().manual_seed(1))
        found, expected = penalties(values, largest), penalties_reference(values, largest)
        assert list(found) == list(expected)
        for name, weight in (("offset", 0.05), ("scale", 0.2)):
            assert found[name].item() == pytest.approx(expected[name].item(), rel=1e-6)
            (gradient,) = torch.autograd.grad(weight * found[name], values)
            (other,) = torch.autograd.grad(weight * expected[name], values)
            assert float((gradient - other).abs().max()) < 1e-6 * float(other.abs().max())
    finally:
        threads.set_num_threads(before)


def test_maps_within_bounds_cost_nothing():
    values = (0.1 * maps().detach()).requires_grad_()
    total = sum(penalties(values, torch.ones(37, 3)).values())
    assert total.item() == 0
    assert not torch.autograd.grad(total, values)[0].any()


def test_other_types_go_through_pytorch():
    values, largest = maps().detach().double(), torch.zeros(37, 3).double()
    found, expected = penalties(values, largest), penalties_reference(values, largest)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
