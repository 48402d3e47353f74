"""Segments of a clip joined to sequences, for validation and evidence."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

import numpy as np

from pretrain.data.audible import has_sound
from shards.read.dataset import Dataset


@dataclass(kw_only=True)
class Sequence:
    """Consecutive segments of one clip. Arrays are float32 with T rows, one per frame.

    Attributes:
        identity, clip: names of the person and the clip.
        features: ``[T, C]``.
        track: the joined per-frame fields of the samples' tracks, and ``identity`` and ``intrinsics`` of the first segment.
        keys: the samples, in order, with their lengths in frames.
    """

    identity: str
    clip: str
    features: np.ndarray
    track: dict[str, np.ndarray]
    keys: list[tuple[str, int]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.features)


CONSTANT = ("identity", "intrinsics")


def sequences(
    dataset: Dataset, features: str | None, *, unreliable: Collection[str] = (), limit: int = 1500
) -> Iterator[Sequence]:
    """Every clip of a dataset as runs of consecutive segments, split after ``limit`` frames to bound memory.

    Args:
        dataset: as ``shards.read.dataset.open_dataset`` returns it, or a view of one.
        features: name of the audio features; None leaves them out (zero columns) and includes silent clips.
        unreliable: clips to leave out.
    """
    rows = sorted(dataset.samples, key=lambda row: row.key)
    run: list = []
    frames, expected = 0, None
    for row in rows:
        sample = dataset.read(row.key)
        if row.clip in unreliable or (features and not has_sound(sample)):
            continue
        first = int(sample.meta["first_frame"])
        if run and ((sample.identity, sample.clip, first) != expected or frames + sample.length > limit):
            yield _join(run, features)
            run, frames = [], 0
        run.append(sample)
        frames += sample.length
        expected = (sample.identity, sample.clip, first + sample.length)
    if run:
        yield _join(run, features)


def _join(run: list, features: str | None) -> Sequence:
    rows = [s.features(features) if features else np.zeros((s.length, 0), np.float32) for s in run]
    track = {
        name: run[0].track[name] if name in CONSTANT else np.concatenate([s.track[name] for s in run])
        for name in run[0].track
    }
    return Sequence(
        identity=run[0].identity,
        clip=run[0].clip,
        features=np.concatenate(rows),
        track=track,
        keys=[(s.key, s.length) for s in run],
    )
