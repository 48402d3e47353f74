"""Talking: streamed frames equal the offline video, sound in sync, memory constant, options and refusals."""

from __future__ import annotations

import json
import math
import shutil

import numpy as np
import pytest
import soundfile

from adapt.avatar.avatar import load_avatar
from adapt.avatar.provenance import parse_tags
from adapt.drivers.base import Bounds, drive
from adapt.drivers.loudness import LoudnessDriver
from adapt.drivers.ridge import RidgeDriver
from adapt.talk.options import parse_controls
from adapt.talk.talk import talk
from adapt.talk.talker import Talker
from configs import InputError
from heads.geometry.rotation import rotation_to_euler
from shards.media.decode import read_frames
from shards.media.probe import video_info
from shards.media.sound import stream_sound
from tests.support.avatars import SIZE


@pytest.fixture(scope="module")
def hearing(grace):
    return grace


@pytest.fixture(scope="module")
def avatar(ada):
    return ada


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    """Two seconds and a bit of modulated noise."""
    rng = np.random.default_rng(1)
    count = 16_000 * 2 + 777
    sound = 0.3 * rng.standard_normal(count) * np.clip(np.sin(np.arange(count) / 1500), 0, 1)
    path = tmp_path_factory.mktemp("speech") / "speech.wav"
    soundfile.write(path, sound.astype(np.float32), 16_000)
    return path


def _stream(opened, sound, sizes, **options):
    talker, frames, at = Talker(opened, **options), [], 0
    for size in sizes:
        frames += list(talker.feed(sound[at : at + size]))
        at += size
    frames += list(talker.feed(sound[at:]))
    return np.stack(frames + list(talker.finish()))


@pytest.mark.parametrize("which", ["avatar", "hearing"])
def test_frames_do_not_depend_on_how_the_sound_is_fed(which, speech, request):
    opened = load_avatar(request.getfixturevalue(which), "cpu")
    sound = soundfile.read(speech, dtype="float32")[0]
    whole = _stream(opened, sound, [])
    pieces = _stream(opened, sound, [100, 3000, 1, 12_345, 640])
    assert len(whole) == len(sound) // 640
    assert np.array_equal(whole, pieces)


def test_the_offline_video_holds_the_streamed_frames_and_the_sound_in_sync(avatar, speech, tmp_path):
    result = talk(avatar, speech, tmp_path / "out.mp4", background="model")
    frames = np.stack(list(read_frames(tmp_path / "out.mp4")))
    streamed = _stream(load_avatar(avatar, "cpu"), soundfile.read(speech, dtype="float32")[0], [8000] * 4)
    assert result["frames"] == len(frames) == len(streamed)
    # What lies between is H.264.
    assert np.abs(frames / 255.0 - streamed).mean() < 0.02
    sound = np.concatenate(list(stream_sound(tmp_path / "out.mp4", rate=16_000)), 1)[0]
    true = soundfile.read(speech, dtype="float32")[0]
    lags = [float((sound[1000 + lag : 21_000 + lag] * true[1000:21_000]).sum()) for lag in range(-900, 901, 20)]
    assert abs(int(np.argmax(lags)) * 20 - 900) < 640


def test_the_result_says_who_drove_and_the_file_that_it_is_synthetic(avatar, speech, tmp_path):
    result = talk(avatar, speech, tmp_path / "out.mp4")
    assert {"video", "frames", "fps", "driver", "delay_seconds"} <= result.keys()
    assert "ridge" in result["driver"]
    assert result["background"] == "original"
    statement = parse_tags(video_info(tmp_path / "out.mp4").tags)
    assert statement["synthetic"]
    assert statement["avatar"] == "ada"
    assert len(statement["avatar_sha256"]) == 64


def test_poses_that_are_not_the_clips_own_move_the_avatars_own_body(avatar, speech, tmp_path):
    assert talk(avatar, speech, tmp_path / "out.mp4", yaw=10.0)["background"] == "model"


def test_the_stream_is_never_later_than_it_says(avatar):
    opened = load_avatar(avatar, "cpu")
    talker, out = Talker(opened), 0
    block = np.random.default_rng(0).standard_normal(640).astype(np.float32) * 0.1
    for sent in range(1, 60):
        out += len(list(talker.feed(block)))
        # Frame ``out`` is not there yet, so its delay has not passed.
        assert (sent - out) * 0.04 <= talker.delay + 1e-6 + 0.04


def test_the_streams_memory_does_not_grow(avatar):
    talker = Talker(load_avatar(avatar, "cpu"))
    block = np.random.default_rng(0).standard_normal(6400).astype(np.float32) * 0.1
    for _ in range(12):
        list(talker.feed(block))
    held = sum(rows.nbytes for rows in talker._track.values()) + talker._source.nbytes
    assert held < 30 * 4096
    assert talker.frames > 100


