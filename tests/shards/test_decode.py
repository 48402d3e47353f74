"""Decoding: pictures at the right time, upright, in step with the sound, from whatever people have."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from configs import InputError
from shards.media.decode import read_video
from shards.media.probe import video_info
from shards.media.sound import read_audio
from tests.support.videos import clock_picture, read_clock, turn, write_video


def clocks(path, **options):
    return [read_clock(picture) for picture in read_video(path, **options)]


def test_25_pictures_a_second_come_out_as_they_went_in(tmp_path):
    path = write_video(tmp_path / "a.mp4", [clock_picture(k) for k in range(60)])
    assert clocks(path) == list(range(60))


@pytest.mark.parametrize("fps", [30, 50, 24, 15, 12.5, 29.97])
def test_other_rates_give_the_picture_nearest_in_time(tmp_path, fps):
    count = round(2 * fps)
    path = write_video(tmp_path / "a.mp4", [clock_picture(k) for k in range(count)], fps)
    found = clocks(path)
    assert len(found) == pytest.approx(50, abs=1)
    error = np.array(found) / fps - np.arange(len(found)) / 25
    assert np.abs(error).max() <= 0.5 / fps + 1e-3
    assert (np.diff(found) >= 0).all()


def test_variable_rates_neither_drift_nor_jump(tmp_path):
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.uniform(0.015, 0.09, 60))
    times -= times[0]
    path = write_video(tmp_path / "a.mp4", [clock_picture(k) for k in range(60)], 25, times=times.tolist())
    found = clocks(path)
    for k, number in enumerate(found[:-2]):
        assert abs(times[number] - k / 25) <= np.abs(times - k / 25).min() + 2e-3


def test_a_part_of_a_video_starts_exactly_where_asked(tmp_path):
    path = write_video(tmp_path / "a.mp4", [clock_picture(k) for k in range(100)])
    assert clocks(path, start=2.0, seconds=0.4) == list(range(50, 60))
    assert clocks(path, start=3.8) == list(range(95, 100))


@pytest.mark.parametrize(("degrees", "corner"), [(90, (0, -1)), (180, (-1, -1)), (270, (-1, 0))])
def test_rotation_flags_are_obeyed(tmp_path, degrees, corner):
    path = turn(write_video(tmp_path / "a.mp4", [clock_picture(k) for k in range(3)]), degrees)
    picture = next(read_video(path))
    assert picture.shape == ((128, 96, 3) if degrees in (90, 270) else (96, 128, 3))
    y, x = (3 if c == 0 else -3 for c in corner)
    assert picture[y, x, 0] > 150 > picture[y, x, 1]  # the red corner, turned clockwise
    info = video_info(path)
    assert (info.height, info.width) == picture.shape[:2]


def test_wide_pixels_are_made_square(tmp_path):
    path = write_video(tmp_path / "a.mp4", [clock_picture(0)] * 3, pixel_shape=Fraction(3, 2))
    assert next(read_video(path)).shape == (96, 192, 3)


def test_large_pictures_are_scaled_while_decoding(tmp_path):
    path = write_video(tmp_path / "a.mp4", [clock_picture(5, 480, 640)] * 3)
    assert next(read_video(path, max_side=160)).shape == (120, 160, 3)
    assert next(read_video(path, max_side=5000)).shape == (480, 640, 3)


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_sound_stays_in_step_with_the_pictures_through_aac_priming(tmp_path, rate):
    """A flash and a click at the same time come out in the same frame."""
    flash = [10, 45, 70]
    pictures = [clock_picture(255 if k in flash else 0) for k in range(100)]
    sound = np.zeros(4 * rate, np.float32)
    for k in flash:
        at = round((k + 0.5) / 25 * rate)
        sound[at : at + rate // 400] = 0.9 * np.sin(np.arange(rate // 400) * 2 * np.pi * 1500 / rate)
    path = write_video(tmp_path / "a.mp4", pictures, sound=sound, rate=rate)
    seen = [k for k, number in enumerate(clocks(path)) if number > 100]
    audio = read_audio(path)
    energy = (audio[: len(audio) // 640 * 640].reshape(-1, 640) ** 2).sum(1)
    assert seen == flash
    assert sorted(np.argsort(-energy)[:3].tolist()) == flash


def test_probe_tells_size_rate_length_and_sound(tmp_path):
    info = video_info(write_video(tmp_path / "a.mp4", [clock_picture(0)] * 30, 30, sound=np.zeros(16_000)))
    assert (info.width, info.height, info.orientation.degrees, info.has_audio) == (128, 96, 0, True)
    assert info.fps == pytest.approx(30, abs=0.1)
    assert info.seconds == pytest.approx(1.0, abs=0.05)
    assert not video_info(write_video(tmp_path / "b.mp4", [clock_picture(0)] * 3)).has_audio


def test_what_is_no_video_is_refused_in_one_sentence(tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("not a video\n" * 50)
    whole = write_video(tmp_path / "whole.mp4", [clock_picture(k) for k in range(100)])
    (tmp_path / "headless.mp4").write_bytes(whole.read_bytes()[:3000])
    sound = tmp_path / "sound.wav"
    import soundfile

    soundfile.write(sound, np.zeros(1600), 16_000)
    cases = {
        "empty.mp4": "0 bytes",
        "text.mp4": "not a video",
        "headless.mp4": "not a video",
        "sound.wav": "no video stream",
        "missing.mp4": "no such file",
        "": "is a folder",
    }
    for name, match in cases.items():
        for call in (video_info, lambda path: list(read_video(path))):
            with pytest.raises(InputError, match=match) as error:
                call(tmp_path / name)
            assert "\n" not in str(error.value)


def test_a_file_cut_off_in_transfer_is_noticed(tmp_path):
    rng = np.random.default_rng(0)
    noisy = [rng.integers(0, 255, (96, 128, 3), np.uint8) for _ in range(100)]
    whole = write_video(tmp_path / "whole.mp4", noisy, faststart=True)
    (tmp_path / "cut.mp4").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(InputError, match=r"cut off|damaged"):
        list(read_video(tmp_path / "cut.mp4"))
    assert len(list(read_video(tmp_path / "cut.mp4", seconds=0.5))) == 12  # a part before the damage is fine


def test_memory_does_not_grow_with_the_length(tmp_path):
    import tracemalloc

    path = write_video(tmp_path / "a.mp4", (clock_picture(k % 256, 240, 320) for k in range(500)))
    tracemalloc.start()
    for _ in read_video(path):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * 240 * 320 * 3
