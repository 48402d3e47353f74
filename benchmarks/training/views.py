"""A view that reads audio features and tracks, but no pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from shards.format.schema import Sample, feature_name

PER_FRAME = ("expression", "eyelids", "gaze", "rotation", "translation", "quality")


@dataclass(frozen=True, kw_only=True)
class SequenceView:
    """A window of audio features and the motion that belongs to it .

    Returns, with T = ``window``: ``features`` (T, C), ``expression`` (T, K), ``eyelids`` (T, 2), ``gaze`` (T, 2, 2),
    ``rotation`` (T, 3, 3), ``translation`` (T, 3), ``quality`` (T,), ``mask`` (T,) False where a segment was shorter
    and its last frame is repeated, ``identity`` (I,), ``identity_index``, ``start`` (first frame of the window).
    """

    window: int = 50
    features: str = "logmel"
    needs_sound: bool = True

    def __call__(self, sample: Sample, rng: np.random.Generator) -> dict[str, Any]:
        sample.prefetch([feature_name(self.features), "track.npz"])
        start = int(rng.integers(max(0, sample.length - self.window) + 1))
        rows = np.minimum(np.arange(start, start + self.window), sample.length - 1)
        track = sample.track
        return {
            "features": sample.features(self.features)[rows],
            **{name: track[name][rows] for name in PER_FRAME},
            "mask": np.arange(start, start + self.window) < sample.length,
            "identity": track["identity"],
            "identity_index": sample.identity_index,
            "start": start,
        }