def test_angles_controls_and_blinks_do_what_they_say(avatar, speech, tmp_path):
    opened = load_avatar(avatar, "cpu")
    sound = soundfile.read(speech, dtype="float32")[0][: 640 * 8]
    still = _stream(opened, sound, [], blink="none")
    closed = _stream(opened, sound, [], blink=1.0)
    open_jaw = _stream(opened, sound, [], blink="none", controls={"jaw": 1.0})
    assert np.abs(still - closed).max() > 0.02
    assert np.abs(still - open_jaw).max() > 0.02
    from adapt.talk.options import make_poses

    poses = make_poses(opened, None, 15.0, None, None, "clip", 0).at(np.arange(2))
    assert np.degrees(rotation_to_euler(poses.rotation)[0, 0]) == pytest.approx(15, abs=1e-3)


def test_rgba_frames_are_transparent_where_nobody_is(avatar, speech, tmp_path):
    from PIL import Image

    result = talk(avatar, speech, tmp_path / "frames", background="rgba")
    pictures = sorted((tmp_path / "frames").glob("*.png"))
    assert len(pictures) == result["frames"]
    alpha = np.asarray(Image.open(pictures[5]))[..., 3]
    assert alpha[:3, :3].max() < 30
    assert alpha[SIZE // 2, SIZE // 2] > 200
    (tmp_path / "frames" / "999999.png").write_bytes(b"of the earlier run")
    again = talk(avatar, speech, tmp_path / "frames", background="rgba", overwrite=True)
    assert len(list((tmp_path / "frames").glob("*.png"))) == again["frames"]


@pytest.mark.parametrize(("rate", "channels", "suffix"), [(96_000, 6, "wav"), (44_100, 2, "flac"), (22_050, 1, "mp3")])
def test_any_rate_layout_and_format_speaks(avatar, tmp_path, rate, channels, suffix):
    path = tmp_path / f"speech.{suffix}"
    sound = 0.2 * np.random.default_rng(0).standard_normal((rate, channels)).astype(np.float32)
    soundfile.write(path, sound, rate)
    assert talk(avatar, path, tmp_path / "out.mp4", background="plain")["frames"] in (25, 26, 27)


@pytest.mark.parametrize(
    ("sound", "says"),
    [
        (np.zeros(16_000), "silent from beginning to end"),
        (np.full(16_000, np.nan), r"no finite numbers \(NaN\)"),
        (np.zeros(0), "contains no audio"),
        (np.full(300, 0.5), "one frame"),
    ],
)
def test_what_cannot_be_spoken_is_refused_and_leaves_nothing(avatar, tmp_path, sound, says):
    soundfile.write(tmp_path / "bad.wav", sound.astype(np.float32), 16_000, subtype="FLOAT")
    with pytest.raises(InputError, match=says):
        talk(avatar, tmp_path / "bad.wav", tmp_path / "out.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.wav"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"yaw": 200.0}, "from -90 to 90"),
        ({"yaw": math.nan}, "from -90 to 90"),
        ({"yaw": 5.0, "pose_from": "x.mp4"}, "contradict"),
        ({"pose": "dancing"}, "clip, generated or still"),
        ({"blink": "often"}, "natural, none"),
        ({"blink": 3}, r"0 \(open\)"),
        ({"controls": ["wings=1"]}, "no control 'wings'"),
        ({"controls": ["jaw=nan"]}, "jaw=nan: expected -3 to 3"),
        ({"controls": {"jaw": 40}}, "jaw=40: expected -3 to 3"),
        ({"controls": ["jaw"]}, "NAME=AMOUNT"),
        ({"style": "mean"}, "no styles"),
        ({"background": "beach"}, "original"),
    ],
)
def test_wrong_options_are_refused_with_a_sentence(avatar, speech, tmp_path, options, says):
    with pytest.raises(InputError, match=says):
        talk(avatar, speech, tmp_path / "out.mp4", **options)
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_exists_is_refused(avatar, speech, tmp_path):
    (tmp_path / "out.mp4").write_bytes(b"mine")
    with pytest.raises(InputError, match="exists"):
        talk(avatar, speech, tmp_path / "out.mp4")
    assert (tmp_path / "out.mp4").read_bytes() == b"mine"


def test_controls_are_parsed():
    assert parse_controls(["smile=0.4", "gaze_x=-1"]) == {"smile": 0.4, "gaze_x": -1.0}


