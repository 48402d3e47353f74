"""The forward pass of a frozen head: the module's pictures to rounding, whatever the head consists of, and never a stale one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from heads.geometry.rotation import (
    euler_matrix,
    euler_to_rotation,
    gaze_matrix,
    gaze_rotation,
    rotation_matrix,
    rotation_vector,
    turn_matrix,
    turn_vectors,
)
from heads.person.backdrop import Backdrop
from heads.person.inference import BackdropInference, Frozen, HeadInference
from heads.person.inputs import TRACK_CONTEXT, behind_of, head_inputs, pose_vectors, row_vectors, window_inputs
from heads.person.talking_head import HeadConfig, TalkingHead
from heads.raster import frozen, threads
from heads.raster.kernels.layering import to_bytes
from heads.rig import load_rig

SIZE = 72  # no multiple of a tile's sides
PARTS = {"resolution": 28, "color_rank": 3, "offset_rank": 3, "correction_rank": 4, "hidden": 8}


@pytest.fixture(scope="module")
def rig():
    return load_rig("mediapipe")


def make_track(rig, frames=8):
    random = np.random.default_rng(1)
    angles = random.normal(0, 0.2, (3, frames))
    return {
        "rotation": euler_to_rotation(*angles),
        "translation": np.array([0, -0.2, 20], np.float32) + random.normal(0, 0.3, (frames, 3)).astype(np.float32),
        "intrinsics": np.array([[4 * SIZE, 0, SIZE / 2], [0, 4 * SIZE, SIZE / 2], [0, 0, 1]], np.float32),
        "identity": random.normal(0, 1, rig.n_identity).astype(np.float32),
        "expression": random.normal(0, 1, (frames, rig.n_expression)).astype(np.float32),
        "eyelids": random.uniform(0, 1, (frames, 2)).astype(np.float32),
        "gaze": random.normal(0, 0.2, (frames, 2, 2)).astype(np.float32),
    }


def make_head(rig, track, basis=False, **parts):
    torch.manual_seed(0)
    head = TalkingHead(rig, torch.from_numpy(track["identity"]), SIZE, SIZE, HeadConfig(**{**PARTS, **parts}))
    head.calibrate(track)
    if basis:
        shared = head.add_appearance_basis(3, 50)
        shared.row.copy_(torch.randint(0, 51, (head.n,)))
    with torch.no_grad():
        for name, value in head.named_parameters():
            if name.endswith("basis") or name.startswith(("backdrop", "color", "quats", "offsets")):
                value.add_(0.1 * torch.randn_like(value))
    return head.eval().requires_grad_(False)


@pytest.mark.parametrize(
    "parts",
    [{}, {"basis": True}, {"color_rank": 0, "offset_rank": 0, "correction_rank": 0, "body": False}, {"hidden": 0}],
    ids=["all", "basis", "bare", "linear"],
)
def test_the_fused_pass_gives_the_modules_pictures(rig, parts, monkeypatch):
    monkeypatch.setattr(frozen, "ENOUGH", 0.0)
    track = make_track(rig)
    head = make_head(rig, track, **parts)
    inputs, fast = head.inputs(track), HeadInference(head)
    with torch.no_grad():
        for i in range(len(inputs)):
            expected = head.render(inputs, i, background=None)
            color, alpha = fast(inputs, i, track["intrinsics"])
            # A Gaussian that crosses a threshold (alpha 1/255, a finished pixel) by rounding shows at single pixels.
            for got, want in ((color, expected.head.numpy()), (alpha, expected.alpha.numpy())):
                assert np.abs(got - want).max() < 2e-2
                assert np.quantile(np.abs(got - want), 0.995) < 1e-4, "bases of 16 bits: a fortieth of a grey level"
            assert alpha.max() > 0.9


def test_what_lies_behind_almost_opaque_pixels_changes_less_than_half_a_step_of_eight_bits(rig, monkeypatch):
    track = make_track(rig)
    head = make_head(rig, track)
    with torch.no_grad():
        head.opacities.add_(3.0)
    inputs, fast = head.inputs(track), HeadInference(head)
    color, alpha = fast(inputs, 0, track["intrinsics"])
    monkeypatch.setattr(frozen, "ENOUGH", 0.0)
    exact_color, exact_alpha = fast(inputs, 0, track["intrinsics"])
    change = np.abs(exact_alpha - alpha)
    assert change.max() > 1e-5, "some Gaussians are left out"
    assert change.max() <= 1 / 512
    brightest = np.abs(fast.colors(inputs.vectors[0].numpy())).max()
    assert np.abs(exact_color - color).max() <= brightest / 512 + 1e-6


def test_the_fused_layers_are_the_backdrop_under_the_head(rig):
    track = make_track(rig)
    head = make_head(rig, track)
    inputs, fast = head.inputs(track), BackdropInference(head.backdrop, SIZE, SIZE)
    with torch.no_grad():
        for i in range(4):
            frame, pose = head.render(inputs, i), pose_vectors(inputs.vectors[i])
            behind = head.backdrop(pose)
            assert np.abs(fast.alone(pose) - behind.clamp(0, 1).numpy()).max() < 1e-4
            under = fast.under(frame.head.numpy(), frame.alpha.numpy(), pose)
            assert np.abs(under - frame.image.clamp(0, 1).numpy()).max() < 1e-4
    moved = inputs.with_(body=0.05 * torch.randn(len(inputs), 6), background=0.05 * torch.randn(len(inputs), 6))
    with torch.no_grad():
        frame = head.render(moved, 1)
        under = fast.under(frame.head.numpy(), frame.alpha.numpy(), *behind_of(moved, 1))
        assert np.abs(under - frame.image.clamp(0, 1).numpy()).max() < 1e-4
        for name in ("body", "background"):
            other = head.render(moved.with_(**{name: None}), 1).image.clamp(0, 1)
            assert np.abs(under - other.numpy()).max() > 1e-3
        pose, body, background = behind_of(moved, 1)
        rows = fast.alone(pose, body, background, rows=(5, 20))
        np.testing.assert_array_equal(rows, fast.alone(pose, body, background)[5:20])
        np.testing.assert_array_equal(fast.alone(pose, body, head.backdrop.background_rest), fast.alone(pose, body))


@pytest.mark.parametrize("margin", [0, 1 / 8, 0.2])
@pytest.mark.parametrize("side", [72, 40])
def test_the_fused_body_has_any_margin_and_any_size(margin, side):
    backdrop = Backdrop(72, 72, inputs=2, margin=margin)
    with torch.no_grad():
        for parameter in backdrop.parameters():
            torch.nn.init.uniform_(parameter)
        backdrop.bend.weight.sub_(0.5).mul_(0.4)
        pose = torch.tensor([0.7, -0.4])
        shown = BackdropInference(backdrop, side, side).alone(pose)
        assert np.abs(shown - backdrop(pose, side, side).clamp(0, 1).numpy()).max() < 1e-4


def test_pictures_are_the_same_bits_for_any_number_of_threads(rig):
    track = make_track(rig, 1)
    head = make_head(rig, track, resolution=140)
    inputs, fast = head.inputs(track), HeadInference(head)
    pictures = []
    for count in (1, 2, 3):
        threads.set_num_threads(count)
        try:
            with torch.no_grad():
                pictures.append(fast(inputs, 0, track["intrinsics"])[0])
        finally:
            threads.set_num_threads(None)
    assert np.array_equal(pictures[0], pictures[1])
    assert np.array_equal(pictures[0], pictures[2])


def test_sessions_that_share_a_head_get_the_pictures_of_one_alone(rig):
    """Two live sessions render one avatar at the same time."""
    track = make_track(rig)
    head = make_head(rig, track, resolution=140)
    inputs, fast = head.inputs(track), HeadInference(head)

    def picture(i: int) -> np.ndarray:
        with torch.no_grad():
            return fast(inputs, i, track["intrinsics"])[0]

    alone = [picture(i) for i in range(8)]
    with ThreadPoolExecutor(4) as pool:
        for i, got in zip([*range(8)] * 8, pool.map(picture, [*range(8)] * 8)):
            assert np.array_equal(got, alone[i])


def test_what_is_trained_is_never_taken_from_the_kernels_and_a_change_makes_them_anew(rig):
    head = make_head(rig, make_track(rig))
    watched = Frozen(head, lambda: HeadInference(head))
    assert watched.made() is None  # gradients are on
    with torch.no_grad():
        first = watched.made()
        assert first is not None
        assert watched.made() is first
        head.colors.add_(0.1)
        second = watched.made()
        assert second is not first
        head.colors.requires_grad_(True)
        assert watched.made() is None
        head.colors.requires_grad_(False)
        head.train()
        assert watched.made() is None


def test_the_inputs_of_a_window_are_those_of_the_track(rig):
    track = make_track(rig, 12)
    window = {name: track[name] for name in ("rotation", "translation", "expression", "eyelids", "gaze")}
    fast = window_inputs({**window, "vectors": row_vectors(window)}, TRACK_CONTEXT)
    slow = head_inputs(window, cut=TRACK_CONTEXT)
    assert len(fast) == len(slow) == 4
    torch.testing.assert_close(fast.vectors, slow.vectors, atol=1e-6, rtol=0)
    assert torch.equal(fast.rotation, slow.rotation)
    assert torch.equal(fast.gaze, slow.gaze)


def test_rotations_of_one_frame_are_those_of_many():
    angles = np.random.default_rng(0).normal(size=(20, 3))
    matrices = euler_to_rotation(*angles.T)
    assert np.array_equal(np.stack([euler_matrix(*row) for row in angles]), matrices)
    assert np.abs(turn_vectors(matrices) - rotation_vector(torch.from_numpy(matrices)).numpy()).max() < 1e-5
    for row in [*angles.astype(np.float32), np.zeros(3, np.float32)]:
        assert np.abs(turn_matrix(row) - rotation_matrix(torch.from_numpy(row)).numpy()).max() < 1e-6
        assert np.abs(gaze_matrix(*row[:2]) - gaze_rotation(torch.from_numpy(row[:2])).numpy()).max() < 1e-6


def test_bytes_are_rounded_as_numpy_rounds_them():
    values = np.linspace(-0.2, 1.2, 100_001, dtype=np.float32)
    out = np.empty(len(values), np.uint8)
    to_bytes(values, out)
    assert np.array_equal(out, (np.clip(values, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8))
