"""The photometric losses in one pass against plain PyTorch."""

from __future__ import annotations

import pytest
import torch

from heads.photometric import PARTS, photometric, photometric_reference


def scene(height: int = 40, width: int = 36) -> list[torch.Tensor]:
    """Head, alpha, background, picture, matte, weight; one picture counts in a corner, one nowhere, one everywhere."""
    random = torch.Generator().manual_seed(0)
    alpha, matte = (torch.rand(3, height, width, generator=random) for _ in range(2))
    head = torch.rand(3, height, width, 3, generator=random) * alpha[..., None]
    picture = torch.rand(3, height, width, 3, generator=random)
    weight = torch.rand(3, height, width, generator=random)
    weight[0, 9:], weight[0, :, 20:] = 0, 0
    weight[1] = 0
    return [head, alpha[..., None], torch.rand(3, 3, generator=random), picture, matte, weight]


@pytest.mark.parametrize("part", PARTS)
def test_values_and_gradients_are_those_of_plain_pytorch(part):
    values, gradients = [], []
    for function in (photometric, photometric_reference):
        inputs = scene()
        leaves = [x.requires_grad_() for x in inputs[:2]]
        values.append(function(*inputs)[part])
        (3 * values[-1]).backward()
        gradients.append([torch.zeros_like(x) if x.grad is None else x.grad for x in leaves])
    assert torch.allclose(*values, rtol=1e-5)
    for ours, expected in zip(*gradients):
        assert torch.allclose(ours, expected, rtol=1e-3, atol=1e-7)
    assert gradients[1][1].abs().max() > 0


def test_pictures_that_count_nowhere_cost_nothing_and_pull_nowhere():
    inputs = scene()
    inputs[5] = torch.zeros_like(inputs[5])
    head = inputs[0].requires_grad_()
    parts = photometric(*inputs)
    sum(parts.values()).backward()
    assert [value.item() for value in parts.values()] == [0, 0, 0]
    assert head.grad.abs().max() == 0


def test_a_picture_smaller_than_the_window_is_compared_too():
    inputs = [x[:, :8, :8] if x.dim() > 2 else x for x in scene()]
    got, expected = photometric(*inputs), photometric_reference(*inputs)
    assert all(torch.equal(got[name], expected[name]) for name in PARTS)
