"""Clips in which a flash and a chirp come at the same moments, in any container and codec, and how to find them again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

CHIRP_SECONDS = 0.04
DARK, BRIGHT = (60, 70, 80), (230, 230, 230)


def chirp(rate: int) -> np.ndarray:
    """40 ms from 500 to 4500 Hz with soft ends: its place can be found to a fraction of a sample after any codec."""
    t = np.arange(round(CHIRP_SECONDS * rate)) / rate
    sweep = np.sin(2 * np.pi * (500 * t + 4000 / CHIRP_SECONDS / 2 * t**2))
    return (0.8 * sweep * np.hanning(len(t))).astype(np.float32)


def chirps(times: Sequence[float], seconds: float, rate: int, channels: int = 1) -> np.ndarray:
    """``[channels, n]`` with a chirp beginning at each time."""
    sound = np.zeros((channels, round(seconds * rate)), np.float32)
    for time in times:
        at, one = round(time * rate), chirp(rate)
        sound[:, at : at + len(one)] = one
    return sound


def chirp_times(sound: np.ndarray, times: Sequence[float], rate: int = 16_000, reach: float = 0.5) -> list[float]:
    """Where the chirps of ``times`` lie in decoded sound ``[n]``, s: the best match within ``reach`` s of each."""
    found, one = [], chirp(rate)
    for time in times:
        low = max(0, round((time - reach) * rate))
        part = sound[low : round((time + reach) * rate) + len(one)]
        match = np.correlate(np.pad(part, (0, len(one))), one, "valid")
        best = int(match.argmax())
        assert match[best] > 0.2 * float(one @ one), f"no chirp near {time} s"
        left, middle, right = match[max(0, best - 1)], match[best], match[min(best + 1, len(match) - 1)]
        curve = left - 2 * middle + right
        found.append((low + best + (0.5 * (left - right) / curve if curve else 0.0)) / rate)
    return found


def flash_numbers(pictures: Any) -> list[int]:
    """Numbers of the bright pictures."""
    return [k for k, picture in enumerate(pictures) if picture[8:-8, 8:-8].mean() > 150]


@dataclass
class Kind:
    """How a clip is stored.

    Attributes:
        name: file name with suffix.
        muxer, movflags: the container; ``None``: by the suffix.
        video, sound: encoders.
        delay: s by which the sound's first sample comes after the first picture; negative: before it.
        hole: ``(at, length)`` s: stamps of the sound jump ahead by ``length`` at ``at``.
    """

    name: str
    video: str = "libx264"
    sound: str | None = "aac"
    rate: int = 48_000
    channels: int = 1
    muxer: str | None = None
    options: dict[str, str] = field(default_factory=dict)
    pictures: dict[str, str] = field(default_factory=dict)
    fps: Fraction = Fraction(25)
    delay: float = 0.0
    hole: tuple[float, float] | None = None


def write_clip(
    folder: Path,
    kind: Kind,
    flashes: Sequence[int],
    seconds: float = 4.0,
    *,
    sound_seconds: float | None = None,
    size: tuple[int, int] = (64, 64),
    packets: Callable[[Any, Any], Any] | None = None,
) -> Path:
    """Writes a clip whose picture ``k`` is bright and whose chirp begins at ``k / fps`` for each ``k`` of flashes.

    Args:
        packets: ``(packet, stream) -> packet or None``: changes or drops packets before they are muxed.
    """
    path = folder / kind.name
    rate, times = kind.rate, [float(k / kind.fps) for k in flashes]
    hole_at, hole = kind.hole or (float("inf"), 0.0)
    heard = [t - kind.delay - (hole if t >= hole_at + hole else 0.0) for t in times]
    with av.open(str(path), "w", format=kind.muxer, options=kind.options) as container:
        video = container.add_stream(kind.video, rate=kind.fps, options=kind.pictures)
        video.width, video.height, video.pix_fmt = *size, "yuv420p"
        sound = None
        if kind.sound is not None:
            layout = {1: "mono", 2: "stereo"}[kind.channels]
            sound = container.add_stream(kind.sound, rate=rate, layout=layout)
            if kind.sound == "vorbis":
                sound.codec_context.options = {"strict": "experimental"}

        def mux(made: Any, stream: Any) -> None:
            for packet in made:
                kept = packet if packets is None else packets(packet, stream)
                if kept is not None:
                    container.mux(kept)

        step = float(1 / kind.fps)
        samples = chirps(heard, (sound_seconds or seconds) - kind.delay, rate, kind.channels)
        blocks = _blocks(samples, sound, kind) if sound is not None else iter(())
        pending = next(blocks, None)
        for number in range(round(seconds * kind.fps)):
            picture = np.full((*size[::-1], 3), BRIGHT if number in flashes else DARK, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, 1 / kind.fps
            mux(video.encode(frame), video)
            while pending is not None and float(pending.pts * pending.time_base) <= (number + 1) * step:
                mux(sound.encode(pending), sound)
                pending = next(blocks, None)
        mux(video.encode(None), video)
        while pending is not None:
            mux(sound.encode(pending), sound)
            pending = next(blocks, None)
        if sound is not None:
            mux(sound.encode(None), sound)
    return path


def _blocks(samples: np.ndarray, stream: Any, kind: Kind) -> Any:
    """Frames of sound in the encoder's form with their stamps, split where a hole begins."""
    context = stream.codec_context
    length = context.frame_size or 1024
    hole_at = None if kind.hole is None else round((kind.hole[0] - kind.delay) * kind.rate) // length * length
    resampler = av.AudioResampler(format=context.format.name, layout=context.layout.name, rate=kind.rate)
    for at in range(0, samples.shape[1], length):
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(samples[:, at : at + length]), "fltp", context.layout.name
        )
        frame.sample_rate = kind.rate
        shift = 0.0 if hole_at is None or at < hole_at else kind.hole[1]
        for made in resampler.resample(frame):
            made.pts = at + round((kind.delay + shift) * kind.rate)
            made.time_base = Fraction(1, kind.rate)
            yield made
