"""Log-mel: four steps of 40 mel bands for each video frame; needs no weights."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from shards.features.base import Feature
from shards.media.rates import SAMPLE_RATE, SAMPLES_PER_FRAME

MELS = 40
HOPS = 4  # 10 ms steps per 40 ms frame
WINDOW = 400  # samples, 25 ms
FFT = 512
HOP = SAMPLES_PER_FRAME // HOPS
REACH = (WINDOW - HOP) // 2  # samples that a frame's features need before and after it: 120, 7.5 ms
FLOOR = 1e-6  # added to the energy before its logarithm


def logmel(audio: np.ndarray) -> np.ndarray:
    """Rows ``[T, 160]`` float32 of ``audio [N]`` at 16 kHz, T = N // 640: 4 steps of 10 ms of 40 mel bands, earliest first.

    Row t sees samples 640 t - 120 to 640 t + 760: the frame's 40 ms and 7.5 ms on either side, centred; silence is
    assumed outside. Nothing is normalised over the file, so a stream gives the same rows (:class:`LogMelStream`).
    Values: digital silence is -1.2, loud speech about 1.
    """
    edge = np.zeros(REACH, np.float32)
    padded = np.concatenate([edge, np.asarray(audio, np.float32), edge])
    return logmel_rows(padded, len(audio) // SAMPLES_PER_FRAME)


def logmel_rows(padded: np.ndarray, frames: int) -> np.ndarray:
    """Rows ``[T, 160]``, T = ``frames``, of sound that begins ``REACH`` samples before the first frame."""
    if frames == 0:
        return np.zeros((0, MELS * HOPS), np.float32)
    steps = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP][: frames * HOPS]
    power = np.abs(np.fft.rfft(steps * _hann(), FFT)).astype(np.float32) ** 2 / WINDOW
    energy = np.log10(power @ _mel_filters() + FLOOR)
    return ((energy + 3.0) / 2.5).reshape(frames, HOPS * MELS).astype(np.float32)


class LogMelStream:
    """Streaming log-mel: push sound, get the rows that are final; joined they equal :func:`logmel` of all of it."""

    def __init__(self) -> None:
        self._held = np.zeros(REACH, np.float32)

    def push(self, audio: np.ndarray) -> np.ndarray:
        """Rows ``[K, 160]`` that became final: those whose 7.5 ms after the frame have arrived."""
        self._held = np.concatenate([self._held, np.asarray(audio, np.float32)])
        ready = max(0, (len(self._held) - 2 * REACH) // SAMPLES_PER_FRAME)
        rows = logmel_rows(self._held, ready)
        self._held = self._held[ready * SAMPLES_PER_FRAME :]
        return rows

    def finish(self) -> np.ndarray:
        """The remaining rows ``[K, 160]``, with silence after the end."""
        frames = (len(self._held) - REACH) // SAMPLES_PER_FRAME
        return logmel_rows(np.concatenate([self._held, np.zeros(REACH, np.float32)]), frames)


@lru_cache
def _hann() -> np.ndarray:
    return (0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(WINDOW) + 0.5) / WINDOW)).astype(np.float32)


@lru_cache
def _mel_filters() -> np.ndarray:
    """``[FFT // 2 + 1, MELS]``: triangles between 50 Hz and 7.6 kHz on the HTK mel scale, each of unit sum."""
    mel = np.linspace(_mel(50.0), _mel(7600.0), MELS + 2)
    edges = 700.0 * (10.0 ** (mel / 2595.0) - 1.0)
    hertz = np.linspace(0.0, SAMPLE_RATE / 2, FFT // 2 + 1)[:, None]
    rise = (hertz - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - hertz) / (edges[2:] - edges[1:-1])
    filters = np.maximum(0.0, np.minimum(rise, fall))
    return (filters / np.maximum(filters.sum(axis=0), 1e-9)).astype(np.float32)


def _mel(hertz: float) -> float:
    return 2595.0 * math.log10(1.0 + hertz / 700.0)


class LogMel(Feature):
    """Rows ``[T, 160]`` of :func:`logmel`."""

    name = "logmel"
    default_size = MELS * HOPS

    @property
    def size(self) -> int:
        return self.default_size

    @property
    def reach(self) -> int:
        return REACH

    def stream(self) -> LogMelStream:
        return LogMelStream()


FEATURE = LogMel
