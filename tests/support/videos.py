"""Small videos written on the spot: pictures that tell their own time, rates, turns, sound, damage."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

CLOCK = 8  # squares of the binary clock


def clock_picture(number: int, height: int = 96, width: int = 128) -> np.ndarray:
    """A picture whose top row of squares spells ``number`` in binary, and whose left top corner is red."""
    picture = np.full((height, width, 3), 90, np.uint8)
    for bit in range(CLOCK):
        picture[8:24, 16 + bit * 12 : 26 + bit * 12] = 235 if number >> bit & 1 else 20
    picture[:6, :6] = (230, 20, 20)
    return picture


def read_clock(picture: np.ndarray) -> int:
    """The number that a clock picture spells."""
    cells = [picture[12:20, 18 + bit * 12 : 24 + bit * 12].mean() for bit in range(CLOCK)]
    return sum(1 << bit for bit, value in enumerate(cells) if value > 110)


def write_video(
    path: Path,
    pictures: Iterable[np.ndarray],
    fps: float = 25,
    *,
    times: list[float] | None = None,
    sound: np.ndarray | None = None,
    rate: int = 16_000,
    sound_codec: str = "aac",
    pixel_shape: Fraction | None = None,
    faststart: bool = False,
) -> Path:
    """Writes pictures at a constant rate, or each at its own time, with mono sound in [-1, 1]."""
    options = {"movflags": "faststart"} if faststart else {}
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.options = {"crf": "12", "bf": "2"}
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, 12_000)
        audio = None if sound is None else container.add_stream(sound_codec, rate=rate, layout="mono")
        for k, picture in enumerate(pictures):
            if k == 0:
                stream.height, stream.width = picture.shape[:2]
                if pixel_shape is not None:
                    stream.codec_context.sample_aspect_ratio = pixel_shape
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts = round((times[k] if times else k / fps) * 12_000)
            frame.time_base = Fraction(1, 12_000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if audio is not None:
            for start in range(0, len(sound), 1024):
                block = av.AudioFrame.from_ndarray(sound[None, start : start + 1024].astype(np.float32), "fltp", "mono")
                block.sample_rate, block.pts, block.time_base = rate, start, Fraction(1, rate)
                container.mux(audio.encode(block))
            container.mux(audio.encode(None))
    return path


def turn(path: Path, degrees: int) -> Path:
    """Sets the rotation flag of an mp4's video track (its first track) in place, clockwise as phones do."""
    data = bytearray(path.read_bytes())
    header = data.index(b"tkhd") + 4
    matrix = header + (4 + 8 * 4 + 4 if data[header] == 0 else 4 + 8 * 4 + 16)
    one = 0x10000
    cells = {0: (one, 0, 0, one), 90: (0, one, -one, 0), 180: (-one, 0, 0, -one), 270: (0, -one, one, 0)}[degrees]
    a, b, c, d = (int(v).to_bytes(4, "big", signed=True) for v in cells)
    zero, w = bytes(4), (0x40000000).to_bytes(4, "big")
    data[matrix : matrix + 36] = a + b + zero + c + d + zero + zero + zero + w
    path.write_bytes(data)
    return path
