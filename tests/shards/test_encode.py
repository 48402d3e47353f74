"""Videos out and in: length, colours, sync of sound and picture, provenance, nothing half-written."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from adapt.avatar.provenance import Provenance, parse_tags
from configs import InputError
from shards.media.decode import read_frames, read_video
from shards.media.encode import FrameFolderWriter, VideoWriter, sound_format
from shards.media.probe import video_info
from shards.media.sound import stream_sound


def _clicks(path, rate=48_000, channels=1, seconds=3.3):
    """A click of 2 ms at each full second; the first at 4 ms, so that an encoder's fade-in cannot hide it."""
    sound = np.zeros((int(rate * seconds), channels), np.float32)
    for second in range(int(seconds) + 1):
        begin = second * rate + (rate // 250 if second == 0 else 0)
        sound[begin : begin + rate // 500] = 0.8
    soundfile.write(path, sound, rate)
    return path


def _flashes(path, frames=83, size=64, **options):
    with VideoWriter(path, size, size, **options) as writer:
        for number in range(frames):
            picture = np.full((size, size, 3), (180, 60, 90), np.uint8)
            if number % 25 == 0:
                picture[:] = 255
            writer.write(picture)
    return path


def _click_times(path):
    sound = np.concatenate(list(stream_sound(path, rate=16_000)), 1)[0]
    loud = np.abs(sound) > 0.25
    return [i / 16_000 for i in np.flatnonzero(loud) if not loud[max(0, i - 800) : i].any()]


@pytest.mark.parametrize(("rate", "channels"), [(16_000, 1), (44_100, 2), (96_000, 6)])
def test_sound_and_picture_agree_to_within_a_frame(tmp_path, rate, channels):
    sound = _clicks(tmp_path / "clicks.wav", rate, channels)
    video = _flashes(tmp_path / "out.mp4", sound=sound)
    flashes = [i / 25 for i, frame in enumerate(read_frames(video)) if frame[5, 5, 1] > 150]
    clicks = _click_times(video)
    assert len(flashes) == len(clicks) == 4
    assert np.abs(np.subtract(flashes, clicks)).max() < 0.02


def test_written_frames_come_back_with_their_number_and_colour(tmp_path):
    video = _flashes(tmp_path / "out.mp4", frames=30)
    frames = list(read_frames(video))
    assert len(frames) == 30
    assert np.abs(frames[7].reshape(-1, 3).mean(0) - (180, 60, 90)).max() < 4


def test_the_sound_is_as_long_as_the_pictures_whatever_the_file_holds(tmp_path):
    video = _flashes(tmp_path / "out.mp4", frames=100, sound=_clicks(tmp_path / "c.wav", seconds=1.5))
    info = video_info(video)
    assert info.has_audio
    assert info.seconds == pytest.approx(4.0, abs=0.05)


def test_odd_sizes_are_padded_by_one_pixel(tmp_path):
    with VideoWriter(tmp_path / "odd.mp4", 65, 63) as writer:
        writer.write(np.zeros((63, 65, 3), np.uint8))
    info = video_info(tmp_path / "odd.mp4")
    assert (info.width, info.height) == (66, 64)


def test_the_file_says_that_it_is_synthetic_and_by_whom(tmp_path, monkeypatch):
    monkeypatch.setenv("HEADSTART_CREATOR", "Ada")
    provenance = Provenance.make(avatar="grace", avatar_sha256="ab12", recipe="headstart", audio="talk.wav")
    found = parse_tags(video_info(_flashes(tmp_path / "out.mp4", frames=3, tags=provenance.tags())).tags)
    assert found["synthetic"] is True
    assert (found["creator"], found["avatar"], found["avatar_sha256"]) == ("Ada", "grace", "ab12")
    assert found["tool"].startswith("headstart")
    assert found["digital_source_type"].endswith("trainedAlgorithmicMedia")


@pytest.mark.parametrize("stored", ["record", "comment"])
def test_a_file_whose_author_nobody_named_says_nothing_about_one(tmp_path, monkeypatch, stored):
    monkeypatch.delenv("HEADSTART_CREATOR", raising=False)
    provenance = Provenance.make(avatar="grace")
    assert provenance.statement() == f"Synthetic video made with {provenance.tool}, avatar 'grace'"
    tags = provenance.tags() if stored == "record" else {"comment": provenance.statement()}
    found = parse_tags(video_info(_flashes(tmp_path / "out.mp4", frames=3, tags=tags)).tags)
    assert (found["synthetic"], found["avatar"], found["tool"]) == (True, "grace", provenance.tool)
    assert "creator" not in found


def test_an_exception_leaves_neither_the_video_nor_a_part_of_it(tmp_path):
    def write():
        with VideoWriter(tmp_path / "out.mp4", 64, 64) as writer:
            writer.write(np.zeros((64, 64, 3), np.uint8))
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write()
    assert list(tmp_path.iterdir()) == []


def test_a_frame_of_another_size_is_refused(tmp_path):
    with pytest.raises(ValueError, match="expected"), VideoWriter(tmp_path / "out.mp4", 64, 64) as writer:
        writer.write(np.zeros((32, 64, 3), np.uint8))


def test_seeking_gives_the_same_frames_as_reading_through(tmp_path):
    path = tmp_path / "out.mp4"
    with VideoWriter(path, 64, 64) as writer:
        for number in range(60):
            writer.write(np.full((64, 64, 3), 4 * number, np.uint8))
    straight = list(read_frames(path))
    part = list(read_video(path, start=37 / 25, seconds=5 / 25))
    assert len(part) == 5
    assert np.array_equal(np.stack(part), np.stack(straight[37:42]))


def test_frames_are_resampled_in_time_without_losing_the_length(tmp_path):
    with VideoWriter(tmp_path / "fast.mp4", 64, 64, fps=50) as writer:
        for number in range(100):
            writer.write(np.full((64, 64, 3), number, np.uint8))
    assert len(list(read_frames(tmp_path / "fast.mp4"))) == 50


def test_rgba_frames_keep_their_transparency_and_say_what_they_are(tmp_path):
    from PIL import Image

    sound, made = _clicks(tmp_path / "c.wav"), Provenance.make(avatar="grace")
    with FrameFolderWriter(tmp_path / "frames", tags=made.tags(), record=made.as_dict(), sound=sound) as writer:
        for alpha in (0, 128, 255):
            writer.write(np.full((8, 8, 4), (10, 20, 30, alpha), np.uint8))
    picture = Image.open(tmp_path / "frames" / "000001.png")
    assert picture.getpixel((0, 0)) == (10, 20, 30, 128)
    assert picture.text["synthetic"] == "true"
    assert soundfile.info(tmp_path / "frames" / "audio.wav").duration == pytest.approx(3 / 25, abs=1e-3)


@pytest.mark.parametrize(
    ("name", "content", "says"), [("none.mp4", None, "no such file"), ("text.mp4", b"hello", "not a video")]
)
def test_what_is_no_video_is_refused_with_a_sentence(tmp_path, name, content, says):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=says):
        video_info(tmp_path / name)


def test_a_video_without_sound_cannot_drive(tmp_path):
    with pytest.raises(InputError, match="no audio stream"):
        sound_format(_flashes(tmp_path / "silent.mp4", frames=3))


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov", "webm"])
def test_the_statement_survives_remuxing_by_another_program(tmp_path, suffix):
    import shutil
    import subprocess

    if shutil.which("ffmpeg") is None:
        pytest.skip("needs the ffmpeg program")
    made = _flashes(tmp_path / "out.mp4", frames=3, tags=Provenance.make(avatar="grace", creator="Ada").tags())
    copy = tmp_path / f"copy.{suffix}"
    codecs = ["-c:v", "libvpx"] if suffix == "webm" else ["-c", "copy"]
    subprocess.run(["ffmpeg", "-v", "error", "-i", str(made), *codecs, str(copy)], check=True)
    found = parse_tags(video_info(copy).tags)
    assert found is not None
    assert (found["synthetic"], found["avatar"], found["creator"]) == (True, "grace", "Ada")


def test_sound_given_as_samples_is_in_step_with_the_pictures(tmp_path):
    from tests.support.media import chirp_times, chirps

    with VideoWriter(tmp_path / "a.mp4", 64, 64, sound=chirps([0.4, 1.2], 3.0, 16_000)[0]) as writer:
        for _ in range(50):
            writer.write(np.zeros((64, 64, 3), np.uint8))
    sound = np.concatenate(list(stream_sound(tmp_path / "a.mp4")), 1)[0]
    assert chirp_times(sound, [0.4, 1.2]) == pytest.approx([0.4, 1.2], abs=1e-3)
    assert len(sound) == pytest.approx(32_000, abs=1100)


def test_a_folder_that_cannot_be_written_to_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match="cannot write the video"):
        _flashes(tmp_path / "nowhere" / "a.mp4", frames=3)
