"""What drives a head: rotation vectors, neighbourhoods, drives; and the backdrop that follows the pose."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from heads.backdrop import Backdrop
from heads.conditions import make_drive, neighbourhood, rotation_matrix, rotation_vector


def track(frames=6, expressions=5):
    g = np.random.default_rng(0)
    return {
        "rotation": Rotation.random(frames, random_state=0).as_matrix().astype(np.float32),
        "translation": g.normal(size=(frames, 3)).astype(np.float32),
        "intrinsics": np.diag([256.0, 256.0, 1.0]).astype(np.float32),
        "expression": g.normal(size=(frames, expressions)).astype(np.float32),
        "eyelids": g.random((frames, 2)).astype(np.float32),
        "gaze": g.random((frames, 2, 2)).astype(np.float32),
    }


def test_rotation_vectors_agree_with_scipy_and_invert():
    rotations = Rotation.random(50, random_state=1)
    matrices = torch.from_numpy(rotations.as_matrix())
    torch.testing.assert_close(rotation_vector(matrices), torch.from_numpy(rotations.as_rotvec()), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(rotation_matrix(rotation_vector(matrices)), matrices, atol=1e-6, rtol=1e-6)


def test_rotations_are_smooth_at_zero():
    zero = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    assert torch.equal(rotation_matrix(zero), torch.eye(3, dtype=torch.float64))
    assert torch.autograd.gradcheck(rotation_matrix, (zero,), atol=1e-5)
    tiny = torch.tensor([1e-5, -2e-5, 3e-5])
    torch.testing.assert_close(rotation_vector(rotation_matrix(tiny)), tiny, atol=1e-7, rtol=1e-2)


def test_a_neighbourhood_holds_the_frame_and_the_means_around_it():
    rows = torch.arange(10.0)[:, None]
    out = neighbourhood(rows)
    assert out.shape == (10, 3)
    assert out[5].tolist() == [5, 5, 5]
    assert out[0].tolist() == [0, 0.5, 1.5]
    assert torch.equal(neighbourhood(rows[:1]), torch.zeros(1, 3))


def test_a_drive_depends_only_on_the_tracks_near_a_frame():
    full = track(20)
    part = {k: v if k == "intrinsics" else v[5:16] for k, v in full.items()}
    torch.testing.assert_close(make_drive(full).condition[10], make_drive(part).condition[5])


def test_a_drive_refuses_missing_and_uneven_entries():
    bad = track()
    bad["gaze"] = bad["gaze"][:3]
    with pytest.raises(ValueError, match="differ in frames"):
        make_drive(bad)
    del bad["gaze"]
    with pytest.raises(ValueError, match="no entry 'gaze'"):
        make_drive(bad)


def test_a_new_backdrop_stands_still_and_a_bent_one_moves_the_body_only():
    backdrop = Backdrop(40, 48, conditions=4)
    with torch.no_grad():
        backdrop.background.uniform_()
        backdrop.body.uniform_()
        backdrop.body_alpha.fill_(-30.0)
        backdrop.body_alpha[..., 20:, :] = 30.0
    still = backdrop(torch.zeros(4))
    torch.testing.assert_close(still[:19], backdrop.background[0].permute(1, 2, 0)[:19])
    torch.testing.assert_close(still[21:], backdrop.body[0].permute(1, 2, 0)[21:])
    assert torch.equal(backdrop(torch.randn(4)), still)
    with torch.no_grad():
        backdrop.bend.weight[: 9 * 9] = 1 / 48
    moved = backdrop(torch.tensor([1.0, 0.0, 0.0, 0.0]))
    torch.testing.assert_close(moved[22:, :-1], still[22:, 1:], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(moved[:18], still[:18])


def test_no_pose_bends_the_body_further_than_the_reach():
    backdrop = Backdrop(16, 16, conditions=2)
    torch.nn.init.normal_(backdrop.bend.weight)
    far, farther = (backdrop.displacement(torch.tensor([x, 0.0])) for x in (1e3, 1e6))
    assert torch.equal(far, farther)
    assert torch.isfinite(backdrop.displacement(torch.tensor([float("nan"), float("inf")]))).all()


def test_the_backdrop_starts_from_what_the_clip_shows():
    frames = np.full((3, 32, 32, 3), 50, np.uint8)
    mattes = np.zeros((3, 32, 32), np.uint8)
    frames[:, 16:], mattes[:, 16:] = 200, 255
    backdrop = Backdrop(32, 32, conditions=2)
    head = torch.zeros(3, 32, 32)
    head[:, 16:24, 12:20] = 1
    frames[:, 16:24, 12:20] = 7
    backdrop.initialise(frames, mattes, head, [0, 1, 2])
    picture = backdrop(torch.zeros(2)).detach() * 255
    assert (picture[:15] - 50).abs().max() < 4
    assert (picture[17:, :10] - 200).abs().max() < 8
    assert (backdrop.body[0, :, 18:22, 14:18] * 255 - 200).abs().max() < 8


def test_a_smaller_picture_is_the_same_view():
    backdrop = Backdrop(32, 32, conditions=2)
    with torch.no_grad():
        backdrop.background[..., :16] = 0.2
        backdrop.background[..., 16:] = 0.8
    small = backdrop(torch.zeros(2), 16, 16)
    assert small.shape == (16, 16, 3)
    assert abs(float(small[:, :6].mean()) - 0.2) < 0.02
