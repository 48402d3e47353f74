"""Marks frames, one by one, with a watermark that says which avatar made them.

The same pattern lies on every frame of a video: it cannot flicker, codecs carry it along where the picture stands still,
and a detector can sum frames. It changes luma only, strongly where the picture is busy and weakly where it is flat. Its
waves are long enough for a codec to keep them at low bit rates, and for the eye to see no grain.
See :mod:`adapt.marking.code` for what the pattern is, :mod:`adapt.marking.search` for how it is found.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar

import numba
import numpy as np

from adapt.marking.code import HIGHEST, code_of, shifts, symbols_of, watermark_key

# Standard deviation of the change, grey levels, on flat and on busy ground.
WEAKEST, STRONGEST = 0.7, 4.0
# Mean absolute difference of neighbouring pixels, grey levels, up to which ground is flat and from which on it is busy.
# In between the strength rises as this power of the difference.
FLAT, BUSY, RISE = 0.15, 4.0, 0.5
# Below this grey level the eye sees smaller changes: the mark weakens down to half at black.
DARK = 64.0
# What a grey level of luma (BT.601) changes red, green and blue by. Green counts most for luma, so this costs 16 % less
# mean square than grey does; (0.669, 1.313, 0.255) would cost least, and its greens and purples can be seen on skin.
COLOURS = (0.838, 1.134, 0.739)
# A frame's mean square change of luma before rounding, grey levels squared: 42.1 dB over the three colours with rounding.
LARGEST_ENERGY = 4.6
# Wavelengths that carry the mark, px: none below the first, all between the second and the third, and LONG_SHARE of the
# amplitude beyond the fourth. Shorter waves do not survive a codec, longer ones compete with the picture's content.
WAVES = (7.0, 11.0, 20.0, 28.0)
LONG_SHARE = 0.3
BLOCK = 8  # px, side of the squares that share a strength
Kernel = TypeVar("Kernel", bound=Callable[..., Any])


class Watermark:
    """Marks frames with a payload.

    Args:
        payload: 32 bits, see :func:`adapt.marking.code.payload_of`.
        key: secret; ``None`` reads ``HEADSTART_WATERMARK_KEY`` or takes the public key.
    """

    def __init__(self, payload: int, *, key: str | None = None) -> None:
        if not 0 <= payload < 2**32:
            raise ValueError(f"payload {payload} does not fit in 32 bits")
        self.payload, self.key = payload, watermark_key(key)

    def mark(self, frame: np.ndarray) -> np.ndarray:
        """A marked copy of a frame ``[H, W, 3 or 4]`` uint8 RGB(A); alpha is copied as it is."""
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] not in (3, 4):
            raise ValueError(f"frame is {frame.dtype} {frame.shape}, expected uint8 [H, W, 3 or 4]")
        frame = np.ascontiguousarray(frame)
        strength = _limited(_strength(frame))
        marked = np.empty_like(frame)
        _add(frame, _spread(self.key, self.payload, *frame.shape), strength, marked)
        return marked


@lru_cache(maxsize=4)
def pattern(key: bytes, payload: int, height: int, width: int) -> np.ndarray:
    """The pattern of a frame, float32 ``[H, W]``, mean 0, standard deviation 1."""
    code = code_of(key)
    tile = min(height, width) / 2
    phase = code.phase + shifts(code, symbols_of(key, payload))
    amplitude = _kept(tile / np.hypot(code.kx, code.ky))
    table = np.zeros((HIGHEST + 1, 2 * HIGHEST + 1), np.complex128)
    table[code.ky, code.kx + HIGHEST] = amplitude * np.exp(1j * phase)
    k = np.arange(-HIGHEST, HIGHEST + 1)
    across = np.exp(2j * np.pi / tile * np.outer(k, np.arange(width) + 0.5))
    down = np.exp(2j * np.pi / tile * np.outer(np.arange(height) + 0.5, k[HIGHEST:]))
    waves = (down @ (table @ across)).real
    return (waves / waves.std()).astype(np.float32)


@lru_cache(maxsize=4)
def _spread(key: bytes, payload: int, height: int, width: int, depth: int) -> np.ndarray:
    """The pattern with each pixel's value in all of its channels, ``[H, W * depth]``: a frame's rows then need no gathering."""
    return np.repeat(pattern(key, payload, height, width), depth, axis=1)


def _kept(wave: np.ndarray) -> np.ndarray:
    """Amplitude in [0, 1] of waves of length ``wave``, px; in a frame too small for ``WAVES``, of the longest ones only."""
    none, rising, falling, long = WAVES
    short = np.clip((wave - none) / (rising - none), 0, 1)
    kept = short * np.clip((long - wave) / (long - falling), LONG_SHARE, 1)
    return kept if kept.any() else (wave >= 0.9 * wave.max()).astype(float)


def _limited(strength: np.ndarray) -> np.ndarray:
    """Strengths, the largest ones cut where a frame is so busy that its change would exceed ``LARGEST_ENERGY``."""
    squares = np.square(strength, dtype=np.float64)
    count = squares.size
    if squares.sum() < LARGEST_ENERGY * count * (1 - 1e-9):
        return strength
    squares = np.sort(squares, axis=None)
    # Mean square where everything from the i-th on is cut to the i-th.
    cut = (np.cumsum(squares) + squares * np.arange(count - 1, -1, -1)) / count
    i = int(np.searchsorted(cut, LARGEST_ENERGY, side="right"))
    if i == count:
        return strength
    below = float(squares[:i].sum())
    return np.minimum(strength, np.float32(math.sqrt((LARGEST_ENERGY * count - below) / (count - i))))


def _compiled(function: Kernel) -> Kernel:
    """``function`` in machine code, kept on disk where a folder for that can be written."""
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    try:
        kernel: Any = numba.njit(cache=True, **options)(function)
    except RuntimeError:
        kernel = numba.njit(**options)(function)
    return kernel


@_compiled
def _strength(frame: np.ndarray) -> np.ndarray:
    """Strength of the mark in blocks of 8 px, float32 ``[ceil(H/8), ceil(W/8)]``, grey levels."""
    height, width = frame.shape[0], frame.shape[1]
    rows, columns = (height + BLOCK - 1) // BLOCK, (width + BLOCK - 1) // BLOCK
    busy = np.zeros((rows, columns), np.float32)
    dark = np.empty((rows, columns), np.float32)
    for row in range(rows):
        top, bottom = row * BLOCK, min(row * BLOCK + BLOCK, height - 1)
        for column in range(columns):
            left, right = column * BLOCK, min(column * BLOCK + BLOCK, width - 1)
            total, count, level = np.int64(0), np.int64(1), np.int64(0)
            # Green stands for luma, and one pixel of four is enough. Signed types: unsigned bytes would wrap around.
            for y in range(top, bottom, 2):
                for x in range(left, right, 2):
                    here = np.int64(frame[y, x, 1])
                    total += abs(here - np.int64(frame[y, x + 1, 1])) + abs(here - np.int64(frame[y + 1, x, 1]))
                    count += 2
                    level += here
            busy[row, column] = min(np.float32(total) / np.float32(count), np.float32(BUSY))
            dark[row, column] = min(1.0, 0.5 + 0.5 * (2 * level / count) / DARK)
    out = np.empty((rows, columns), np.float32)
    for row in range(rows):
        for column in range(columns):
            total_busy, blocks = np.float32(0.0), np.float32(0.0)
            for y in range(max(0, row - 1), min(rows, row + 2)):
                for x in range(max(0, column - 1), min(columns, column + 2)):
                    total_busy += busy[y, x]
                    blocks += np.float32(1.0)
            # An edge beside flat ground must not raise the mark on the flat ground.
            around = max(min(busy[row, column], total_busy / blocks) - np.float32(FLAT), np.float32(0.0))
            rise = (around / np.float32(BUSY - FLAT)) ** np.float32(RISE)
            out[row, column] = dark[row, column] * (WEAKEST + (STRONGEST - WEAKEST) * rise)
    return out


@_compiled
def _add(frame: np.ndarray, pattern: np.ndarray, strength: np.ndarray, out: np.ndarray) -> None:
    """``out = frame + strength * pattern * COLOURS``, rounded and kept in 0..255; ``pattern`` from :func:`_spread`."""
    height, width, depth = frame.shape
    rows, columns = strength.shape
    line = np.empty(columns + 2, np.float32)
    # All of the following have a number for each channel of each pixel, so that every loop is one of vectors.
    gains = np.empty((columns + 1) * BLOCK * depth, np.float32)
    places, colours = np.empty(BLOCK * depth, np.float32), np.zeros(width * depth, np.float32)
    for k in range(BLOCK * depth):
        places[k] = np.float32(k // depth) + np.float32(0.5)
    for i in range(width * depth):
        if i % depth < 3:
            colours[i] = np.float32(COLOURS[i % depth])
    for y in range(height):
        place = min(max((y + 0.5) / BLOCK - 0.5, 0.0), rows - 1.0)
        upper = int(place)
        lower, part = min(upper + 1, rows - 1), np.float32(place - upper)
        for column in range(columns):
            value = strength[upper, column]
            line[column + 1] = value + part * (strength[lower, column] - value)
        line[0], line[columns + 1] = line[1], line[columns]
        # Between the centres of two blocks, at 8 i - 4 and 8 i + 4, the strength goes straight.
        for column in range(columns + 1):
            slope = (line[column + 1] - line[column]) / np.float32(BLOCK)
            begin = line[column]
            part_gains = gains[column * BLOCK * depth : (column + 1) * BLOCK * depth]
            for k in range(BLOCK * depth):
                part_gains[k] = begin + slope * places[k]
        row, marked = frame[y].reshape(width * depth), out[y].reshape(width * depth)
        gain, wave = gains[BLOCK // 2 * depth : (BLOCK // 2 + width) * depth], pattern[y]
        for i in range(width * depth):
            # Adding 1024.5 before cutting off rounds negative changes too.
            change = np.int32(gain[i] * wave[i] * colours[i] + np.float32(1024.5)) - np.int32(1024)
            marked[i] = np.uint8(min(max(np.int32(row[i]) + change, np.int32(0)), np.int32(255)))
