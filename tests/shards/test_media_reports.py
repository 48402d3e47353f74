"""Kinds of files that users of other programs reported publicly; each report is named beside its kind.

A flash and a chirp at the same moments come out so, and colours come out as they went in.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from configs import InputError
from shards.media.decode import read_video
from shards.media.encode import VideoWriter
from shards.media.probe import video_info
from shards.media.sound import read_audio
from tests.support.media import BRIGHT, DARK, Kind, chirp_times, chirps, flash_numbers, write_clip

FLASHES, SECONDS = [12, 50, 77], 4.0
BIG, SMALL = (64, 64), (32, 32)


def in_sync(path: Path, flashes: list[int] = FLASHES, within: float = 0.002) -> None:
    """Flashes at their numbers on the 25-fps grid, chirps beside them."""
    assert flash_numbers(read_video(path)) == flashes
    times = [k / 25 for k in flashes]
    assert np.abs(np.array(chirp_times(read_audio(path), times)) - times).max() < within


def written(
    path: Path,
    times: list[Fraction],
    flashes: list[float],
    *,
    video: str = "libx264",
    form: str = "yuv420p",
    options: dict[str, str] | None = None,
    sound: str | None = "aac",
    size: tuple[int, int] = BIG,
    full: bool = False,
    timecode: str = "",
) -> Path:
    """A file with a picture at each of ``times`` s, bright from each of ``flashes`` s for 40 ms, and chirps."""
    with av.open(str(path), "w") as file:
        file.metadata.update({"timecode": timecode} if timecode else {})
        stream = file.add_stream(video, rate=25, options=options or {})
        stream.width, stream.height, stream.pix_fmt = *size, form
        stream.codec_context.time_base = Fraction(1, 90_000)
        if full:
            stream.codec_context.color_range = 2
        other = None if sound is None else file.add_stream(sound, rate=48_000, layout="mono")
        for time in times:
            lit = any(flash - 1e-6 <= time < flash + 0.04 - 1e-6 for flash in flashes)
            frame = av.VideoFrame.from_ndarray(
                np.full((*size[::-1], 3), BRIGHT if lit else DARK, np.uint8), format="rgb24"
            )
            frame = frame.reformat(format=form, dst_color_range="JPEG" if full else "MPEG", dst_colorspace=5)
            frame.pts, frame.time_base = round(time * 90_000), Fraction(1, 90_000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
        if other is not None:
            samples = chirps(flashes, float(times[-1]) + 0.04, 48_000)
            length = other.codec_context.frame_size or 1024
            for at in range(0, samples.shape[1], length):
                block = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[:, at : at + length]), "fltp", "mono")
                block.sample_rate, block.pts, block.time_base = 48_000, at, Fraction(1, 48_000)
                file.mux([p for made in _as(other, block) for p in other.encode(made)])
            file.mux(other.encode(None))
    return path


def _as(stream: Any, block: Any) -> Any:
    resampler = av.AudioResampler(format=stream.codec_context.format.name, layout="mono", rate=48_000)
    for made in resampler.resample(block):
        made.pts, made.time_base = block.pts, block.time_base
        yield made


def steady(fps: int = 25, seconds: float = SECONDS) -> list[Fraction]:
    return [Fraction(k, fps) for k in range(round(seconds * fps))]


CAMERAS = {
    # remotion-dev/remotion#6235, Kosinkadink/ComfyUI-VideoHelperSuite#350
    "ProRes 4444 with transparency": ("x.mov", "prores_ks", "yuva444p10le", {"profile": "4444"}, "pcm_s16le"),
    # staxrip/staxrip#1406
    "ProRes 4444 XQ, 12 bits": ("x.mov", "prores_ks", "yuv444p10le", {"profile": "4444xq"}, "pcm_s16le"),
    "HEVC 4:2:2 with 10 bits": ("x.mov", "libx265", "yuv422p10le", {"x265-params": "log-level=none"}, "aac"),
    "AV1 and Opus": ("x.mp4", "libsvtav1", "yuv420p", {"preset": "12"}, "libopus"),
    "VP9": ("x.webm", "libvpx-vp9", "yuv420p", {"deadline": "realtime", "cpu-used": "8"}, "libopus"),
    "lossless RGB of a screen recorder": ("x.mkv", "libx264rgb", "rgb24", {"qp": "0"}, "flac"),
}


@pytest.mark.parametrize("name", CAMERAS)
def test_cameras_and_editors(name, tmp_path):
    file, video, form, options, sound = CAMERAS[name]
    try:
        path = written(
            tmp_path / file, steady(), [k / 25 for k in FLASHES], video=video, form=form, options=options, sound=sound
        )
    except (av.error.FFmpegError, ValueError) as error:
        pytest.skip(f"this FFmpeg cannot write {video} {form}: {error}")
    in_sync(path)
    picture = next(iter(read_video(path)))
    assert np.abs(picture.reshape(-1, 3).mean(0) - DARK).max() < 3


def test_a_webcam_that_stores_jpegs_in_avi(tmp_path):
    path = written(
        tmp_path / "x.avi", steady(), [k / 25 for k in FLASHES], video="mjpeg", form="yuvj422p", sound="pcm_s16le", full=True
    )  # fmt: skip
    in_sync(path)
    assert np.abs(next(iter(read_video(path))).reshape(-1, 3).mean(0) - DARK).max() < 3


def test_240_pictures_a_second_at_uneven_steps(tmp_path):
    """NextLevel/NextLevel#14, jliljebl/flowblade#274: steps of 5 and 3.33 ms in turn."""
    times, now = [], Fraction(0)
    while now < 4:
        times.append(now)
        now += Fraction(1, 200) if len(times) % 2 else Fraction(1, 300)
    path = written(tmp_path / "x.mov", times, [k / 25 for k in FLASHES])
    assert abs(video_info(path).frames - 100) <= 1
    numbers = flash_numbers(read_video(path))
    assert {12, 50, 77} <= set(numbers)
    assert len(numbers) <= 6


