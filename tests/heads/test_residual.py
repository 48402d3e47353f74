"""Expression- and pose-dependent colour."""

import pytest
import torch

from heads.person.residual import ColorMLP, LowRankResidual


def test_new_colours_are_the_base_colours_and_have_a_gradient():
    color, base = ColorMLP(40, expression=5), torch.rand(40, 3)
    out = color(base, torch.randn(5), torch.randn(6))
    assert torch.equal(out, base)
    (out - 1).square().sum().backward()
    assert color.basis.grad.abs().sum() > 0


def test_it_learns_a_colour_that_follows_the_expression():
    torch.manual_seed(0)
    color, base = ColorMLP(10, expression=2), torch.full((10, 3), 0.5)
    expressions, pose = torch.randn(32, 2), torch.zeros(32, 6)
    target = base + 0.1 * expressions[:, :1, None]
    color.net.calibrate(torch.cat([expressions, pose], dim=-1))
    optimizer = torch.optim.Adam(color.parameters(), lr=1e-2)
    for _ in range(200):
        loss = (color(base, expressions, pose) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 1e-4


def test_conditions_far_outside_training_change_no_more_than_the_farthest_ones():
    residual = LowRankResidual(4, 3, conditions=2)
    with torch.no_grad():
        residual.basis.normal_()
    residual.net.calibrate(torch.randn(50, 2))
    torch.testing.assert_close(residual(torch.tensor([1e3, 0.0])), residual(torch.tensor([1e6, 0.0])))
    assert torch.isfinite(residual(torch.tensor([float("nan"), float("inf")]))).all()


def test_batches_equal_single_frames_and_wrong_shapes_are_told():
    color = ColorMLP(7, expression=3)
    with torch.no_grad():
        color.basis.normal_()
    base, expression, pose = torch.rand(7, 3), torch.randn(4, 3), torch.randn(4, 6)
    batch = color(base, expression, pose)
    torch.testing.assert_close(batch[2], color(base, expression[2], pose[2]))
    with pytest.raises(ValueError, match=r"expected shape \[..., 7, 3\]"):
        color(torch.rand(8, 3), expression, pose)
    with pytest.raises(ValueError, match=r"expected shape \[..., 9\]"):
        color(base, expression[:, :2], pose)
