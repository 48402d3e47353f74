"""Each measure against a value known beforehand, or against a reference implementation."""

from __future__ import annotations

import numpy as np
import pytest

from adapt.evaluate.measures import Frame, Measure, Tools, Tracks
from adapt.evaluate.measures.action_units import action_unit_error
from adapt.evaluate.measures.flip import flip_map
from adapt.evaluate.measures.jitter import jitter
from adapt.evaluate.measures.lmd import lmd
from adapt.evaluate.measures.psnr import Psnr
from adapt.evaluate.measures.registry import columns, measures
from adapt.evaluate.measures.seam import seam_error
from adapt.evaluate.measures.ssim import ssim_map
from heads.measures.closure import closure_f1, closures
from heads.measures.face import lip_gap
from heads.measures.image import psnr
from heads.rig.facemesh import EYE_CORNERS, LIPS, LOWER_UNITS, UPPER_UNITS


@pytest.fixture
def pictures():
    rng = np.random.default_rng(0)
    real = rng.random((96, 96, 3)).astype(np.float32)
    return np.clip(real + 0.1 * rng.standard_normal(real.shape), 0, 1).astype(np.float32), real


def _face(frames=10):
    """Landmarks that obey no anatomy but are well spread, the same in every frame."""
    points = np.random.default_rng(1).uniform(100, 400, (1, 478, 3)).astype(np.float32)
    points[:, EYE_CORNERS, :2] = [[150, 200], [210, 200], [300, 200], [360, 200]]
    points[:, EYE_CORNERS, 2] = 0
    return np.repeat(points, frames, 0)


def test_psnr_of_a_constant_error_is_known():
    real = np.full((8, 8, 3), 0.5, np.float32)
    assert psnr(real + 0.1, real) == pytest.approx(20.0, abs=1e-3)


def test_psnr_under_a_mask_looks_nowhere_else():
    real = np.zeros((8, 8, 3), np.float32)
    picture, mask = real.copy(), np.zeros((8, 8), np.float32)
    picture[:4] = 1.0
    picture[4:] = 0.01
    mask[4:] = 1
    assert psnr(picture, real, mask) == pytest.approx(40.0, abs=1e-3)


def test_psnr_over_an_empty_mask_is_absent_not_perfect():
    real = np.zeros((8, 8, 3), np.float32)
    assert np.isnan(psnr(real, real, np.zeros((8, 8), np.float32)))


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
    assert np.abs(full.mean(-1) - ssim_map(*pictures)).max() < 1e-5


def test_flip_is_zero_for_equal_pictures_and_one_for_the_opposite(pictures):
    pytest.importorskip("flip_evaluator")
    assert flip_map(pictures[1], pictures[1]).max() < 1e-4
    black, white = np.zeros((32, 32, 3), np.float32), np.ones((32, 32, 3), np.float32)
    assert flip_map(black, white).mean() == pytest.approx(1.0, abs=0.05)


def test_lmd_of_lips_moved_by_three_and_four_pixels_is_five():
    real = _face()
    found = real.copy()
    found[:, LIPS, :2] += (3, 4)
    assert lmd(found, real, 512, centred=False) == pytest.approx(5.0, abs=1e-4)
    assert lmd(found, real, 512) == pytest.approx(0.0, abs=1e-3)


def test_lmd_is_given_at_512_whatever_the_size():
    real = _face()
    found = real.copy()
    found[:, LIPS[0], 0] += 8
    assert lmd(found, real, 256) == pytest.approx(2 * lmd(found, real, 512))


def test_action_units_do_not_depend_on_size_and_place():
    real = _face()
    assert action_unit_error(2 * real + 30, real, LOWER_UNITS) == pytest.approx(0.0, abs=1e-3)


def test_an_open_mouth_is_an_error_of_the_lower_face_alone():
    real = _face()
    found = real.copy()
    found[:, 14, 1] += 10
    assert action_unit_error(found, real, LOWER_UNITS) > 0.1
    assert action_unit_error(found, real, UPPER_UNITS) == pytest.approx(0.0, abs=1e-6)


def test_lip_gap_counts_eye_distances():
    face = _face(1)
    face[:, 13] = (250, 300, 0)
    face[:, 14] = (250, 315, 0)
    assert lip_gap(face)[0] == pytest.approx(15 / 150, rel=1e-4)


def test_jitter_is_one_for_the_real_motion_and_two_for_twice_its_acceleration():
    wave = np.sin(np.arange(40) * 1.1)[:, None]
    real, found = _face(40), _face(40)
    real[..., 0] += wave
    found[..., 0] += 2 * wave
    assert jitter(real, real)[0] == pytest.approx(1.0)
    assert jitter(found, real)[0] == pytest.approx(2.0, rel=1e-3)