def test_29_97_pictures_a_second_do_not_drift(tmp_path):
    """KlingAIResearch/LivePortrait#221: sound runs away from pictures of 29.97 a second."""
    times = [Fraction(k * 1001, 30_000) for k in range(round(40 * 29.97))]
    path = written(tmp_path / "x.mp4", times, [float(times[900])], size=SMALL)
    number = round(float(times[900]) * 25)
    found = flash_numbers(read_video(path))
    assert found
    assert abs(found[0] - number) <= 1
    assert chirp_times(read_audio(path), [float(times[900])])[0] == pytest.approx(float(times[900]), abs=0.002)


def test_a_phone_screen_that_is_recorded_at_10_to_61_pictures_a_second(tmp_path):
    """WyattBlue/auto-editor#152: every minute the sound was half a minute behind."""
    rng, times, now = np.random.default_rng(0), [], Fraction(0)
    flashes = [12 / 25, 50 / 25, 77 / 25]
    while now < 4:
        times.append(now)
        now += Fraction(round(90_000 / float(rng.uniform(10, 61))), 90_000)
    times = sorted({*times, *(Fraction(k, 25) for k in (12, 13, 50, 51, 77, 78))})
    path = written(tmp_path / "x.mp4", times, flashes, size=(74, 160))
    assert set(flash_numbers(read_video(path))) >= set(FLASHES)
    assert np.abs(np.array(chirp_times(read_audio(path), flashes)) - flashes).max() < 0.002


def test_the_first_picture_stands_until_the_recording_begins(tmp_path):
    """ennuicastr/ennuicastr#26: the first picture of a guest lasts until they join."""
    times = [Fraction(0), *(Fraction(7) + Fraction(k, 25) for k in range(75))]
    path = written(tmp_path / "x.mkv", times, [8.0])
    pictures = list(read_video(path))
    assert len(pictures) == 250
    assert flash_numbers(pictures) == [200]
    assert chirp_times(read_audio(path), [8.0])[0] == pytest.approx(8.0, abs=0.002)


def test_avi_whose_pictures_have_decoding_stamps_alone(tmp_path):
    """meta-pytorch/torchcodec#683: no presentation stamp in the whole file."""
    kind = Kind("x.avi", video="mpeg4", sound="libmp3lame", pictures={"bf": "2"})
    # AVI cannot store what the encoders delay: 40 ms of pictures, 23 ms of sound. Players show and play it so.
    in_sync(write_clip(tmp_path, kind, FLASHES), within=0.018)


