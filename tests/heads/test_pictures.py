"""Composition and picture loss as kernels: what plain PyTorch gives, values and gradients."""

from __future__ import annotations

import pytest
import torch

from heads.pictures import over, picture_loss, picture_loss_reference


@pytest.fixture
def pictures():
    torch.manual_seed(0)
    shapes = {"image": 3, "target": 3, "weight": 1}
    return [torch.rand(2, 24, 29, channels) for channels in shapes.values()]


@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
def test_the_kernels_give_value_and_gradient_of_the_reference(pictures, share):
    image, target, weight = pictures
    weight[0, :5] = 0
    gradients = []
    for loss in (picture_loss, picture_loss_reference):
        moving = image.clone().requires_grad_()
        value = 3 * loss(moving, target, weight, share)
        value.backward()
        gradients.append((value.detach(), moving.grad))
    (ours, v_ours), (theirs, v_theirs) = gradients
    assert torch.isclose(ours, theirs, rtol=1e-5)
    assert v_theirs.abs().max() > 0
    assert torch.allclose(v_ours, v_theirs, rtol=1e-4, atol=1e-7)


def test_weights_of_zero_give_no_loss_and_no_gradient(pictures):
    image, target, weight = pictures
    moving = image.requires_grad_()
    value = picture_loss(moving, target, torch.zeros_like(weight), 0.2)
    value.backward()
    assert value == 0
    assert not moving.grad.any()


def test_a_picture_smaller_than_a_window_is_compared_too():
    image, target, weight = torch.full((1, 7, 7, 3), 0.75), torch.full((1, 7, 7, 3), 0.5), torch.ones(1, 7, 7, 1)
    assert picture_loss(image, target, weight, 0.0) == 0.25
    assert picture_loss(image, image, weight, 0.2) == 0


@pytest.mark.parametrize("learned", [True, False])
def test_a_head_over_a_picture_is_composed_with_the_right_gradients(pictures, learned):
    color, behind, alpha = (p.clone().requires_grad_(learned or p.shape[-1] == 1) for p in pictures)
    upstream = torch.rand_like(color)
    image = over(color, alpha, behind)
    expected = color + (1 - alpha) * behind
    assert torch.allclose(image, expected)
    wanted = [t for t in (color, alpha, behind) if t.requires_grad]
    ours = torch.autograd.grad(image, wanted, upstream)
    theirs = torch.autograd.grad(expected, wanted, upstream)
    assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-7) for a, b in zip(ours, theirs, strict=True))
