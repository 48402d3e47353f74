"""From a sample to a training window, with augmentation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from pretrain.audio_expression.config import AudioExpressionConfig
from pretrain.audio_expression.targets import flatten_targets
from pretrain.audio_expression.windows import utterance_statistics
from pretrain.data.audible import audible, clip_rows, has_sound
from pretrain.data.spectrum import MEL_BINS, vary_spectrum
from shards.format.schema import Sample, feature_name
from shards.format.small import MOTION

REMEMBERED = (
    1500  # segments whose rows stay decoded (40 kB of log-mel each): decoding costs more than a small model's step
)
NEIGHBOURS = 2  # further segments of the clip whose features enter the mean: each costs a request


@dataclass(frozen=True)
class WindowView:
    """Callable ``(sample, rng) -> {"features" [W, C], "mean" [C], "targets" [W, D], "person" (), "weight" ()}``.

    With ``scale`` features are divided by their recording's spread, and ``mean`` is ``[2, C]``: their mean, and ones.

    A segment that cannot be used (silent, short, unreliable) is replaced by another of the same person; if none is found,
    the weight is zero.

    ``people``: identity name to row of the style table.
    """

    config: AudioExpressionConfig
    people: dict[str, int]
    memory: dict[tuple[str, str], object] = field(default_factory=dict, compare=False, repr=False)
    window: ClassVar[int] = 1  # shorter segments are replaced by the view itself
    needs_sound: ClassVar[bool] = False  # so are silent ones

    @property
    def features(self) -> str:
        """Name of the audio features that it reads."""
        return self.config.features

    def __call__(self, sample: Sample, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Cut one window; the same ``rng`` gives the same window."""
        least = int(0.75 * self.config.window)
        sample, usable = audible(sample, rng, least, self.config.unreliable, self._has_sound)
        rows, targets = self._rows(sample), self._targets(sample)
        # The mean is augmented like the rows, as one more row that is not part of the window.
        # Without ``centre`` the clip's mean is not used, so its neighbours are not read.
        around = clip_rows(sample, rows, rng, self._rows, NEIGHBOURS if self.config.centre else 0)
        spread = utterance_statistics(around, True)[1] if self.config.scale else np.float32(1)
        features, targets, mean = vary(rows / spread, targets, around.mean(0) / spread, self.config, rng)
        mean = np.stack([mean, np.ones_like(mean)]) if self.config.scale else mean
        person, weight = np.asarray(self.people.get(sample.identity, -1), np.int64), np.asarray(usable, np.float32)
        return {"features": features, "mean": mean, "targets": targets, "person": person, "weight": weight}

    def _has_sound(self, sample: Sample) -> bool:
        return self._remember("sound", sample, self._read_at_once)

    def _read_at_once(self, sample: Sample) -> bool:
        """Whether a sample has audio; prefetches everything that a window needs, in one request where it is contiguous."""
        if MOTION in sample.members:
            sample.prefetch([feature_name(self.config.features), MOTION])
        return has_sound(sample)

    def _rows(self, sample: Sample) -> np.ndarray:
        return self._remember("rows", sample, lambda s: s.features(self.config.features))

    def _targets(self, sample: Sample) -> np.ndarray:
        return self._remember("targets", sample, self._flattened)

    def _flattened(self, sample: Sample) -> np.ndarray:
        return flatten_targets(sample.motion if MOTION in sample.members else sample.track, self.config.targets)

    def _remember(self, what: str, sample: Sample, decode: Callable[[Any], Any]) -> Any:
        """The result of ``decode`` for a sample, cached until the memory is full; never evicted, since every epoch needs it."""
        key = (what, sample.key)
        if key in self.memory:
            return self.memory[key]
        value = decode(sample)
        if len(self.memory) < 3 * REMEMBERED:
            self.memory[key] = value
        return value


def vary(
    features: np.ndarray, targets: np.ndarray, mean: np.ndarray, config: AudioExpressionConfig, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A random window at another tempo of a segment's rows; spectral augmentation if the features are log-mel.

    Returns:
        features ``[W, C]``, targets ``[W, D]``, mean ``[C]``.
    """
    window, augment = config.window, config.augment
    most = (len(features) - 1) / (window - 1)
    speed = min(float(np.exp(rng.normal(0, augment.speed))), most)
    start = rng.uniform(0, max(0.0, len(features) - 1 - speed * (window - 1)))
    at = start + speed * np.arange(window)
    features, targets = resample(features, at), resample(targets, at)
    features = np.concatenate([features, mean[None]])
    if config.features == "logmel" and features.shape[1] % MEL_BINS == 0:
        features = vary_spectrum(features, augment, rng)
    features = features.astype(np.float32)
    return features[:-1], targets.astype(np.float32), features[-1]


def resample(rows: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Rows at fractional positions ``at``, linearly interpolated."""
    low = np.clip(np.floor(at).astype(int), 0, len(rows) - 1)
    high = np.minimum(low + 1, len(rows) - 1)
    share = (at - low)[:, None].astype(np.float32)
    return rows[low] * (1 - share) + rows[high] * share
