"""The layers' kernels against PyTorch's operators: values and gradients, and what is left to PyTorch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heads.raster import threads
from pretrain.expression_visual.fused import layers
from pretrain.expression_visual.fused.layers import by_tiles, convolved, normalised


def pictures(*shape: int, seed: int = 0) -> Tensor:
    """``[B, C, H, W]`` with C last in memory."""
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return values.to(memory_format=torch.channels_last).requires_grad_()


def convolution(before: int, after: int) -> nn.Conv2d:
    torch.manual_seed(1)
    return nn.Conv2d(before, after, 3, padding=1)


def normalisation(channels: int) -> nn.GroupNorm:
    torch.manual_seed(2)
    norm = nn.GroupNorm(8, channels)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm


def differentiated(function: Callable[[], Tensor], *leaves: Tensor) -> list[Tensor]:
    """Value and gradients, each as a share of its largest entry."""
    value = function()
    upstream = torch.randn(value.shape, generator=torch.Generator().manual_seed(3))
    return [value.detach(), *torch.autograd.grad(value, leaves, upstream)]


def same(one: list[Tensor], other: list[Tensor], within: float) -> bool:
    return all(a.shape == b.shape and float((a - b).abs().max() / b.abs().max()) < within for a, b in zip(one, other))


@pytest.mark.parametrize(("shape", "after"), [((3, 8, 16, 8), 16), ((2, 32, 12, 20), 32), ((5, 16, 8, 8), 8)])
def test_a_convolution_by_tiles_is_pytorchs(shape, after):
    x, layer = pictures(*shape), convolution(shape[1], after)
    assert by_tiles(x.shape, layer.weight.shape)
    leaves = (x, layer.weight, layer.bias)
    found = differentiated(lambda: convolved(x, layer), *leaves)
    assert same(found, differentiated(lambda: layer(x), *leaves), 2e-5)


def test_pictures_that_do_not_divide_into_tiles_and_few_pixels_for_many_channels_go_through_pytorch():
    for shape, after in (((2, 8, 6, 8), 8), ((2, 4, 8, 8), 8), ((1, 8, 8, 8), 12), ((1, 64, 4, 4), 64)):
        x, layer = pictures(*shape), convolution(shape[1], after)
        assert not by_tiles(x.shape, layer.weight.shape)
        assert torch.equal(convolved(x, layer), layer(x))


@pytest.mark.parametrize("skipped", [False, True])
def test_a_normalisation_with_its_activation_is_pytorchs(monkeypatch, skipped):
    monkeypatch.setattr(layers, "FEW", 0)
    for shape, offset in (((3, 16, 5, 7), 0.0), ((2, 32, 16, 16), 20.0)):
        x, skip, norm = pictures(*shape), pictures(*shape, seed=5), normalisation(shape[1])
        leaves = (x, norm.weight, norm.bias, *((skip,) if skipped else ()))
        kept = skip if skipped else None
        found = differentiated(lambda: normalised(x + offset, norm, kept), *leaves)  # noqa: B023
        expected = differentiated(lambda: F.silu(norm(x + offset)) + (skip if skipped else 0.0), *leaves)  # noqa: B023
        assert same(found, expected, 1e-4 if offset else 1e-5)


def test_two_threads_give_the_bits_of_one():
    x, layer, norm = pictures(3, 16, 32, 64), convolution(16, 16), normalisation(16)
    leaves = (x, layer.weight, layer.bias, norm.weight, norm.bias)
    found = []
    try:
        for count in (1, 2):
            threads.set_num_threads(count)
            found.append(differentiated(lambda: normalised(convolved(x, layer), norm), *leaves))
    finally:
        threads.set_num_threads(None)
    assert all(torch.equal(one, two) for one, two in zip(*found))
