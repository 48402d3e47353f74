"""The level of speech, and quiet recordings, which the lips hear raised."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from adapt.avatar.avatar import load_avatar
from adapt.talk.level import USUAL, gain_for, speech_level
from adapt.talk.talk import talk
from adapt.talk.talker import Talker
from shards.media.sound import read_audio


def speech(decibels: float, seconds: int = 4) -> np.ndarray:
    """A tone of this level (mean square) in the second half of every second, with a faint hum between."""
    time = np.arange(16_000 * seconds) / 16_000
    loud = np.sqrt(2) * 10 ** (decibels / 20) * np.sin(2 * np.pi * 400 * time)
    return np.where(time % 1 >= 0.5, loud, loud * 1e-3).astype(np.float32)


@pytest.mark.parametrize("decibels", [-12.0, -40.0])
@pytest.mark.parametrize("size", [64_000, 1_000, 77])
def test_the_level_is_that_of_speech_without_its_pauses_however_the_sound_comes(decibels, size):
    sound = speech(decibels)
    blocks = [sound[at : at + size] for at in range(0, len(sound), size)]
    assert speech_level(blocks) == pytest.approx(decibels, abs=0.2)


def test_silence_has_no_level():
    assert speech_level([np.zeros(16_000, np.float32)]) is speech_level([]) is None


@pytest.mark.parametrize(
    ("level", "clip", "gain"), [(-45, -20.0, 25), (-45, None, USUAL + 45), (-29, -20.0, 0), (-15, -40.0, 0)]
)
def test_speech_far_quieter_than_the_clip_is_raised_to_it_and_no_other(tmp_path, level, clip, gain):
    soundfile.write(tmp_path / "a.wav", speech(level), 16_000, subtype="FLOAT")
    assert 20 * np.log10(gain_for(tmp_path / "a.wav", clip)) == pytest.approx(gain, abs=0.2)


def test_sound_too_quiet_to_move_the_lips_is_said(tmp_path, caplog):
    soundfile.write(tmp_path / "a.wav", speech(-80.0), 16_000, subtype="FLOAT")
    assert gain_for(tmp_path / "a.wav", -20.0) == 1.0
    assert "all of it is quieter than -70 dB, so the lips rest" in caplog.text


def test_a_quiet_recording_moves_the_lips_as_a_loud_one_and_stays_quiet(ada, tmp_path, monkeypatch):
    level = load_avatar(ada, "cpu").document["clip"]["level"]
    fed: dict[str, np.ndarray] = {}
    for name, decibels in (("loud", level), ("quiet", level - 25)):
        soundfile.write(tmp_path / f"{name}.wav", speech(decibels, seconds=1), 16_000, subtype="FLOAT")
        heard: list[np.ndarray] = []

        def feed(talker, block, heard=heard, feed=Talker.feed):
            heard.append(block)
            return feed(talker, block)

        with monkeypatch.context() as patch:
            patch.setattr("adapt.talk.talker.Talker.feed", feed)
            talk(ada, tmp_path / f"{name}.wav", tmp_path / f"{name}.mp4", background="plain", device="cpu")
        fed[name] = np.concatenate(heard)
    assert fed["quiet"] == pytest.approx(fed["loud"], abs=0.01)
    assert np.abs(read_audio(tmp_path / "quiet.mp4")).max() < 0.1 * np.abs(read_audio(tmp_path / "loud.mp4")).max()
