"""Pictures as a player shows them: colours, orientation, fields, length, damage, on files written on the spot."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from configs import InputError
from shards.media.decode import read_frames, read_video
from shards.media.encode import VideoWriter
from shards.media.hdr import HLG, PQ, Range, to_light, to_sdr
from shards.media.probe import video_info
from tests.support.media import Kind, chirp_times, flash_numbers, write_clip
from tests.support.videos import clock_picture, read_clock, write_video

BT709_TO_2020 = np.array(
    [[0.627404, 0.329283, 0.043313], [0.069097, 0.919540, 0.011362], [0.016391, 0.088013, 0.895595]]
)


def colour_card(height: int = 96, width: int = 128) -> np.ndarray:
    """Skin, grey, white and saturated patches."""
    patches = [(222, 178, 150), (128, 128, 128), (240, 240, 240), (180, 40, 40), (40, 150, 60), (50, 60, 170)]
    picture = np.zeros((height, width, 3), np.uint8)
    for k, colour in enumerate(patches):
        picture[:, k * width // 6 : (k + 1) * width // 6] = colour
    return picture


def encode(
    path: Path,
    frames: Iterable[Any],
    codec: str = "libx264",
    pixels: str = "yuv420p",
    fps: int = 25,
    prepare: Any = None,
    finish: Any = None,
    **options: str,
) -> Path:
    """Frames in the encoder's own pixel form; ``prepare(stream)`` before the first, ``finish(stream)`` at the start."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps, options=options)
        for k, frame in enumerate(frames):
            if k == 0:
                stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, pixels
                if prepare is not None:
                    prepare(stream)
            frame.pts, frame.time_base = k, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def saturation(picture: np.ndarray) -> float:
    values = picture.astype(float)
    return float(((values.max(-1) - values.min(-1)) / np.maximum(values.max(-1), 1)).mean() * 255)


# --- colours --------------------------------------------------------------------------------------------------------


def exact_yuv(picture: np.ndarray, kr: float, kb: float) -> Any:
    """A yuv444p frame, limited range, rounded, by the definition."""
    rgb = picture.astype(float) / 255
    y = rgb @ [kr, 1 - kr - kb, kb]
    u, v = (rgb[..., 2] - y) / (2 * (1 - kb)), (rgb[..., 0] - y) / (2 * (1 - kr))
    planes = np.stack([16 + 219 * y, 128 + 224 * u, 128 + 224 * v]).round().astype(np.uint8)
    return av.VideoFrame.from_ndarray(planes, format="yuv444p")