def test_lip_jitter_does_not_see_the_head_move():
    real = _face(40)
    real[:, LIPS, 1] += np.sin(np.arange(40))[:, None]
    found = real.copy()
    found[..., :2] += 5 * np.sin(np.arange(40) * 2.0)[:, None, None]
    head, lips = jitter(found, real)
    assert head > 3
    assert lips == pytest.approx(1.0, abs=0.02)


def test_a_seam_counts_only_where_the_head_ends():
    real = np.full((64, 64, 3), 0.5, np.float32)
    head = np.zeros((64, 64), np.float32)
    head[:, :32] = 1
    seamed, blurred = real.copy(), real.copy()
    seamed[:, :32] += 0.1
    blurred += 0.1
    assert seam_error(seamed, real, head) > 3
    assert seam_error(blurred, real, head) == pytest.approx(0.0, abs=1e-4)


def tracks(found, real, valid=None) -> Tracks:
    """Landmarks as measures get them, of frames 512 px wide without sound."""
    valid = np.ones(len(real), bool) if valid is None else valid
    return Tracks(found, real, valid, 512, "the clip has no sound", "the clip has no sound")


def test_means_leave_out_frames_without_a_value():
    measure = Psnr(Tools(detect=None))
    real = np.zeros((64, 64, 3), np.uint8)
    masks = {name: np.ones((64, 64), np.float32) for name in ("face", "head")}
    for number, (value, inside) in enumerate(((10, 1.0), (20, 0.0), (10, 1.0))):
        frame = Frame(number, np.full_like(real, value), real, {**masks, "mouth_inside": inside * masks["face"]})
        measure.add(frame)
    face = _face(3)
    expected = -20 * np.log10(10 / 255)
    assert measure.result(tracks(face, face))["psnr_mouth"] == pytest.approx(expected, abs=1e-3)


def test_a_mouth_that_stays_closed_is_said_to():
    measure = Psnr(Tools(detect=None))
    face = _face(3)
    assert "closed in every test frame" in measure.result(tracks(face, face))["psnr_mouth"]


def gaps(*values: float) -> np.ndarray:
    """Faces whose inner lips are so many eye distances apart."""
    face = _face(len(values))
    face[:, 13], face[:, 14] = (250, 300, 0), (250, 300, 0)
    face[:, 14, 1] += 150 * np.array(values)
    return face


def test_closures_are_runs_of_frames_with_the_lips_together():
    assert closures(np.array([0.1, 0.01, 0.0, 0.1, 0.01])) == [(1, 3), (4, 5)]
    assert closures(np.array([0.1, 0.1])) == []


def test_a_closure_is_met_within_one_frame_and_not_within_three():
    open_, shut = 0.2, 0.0
    real = np.array([open_] * 4 + [shut] + [open_] * 8)
    assert closure_f1(np.roll(real, 1), real) == 1.0
    assert closure_f1(np.roll(real, 3), real) == 0.0
    assert closure_f1(np.full(13, open_), real) == 0.0
    assert closure_f1(real, np.full(13, open_)) is None


def test_lips_that_never_open_meet_every_closure_and_are_wrong_in_most_frames():
    real = np.full(30, 0.2)
    real[10] = 0.0
    # All closures are met, by 3 right frames of 30.
    assert closure_f1(np.zeros(30), real) == pytest.approx(2 * 0.1 / 1.1)


def test_a_mouth_that_opens_with_the_real_one_correlates_whatever_its_amplitude():
    (mouth,) = (measure for measure in measures() if "opening_r" in measure.columns)
    real = gaps(0.0, 0.1, 0.3, 0.2, 0.0)
    found = gaps(0.05, 0.1, 0.2, 0.15, 0.05)
    result = mouth(Tools(detect=None)).result(tracks(found, real))
    assert result["opening_r"] == pytest.approx(1.0, abs=1e-3)
    assert 0 <= result["closure_f1"] <= 1


def test_every_column_of_every_measure_is_a_number_or_a_sentence():
    face = _face(30)
    for measure in measures():
        assert issubclass(measure, Measure)
        result = measure(Tools(detect=None)).result(tracks(face, face))
        assert measure.columns.keys() <= result.keys()
        assert all(isinstance(value, (float, int)) or len(value) > 8 for value in result.values())


def test_no_column_is_given_twice_and_their_order_is_that_of_the_table():
    assert list(columns())[:4] == ["psnr", "psnr_face", "psnr_head", "psnr_mouth"]
    assert sum(len(measure.columns) for measure in measures()) == len(columns())
