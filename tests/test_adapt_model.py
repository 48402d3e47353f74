"""Composition of a rendered head over a real frame: the soft rim of its region."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from adapt.recipes.parts.model import feather


def pooled(mask: torch.Tensor, radius: int) -> torch.Tensor:
    """The same by plain pooling."""
    flat, side = mask.permute(0, 3, 1, 2), 2 * radius + 1
    grown = functional.max_pool2d(flat, side, 1, radius)
    soft = functional.avg_pool2d(grown, side, 1, radius, count_include_pad=False)
    return torch.maximum(soft, flat).permute(0, 2, 3, 1)


@pytest.mark.parametrize("radius", [1, 2, 4, 7])
def test_a_feathered_mask_is_what_pooling_makes_of_it(radius):
    generator = torch.Generator().manual_seed(radius)
    mask = torch.rand(2, 37, 50, 1, generator=generator) * (torch.rand(2, 37, 50, 1, generator=generator) > 0.99)
    mask[0, 10:20, 0:9] = 1.0
    assert torch.allclose(feather(mask, radius), pooled(mask, radius), atol=1e-6)


def test_beyond_the_rim_a_feathered_mask_is_exactly_zero_and_inside_exactly_one():
    mask = torch.zeros(1, 64, 64, 1)
    mask[:, 20:40, 20:40] = 1.0
    soft = feather(mask, 4)[0, :, :, 0]
    assert (soft[20:40, 20:40] == 1).all()
    assert (soft[:12] == 0).all()
    assert (soft[:, 48:] == 0).all()
    assert 0 < soft[30, 45] < 1
