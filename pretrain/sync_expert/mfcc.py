"""Mel-frequency cepstral coefficients as ``python_speech_features`` computes them, which is what SyncNet was trained on."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

RATE = 16_000  # Hz
LENGTH, STEP = 400, 160  # samples: rectangular windows of 25 ms every 10 ms
FFT = 512
FILTERS, COEFFICIENTS, LIFTER = 26, 13, 22
PREEMPHASIS = 0.97


def mfcc(sound: np.ndarray) -> np.ndarray:
    """Cepstra ``[M, 13]`` float64, 100 rows a second, of a sound ``[N]`` float in [-1, 1] at 16 kHz.

    The sound is first rounded to 16 bits, as in the files that SyncNet reads; column 0 is the log energy of the window.
    """
    samples = np.clip(np.rint(np.asarray(sound, np.float64) * 32768), -32768, 32767)
    if not len(samples):
        return np.zeros((0, COEFFICIENTS))
    power = np.square(np.abs(np.fft.rfft(_windows(_preemphasis(samples)), FFT))) / FFT
    tiny = np.finfo(float).eps  # instead of zero energy, whose logarithm does not exist
    energy, bands = power.sum(1), power @ mel_filters().T
    energy, bands = np.where(energy == 0, tiny, energy), np.where(bands == 0, tiny, bands)
    cepstra = np.log(bands) @ _cosines().T * _lifter()
    cepstra[:, 0] = np.log(energy)
    return cepstra


def _preemphasis(samples: np.ndarray) -> np.ndarray:
    return np.append(samples[0], samples[1:] - PREEMPHASIS * samples[:-1])


def _windows(samples: np.ndarray) -> np.ndarray:
    """Windows ``[M, 400]``; the last one is padded with zeros."""
    count = 1 + max(0, -(-(len(samples) - LENGTH) // STEP))
    padded = np.pad(samples, (0, (count - 1) * STEP + LENGTH - len(samples)))
    return padded[np.arange(count)[:, None] * STEP + np.arange(LENGTH)[None]]


@lru_cache(maxsize=1)
def mel_filters() -> np.ndarray:
    """Triangular filters ``[26, 257]`` over FFT bins, evenly spaced in mel from 0 to 8 kHz, corners on whole bins."""
    mel = np.linspace(0, 2595 * np.log10(1 + RATE / 2 / 700), FILTERS + 2)
    corners = np.floor((FFT + 1) * 700 * (10 ** (mel / 2595) - 1) / RATE)
    bins = np.arange(FFT // 2 + 1)[None]
    left, top, right = (corners[i : FILTERS + i, None] for i in range(3))
    rising = np.where((bins >= left) & (bins < top), (bins - left) / np.maximum(top - left, 1), 0)
    return rising + np.where((bins >= top) & (bins < right), (right - bins) / np.maximum(right - top, 1), 0)


def _cosines() -> np.ndarray:
    """The first 13 rows of the orthonormal DCT-II of 26 numbers."""
    rows = np.cos(np.pi * np.outer(np.arange(COEFFICIENTS), np.arange(FILTERS) + 0.5) / FILTERS) * np.sqrt(2 / FILTERS)
    rows[0] /= np.sqrt(2)
    return rows


def _lifter() -> np.ndarray:
    return 1 + LIFTER / 2 * np.sin(np.pi * np.arange(COEFFICIENTS) / LIFTER)