@pytest.mark.parametrize(("height", "kr", "kb"), [(480, 0.299, 0.114), (720, 0.2126, 0.0722)])
@pytest.mark.parametrize("scaled", [False, True])
def test_colours_come_back_without_a_bias_and_untagged_ones_by_the_size_rule(tmp_path, height, kr, kb, scaled):
    rng = np.random.default_rng(0)
    small = rng.integers(30, 226, (height // 8, 64, 3)).astype(np.uint8)
    picture = small.repeat(8, 0).repeat(8, 1)
    path = encode(tmp_path / "a.mkv", [exact_yuv(picture, kr, kb)] * 2, "ffv1", "yuv444p")
    found = next(read_video(path, max_side=height // 2 if scaled else None))
    true = picture[::2, ::2] if scaled and found.shape[0] != height else picture
    true = np.asarray(true)[: found.shape[0], : found.shape[1]]
    if scaled:
        found, true = found.reshape(-1, 3).mean(0), picture.reshape(-1, 3).mean(0)
        assert np.abs(found - true).max() < 0.3
    else:
        error = found.astype(int) - true
        assert np.abs(error).max() <= 2  # 8 bits of YUV hold a colour to about one level
        assert np.abs(error.reshape(-1, 3).mean(0)).max() < 0.1


def test_what_we_write_says_its_colours_and_comes_back_as_it_was(tmp_path):
    for height in (96, 720):
        path = tmp_path / f"{height}.mp4"
        with VideoWriter(path, 128, height, crf=4) as writer:
            for _ in range(3):
                writer.write(colour_card(height))
        with av.open(str(path)) as container:
            frame = next(container.decode(video=0))
            assert (frame.colorspace, frame.color_primaries, frame.color_trc, frame.color_range) == (1, 1, 1, 1)
        error = next(read_video(path)).astype(float) - colour_card(height)
        inner = error[:, 5:16]  # the skin patch, away from its edges
        assert np.abs(inner).max() <= 2
        patches = np.stack(
            [error[:, k * 128 // 6 + 5 : (k + 1) * 128 // 6 - 5].reshape(-1, 3).mean(0) for k in range(6)]
        )
        assert np.abs(patches).max() <= 1.5
        assert np.abs(patches.mean(0)).max() <= 0.7  # 8 bits of YUV hold a colour to about one level


def test_a_player_finds_a_key_frame_every_two_seconds(tmp_path):
    with VideoWriter(tmp_path / "a.mp4", 64, 64) as writer:
        for k in range(150):
            writer.write(np.full((64, 64, 3), 50 + k % 3, np.uint8))
    with av.open(str(tmp_path / "a.mp4")) as container:
        keys = [float(p.pts * p.time_base) for p in container.demux(video=0) if p.size and p.is_keyframe]
    assert np.diff([*keys, 6.0]).max() <= 2.0
    data = (tmp_path / "a.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def hdr_frame(picture: np.ndarray, transfer: int, white: float) -> Any:
    """A 10-bit BT.2020 frame of an SDR picture whose white lies at ``white`` nits."""
    light = (picture.astype(float) / 255) ** 2.4 @ BT709_TO_2020.T * white
    if transfer == PQ:
        powered = (light / 10_000) ** (2610 / 16384)
        values = ((3424 / 4096 + 2413 / 128 * powered) / (1 + 2392 / 128 * powered)) ** (2523 / 32)
    else:
        luminance = np.maximum(light @ [0.2627, 0.678, 0.0593], 1e-6)[..., None]
        scene = light / 1000 * (luminance / 1000) ** (1 / 1.2 - 1)
        values = np.where(
            scene <= 1 / 12,
            np.sqrt(3 * scene),
            0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073,
        )
    y = values @ [0.2627, 0.678, 0.0593]
    u, v = (values[..., 2] - y) / 1.8814, (values[..., 0] - y) / 1.4746
    planes = np.stack([64 + 876 * y, 512 + 896 * u, 512 + 896 * v]).round().astype(np.uint16)
    frame = av.VideoFrame(picture.shape[1], picture.shape[0], "yuv444p10le")
    for plane, values in zip(frame.planes, planes):
        rows = np.zeros((plane.height, plane.line_size // 2), np.uint16)
        rows[:, : plane.width] = values
        plane.update(rows.tobytes())
    return frame.reformat(format="yuv420p10le")


def tagged(stream: Any, transfer: int) -> None:
    context = stream.codec_context
    context.colorspace, context.color_primaries, context.color_trc, context.color_range = 9, 9, transfer, 1


@pytest.mark.parametrize("white", [100.0, 203.0])
@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_high_dynamic_range_of_phones_comes_near_the_original(tmp_path, transfer, white):
    card = colour_card(192, 384)
    names = {PQ: "smpte2084", HLG: "arib-std-b67"}
    options = f"log-level=none:crf=6:colorprim=bt2020:transfer={names[transfer]}:colormatrix=bt2020nc"
    frames = [hdr_frame(card, transfer, white) for _ in range(3)]
    path = encode(
        tmp_path / "a.mp4",
        frames,
        "libx265",
        "yuv420p10le",
        prepare=lambda s: tagged(s, transfer),
        **{"x265-params": options},
    )
    found = next(read_video(path))
    assert abs(float(found.mean()) - float(card.mean())) < 12
    assert saturation(found) == pytest.approx(saturation(card), rel=0.15)
    skin = found[:, 15:48].reshape(-1, 3).mean(0)
    assert np.abs(skin - (222, 178, 150)).max() < 12


def test_highlights_are_rolled_off_and_what_is_below_white_is_left():
    grey = np.linspace(0, 1, 200)[:, None].repeat(3, 1)
    mapped = to_sdr(grey, PQ, 9, Range(203.0, 1000.0))[:, 0]
    nits = to_light(grey, PQ)[:, 0]
    assert (np.diff(mapped) > -1e-9).all()
    dim = nits < 150
    assert np.allclose(mapped[dim] ** 2.4, nits[dim] / 203, atol=5e-3)
    assert mapped[nits <= 1000].max() <= 1.0
    assert mapped[np.argmin(np.abs(nits - 400))] < mapped[np.argmin(np.abs(nits - 800))]


def test_ten_bits_without_high_dynamic_range_are_read_as_eight(tmp_path):
    card = colour_card()
    frames = [av.VideoFrame.from_ndarray(card, format="rgb24").reformat(format="yuv420p10le") for _ in range(3)]
    path = encode(tmp_path / "a.mp4", frames, "libx265", "yuv420p10le", **{"x265-params": "log-level=none:crf=6"})
    skin = next(read_video(path))[:, 5:16].reshape(-1, 3).mean(0)
    assert np.abs(skin - (222, 178, 150)).max() < 3


def test_colours_that_would_be_misread_are_refused(tmp_path):
    def dolby(stream):
        stream.codec_context.colorspace = 14

    frames = [av.VideoFrame.from_ndarray(colour_card(), format="rgb24").reformat(format="yuv420p") for _ in range(2)]
    path = encode(tmp_path / "a.mkv", frames, "ffv1", "yuv420p", prepare=dolby)
    with pytest.raises(InputError, match="ICtCp"):
        list(read_video(path))


# --- geometry -------------------------------------------------------------------------------------------------------


ONE = 0x10000
# Name -> (a, b, c, d) of the display matrix, and what a player shows of the stored picture.
MATRICES = {
    "as it is": ((1, 0, 0, 1), lambda p: p),
    "right": ((0, 1, -1, 0), lambda p: np.rot90(p, -1)),
    "upside down": ((-1, 0, 0, -1), lambda p: np.rot90(p, 2)),
    "left": ((0, -1, 1, 0), lambda p: np.rot90(p, 1)),
    "mirrored": ((-1, 0, 0, 1), lambda p: p[:, ::-1]),
    "mirrored downwards": ((1, 0, 0, -1), lambda p: p[::-1]),
    "transposed": ((0, 1, 1, 0), lambda p: p.swapaxes(0, 1)),
    "transposed the other way": ((0, -1, -1, 0), lambda p: p[::-1, ::-1].swapaxes(0, 1)),
}


def set_matrix(path: Path, cells: tuple[float, ...]) -> Path:
    """Writes the display matrix of an mp4's first track in place."""
    data = bytearray(path.read_bytes())
    header = data.index(b"tkhd") + 4
    at = header + (4 + 8 * 4 + 4 if data[header] == 0 else 4 + 8 * 4 + 16)
    a, b, c, d = (round(v * ONE).to_bytes(4, "big", signed=True) for v in cells)
    data[at : at + 36] = a + b + bytes(4) + c + d + bytes(4) + bytes(8) + (0x40000000).to_bytes(4, "big")
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("name", MATRICES)
def test_the_whole_display_matrix_is_obeyed_also_with_wide_pixels(tmp_path, name):
    cells, shown = MATRICES[name]
    card = colour_card()
    card[:20, :20] = (250, 20, 20)
    for shape in (None, Fraction(3, 2)):
        path = set_matrix(write_video(tmp_path / "a.mp4", [card] * 3, pixel_shape=shape), cells)
        wide = card if shape is None else card.repeat(3, 1)[:, ::2]
        picture, info = next(read_frames(path)), video_info(path)
        assert (info.height, info.width) == picture.shape[:2] == shown(wide).shape[:2]
        assert np.abs(picture.astype(int) - shown(wide)).mean() < 6
        assert info.orientation.mirrored == ("mirrored" in name or "transposed" in name)


def test_a_crooked_turn_is_refused(tmp_path):
    path = set_matrix(write_video(tmp_path / "a.mp4", [colour_card()] * 3), (0.8, 0.6, -0.6, 0.8))
    with pytest.raises(InputError, match="turned by 37 degrees"):
        next(read_video(path))


def test_side_by_side_takes_a_phone_clip_upright_on_a_square(tmp_path):
    path = set_matrix(write_video(tmp_path / "a.mp4", [colour_card()] * 3), MATRICES["right"][0])
    picture = next(read_frames(path, size=64))
    assert picture.shape == (64, 64, 3)
    assert picture[:, :6].max() == picture[:, -6:].max() == 0  # 96 px wide and 128 tall: bars left and right
    assert picture[:, 10:-10].mean() > 60


def test_interlaced_pictures_are_made_whole(tmp_path):
    """A bar moves 4 px from field to field: woven fields show combs, whole pictures do not."""

    def field(k: int) -> np.ndarray:
        picture = np.full((96, 128, 3), 40, np.uint8)
        picture[:, 10 + k : 40 + k] = 220
        return picture

    woven = []
    for k in range(20):
        picture = field(4 * k % 64)
        picture[1::2] = field((4 * k + 2) % 64)[1::2]
        woven.append(av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p"))

    def interlaced(stream):
        stream.codec_context.flags |= (1 << 18) | (1 << 29)  # interlaced DCT and motion estimation

    path = encode(tmp_path / "a.ts", woven, "mpeg2video", prepare=interlaced, b="4000000")
    with av.open(str(path)) as container:
        frame = list(container.decode(video=0))[10]
        assert frame.interlaced_frame
        combs = np.abs(np.diff(frame.to_ndarray(format="gray").astype(int)[20:76], axis=0)).mean()
    pictures = list(read_video(path))
    assert len(pictures) == 20 == video_info(path).frames
    ours = np.abs(np.diff(pictures[10].astype(int)[20:76].mean(-1), axis=0)).mean()
    assert ours < 0.25 * combs
    assert np.array_equal(np.stack(list(read_video(path, start=0.4, seconds=0.12))), np.stack(pictures[10:13]))


# --- length and time ------------------------------------------------------------------------------------------------


def test_a_browser_recording_has_the_length_of_its_pictures(tmp_path):
    """A live WebM says neither its length nor the number of its pictures."""
    kind = Kind(
        "rec.webm", "libvpx", "libopus", options={"live": "1"}, pictures={"deadline": "realtime"}, fps=Fraction(30)
    )
    path = write_clip(tmp_path, kind, [15, 60, 90])
    with av.open(str(path)) as container:
        assert container.duration is None
    info = video_info(path)
    assert (info.frames, len(list(read_video(path)))) == (100, 100)
    assert info.seconds == pytest.approx(4.0, abs=0.02)


def test_a_sound_track_that_is_longer_than_the_pictures_does_not_count(tmp_path):
    path = write_clip(tmp_path, Kind("long.mp4"), [12], 2.0, sound_seconds=6.0)
    info = video_info(path)
    assert (info.frames, len(list(read_video(path)))) == (50, 50)
    assert info.seconds == pytest.approx(2.0, abs=0.01)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_the_last_picture_stays_as_long_as_the_file_says(tmp_path, suffix):
    times = [0.0, 0.04, 0.08, 0.12]

    def lengthen(packet, stream):
        if packet.pts is not None and round(float(packet.pts * packet.time_base), 2) == 0.12:
            packet.duration = round(1.0 / packet.time_base)
        return packet

    path = write_clip(tmp_path, Kind(f"a.{suffix}", sound=None, pictures={"bf": "0"}), [3], 4 / 25, packets=lengthen)
    pictures = list(read_video(path))
    assert len(times) == 4
    assert len(pictures) == video_info(path).frames == 28
    assert flash_numbers(pictures) == list(range(3, 28))


@pytest.mark.parametrize(
    "fps", [Fraction(60000, 1001), Fraction(30000, 1001), Fraction(24000, 1001), Fraction(120), Fraction(10)]
)
def test_count_and_stamps_agree_at_any_rate(tmp_path, fps):
    path = write_clip(tmp_path, Kind("a.mp4", sound=None, fps=fps), [], 2.0)
    assert video_info(path).frames == len(list(read_video(path)))
    assert video_info(path).seconds == pytest.approx(2.0, abs=0.05)


def test_a_screen_recording_that_stands_still_for_seconds_keeps_its_time(tmp_path):
    times = [0.0, 0.04, 3.0, 3.04, 7.5, 7.54]
    path = write_video(tmp_path / "a.mp4", [clock_picture(k) for k in range(6)], times=times)
    numbers = [read_clock(picture) for picture in read_video(path)]
    assert len(numbers) == video_info(path).frames
    for k, number in enumerate(numbers[:-1]):
        shown = [t for t in times if t <= k / 25 + 0.1]  # as in a player, and never long before its time
        assert abs(times[number] - k / 25) == min(abs(t - k / 25) for t in shown)


def test_stamps_that_begin_anew_are_refused_and_not_cut_short(tmp_path):
    def joined(packet, stream):
        if packet.pts is not None and packet.pts * packet.time_base >= 2:
            packet.pts -= round(2 / packet.time_base)
            packet.dts = packet.pts
        return packet

    one = write_clip(tmp_path, Kind("one.ts", "mpeg2video", sound=None, pictures={"bf": "0"}), [10], 3.0)
    two = write_clip(tmp_path, Kind("two.ts", "mpeg2video", sound=None, pictures={"bf": "0"}), [10], 2.0)
    (tmp_path / "joined.ts").write_bytes(one.read_bytes() + two.read_bytes())
    with pytest.raises(InputError, match="jump back"):
        list(read_video(tmp_path / "joined.ts"))


# --- what else people have ------------------------------------------------------------------------------------------


def damaged(path: Path, target: Path, at: float, size: int) -> Path:
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(3)
    low = int(len(data) * at)
    data[low : low + size] = rng.integers(0, 256, size, np.uint8).tobytes()
    target.write_bytes(data)
    return target


def test_a_few_damaged_bytes_cost_some_pictures_and_no_more(tmp_path):
    rng = np.random.default_rng(0)
    noisy = [
        np.clip(clock_picture(k) + rng.integers(-20, 20, (96, 128, 3)), 0, 255).astype(np.uint8) for k in range(200)
    ]
    whole = write_video(tmp_path / "whole.mkv", noisy)
    numbers = [read_clock(p) for p in read_video(damaged(whole, tmp_path / "hit.mkv", 0.5, 400))]
    assert len(numbers) == 200
    assert sum(a != b for a, b in zip(numbers, range(200))) < 60


def test_a_file_that_is_mostly_damaged_is_refused(tmp_path):
    rng = np.random.default_rng(0)
    noisy = [rng.integers(0, 255, (96, 128, 3), np.uint8) for _ in range(100)]
    whole = write_video(tmp_path / "whole.mp4", noisy)
    bad = damaged(whole, tmp_path / "bad.mp4", 0.2, int(whole.stat().st_size * 0.6))
    with pytest.raises(InputError, match=r"damaged|change|cut off|not a video"):
        list(read_video(bad))


def test_a_resolution_that_changes_on_the_way_is_scaled_and_another_shape_is_refused(tmp_path):
    """As browsers record a call: the encoder starts small."""

    def joined(second: tuple[int, int]) -> Path:
        parts = [write_clip(tmp_path, Kind(f"{k}.ts", "mpeg2video", sound=None, pictures={"bf": "0"}), [], 1.0, size=size)
                 for k, size in enumerate([(64, 48), second])]  # fmt: skip
        path = tmp_path / "joined.ts"
        with av.open(str(path), "w") as out:
            stream, shift = None, 0
            for part in parts:
                with av.open(str(part)) as container:
                    source = container.streams.video[0]
                    stream = stream or out.add_stream_from_template(source)
                    packets = [p for p in container.demux(source) if p.size]
                    low = min(p.dts for p in packets)
                    for packet in packets:
                        packet.pts, packet.dts, packet.stream = (
                            packet.pts - low + shift,
                            packet.dts - low + shift,
                            stream,
                        )
                        out.mux(packet)
                    shift += 25 * 3600
        return path

    assert {p.shape for p in read_video(joined((128, 96)))} == {(48, 64, 3)}
    with pytest.raises(InputError, match="change from 64x48 to 48x64"):
        list(read_video(joined((48, 64))))


def test_one_still_picture_is_a_video_of_one_frame(tmp_path):
    from PIL import Image

    Image.fromarray(colour_card()).save(tmp_path / "a.png")
    assert len(list(read_video(tmp_path / "a.png"))) == video_info(tmp_path / "a.png").frames == 1


@pytest.mark.parametrize(
    ("codec", "pixels"),
    [("prores_ks", "yuva444p10le"), ("png", "rgba"), ("ffv1", "gray"), ("mjpeg", "yuvj422p"), ("ffv1", "yuv410p")],
)
def test_other_forms_of_pixels_are_read(tmp_path, codec, pixels):
    grey = np.full((96, 128, 3), 150, np.uint8)
    frames = [av.VideoFrame.from_ndarray(grey, format="rgb24").reformat(format=pixels) for _ in range(3)]
    path = encode(tmp_path / "a.mov" if codec in ("prores_ks", "png") else tmp_path / "a.mkv", frames, codec, pixels)
    assert np.abs(next(read_video(path)).astype(int) - 150).max() <= 3


def test_odd_sizes_are_read_to_the_last_column(tmp_path):
    picture = np.zeros((97, 131, 3), np.uint8)
    picture[:, -1], picture[-1] = 250, 250
    path = encode(
        tmp_path / "a.mkv",
        [av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv444p")] * 2,
        "ffv1",
        "yuv444p",
    )
    found = next(read_video(path))
    assert found.shape == picture.shape
    assert found[:-1, -1].min() > 245
    assert found[-1].min() > 245


def test_a_bare_stream_without_stamps_is_read_at_its_rate(tmp_path):
    mp4 = write_video(tmp_path / "a.mp4", [clock_picture(k) for k in range(50)])
    bare = tmp_path / "a.h264"
    with av.open(str(mp4)) as source, av.open(str(bare), "w", format="h264") as out:
        stream = source.streams.video[0]
        target = out.add_stream_from_template(stream)
        annexb = av.bitstream.BitStreamFilterContext("h264_mp4toannexb", stream)
        for packet in source.demux(stream):
            for made in annexb.filter(packet if packet.size else None):
                made.stream = target
                out.mux(made)
    numbers = [read_clock(p) for p in read_video(bare)]
    assert len(numbers) == pytest.approx(50, abs=1)
    assert (np.diff(numbers) >= 0).all()
    assert [read_clock(p) for p in read_video(bare, start=1.0, seconds=0.2)] == numbers[25:30]


def test_a_stamp_base_of_a_microsecond_changes_nothing(tmp_path):
    kind = Kind("a.mp4", options={"video_track_timescale": "1000000"}, pictures={"bf": "2"})
    path = write_clip(tmp_path, kind, [12, 50, 77])
    assert flash_numbers(read_video(path)) == [12, 50, 77]


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs the ffmpeg program")
def test_a_cut_without_encoding_starts_where_its_edit_list_says(tmp_path):
    whole = write_clip(tmp_path, Kind("whole.mp4", pictures={"g": "50", "bf": "2"}), [50, 77], 6.0)
    cut = tmp_path / "cut.mp4"
    command = ["ffmpeg", "-v", "error", "-ss", "1.4", "-i", str(whole), "-c", "copy", str(cut)]
    subprocess.run(command, check=True)
    from shards.media.sound import read_audio

    seen = flash_numbers(read_video(cut))
    assert len(list(read_video(cut))) == video_info(cut).frames
    heard = chirp_times(read_audio(cut), [k / 25 for k in seen], reach=0.2)
    assert len(seen) == 2
    assert np.abs(np.array(heard) - np.array(seen) / 25).max() < 0.002


def test_an_animated_webp_is_refused_with_a_command_that_makes_a_readable_file_of_it(tmp_path):
    levels = np.arange(0, 240, 8, dtype=np.uint8)
    frames = [Image.fromarray(np.full((32, 48, 3), level, np.uint8)) for level in levels]
    frames[0].save(tmp_path / "it's.webp", save_all=True, append_images=frames[1:], duration=40, lossless=True)
    with pytest.raises(InputError, match=r"is an animated WebP.*animated PNG of it, such as with python -c") as caught:
        video_info(tmp_path / "it's.webp")
    command = shlex.split(str(caught.value).split("such as with ")[1].removesuffix(", and give that"))
    subprocess.run([sys.executable, *command[1:]], cwd=tmp_path, check=True)
    found = [int(frame[16, 24, 1]) for frame in read_frames(tmp_path / "clip.png")]
    # FFmpeg shows the first picture of an animated PNG for 67 ms, whatever the file says.
    assert list(dict.fromkeys(found)) == pytest.approx(levels.tolist(), abs=1)
    assert len(found) <= len(levels) + 1
