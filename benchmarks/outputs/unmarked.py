"""Segments without a mark, to count false positives of a detector. Used by :mod:`benchmarks.outputs.marking`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.outputs.conversions import decoded

# One second, of which every eighth frame is looked at.
SEGMENT, EVERY = 24, 8
# Of one video at most so many segments.
MOST = 4


def segments(path: Path, size: int | None, crop: bool = False) -> Iterator[list[np.ndarray]]:
    """Stretches of a second, every eighth frame."""
    frames = decoded(path, MOST * SEGMENT)[::EVERY]
    for start in range(0, len(frames) - SEGMENT // EVERY + 1, SEGMENT // EVERY):
        yield [resized(frame, size, crop) for frame in frames[start : start + SEGMENT // EVERY]]


def resized(frame: np.ndarray, size: int | None, crop: bool) -> np.ndarray:
    """A frame cropped by 10 % on each side and scaled to a square."""
    from PIL import Image

    if crop:
        cut = frame.shape[0] // 10
        frame = frame[cut:-cut, cut:-cut]
    return frame if size is None else np.asarray(Image.fromarray(frame).resize((size, size), Image.Resampling.BICUBIC))


def generated(count: int) -> Iterator[np.ndarray]:
    """Pictures that could fool a search for waves: noise of several colours, gratings, checkers, dots, gradients."""
    random = np.random.default_rng(7)
    for number in range(count):
        side = int(random.choice([256, 360, 512, 720]))
        y, x = np.mgrid[:side, :side].astype(np.float32)
        angle, wave = random.uniform(0, np.pi), random.uniform(4, 64)
        along = (x * np.cos(angle) + y * np.sin(angle)) / wave
        kind = number % 6
        if kind == 0:
            spectrum = np.fft.rfft2(random.normal(size=(side, side)))
            radius = np.hypot(*np.meshgrid(np.fft.rfftfreq(side), np.fft.fftfreq(side))) + 1 / side
            grey = np.fft.irfft2(spectrum / radius ** random.uniform(0, 2), (side, side))
            grey = 128 + 50 * grey / grey.std()
        elif kind == 1:
            grey = 128 + 100 * np.sin(2 * np.pi * along)
        elif kind == 2:
            grey = 255.0 * ((np.floor(x / wave) + np.floor(y / wave)) % 2)
        elif kind == 3:
            grey = 128 + 60 * np.sin(2 * np.pi * x / wave) + 60 * np.sin(2 * np.pi * y / wave)
        elif kind == 4:
            tile = random.normal(128, 40, size=(int(wave) + 4, int(wave) + 4))
            grey = np.tile(tile, (side // len(tile) + 1,) * 2)[:side, :side]
        else:
            grey = 255 * x / side + random.normal(0, random.uniform(0.3, 4), size=(side, side))
        yield np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[..., None], 3, 2)
