"""Expression- and pose-dependent residuals of low rank."""

import pytest
import torch

from heads.person.residual import LowRankResidual


def test_a_new_residual_is_zero_and_has_a_gradient():
    residual = LowRankResidual(40, 3, inputs=11)
    out = residual(torch.randn(11))
    assert out.shape == (40, 3)
    assert not out.any()
    (out - 1).square().sum().backward()
    assert residual.basis.grad.abs().sum() > 0


def test_it_learns_a_colour_that_follows_the_expression():
    torch.manual_seed(0)
    residual, vectors = LowRankResidual(10, 3, inputs=8), torch.randn(32, 8)
    target = 0.1 * vectors[:, :1, None].expand(32, 10, 3)
    residual.net.calibrate(vectors)
    optimizer = torch.optim.Adam(residual.parameters(), lr=1e-2)
    for _ in range(200):
        loss = (residual(vectors) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 1e-4


def test_inputs_far_outside_training_change_no_more_than_the_farthest_ones():
    residual = LowRankResidual(4, 3, inputs=2)
    with torch.no_grad():
        residual.basis.normal_()
    residual.net.calibrate(torch.randn(50, 2))
    torch.testing.assert_close(residual(torch.tensor([1e3, 0.0])), residual(torch.tensor([1e6, 0.0])))
    assert torch.isfinite(residual(torch.tensor([float("nan"), float("inf")]))).all()


def test_batches_equal_single_frames_and_wrong_shapes_are_told():
    residual = LowRankResidual(7, 3, inputs=9)
    with torch.no_grad():
        residual.basis.normal_()
    vectors = torch.randn(4, 9)
    torch.testing.assert_close(residual(vectors)[2], residual(vectors[2]))
    with pytest.raises(ValueError, match=r"expected shape \[..., 9\]"):
        residual(vectors[:, :8])
