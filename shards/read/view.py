"""Views: what a task sees of a sample. A view reads and decodes only the members it needs.

A view is a callable ``view(sample, rng) -> dict`` of numpy arrays and numbers; :class:`shards.read.reader.Reader` stacks
them into a batch. All randomness comes from ``rng``, which depends on the position in the epoch and on nothing else.
Images are float32 RGB in [0, 1], (H, W, 3); intrinsics and landmarks are in px of the returned image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from configs import InputError
from shards.format.schema import Sample, feature_name, frame_name, matte_name

PER_FRAME = ("expression", "eyelids", "gaze", "rotation", "translation", "quality")


@dataclass(frozen=True, kw_only=True)
class SequenceView:
    """A window of audio features and the motion that belongs to it (audio-expression).

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


@dataclass(frozen=True, kw_only=True)
class PairView:
    """Two frames of one person (expression-visual): the prior sees the source and must draw the target.

    Returns for ``source`` and ``target``, with S = ``size``: ``_image`` (S, S, 3), ``_matte`` (S, S) in [0, 1],
    ``_landmarks`` (478, 3), ``_intrinsics`` (3, 3), ``_rotation`` (3, 3), ``_translation`` (3,), ``_identity`` (I,),
    ``_expression`` (K,), ``_eyelids`` (2,), ``_gaze`` (2, 2), ``_quality`` (); and ``identity_index``.

    Attributes:
        across: probability that the target comes from another segment of the same person in the same shard.
        targets: how many targets; with more than one, target arrays get a leading axis.
        wide: probability that a target is one of the quarter of frames with the widest open mouth or, as likely, with
            the head turned farthest from the source's: rare in speech, and what the source shows least.
    """

    size: int = 256
    across: float = 0.5
    targets: int = 1
    wide: float = 0.0

    def __call__(self, sample: Sample, rng: np.random.Generator) -> dict[str, Any]:
        other = sample.sibling(rng) if rng.random() < self.across else sample
        source = int(rng.integers(sample.length))
        targets = rng.choice(other.length, self.targets, replace=self.targets > other.length)
        if self.wide:
            targets = self._widened(targets, sample.track["rotation"][source], other.track, rng)
        batch: dict[str, Any] = {"identity_index": sample.identity_index}
        for name, value in _picture(sample, source, self.size).items():
            batch[f"source_{name}"] = value
        pictures = _pictures(other, [int(i) for i in targets], self.size)
        for name in pictures[0]:
            stacked = np.stack([picture[name] for picture in pictures])
            batch[f"target_{name}"] = stacked if self.targets > 1 else stacked[0]
        return batch

    def _widened(
        self, targets: np.ndarray, rotation: np.ndarray, track: Mapping[str, np.ndarray], rng: np.random.Generator
    ) -> np.ndarray:
        """Each of the frames, or with the probability ``wide`` one of the widest in its stead."""
        turned = -np.einsum("tij,ij->t", track["rotation"], rotation)  # falls with the cosine of the angle between
        widest = [
            np.argsort(measure)[-max(1, len(measure) // 4) :] for measure in (mouth_gap(track["landmarks"]), turned)
        ]
        chosen = [
            rng.choice(widest[int(rng.random() < 0.5)]) if rng.random() < self.wide else target for target in targets
        ]
        return np.array(chosen)


def mouth_gap(landmarks: np.ndarray) -> np.ndarray:
    """Distance (T,) of the inner lips' middles in landmarks (T, 478, 3), over that of the outer eye corners."""
    gap, eyes = (np.linalg.norm(landmarks[:, a, :2] - landmarks[:, b, :2], axis=-1) for a, b in ((13, 14), (33, 263)))
    return gap / np.maximum(eyes, 1e-6)


@dataclass(frozen=True, kw_only=True)
class SyncView:
    """Frames and the sound that belongs to them, and sound that does not (sync-expert).

    Returns, with W = ``window`` and S = ``size``: ``frames`` (W, S, S, 3), ``landmarks`` (W, 478, 3) px, ``features``
    (W, C) of the same frames, ``other_features`` (W, C) of the same segment ``shift`` frames later, ``shift`` (0 where
    the segment is too short for another window), ``quality`` (W,), ``identity_index``.
    """

    window: int = 5
    features: str = "logmel"
    size: int = 256
    needs_sound: bool = True

    def __call__(self, sample: Sample, rng: np.random.Generator) -> dict[str, Any]:
        last = max(0, sample.length - self.window)
        start, other = int(rng.integers(last + 1)), int(rng.integers(last + 1))
        rows = np.minimum(np.arange(start, start + self.window), sample.length - 1)
        others = np.minimum(np.arange(other, other + self.window), sample.length - 1)
        names = [frame_name(int(i)) for i in np.unique(rows)]
        sample.prefetch(["meta.json", "track.npz", feature_name(self.features), *names])
        images = {int(i): _resized(sample.frame(int(i), self.size), self.size) for i in np.unique(rows)}
        features = sample.features(self.features)
        return {
            "frames": np.stack([images[int(i)] for i in rows]),
            "landmarks": sample.track["landmarks"][rows] * _scale(sample, self.size),
            "features": features[rows],
            "other_features": features[others],
            "shift": other - start,
            "quality": sample.track["quality"][rows],
            "identity_index": sample.identity_index,
        }


def _picture(sample: Sample, index: int, size: int) -> dict[str, np.ndarray]:
    return _pictures(sample, [index], size)[0]


def _pictures(sample: Sample, indices: Sequence[int], size: int) -> list[dict[str, np.ndarray]]:
    pictures = [name(i) for i in sorted(set(indices)) for name in (frame_name, matte_name)]
    sample.prefetch(["meta.json", "track.npz", *pictures])
    track, scale = sample.track, _scale(sample, size)
    intrinsics = _scaled(track["intrinsics"], scale)
    found: dict[int, dict[str, np.ndarray]] = {}
    for i in sorted(set(indices)):
        found[i] = {
            "image": _resized(sample.frame(i, size), size),
            "matte": _resized(sample.matte(i), size),
            "landmarks": track["landmarks"][i] * scale,
            "intrinsics": intrinsics,
            "identity": track["identity"],
            **{name: track[name][i] for name in PER_FRAME},
        }
    return [found[i] for i in indices]


def _scale(sample: Sample, size: int) -> np.ndarray:
    """Factors for landmark x, y and z (which has the scale of x)."""
    width, height = sample.size
    return np.array([size / width, size / height, size / width], np.float32)


def _scaled(intrinsics: np.ndarray, scale: np.ndarray) -> np.ndarray:
    # Pixel coordinates are continuous with 0 at the image's edge, so resizing is a plain factor.
    return intrinsics * np.array([[scale[0]], [scale[1]], [1.0]], np.float32)


def _resized(image: np.ndarray, size: int) -> np.ndarray:
    """uint8 (h, w[, 3]) to float32 in [0, 1] (size, size[, 3]); area average when shrinking."""
    from PIL import Image

    if image.shape[:2] != (size, size):
        method = Image.Resampling.BOX if min(image.shape[:2]) >= size else Image.Resampling.BILINEAR
        image = np.asarray(Image.fromarray(image).resize((size, size), method))
    return image.astype(np.float32) / 255.0


def check_view(view: Any, dataset: Any) -> None:
    """Prove before the first step that the dataset holds what a view asks for.

    Raises:
        InputError: features that the dataset was built without, or a window longer than a segment.
    """
    from shards.format.schema import MAX_FRAMES

    features, window = getattr(view, "features", None), getattr(view, "window", None)
    if isinstance(features, str):
        dataset.stored_features(features)
    if window is not None and not 1 <= window <= MAX_FRAMES:
        raise InputError(f"window {window}: a segment has at most {MAX_FRAMES} frames, choose 1 to {MAX_FRAMES}")
