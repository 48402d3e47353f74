"""Penalties of a map as one kernel: what plain PyTorch gives, values and gradients."""

from __future__ import annotations

import pytest
import torch

from heads.gaussians.neighbours import Neighbours, neighbours, roughness
from heads.gaussians.uv import UVGaussians
from heads.keeping import Tie, _KeepOnDevice, map_penalty, map_penalty_reference
from heads.rig import load_rig

FREE, WEIGHT = 2.0, 0.01


@pytest.fixture
def maps():
    torch.manual_seed(0)
    maps = torch.randn(500, 14)
    maps[:100, :3] *= 5  # offsets far from their triangle
    maps[:100, 7:10] *= 3  # scales too large, and needles
    return maps, maps + 0.1 * torch.randn_like(maps)


@pytest.fixture
def by(maps):
    """500 texels in a row, some without a neighbour, on triangles that face anywhere."""
    own = torch.arange(len(maps[0]))
    links = torch.stack([(own - 1).clamp_min(0), (own + 1).clamp_max(len(own) - 1), own, own], 1)
    return Neighbours(links, torch.randn(len(own), 3, 3), len(own) - 1)


def gradients(of, maps, start, shares, tie=None):
    parts = [part.clone().requires_grad_() for part in maps.split([3, 4, 3, 3, 1], 1)]
    value = 2 * of(parts, start, shares, WEIGHT, FREE, tie)
    value.backward()
    return value.detach(), torch.cat([part.grad for part in parts], 1)


def on_device(parts, start, shares, weight, free, tie=None):
    """What accelerators run, here on the CPU."""
    return _KeepOnDevice.apply(start, shares, weight, free, tie, *parts)


@pytest.mark.parametrize("smoothness", [0.0, 3.0])
@pytest.mark.parametrize("anchor", [0.0, 0.3])
@pytest.mark.parametrize("penalty", [map_penalty, on_device])
def test_both_ways_give_value_and_gradient_of_the_reference(maps, by, anchor, penalty, smoothness):
    shares = anchor * torch.rand(14)
    tie = Tie(by, smoothness) if smoothness else None
    ours, v_ours = gradients(penalty, *maps, shares, tie)
    theirs, v_theirs = gradients(map_penalty_reference, *maps, shares, tie)
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


def test_neighbours_of_the_face_are_close_and_lie_in_it():
    rig = load_rig()
    uv = UVGaussians(rig, 64)
    by = neighbours(uv, rig, ("face",))
    own = torch.arange(uv.n)[:, None]
    linked = by.links != own
    face = uv.regions == rig.regions["face"]
    assert linked.sum() == 2 * by.pairs
    assert not linked[~face].any()
    assert face[by.links[face]].all()
    assert linked[face].float().mean() > 0.9
    points = uv.points(rig.mean[None])[0]
    apart = (points[:, None] - points[by.links]).norm(dim=-1)[linked]
    assert apart.max() < 0.25  # eye distances


def test_skin_that_moves_as_a_whole_is_smooth_and_a_texel_that_leaves_it_is_not():
    rig = load_rig()
    uv = UVGaussians(rig, 64)
    by = neighbours(uv, rig, ("face",))
    offsets = torch.linalg.solve(by.axes, torch.tensor([0.3, -0.1, 0.2]).expand(uv.n, 3))
    assert roughness(offsets, by) < 1e-8
    texel = int((by.links != torch.arange(uv.n)[:, None]).sum(1).argmax())
    offsets[texel] += torch.linalg.solve(by.axes[texel], torch.tensor([0.0, 0.0, 1.0]))
    assert float(roughness(offsets, by)) == pytest.approx(4 / by.pairs, rel=1e-3)
