"""Each measure against a value known beforehand, or against a reference implementation."""

from __future__ import annotations

import numpy as np
import pytest

from adapt.evaluate import metrics


@pytest.fixture
def pictures():
    rng = np.random.default_rng(0)
    real = rng.random((96, 96, 3)).astype(np.float32)
    return np.clip(real + 0.1 * rng.standard_normal(real.shape), 0, 1).astype(np.float32), real


def _face(frames=10):
    """Landmarks that obey no anatomy but are well spread, the same in every frame."""
    points = np.random.default_rng(1).uniform(100, 400, (1, 478, 3)).astype(np.float32)
    points[:, metrics.EYE_CORNERS, :2] = [[150, 200], [210, 200], [300, 200], [360, 200]]
    points[:, metrics.EYE_CORNERS, 2] = 0
    return np.repeat(points, frames, 0)


def test_psnr_of_a_constant_error_is_known():
    real = np.full((8, 8, 3), 0.5, np.float32)
    assert metrics.psnr(real + 0.1, real) == pytest.approx(20.0, abs=1e-3)


def test_psnr_under_a_mask_looks_nowhere_else():
    real = np.zeros((8, 8, 3), np.float32)
    picture, mask = real.copy(), np.zeros((8, 8), np.float32)
    picture[:4] = 1.0
    picture[4:] = 0.01
    mask[4:] = 1
    assert metrics.psnr(picture, real, mask) == pytest.approx(40.0, abs=1e-3)


def test_psnr_over_an_empty_mask_is_absent_not_perfect():
    real = np.zeros((8, 8, 3), np.float32)
    assert np.isnan(metrics.psnr(real, real, np.zeros((8, 8), np.float32)))


def test_ssim_equals_scikit_image(pictures):
    structural = pytest.importorskip("skimage.metrics").structural_similarity
    _, full = structural(
        *pictures,
        channel_axis=2,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=1,
        full=True,
    )
    assert np.abs(full.mean(-1) - metrics.ssim_map(*pictures)).max() < 1e-5


def test_flip_is_zero_for_equal_pictures_and_one_for_the_opposite(pictures):
    pytest.importorskip("flip_evaluator")
    assert metrics.flip_map(pictures[1], pictures[1]).max() < 1e-4
    black, white = np.zeros((32, 32, 3), np.float32), np.ones((32, 32, 3), np.float32)
    assert metrics.flip_map(black, white).mean() == pytest.approx(1.0, abs=0.05)


def test_lmd_of_lips_moved_by_three_and_four_pixels_is_five():
    real = _face()
    found = real.copy()
    found[:, metrics.LIPS, :2] += (3, 4)
    assert metrics.lmd(found, real, 512, centred=False) == pytest.approx(5.0, abs=1e-4)
    assert metrics.lmd(found, real, 512) == pytest.approx(0.0, abs=1e-3)


def test_lmd_is_given_at_512_whatever_the_size():
    real = _face()
    found = real.copy()
    found[:, metrics.LIPS[0], 0] += 8
    assert metrics.lmd(found, real, 256) == pytest.approx(2 * metrics.lmd(found, real, 512))


def test_action_units_do_not_depend_on_size_and_place():
    real = _face()
    assert metrics.action_unit_error(2 * real + 30, real, metrics.LOWER_UNITS) == pytest.approx(0.0, abs=1e-3)


def test_an_open_mouth_is_an_error_of_the_lower_face_alone():
    real = _face()
    found = real.copy()
    found[:, 14, 1] += 10
    assert metrics.action_unit_error(found, real, metrics.LOWER_UNITS) > 0.1
    assert metrics.action_unit_error(found, real, metrics.UPPER_UNITS) == pytest.approx(0.0, abs=1e-6)


def test_lip_gap_counts_eye_distances():
    face = _face(1)
    face[:, 13] = (250, 300, 0)
    face[:, 14] = (250, 315, 0)
    assert metrics.lip_gap(face)[0] == pytest.approx(15 / 150, rel=1e-4)


def test_jitter_is_one_for_the_real_motion_and_two_for_twice_its_acceleration():
    wave = np.sin(np.arange(40) * 1.1)[:, None]
    real, found = _face(40), _face(40)
    real[..., 0] += wave
    found[..., 0] += 2 * wave
    assert metrics.jitter(real, real)[0] == pytest.approx(1.0)
    assert metrics.jitter(found, real)[0] == pytest.approx(2.0, rel=1e-3)


def test_lip_jitter_does_not_see_the_head_move():
    real = _face(40)
    real[:, metrics.LIPS, 1] += np.sin(np.arange(40))[:, None]
    found = real.copy()
    found[..., :2] += 5 * np.sin(np.arange(40) * 2.0)[:, None, None]
    head, lips = metrics.jitter(found, real)
    assert head > 3
    assert lips == pytest.approx(1.0, abs=0.02)


def test_a_seam_counts_only_where_the_head_ends():
    real = np.full((64, 64, 3), 0.5, np.float32)
    head = np.zeros((64, 64), np.float32)
    head[:, :32] = 1
    seamed, blurred = real.copy(), real.copy()
    seamed[:, :32] += 0.1
    blurred += 0.1
    assert metrics.seam_error(seamed, real, head) > 3
    assert metrics.seam_error(blurred, real, head) == pytest.approx(0.0, abs=1e-4)


def test_means_leave_out_frames_without_a_value():
    scores = metrics.FrameScores()
    scores.add(psnr_mouth=30.0)
    scores.add(psnr_mouth=float("nan"))
    scores.add(psnr_mouth=32.0)
    assert scores.means() == {"psnr_mouth": 31.0}