def test_a_regression_learns_a_linear_voice_and_streams_as_it_drives():
    rng = np.random.default_rng(0)
    features = rng.standard_normal((300, 12)).astype(np.float32)
    mixing = rng.standard_normal((12, 4))
    expression = np.roll(features, 2, 0) @ mixing
    driver = RidgeDriver.fit(features, expression)
    found = drive(driver, features)["expression"]
    assert np.corrcoef(found[10:-10].ravel(), expression[10:-10].ravel())[0, 1] > 0.95
    stream = driver.stream()
    parts = [stream.push(features[i : i + 7]) for i in range(0, 300, 7)] + [stream.finish()]
    streamed = np.concatenate([part["expression"] for part in parts if part])
    assert np.allclose(streamed, found, atol=1e-5)


def test_a_driver_that_errs_far_cannot_move_the_face_beyond_what_the_clip_showed():
    rng = np.random.default_rng(0)
    seen = rng.standard_normal((200, 32)).astype(np.float32)
    bounds = Bounds(seen)
    assert np.allclose(bounds(seen), seen, atol=1e-5)
    wild = bounds(50 * rng.standard_normal((40, 32)))
    reach = np.linalg.norm((seen - seen.mean(0)) / np.sqrt(seen.var(0) + 0.25), axis=1).max()
    assert np.linalg.norm((wild - bounds.mean) / bounds.scale, axis=1).max() <= 1.25 * reach + 1e-3
    assert (wild <= seen.max(0) + 0.6).all()
    assert (wild >= seen.min(0) - 0.6).all()
    assert np.array_equal(bounds(np.full((1, 32), np.nan)), seen.mean(0)[None])


def test_an_exploding_voice_keeps_the_face_in_its_place(avatar):
    class Exploding:
        by_sound = True
        feature = ""
        name, lookahead = "exploding", 0

        def stream(self):
            return self

        def push(self, rows):
            return {"expression": np.full((len(rows), 32), 80.0, np.float32)}

        def finish(self):
            return {}

    opened = load_avatar(avatar, "cpu")
    calm = _stream(opened, np.zeros(640 * 4, np.float32), [], blink="none")
    opened.driver = Exploding()
    wild = _stream(opened, np.zeros(640 * 4, np.float32), [], blink="none")
    # The corners are background in both: a face that filled the frame would cover them.
    assert np.abs(wild[:, :8, :8] - calm[:, :8, :8]).max() < 0.1
    assert np.abs(wild - calm).mean() < 0.1


def test_without_a_voice_the_jaw_follows_the_loudness():
    driver = LoudnessDriver(np.zeros(3, np.float32), np.array([1.0, 0, 0], np.float32))
    rows = np.full((20, 160), -1.2, np.float32)
    rows[10:] = 0.5
    jaw = drive(driver, rows)["expression"][:, 0]
    assert jaw[:8].max() == 0
    assert jaw[12:].min() > 0.3


def test_loudness_is_heard_in_log_mel_whatever_feature_an_avatar_uses(avatar):
    opened = load_avatar(avatar, "cpu")
    opened.document["features"] = {"name": "whisper", "size": 384, "weights": {"source": "nowhere", "sha256": "0" * 64}}
    opened.driver = LoudnessDriver.of(opened.rig, opened.track["expression"])
    _stream(opened, np.zeros(640 * 4, np.float32), [], blink="none")  # would need the encoder's weights
    # A head that hears the sound itself gives the driver its own rows; these say nothing of loudness.
    jaw = drive(opened.driver, np.zeros((6, 384), np.float32))["expression"]
    assert np.array_equal(jaw, np.repeat(opened.driver.rest[None], 6, 0))


def test_the_memory_benchmark_moves_the_face_for_sound_that_it_does_not_render(ada, monkeypatch):
    from adapt.talk import talker as module
    from benchmarks.adaptation.adapt import stream

    made = []

    class Kept(module.Talker):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            made.append(self)

    monkeypatch.setattr(module, "Talker", Kept)
    stream(ada, minutes=1, rendered=0)
    assert made[0].frames > 58 * 25
    assert "render" not in made[0].stages


@pytest.mark.parametrize(
    ("entry", "value"),
    [("neck", [0.1]), ("neck", "low"), ("neck", True), ("resolution", None), ("resolution", "64"), ("resolution", 32)],
)
def test_sizes_that_an_avatar_cannot_have_are_one_sentence(ada, tmp_path, entry, value):
    damaged = tmp_path / "damaged"
    shutil.copytree(ada, damaged)
    document = json.loads((damaged / "avatar.json").read_text())
    document["model"][entry] = value
    (damaged / "avatar.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match="its weights do not fit its recipe"):
        load_avatar(damaged, "cpu")
