"""From a sample to a run of lips and its audio features."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F

from heads.measures.lips import crop_lips, lip_shape
from pretrain.data.audible import QUIET, audible, clip_rows, has_sound
from pretrain.data.spectrum import MEL_BINS, vary_spectrum
from pretrain.sync_expert.config import SyncExpertConfig
from shards.format.schema import Sample, feature_name
from shards.format.small import BREADTH, LARGE, LIPS, MARGIN

NEIGHBOURS = 1  # further segments of the clip whose features enter the mean: each costs a request


class CropCache:
    """Decoded lip crops, up to a number of bytes; what does not fit is decoded again each time."""

    def __init__(self, limit: int) -> None:
        self.limit, self.held = limit, 0
        self.crops: dict[str, np.ndarray] = {}

    def __getstate__(self) -> dict[str, object]:
        # Each reader process starts with an empty cache.
        return {"limit": self.limit, "held": 0, "crops": {}}

    def get(self, sample: Sample, rows: np.ndarray, config: SyncExpertConfig) -> np.ndarray:
        """Lips of the frames ``rows [R]`` of a sample, ``[R, h * margin, w * margin, 3]`` uint8."""
        if sample.key in self.crops:
            return self.crops[sample.key][rows]
        is_stored, (height, breadth) = stored(sample, config), margined(config)
        size = sample.length * height * breadth * 3
        if self.held + size > self.limit:
            # What is not kept is resized for these frames only.
            return stored_lips(sample, config, rows) if is_stored else sample_lips(sample, config, MARGIN, rows)
        lips = stored_lips(sample, config) if is_stored else sample_lips(sample, config, MARGIN)
        self.crops[sample.key] = lips
        self.held += size
        return lips[rows]


def margined(config: SyncExpertConfig, margin: float = MARGIN) -> tuple[int, int]:
    """Height and breadth of a crop with its margin, px."""
    return round(config.model.height * margin), round(config.model.breadth * margin)


def stored(sample: Sample, config: SyncExpertConfig) -> bool:
    """Whether a sample has crops of at least the network's resolution."""
    fine = BREADTH * (2 if LIPS in sample.members and config.size >= LARGE else 1)
    return LIPS in sample.members and margined(config)[1] <= fine


def stored_lips(sample: Sample, config: SyncExpertConfig, rows: np.ndarray | None = None) -> np.ndarray:
    """The stored crops of a sample's frames ``rows [R]``, all by default, ``[R, h * margin, w * margin, 3]`` uint8."""
    height, breadth = margined(config)
    found = sample.lip_crops()
    crops = torch.from_numpy(found if rows is None else found[rows]).permute(0, 3, 1, 2)
    if crops.shape[2:] != (height, breadth):
        crops = F.interpolate(crops, (height, breadth), mode="bilinear", antialias=True)
    return crops.permute(0, 2, 3, 1).contiguous().numpy()


def sample_lips(
    sample: Sample, config: SyncExpertConfig, margin: float = 1.0, rows: np.ndarray | None = None
) -> np.ndarray:
    """Lips of a sample's frames ``rows [R]``, all by default, cropped from them, ``[R, h * margin, w * margin, 3]`` uint8."""
    height, breadth = margined(config, margin)
    width, tall = sample.size
    rows = np.arange(sample.length) if rows is None else rows
    frames = torch.from_numpy(sample.frames(rows.tolist(), config.size))
    scale = torch.tensor([frames.shape[2] / width, frames.shape[1] / tall, frames.shape[2] / width])
    landmarks = torch.tensor(sample.track["landmarks"][rows]) * scale
    grow = torch.tensor([0.0, 0.0, float(np.log(margin)), 0.0]).expand(len(frames), 4)
    parts = [
        crop_lips(f.float() / 255, p, height, breadth, g)
        for f, p, g in zip(frames.split(16), landmarks.split(16), grow.split(16))
    ]
    return (torch.cat(parts) * 255).round().to(torch.uint8).numpy()


@dataclass(frozen=True)
class LipRunView:
    """Callable ``(sample, rng) -> {"lips" [R, h, w, 3], "features" [R, C], "mean" [C], "shape" [R, 3], "weight" ()}``.

    R = ``config.run`` consecutive frames; h and w include the margin, from which the objective cuts the final crop with the
    same jitter over a run. ``mean`` is the mean feature row of the segment and its neighbours. ``shape`` is the lips'
    geometry minus its mean over the segment. ``weight`` is zero for unusable samples.
    """

    config: SyncExpertConfig
    cache: CropCache = field(compare=False, default_factory=lambda: CropCache(0))
    window: ClassVar[int] = 1  # shorter segments are replaced by the view itself
    needs_sound: ClassVar[bool] = False  # so are silent ones

    @property
    def features(self) -> str:
        """Name of the audio features that it reads."""
        return self.config.features

    def __call__(self, sample: Sample, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Cut one run; the same ``rng`` gives the same run."""
        run = self.config.run
        sample, usable = audible(sample, rng, run, self.config.unreliable, self._read_at_once)
        start = int(rng.integers(max(0, sample.length - run) + 1))
        rows = np.minimum(np.arange(start, start + run), sample.length - 1)
        features = self._rows(sample)
        # Without ``centre`` the clip's mean is not used, so its neighbours are not read.
        mean = clip_rows(sample, features, rng, self._rows, NEIGHBOURS if self.config.centre else 0).mean(0)
        features = self.vary(np.concatenate([features, mean[None]]), rng)
        own = LIPS in sample.members
        shape = sample.lips["shape"] if own else lip_shape(torch.tensor(sample.track["landmarks"])).numpy()
        shape = shape - shape.mean(0)
        return {
            "lips": self.cache.get(sample, rows, self.config),
            "features": features[rows],
            "mean": features[-1],
            "shape": shape[rows],
            "weight": np.float32(usable),
        }

    def vary(self, features: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Spectral augmentation, if the features are log-mel."""
        if self.config.features != "logmel" or features.shape[1] % MEL_BINS:
            return features
        return vary_spectrum(features, self.config.augment, rng).astype(np.float32)

    def _read_at_once(self, sample: Sample) -> bool:
        """Whether a sample has audio; prefetches everything that a run needs, in one request where it is contiguous."""
        if LIPS not in sample.members:
            return has_sound(sample)
        sample.prefetch([LIPS, feature_name(self.config.features)])
        return float(sample.lips["loudness"]) > QUIET

    def _rows(self, sample: Sample) -> np.ndarray:
        return sample.features(self.config.features)
