"""Augmentation of log-mel rows: loudness, microphone, vocal tract, a masked band."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from configs.bounds import Share

MEL_BINS = 40
DECIBEL = 1 / 25  # one dB in the units of shards.features.logmel


@dataclass(frozen=True, kw_only=True)
class SpectrumConfig:
    """Strength of the spectral augmentation in training."""

    gain: float = 5.0  # dB of loudness, standard deviation
    tilt: float = 2.5  # dB of a smooth change of the spectrum, standard deviation
    warp: float = 0.1  # log scale of the frequency axis (another vocal tract), standard deviation
    mask: Share = 0.15  # largest share of mel bins that is masked, in one band


def vary_spectrum(features: np.ndarray, config: SpectrumConfig, rng: np.random.Generator) -> np.ndarray:
    """Log-mel rows ``[T, hops * 40]`` with another loudness, microphone and vocal tract, and a masked band.

    The last row is the mean row, whose values replace the masked band.
    """
    mel = features.reshape(len(features), -1, MEL_BINS)
    bins = np.arange(MEL_BINS)
    warped = (bins - 8) * np.exp(rng.normal(0, config.warp)) + 8
    low = np.clip(np.floor(warped).astype(int), 0, MEL_BINS - 1)
    high = np.minimum(low + 1, MEL_BINS - 1)
    share = np.clip(warped - low, 0, 1).astype(np.float32)
    mel = mel[..., low] * (1 - share) + mel[..., high] * share
    waves = np.cos(np.pi * np.outer(np.arange(1, 4), (bins + 0.5) / MEL_BINS))
    change = rng.normal(0, config.gain) + rng.normal(0, config.tilt, 3) @ waves
    mel = mel + (DECIBEL * change).astype(np.float32)
    hidden = int(rng.integers(0, int(config.mask * MEL_BINS) + 1))
    first = int(rng.integers(0, MEL_BINS - hidden + 1))
    # A masked band has its mean in all rows, the mean row too, and is zero once that is subtracted.
    mel[..., first : first + hidden] = mel[-1:, :, first : first + hidden]
    return mel.reshape(features.shape)
