"""Rotations and projection against scipy and against values known beforehand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from heads.geometry import camera, rotation


def random_matrices(count: int, seed: int = 0) -> np.ndarray:
    return Rotation.random(count, random_state=seed).as_matrix()


def test_quaternions_agree_with_scipy_and_invert():
    matrices = torch.from_numpy(random_matrices(200))
    quats = rotation.quaternions(matrices)
    torch.testing.assert_close(rotation.quaternion_matrices(quats), matrices)
    theirs = torch.from_numpy(Rotation.from_matrix(matrices.numpy()).as_quat(scalar_first=True))
    torch.testing.assert_close((quats * theirs).sum(-1).abs(), torch.ones(200, dtype=torch.float64))


def test_a_product_of_quaternions_turns_by_the_second_first():
    p, q = (rotation.quaternions(torch.from_numpy(random_matrices(20, seed))) for seed in (1, 2))
    both = rotation.quaternion_matrices(rotation.quaternion_product(p, q))
    torch.testing.assert_close(both, rotation.quaternion_matrices(p) @ rotation.quaternion_matrices(q))


def test_gaze_takes_straight_ahead_to_yaw_and_pitch():
    ahead = torch.tensor([0.0, 0.0, -1.0])
    right, down = rotation.gaze_rotation(torch.tensor([[0.3, 0.0], [0.0, 0.3]])) @ ahead
    torch.testing.assert_close(right, torch.tensor([np.sin(0.3), 0, -np.cos(0.3)], dtype=torch.float32))
    torch.testing.assert_close(down, torch.tensor([0, np.sin(0.3), -np.cos(0.3)], dtype=torch.float32))


def test_euler_angles_invert_and_turn_the_nose_as_documented():
    angles = np.random.default_rng(0).uniform(-1, 1, (50, 3))
    matrices = rotation.euler_to_rotation(*angles.T)
    np.testing.assert_allclose(rotation.rotation_to_euler(matrices), angles, atol=1e-6)
    nose = np.array([0.0, 0.0, -1.0])
    assert (rotation.euler_to_rotation(0.5, 0, 0)[0] @ nose)[0] > 0
    assert (rotation.euler_to_rotation(0, 0.5, 0)[0] @ nose)[1] > 0
    # Clockwise in the picture: what points right then points down.
    assert (rotation.euler_to_rotation(0, 0, 0.5)[0] @ [1.0, 0, 0])[1] > 0


def test_angles_between_rotations_are_those_that_were_turned():
    matrices = rotation.euler_to_rotation(np.array([0.0, 0.4]), 0.0, 0.0)
    np.testing.assert_allclose(rotation.angles_to_frontal(matrices), [0, 0.4], atol=1e-6)
    np.testing.assert_allclose(rotation.relative_angles(matrices, matrices[1]), [0.4, 0], atol=1e-3)


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_projection_puts_a_point_where_the_pinhole_does(kind):
    intrinsics = camera.intrinsics_for(100.0)
    points, turn = np.array([[[0.0, 0, 0], [0.5, -0.25, 0]]], np.float32), np.eye(3, dtype=np.float32)[None]
    shift = np.array([[0.0, 0.0, 10.0]], np.float32)
    if kind == "torch":
        points, turn, shift, intrinsics = (torch.from_numpy(x) for x in (points, turn, shift, intrinsics))
    pixels, depths = camera.project(points, turn, shift, intrinsics)
    np.testing.assert_allclose(pixels[0], [[50, 50], [70, 40]], atol=1e-4)
    np.testing.assert_allclose(depths, [[10, 10]])


def test_points_behind_the_camera_stay_finite():
    pixels, depths = camera.project(
        torch.zeros(1, 1, 3), torch.eye(3)[None], torch.tensor([[1.0, 0, -5]]), torch.eye(3)[None]
    )
    assert torch.isfinite(pixels).all()
    assert float(depths) == pytest.approx(camera.NEAREST)


def test_landmarks_survive_the_way_to_the_camera_and_back():
    rng = np.random.default_rng(0)
    landmarks = np.concatenate([rng.uniform(0, 256, (4, 30, 2)), rng.uniform(-40, 40, (4, 30, 1))], -1)
    landmarks[..., 2] -= landmarks[..., 2].mean(-1, keepdims=True)
    intrinsics = camera.intrinsics_for(256).astype(np.float64)
    points = camera.landmarks_to_camera(landmarks, intrinsics)
    np.testing.assert_allclose(camera.camera_to_landmarks(points, intrinsics), landmarks, atol=1e-9)
    np.testing.assert_allclose(camera.camera_to_landmarks(points, intrinsics, np.ones(4)), landmarks, atol=1e-9)


def test_the_view_of_a_part_shows_the_same_pixels_shifted():
    intrinsics = torch.from_numpy(camera.intrinsics_for(100.0))
    part = camera.view_intrinsics(intrinsics, (100, 100), (200, 200), (30, 20))
    points = torch.tensor([[0.1, 0.2, 2.0]])
    whole, cut = camera.to_pixels(points, intrinsics), camera.to_pixels(points, part)
    torch.testing.assert_close(cut, whole * 2 - torch.tensor([20.0, 30.0]))


@pytest.mark.parametrize("size", [0.0, 1e-5, 0.01, 1.0, 3.0])
def test_turns_on_accelerators_have_the_gradient_of_autograd(size):
    vector = size * torch.randn(2, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weight = torch.randn(2, 5, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    gradients = []
    for turn in (rotation._Turn.apply, rotation.rotation_matrix):
        leaf = vector.clone().requires_grad_()
        (turn(leaf) * weight).sum().backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-6)
