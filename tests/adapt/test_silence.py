"""Lips rest while nobody speaks."""

from __future__ import annotations

import numpy as np
import pytest

from adapt.talk.silence import CLOSING, PAUSE_FRAMES, Resting, SpeechActivity, periodicity, rested, resting_expression

RATE, FRAME = 16_000, 640
rng = np.random.default_rng(0)


def voice(frames: int, level: float = 0.1) -> np.ndarray:
    """A buzz of 120 Hz with falling harmonics."""
    time = np.arange(frames * FRAME) / RATE
    return (level * sum(np.sin(2 * np.pi * 120 * k * time) / k for k in range(1, 12))).astype(np.float32)


def noise(frames: int, level: float) -> np.ndarray:
    """White noise."""
    return (level * rng.standard_normal(frames * FRAME)).astype(np.float32)


@pytest.mark.parametrize("quiet", [lambda n: np.zeros(n * FRAME, np.float32), lambda n: noise(n, 0.003)])
def test_a_voice_is_speech_and_what_lies_before_it_is_not(quiet):
    speech = SpeechActivity().push(np.concatenate([quiet(50), voice(50)]))
    assert not speech[:50].any()
    assert speech[52:].mean() > 0.9


def test_loud_steady_noise_is_no_speech():
    assert SpeechActivity().push(noise(100, 0.05)).mean() < 0.05


def test_a_stream_in_pieces_gives_the_same():
    sound = np.concatenate([noise(20, 0.003), voice(20)])
    whole, activity = SpeechActivity().push(sound), SpeechActivity()
    pieces = [activity.push(sound[at : at + 3 * FRAME]) for at in range(0, len(sound), 3 * FRAME)]
    assert np.array_equal(np.concatenate(pieces), whole)


def test_voices_are_periodic_and_noise_is_not():
    assert periodicity(voice(2)) > 0.9
    assert periodicity(noise(2, 0.1)) < 0.3


def test_short_gaps_do_not_close_the_mouth_and_pauses_do():
    speech = np.ones(60, bool)
    speech[20 : 20 + PAUSE_FRAMES - 1] = False
    speech[40:] = False
    lips = Resting(np.zeros(1))(np.ones((60, 1)), speech)[:, 0]
    assert np.all(lips[5:40] == 1)
    assert lips[40 + PAUSE_FRAMES - 2] == 1
    assert lips[40 + PAUSE_FRAMES - 1 + round(1 / CLOSING)] == 0


def test_a_stream_begins_at_rest_and_opens_with_the_voice():
    lips = Resting(np.zeros(1))(np.ones((12, 1)), np.arange(12) >= 6)[:, 0]
    assert np.all(lips[:6] == 0)
    assert lips[7] == 1


def test_the_resting_face_is_that_of_the_smallest_lip_gaps():
    landmarks = np.random.default_rng(1).uniform(100, 400, (20, 478, 3))
    landmarks[:, 13] = landmarks[:, 14] = 250.0
    landmarks[:, 14, 1] += np.arange(20)
    track = {"landmarks": landmarks, "expression": np.arange(20.0)[:, None]}
    assert resting_expression(track) == pytest.approx(0.5)
    sound = np.concatenate([np.zeros(10 * FRAME + 100, np.float32), voice(9)])
    expression = rested(np.full((20, 1), 5.0), sound, track)
    assert expression[:10] == pytest.approx(0.5)
    assert expression[15] == pytest.approx(5.0)
