"""Penalties of a map as one kernel: what plain PyTorch gives, values and gradients."""

from __future__ import annotations

import pytest
import torch

from heads.keeping import _KeepOnDevice, map_penalty, map_penalty_reference

FREE, WEIGHT = 2.0, 0.01


@pytest.fixture
def maps():
    torch.manual_seed(0)
    maps = torch.randn(500, 14)
    maps[:100, :3] *= 5  # offsets far from their triangle
    maps[:100, 7:10] *= 3  # scales too large, and needles
    return maps, maps + 0.1 * torch.randn_like(maps)


def gradients(of, maps, start, shares):
    parts = [part.clone().requires_grad_() for part in maps.split([3, 4, 3, 3, 1], 1)]
    value = 2 * of(parts, start, shares, WEIGHT, FREE)
    value.backward()
    return value.detach(), torch.cat([part.grad for part in parts], 1)


def on_device(parts, start, shares, weight, free):
    """What accelerators run, here on the CPU."""
    return _KeepOnDevice.apply(start, shares, weight, free, *parts)


@pytest.mark.parametrize("anchor", [0.0, 0.3])
@pytest.mark.parametrize("penalty", [map_penalty, on_device])
def test_both_ways_give_value_and_gradient_of_the_reference(maps, anchor, penalty):
    shares = anchor * torch.rand(14)
    ours, v_ours = gradients(penalty, *maps, shares)
    theirs, v_theirs = gradients(map_penalty_reference, *maps, shares)
    assert theirs > 0
    assert torch.isclose(ours, theirs, rtol=1e-5)
    assert (v_theirs[:, :3] != 0).any()
    assert (v_theirs[:, 7:10] != 0).any()
    assert torch.allclose(v_ours, v_theirs, rtol=1e-4, atol=1e-8)


def test_a_map_where_it_began_and_within_its_triangles_costs_nothing():
    start = torch.zeros(4, 14)
    value, gradient = gradients(map_penalty, start, start, torch.ones(14))
    assert value == 0
    assert not gradient.any()