@pytest.mark.parametrize("shift", [-0.4, 1234.0, 95_440.0], ids=["below zero", "late", "26.5 hours: the counter wraps"])
def test_a_clock_that_begins_anywhere(shift, tmp_path):
    """pytorch/audio#2841 (negative stamps); a transport stream's counter has 33 bits and wraps after 26.5 hours."""

    def moved(packet: Any, stream: Any) -> Any:
        ticks = round(shift / packet.time_base)
        packet.pts, packet.dts = packet.pts + ticks, packet.dts + ticks
        return packet

    kind = Kind("x.ts") if shift > 0 else Kind("x.mkv", options={"avoid_negative_ts": "disabled"})
    in_sync(write_clip(tmp_path, kind, FLASHES, packets=moved))


def test_a_second_picture_track_does_not_take_the_place_of_the_first(tmp_path):
    """Depth maps and second angles of phones: what a player shows is read."""
    path = tmp_path / "x.mp4"
    with av.open(str(path), "w") as file:
        main, depth = (file.add_stream("libx264", rate=25) for _ in range(2))
        main.width, main.height, main.pix_fmt = *BIG, "yuv420p"
        depth.width, depth.height, depth.pix_fmt = *SMALL, "yuv420p"
        for number in range(50):
            for stream, size, shade in ((main, BIG, 200), (depth, SMALL, 20)):
                frame = av.VideoFrame.from_ndarray(np.full((*size, 3), shade, np.uint8), format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, 25)
                file.mux(stream.encode(frame))
        for stream in (main, depth):
            file.mux(stream.encode(None))
    pictures = list(read_video(path))
    assert len(pictures) == 50
    assert pictures[0].shape == (64, 64, 3)
    assert pictures[0].mean() > 150


@pytest.mark.parametrize("name", ["13:19:57.mp4", "http:me.mp4", "concat:me.mp4", "%03d me?#.mp4"])
def test_a_file_whose_name_looks_like_an_address_or_a_pattern(name, tmp_path, monkeypatch):
    """C4illin/ConvertX#442, Genymobile/scrcpy#5487: FFmpeg takes what stands before a colon for a protocol."""
    monkeypatch.chdir(tmp_path)
    written(Path("x.mp4"), steady(), [k / 25 for k in FLASHES]).rename(name)
    in_sync(Path(name))
    with VideoWriter(Path(f"{name}.out:1.mp4"), *SMALL, sound=Path(name)) as writer:
        for _ in range(50):
            writer.write(np.zeros((32, 32, 3), np.uint8))
    assert video_info(f"{name}.out:1.mp4").frames == 50
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, f"{name}.out:1.mp4"])


def test_sound_whose_stamps_are_the_time_of_day_is_refused(tmp_path):
    """raspberrypi/picamera2#1274: pictures begin at 0, the sound 486,000 hours later."""

    def moved(packet: Any, stream: Any) -> Any:
        if stream.type == "audio":
            packet.pts += round(1_750_000_000 / packet.time_base)
            packet.dts = packet.pts
        return packet

    path = write_clip(tmp_path, Kind("x.mp4"), FLASHES, packets=moved)
    with pytest.raises(
        InputError, match=r"its sound jumps ahead by 1750000000 s at 0\.0 s; split it there, or re-encode"
    ):
        read_audio(path)


def test_a_time_code_track_beside_the_pictures(tmp_path):
    """PyAV-Org/PyAV#1141: with a time code, a camera's .mov seemed to have 3.56 pictures a second."""
    path = written(tmp_path / "x.mov", steady(), [k / 25 for k in FLASHES], timecode="00:00:41:16")
    with av.open(str(path)) as file:
        assert [stream.type for stream in file.streams] == ["video", "audio", "data"]
    assert video_info(path).frames == 100
    in_sync(path)


def test_a_picture_that_stands_for_seconds_stands_until_the_next(tmp_path):
    """PyAV-Org/PyAV#2241: pictures at 0, 7, 19, 20, 41 s; half of every pause showed what comes after it."""
    path = written(tmp_path / "x.mp4", [Fraction(k) for k in (0, 7, 19, 20, 41)], [20.0], size=SMALL)
    assert flash_numbers(read_video(path)) == list(range(498, 1023))  # from 0.1 s before it at the earliest
    assert flash_numbers(read_video(path, start=30.0)) == list(range(273))
    assert video_info(path).frames == len(list(read_video(path)))
