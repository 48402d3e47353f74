"""The fast way from YUV to RGB gives what FFmpeg's exact one gives."""

from __future__ import annotations

import av
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from shards.media import yuv
from shards.media.colour import ToRgb


def video(
    path, width: int, height: int, *, form: str = "yuv420p", matrix: int = 1, full: bool = False, codec="libx264"
):
    """Three pictures of soft blotches in many colours; the frames as they are decoded."""
    rng = np.random.default_rng(width + height)
    shapes = ((height, width), *2 * [(height // 2, width // 2)])
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, 25, {"crf": "8"})
        stream.width, stream.height, stream.pix_fmt = width, height, form
        stream.codec_context.colorspace, stream.codec_context.color_range = matrix, 2 if full else 1
        for _ in range(3):
            made = av.VideoFrame(width, height, form)
            for plane, shape, size in zip(made.planes, shapes, (40, 22, 22)):
                blotches = gaussian_filter(rng.normal(size=shape), 2)
                values = np.clip(128 + size * blotches / blotches.std(), 16, 235).astype(np.uint8)
                padded = np.zeros((shape[0], plane.line_size), np.uint8)
                padded[:, : shape[1]] = values
                plane.update(padded.tobytes())
            made.colorspace, made.color_range = matrix, 2 if full else 1
            file.mux(stream.encode(made))
        file.mux(stream.encode(None))
    with av.open(str(path)) as file:
        return list(file.decode(video=0))


@pytest.mark.parametrize("size", [(512, 512), (64, 48), (200, 100)])
@pytest.mark.parametrize(("matrix", "full"), [(1, False), (5, False), (9, False), (1, True)])
def test_it_is_within_a_level_of_the_exact_converter(size, matrix, full, tmp_path):
    frames, convert = video(tmp_path / "x.mp4", *size, matrix=matrix, full=full), ToRgb("x.mp4")
    for frame in frames:
        assert yuv.converts(frame, *size)
        assert yuv.tells(frame)
        fast, exact = convert(frame, *size).astype(int), convert._exact(frame, *size).astype(int)
        assert fast.shape == exact.shape == (size[1], size[0], 3)
        inside = (fast > 0) & (fast < 255)
        assert np.abs(fast - exact)[inside].max() <= 1
        assert np.abs(fast - exact)[inside].mean() < 0.02
    assert list(convert._agree.values()) == [True]


def test_chroma_that_lies_elsewhere_is_left_to_the_converter(tmp_path):
    frames, convert = video(tmp_path / "x.mp4", 256, 256), ToRgb("x.mp4")
    moved = av.VideoFrame(256, 256, "yuv420p")  # frames that were not decoded do not say where their chroma lies
    for plane, other in zip(moved.planes, frames[0].planes):
        plane.update(bytes(other))
    moved.colorspace, moved.color_range = 1, 1
    for _ in range(2):
        assert np.array_equal(convert(moved, 256, 256), convert._exact(moved, 256, 256))
    assert list(convert._agree.values()) == [False]


def test_a_frame_without_colours_decides_nothing():
    grey, convert = av.VideoFrame(64, 64, "yuv420p"), ToRgb("x.mp4")
    for plane in grey.planes:
        plane.update(np.full(plane.buffer_size, 128, np.uint8).tobytes())
    convert(grey, 64, 64)
    assert not convert._agree


def test_other_sizes_and_forms_are_left_to_the_converter():
    made = av.VideoFrame(512, 512, "yuv420p")
    assert yuv.converts(made, 512, 512)
    assert not yuv.converts(made, 256, 256)
    assert not yuv.converts(av.VideoFrame(500, 512, "yuv420p"), 500, 512)
    assert not yuv.converts(av.VideoFrame(64, 64, "yuv444p"), 64, 64)


def test_every_shade_of_grey_is_right():
    made = av.VideoFrame(256, 2, "yuv420p")
    made.planes[0].update(np.tile(np.arange(256, dtype=np.uint8), (2, 1)).tobytes())
    for plane in made.planes[1:]:
        plane.update(np.full(plane.buffer_size, 128, np.uint8).tobytes())
    made.color_range = 1
    expected = np.clip(np.floor((np.arange(256) - 16) * 255 / 219 + 0.5), 0, 255)
    assert np.array_equal(yuv.to_rgb(made, 1)[0], np.repeat(expected[:, None], 3, 1))
