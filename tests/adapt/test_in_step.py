"""A clip's sound is put in step by its speech encoder once its lips and rows are known."""

from __future__ import annotations

import numpy as np
import pytest

from adapt import in_step
from adapt.avatar import folder
from adapt.clip import TRACK_FIELDS, Clip, _Part
from adapt.in_step import put_in_step
from adapt.job import adapt as make_avatar
from heads.rig.facemesh import INNER_MIDDLE
from shards.features import Feature, open_feature
from shards.media.rates import SAMPLES_PER_FRAME
from shards.tracking.av_offset import IN_STEP, AvOffset, LipFilters
from tests.support.avatars import SIZE, stopped_after

FRAMES, EDGE = 150, 10


class Loudness(Feature):
    """Stands for a speech encoder: one column, how loud each frame is."""

    name, size = "whisper", 1

    def stream(self):
        raise NotImplementedError

    def extract(self, sound):
        return np.sqrt((sound.reshape(-1, SAMPLES_PER_FRAME) ** 2).mean(1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def talking():
    """A face whose mouth opens as its voice grows loud; the voice is longer at both ends."""
    rng = np.random.default_rng(0)
    levels = np.abs(rng.standard_normal(FRAMES + 2 * EDGE)).astype(np.float32)
    centres = (np.arange(len(levels)) + 0.5) * SAMPLES_PER_FRAME
    envelope = np.interp(np.arange(len(levels) * SAMPLES_PER_FRAME), centres, levels)
    voice = (0.1 * envelope * np.sign(rng.standard_normal(len(envelope)))).astype(np.float32)
    landmarks = np.tile(rng.uniform(20, 80, (478, 3)), (FRAMES, 1, 1)).astype(np.float32)
    upper, lower = INNER_MIDDLE
    landmarks[:, lower] = landmarks[:, upper]
    landmarks[:, lower, 1] += 5 * levels[EDGE:-EDGE]
    return landmarks, voice


def clip_of(talking, late, feature):
    """A clip whose sound is late by so many frames."""
    landmarks, voice = talking
    first = round((EDGE - late) * SAMPLES_PER_FRAME)
    pictures = np.zeros((FRAMES, 8, 8, 3), np.uint8)
    zero = {n: np.zeros((FRAMES, 1), np.float32) for n in TRACK_FIELDS}
    track = {**zero, "landmarks": landmarks, "intrinsics": np.eye(3), "identity": np.zeros(1)}
    clip = Clip(8, feature)
    sound = voice[first : first + FRAMES * SAMPLES_PER_FRAME]
    clip.append(_Part(pictures, pictures[..., 0], track, sound, (0, 0, 8, 8)))
    return clip


@pytest.mark.parametrize("late", [-1.5, 0.5, 2.0])
def test_late_and_early_sound_is_moved_by_what_the_encoder_tells(talking, late, monkeypatch):
    feature = Loudness()
    monkeypatch.setattr(in_step, "filters_for", lambda feature: LipFilters(np.ones((3, 1, 1), np.float32), feature))
    with clip_of(talking, late, feature) as clip, clip_of(talking, 0.0, feature) as wanted:
        assert put_in_step(clip).seconds == pytest.approx(late / 25, abs=0.004)
        assert clip.av_offset == pytest.approx(late / 25, abs=0.004)
        assert len(clip.audio) == len(wanted.audio)
        kept = slice(5, -5)
        assert np.corrcoef(clip.features()[kept, 0], wanted.features()[kept, 0])[0, 1] > 0.99


def test_log_mel_leaves_the_sound_as_tracking_put_it(talking):
    with clip_of(talking, 2.0, open_feature("logmel")) as clip:
        before = clip.audio.copy()
        assert put_in_step(clip) == IN_STEP
        assert (clip.audio == before).all()
        assert clip.av_offset == 0.0


@pytest.fixture
def late_sound(world, monkeypatch):
    """Tracking is told an offset or finds 80 ms; the encoder then finds 20 ms more. Offsets that tracking was told."""
    told = []

    def tracked(*arguments, av_offset=None, **options):
        told.append(av_offset)
        return world.segments(*arguments, av_offset=0.08 if av_offset is None else av_offset, **options)

    def finds_more(clip):
        clip.av_offset = round(clip.av_offset + 0.02, 4)
        return AvOffset(0.02, 1.0)

    monkeypatch.setattr("shards.tracking.track_frames", tracked)
    monkeypatch.setattr("adapt.ending.put_in_step", finds_more)
    return told


def adapted(world, out, **options):
    make_avatar(world.video, out, prior="none", size=SIZE, budget="2it", **options)
    return folder.read_document(out)["clip"]


@pytest.mark.parametrize("when", ["before the voice", "after a signal"])
def test_a_resumed_run_puts_the_sound_in_step_as_one_that_never_stopped(world, late_sound, tmp_path, monkeypatch, when):
    with monkeypatch.context() as patch:
        if when == "before the voice":
            patch.setattr("adapt.ending.put_in_step", lambda clip: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                adapted(world, tmp_path / "ada")
        else:
            with stopped_after(1):
                assert adapted(world, tmp_path / "ada")["av_offset"] == 0.1
    assert adapted(world, tmp_path / "ada", resume=True)["av_offset"] == 0.1
    assert late_sound == [None, 0.08]


def test_sound_that_is_to_stay_stays_in_a_resumed_run_too(world, late_sound, tmp_path):
    with stopped_after(1):
        adapted(world, tmp_path / "ada", in_step=False)
    assert adapted(world, tmp_path / "ada", resume=True)["av_offset"] == 0.0
    assert late_sound == [0.0, 0.0]
