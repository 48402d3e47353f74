"""Sound that tests make: tones, clicks, noise."""

from __future__ import annotations

import numpy as np


def tone(seconds: float, hertz: float = 440.0, rate: int = 16_000) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def clicks(at: list[int], length: int) -> np.ndarray:
    sound = np.zeros(length, np.float32)
    sound[at] = 0.9
    return sound


def noise(length: int, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).normal(size=length)).astype(np.float32)
