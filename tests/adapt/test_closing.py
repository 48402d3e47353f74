"""Lips that nearly meet are pressed, and what is far from meeting stays as it is."""

from __future__ import annotations

import numpy as np
import pytest

from adapt.drivers.closing import DOUBTFUL, FREE, NARROW, PRESSED, SHUT, SURE, LipClosing, pressed, pressed_where
from heads.measures.closure import TOGETHER
from heads.measures.face import lip_motion
from heads.rig import load_rig

RIG = load_rig()
WHO = np.zeros(RIG.n_identity, np.float32)


def talking(frames: int = 200) -> np.ndarray:
    """Expressions ``[T, K]`` of a mouth that opens and shuts along one direction of the rig, with a little else."""
    rng = np.random.default_rng(0)
    slope = np.array([lip_motion(RIG, WHO, row[None]).gap[0] for row in np.eye(RIG.n_expression, dtype=np.float32)])
    jaw = (slope - lip_motion(RIG, WHO, np.zeros((1, RIG.n_expression), np.float32)).gap[0]).astype(np.float32)
    jaw /= (jaw @ jaw) ** 0.5
    beat = 3 + 4 * np.sin(np.arange(frames) / 3.0)[:, None]
    return (beat * jaw + 0.05 * rng.standard_normal((frames, RIG.n_expression))).astype(np.float32)


def test_gaps_below_a_share_of_the_mean_are_pressed_without_a_jump():
    gap = np.linspace(-0.02, 0.3, 2000)
    found = pressed(gap, 0.1)
    assert np.all(found[gap < SHUT * 0.1] == PRESSED)
    assert np.array_equal(found[gap > FREE * 0.1], gap[gap > FREE * 0.1])
    assert np.all(np.diff(found) >= 0)
    assert np.diff(found).max() < 4 * np.diff(gap).max()


def test_a_flattened_motion_closes_its_lips_again():
    real = talking()
    closing = LipClosing.fit(RIG, WHO, real)
    flat = real.mean(0) + 0.5 * (real - real.mean(0))
    before, after = lip_motion(RIG, WHO, flat).gap, lip_motion(RIG, WHO, closing(flat)).gap
    shut = lip_motion(RIG, WHO, real).gap < TOGETHER
    assert before[shut].mean() > TOGETHER > after[shut].mean()
    wide = before > 1.2 * closing.mean
    assert wide.any()
    assert np.allclose(after[wide], before[wide], atol=1e-5)


def test_where_a_prior_hears_shut_lips_they_are_pressed_and_elsewhere_left_alone():
    closure = np.linspace(-0.5, 1, 400)
    at_rest = pressed_where(closure, np.full(400, 0.1), 0.1)
    assert np.all(at_rest[closure > SURE] == pytest.approx(PRESSED))
    assert np.all(at_rest[closure < DOUBTFUL] == 0.1)
    assert np.all(np.diff(at_rest) <= 0)
    assert np.abs(np.diff(at_rest)).max() < 0.005, "without a jump"
    almost = np.full(1, DOUBTFUL - NARROW / 2)
    assert pressed_where(almost, np.array([0.02]), 0.1) < 0.02, "a narrow gap counts as evidence"
    assert pressed_where(almost, np.array([0.2]), 0.1) == 0.2
    assert pressed_where(np.ones(1), np.array([-0.01]), 0.1) == -0.01, "never opened"
    real = talking()
    closing, flat = LipClosing.fit(RIG, WHO, real), real.mean(0) + 0 * real
    shut = lip_motion(RIG, WHO, real).gap < TOGETHER
    found = lip_motion(RIG, WHO, closing(flat, shut - shut.mean())).gap < TOGETHER
    assert np.array_equal(found, shut)


def test_lips_that_never_meet_in_the_clip_are_left_alone():
    real = talking()
    gap = lip_motion(RIG, WHO, real).gap
    assert LipClosing.fit(RIG, WHO, real[gap > 0.05]) is None


def test_what_an_avatar_keeps_closes_the_same():
    real = talking()
    closing = LipClosing.fit(RIG, WHO, real)
    again = LipClosing.from_tensors(closing.tensors())
    assert np.allclose(again(real), closing(real), atol=1e-6)
    assert again.mean == pytest.approx(closing.mean)
