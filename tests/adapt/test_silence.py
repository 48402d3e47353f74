"""Lips rest while nobody speaks."""

from __future__ import annotations

import numpy as np
import pytest

from adapt.talk.activity import SpeechActivity
from adapt.talk.silence import CLOSING, PAUSE_FRAMES, Resting, rested, resting_expression
from tests.support import sounds

FRAME = 640
NOT_SPEECH = {
    "digital silence": lambda s: np.zeros(round(s * 16_000), np.float32),
    "white noise": lambda s: sounds.white(s, 0.02),
    "loud white noise": lambda s: sounds.white(s, 0.2),
    "a room": lambda s: sounds.pink(s, 0.03),
    "breathing": lambda s: sounds.breathing(s, 0.02),
    "a hum": lambda s: sounds.hum(s, 0.05),
    "chords": lambda s: sounds.music(s, 0.1, drums=False),
    "chords and drums": lambda s: sounds.music(s, 0.1),
    "a melody": lambda s: sounds.melody(s, 0.1),
}


@pytest.mark.parametrize("name", NOT_SPEECH)
def test_what_holds_no_voice_is_no_speech_and_the_voice_behind_it_is(name):
    other, voice = NOT_SPEECH[name](4.0), sounds.voice(4.0)
    speech = SpeechActivity().push(np.concatenate([other, voice]))
    assert speech[:100].mean() < 0.02
    level = np.sqrt((voice.reshape(-1, FRAME) ** 2).mean(1))
    assert speech[100:][level > 0.3 * level.max()][5:].mean() > 0.95


def test_a_quiet_voice_is_speech():
    assert SpeechActivity().push(sounds.scaled(sounds.voice(4.0), 0.003)).mean() > 0.7


def test_a_voice_in_a_noisy_room_is_speech():
    assert SpeechActivity().push(sounds.voice(4.0) + sounds.pink(4.0, 0.02)).mean() > 0.7


def test_a_voice_stays_speech_when_loud_noise_has_lasted():
    """The noise floor is bounded: a voice hardly louder than the room is still one."""
    assert SpeechActivity().push(sounds.voice(6.0) + sounds.pink(6.0, 0.1))[75:].mean() > 0.7


def test_a_stream_in_pieces_gives_the_same():
    sound = np.concatenate([sounds.white(0.8, 0.003), sounds.voice(2.0)])
    whole, activity = SpeechActivity().push(sound), SpeechActivity()
    pieces = [activity.push(sound[at : at + 3 * FRAME]) for at in range(0, len(sound), 3 * FRAME)]
    assert np.array_equal(np.concatenate(pieces), whole)


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
    sound = np.concatenate([np.zeros(10 * FRAME + 100, np.float32), sounds.voice(2.0)])
    expression = rested(np.full((60, 1), 5.0), sound, track)
    assert expression[:10] == pytest.approx(0.5)
    assert expression[40] == pytest.approx(5.0)
