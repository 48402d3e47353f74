"""Which samples a task that listens can learn from: some footage is silent, some clips' sound is known to be shifted."""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np

from shards.format.schema import Sample
from shards.format.small import MOTION
from shards.read.dataset import Dataset

QUIET = 1e-4  # RMS of full scale below which a segment counts as silent
SEARCHED = 5000  # samples: beyond this people are not searched for sound when a dataset is opened
TRIES = 8


def has_sound(sample: Sample) -> bool:
    """Whether a segment has any sound at all; decodes it only where the sample has no small members."""
    if MOTION in sample.members:
        return float(sample.motion["loudness"]) > QUIET
    return float(np.sqrt(np.mean(np.square(sample.audio)))) > QUIET


def speaking_people(dataset: Dataset, unreliable: Collection[str] = ()) -> list[str]:
    """The people of a dataset with sound in some trusted clip.

    Large datasets are not searched (that would read them whole): everyone is returned, and :func:`audible` passes
    over silent segments one by one.
    """
    if len(dataset) > SEARCHED:
        return list(dataset.identities)
    people: set[str] = set()
    for row in dataset.samples:
        if row.identity not in people and row.clip not in unreliable and has_sound(dataset.read(row.key)):
            people.add(row.identity)
    return sorted(people)


def audible(
    sample: Sample,
    rng: np.random.Generator,
    frames: int,
    unreliable: Collection[str] = (),
    is_audible: Callable[[Sample], bool] = has_sound,
) -> tuple[Sample, bool]:
    """The sample itself, or a sibling, that has sound, a trusted clip and at least ``frames`` frames.

    ``is_audible`` says whether a sample has sound; by default its sound is decoded.

    Returns:
        the sample and whether it is usable; when no sibling is, the last one tried and False.
    """
    for _ in range(TRIES):
        if sample.length >= frames and sample.clip not in unreliable and is_audible(sample):
            return sample, True
        sample = sample.sibling(rng)
    return sample, False


def clip_rows(
    sample: Sample,
    rows: np.ndarray,
    rng: np.random.Generator,
    read: Callable[[Sample], np.ndarray],
    neighbours: int,
) -> np.ndarray:
    """Feature rows ``[T, C]`` of a few seconds of the sample's clip: of itself and of some neighbours in the shard.

    Args:
        read: the rows of a sample.
    """
    parts = [rows]
    for _ in range(neighbours):
        other = sample.sibling(rng)
        if other.clip == sample.clip and other.key != sample.key:
            parts.append(read(other))
    return np.concatenate(parts)
