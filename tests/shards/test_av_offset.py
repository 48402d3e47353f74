"""Sound that is late or early is found by the lips; what is in step, or says too little, stays as it is."""

from __future__ import annotations

import numpy as np
import pytest

from configs import InputError
from heads.ridge import apply_ridge
from shards.features import Feature, open_feature
from shards.format.schema import BrokenSample, check_meta
from shards.media.rates import SAMPLES_PER_FRAME
from shards.tracking import TrackOptions, av_offset
from shards.tracking.av_offset import AvOffset, LipFilters, SoundReader, likeliest_lag, lip_rows, offset_of
from shards.tracking.first_pass import FirstPass, run_first_pass
from shards.tracking.segments import Source
from tests.support.videos import write_video

FRAMES, EDGE = 200, 20


@pytest.fixture(scope="module")
def weight():
    """Filters that hear how loud three parts of the spectrum are."""
    value = np.zeros((3, 160, 3), np.float32)
    for k in range(3):
        value[k, np.arange(160) % 40 // 13 == k, 1] = 0.02
    return value


@pytest.fixture(scope="module")
def speech():
    """Bursts of noise, longer than the clip at both ends, ``[(FRAMES + 2 EDGE) * 640]``."""
    rng = np.random.default_rng(0)
    levels = np.abs(rng.standard_normal((FRAMES + 2 * EDGE) * 2)) ** 2
    envelope = np.interp(np.arange(len(levels) * 320), np.arange(len(levels)) * 320, levels)
    return (0.05 * envelope * rng.standard_normal(len(envelope))).astype(np.float32)


def heard(speech, late):
    """The clip's sound when it is late by so many frames."""
    first = round((EDGE - late) * SAMPLES_PER_FRAME)
    return speech[first : first + FRAMES * SAMPLES_PER_FRAME]


def lips(speech, weight, noise=0.5):
    """Lips that follow the sound in step, and move by themselves as well."""
    moved = apply_ridge(weight, lip_rows(heard(speech, 0)), centre=False)
    return (moved + noise * moved.std() * np.random.default_rng(1).standard_normal(moved.shape)).astype(np.float32)


def offset(lips, sound, filters):
    """What the filters find."""
    return offset_of([(lips, filters.rows(sound))], filters)


@pytest.mark.parametrize("late", [-4.0, -2.5, 1.25, 3.0])
def test_the_offset_is_found_to_a_fraction_of_a_frame(speech, weight, late):
    found = offset(lips(speech, weight), heard(speech, late), LipFilters(weight))
    assert found.seconds == pytest.approx(late / 25, abs=0.01)
    assert found.confidence > 0.95


@pytest.mark.parametrize("late", [0.0, 0.75, -0.75])
def test_what_is_in_step_within_a_frame_stays_as_it_is(speech, weight, late):
    assert offset(lips(speech, weight), heard(speech, late), LipFilters(weight)).seconds == 0


def test_lips_that_follow_another_voice_move_no_sound(speech, weight):
    strangers = np.random.default_rng(2).standard_normal((FRAMES, 3)).astype(np.float32)
    assert offset(strangers, heard(speech, 3), LipFilters(weight)).seconds == 0
    assert offset(np.ones((FRAMES, 3), np.float32), heard(speech, 3), LipFilters(weight)) == AvOffset(
        0.0, pytest.approx(0.3, abs=0.1)
    )


def test_an_offset_at_the_end_of_the_search_is_not_believed(speech, weight):
    assert offset(lips(speech, weight), heard(speech, 10), LipFilters(weight)).seconds == 0


def test_parts_of_one_video_say_more_than_one_of_them(speech, weight):
    face, sound = lips(speech, weight, noise=4.0), heard(speech, 2)
    parts = [(face[i : i + 66], sound[i * 640 : (i + 66) * 640]) for i in (0, 66, 132)]
    filters = LipFilters(weight)
    predicted = [(face, filters.lips(filters.rows(sound))) for face, sound in parts]
    together = likeliest_lag(predicted)
    assert abs(together[0] - 2) < 0.5
    assert together[1] > max(likeliest_lag([part])[1] for part in predicted)


class Loudness(Feature):
    """Stands for a speech encoder: one row per frame."""

    name = "whisper"
    size = 160

    def __init__(self, sha256):
        super().__init__("weights")
        self.sha256 = sha256

    @property
    def record(self):
        return {"name": self.name, "size": self.size, "weights": {"source": "weights", "sha256": self.sha256}}

    def stream(self):
        raise NotImplementedError

    def extract(self, sound):
        return lip_rows(sound)


@pytest.mark.parametrize("late", [-0.75, 0.5, 2.25])
def test_a_speech_encoder_tells_fractions_of_a_frame(speech, weight, late):
    filters = LipFilters(weight, Loudness("any"))
    found = offset(lips(speech, weight), heard(speech, late), filters)
    assert found.seconds == pytest.approx(late / 25, abs=0.01)
    assert offset(lips(speech, weight), heard(speech, 0), filters).seconds == 0


def test_filters_are_those_of_the_encoder_that_they_were_learned_on():
    plain = av_offset.filters_for()
    assert plain.weight.shape == (3, 160, 11)
    assert plain.feature is None
    known = Loudness(str(np.load(av_offset.WEIGHTS / av_offset.SPEECH_FILE)["sha256"]))
    fine = av_offset.filters_for(known)
    assert fine.weight.shape == (3, 384, 5)
    assert fine.feature is known
    assert av_offset.filters_for(Loudness("another")).feature is None
    assert av_offset.filters_for(open_feature("logmel")).feature is None
    assert all(np.isfinite(filters.weight).all() for filters in (plain, fine))


def test_an_offset_says_which_way_it_goes():
    assert str(AvOffset(0.12, 1.0)) == "sound is 120 ms late; put in step"
    assert str(AvOffset(-0.08, 1.0)) == "sound is 80 ms early; put in step"


# --- sound of a video -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ramp_video(tmp_path_factory):
    """A video of 50 grey frames whose sound rises steadily."""
    path = tmp_path_factory.mktemp("ramp") / "ramp.mkv"
    ramp = np.linspace(0, 0.9, 50 * SAMPLES_PER_FRAME, dtype=np.float32)
    write_video(path, [np.full((64, 64, 3), 90, np.uint8)] * 50, sound=ramp, sound_codec="pcm_s16le")
    return path, ramp


def test_sound_before_the_beginning_and_after_the_end_is_silence(ramp_video):
    path, ramp = ramp_video
    early = SoundReader(path, -0.1).take(0, 3200)
    assert (early[:1600] == 0).all()
    assert np.allclose(early[1600:], ramp[:1600], atol=1e-3)
    late = SoundReader(path, 1.9)
    assert np.allclose(late.take(0, 1600), ramp[30400:], atol=1e-3)
    assert (late.take(1600, 1600) == 0).all()


def test_sound_is_read_on_over_the_beginning(ramp_video):
    path, ramp = ramp_video
    reader = SoundReader(path, -0.05)
    whole = np.concatenate([reader.take(0, 640), reader.take(640, 640), reader.take(1280, 640)])
    assert (whole[:800] == 0).all()
    assert np.allclose(whole[800:], ramp[:1120], atol=1e-3)


def test_a_given_offset_moves_the_sound_of_a_shot(ramp_video):
    path, ramp = ramp_video
    found = FirstPass("ramp", width=64, height=64, frames=50)
    source = Source(path, found, TrackOptions(), 64, True, AvOffset(0.08))
    assert np.allclose(source.audio(10, 10), ramp[12 * 640 : 22 * 640], atol=1e-3)


def test_an_offset_of_many_seconds_is_refused():
    with pytest.raises(InputError, match=r"av_offset is 80 s, expected at most 2 s"):
        TrackOptions(av_offset=80).check()


def test_a_sample_says_by_how_much_its_sound_was_moved():
    meta = {"schema": 1, "identity": "a", "clip": "b", "frames": 1, "fps": 25, "size": [64, 64]}
    check_meta("a/b-00000", meta)
    check_meta("a/b-00000", {**meta, "av_offset": -0.12})
    with pytest.raises(BrokenSample, match="'av_offset' is '9'"):
        check_meta("a/b-00000", {**meta, "av_offset": "9"})


# --- real people ------------------------------------------------------------------------------------------------------


def test_the_offset_of_a_real_clip_follows_its_sound(clips, monkeypatch):
    """Heard as it is, and as if its sound were three frames later."""
    path = clips / "hidf_c00093.mp4"
    found, offsets = run_first_pass(path, TrackOptions()), {}
    original = SoundReader.__init__
    for late in (0.0, 0.12):
        monkeypatch.setattr(SoundReader, "__init__", lambda self, p, start, late=late: original(self, p, start - late))
        offsets[late] = av_offset.estimate_offset(path, found)
    assert min(offset.confidence for offset in offsets.values()) > 0.9
    assert offsets[0.12].seconds - offsets[0.0].seconds == pytest.approx(0.12, abs=0.02)
    found.close()
