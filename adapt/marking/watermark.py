"""Marks frames, one by one, with a watermark that says which avatar made them.

The same pattern lies on every frame of a video: it cannot flicker, codecs carry it along where the picture stands still,
and a detector can add frames up. It changes luma alone, by more where the picture is busy and by less where it is flat.
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

# Standard deviation of the change in grey levels, on flat and on busy ground.
WEAKEST, STRONGEST = 0.9, 2.5
# Mean absolute difference of neighbouring pixels, grey levels, from which on the ground is busy.
BUSY = 5.0
# Below this grey level the eye sees smaller changes: the mark weakens down to half at black.
DARK = 64.0
# A frame's mean square change, grey levels squared: 42.5 dB.
LARGEST_ENERGY = 3.65
# Shorter waves than this many pixels do not outlive a video codec: they get no energy.
SHORTEST_WAVE = 4.0
BLOCK = 8
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
        strength = _limited(_strength(frame) * _gain(min(frame.shape[:2])))
        marked = np.empty_like(frame)
        _add(frame, pattern(self.key, self.payload, *frame.shape[:2]), strength, marked)
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


def _kept(wave: np.ndarray) -> np.ndarray:
    """How much of a wave of so many pixels is used: 0 below ``SHORTEST_WAVE``, 1 from a third more on."""
    return np.clip(3 * (wave / SHORTEST_WAVE - 1), 0, 1)


def _gain(side: int) -> np.float32:
    """Small frames have fewer pixels to carry the mark and need more of it, large ones less."""
    return np.float32(np.clip(math.sqrt(512 / side), 0.8, 1.4))


def _limited(strength: np.ndarray) -> np.ndarray:
    """Strengths scaled down where a frame is so busy that the change would exceed ``LARGEST_ENERGY``."""
    energy = float(np.mean(np.square(strength)))
    return strength if energy <= LARGEST_ENERGY else strength * np.float32(np.sqrt(LARGEST_ENERGY / energy))


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
            around = min(busy[row, column], total_busy / blocks) / np.float32(BUSY)
            out[row, column] = dark[row, column] * (WEAKEST + (STRONGEST - WEAKEST) * around ** np.float32(0.75))
    return out


@_compiled
def _add(frame: np.ndarray, pattern: np.ndarray, strength: np.ndarray, out: np.ndarray) -> None:
    """``out = frame + strength * pattern`` on the three colours, rounded and kept in 0..255."""
    height, width, depth = frame.shape
    rows, columns = strength.shape
    line = np.empty(columns + 2, np.float32)
    gains = np.empty((columns + 1) * BLOCK, np.float32)
    change, changes = np.empty(width, np.int32), np.zeros(width * depth, np.int32)
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
            for k in range(BLOCK):
                gains[column * BLOCK + k] = line[column] + slope * (np.float32(k) + np.float32(0.5))
        for x in range(width):
            # Adding 1024.5 before cutting off rounds negative changes too.
            change[x] = np.int32(gains[x + BLOCK // 2] * pattern[y, x] + np.float32(1024.5)) - np.int32(1024)
        # One run over the row's numbers is a loop of vectors; one over pixels and their channels is not.
        for x in range(width):
            for channel in range(3):
                changes[x * depth + channel] = change[x]
        row, marked = frame[y].reshape(width * depth), out[y].reshape(width * depth)
        for i in range(width * depth):
            marked[i] = np.uint8(min(max(np.int32(row[i]) + changes[i], np.int32(0)), np.int32(255)))
