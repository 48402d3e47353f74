"""Selects samples with usable audio: some footage is silent, and the audio of some clips is known not to fit."""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np

from shards.format.schema import Sample
from shards.format.small import MOTION
from shards.read.dataset import Dataset

QUIET = 1e-4  # RMS of full scale below which a segment counts as silent
SEARCHED = 5000  # samples: larger datasets are not searched for audio when they are opened · guess
TRIES = 8  # samples of a person that are tried · guess


def has_sound(sample: Sample) -> bool:
    """Whether a segment has any audio; decodes it only if the sample has no ``motion.npz``."""
    if MOTION in sample.members:
        return float(sample.motion["loudness"]) > QUIET
    return float(np.sqrt(np.mean(np.square(sample.audio)))) > QUIET


def speaking_people(dataset: Dataset, unreliable: Collection[str] = ()) -> list[str]:
    """The people of a dataset with audio in at least one reliable clip.

    Large datasets are not searched, which would mean reading them whole: all people are returned, and :func:`audible`
    skips silent segments one by one.
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
    """The sample, or another of the same person, with audio, a reliable clip and at least ``frames`` frames.

    ``is_audible`` tells whether a sample has audio; :func:`has_sound` by default.

    Returns:
        the sample and whether it is usable; if none of ``TRIES`` is, the last one tried and False.
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
    """Feature rows ``[T, C]`` of the sample and of up to ``neighbours`` other segments of its clip.

    Args:
        rows: those of the sample itself.
        read: gives the rows of a sample.
    """
    parts = [rows]
    for _ in range(neighbours):
        other = sample.sibling(rng)
        if other.clip == sample.clip and other.key != sample.key:
            parts.append(read(other))
    return np.concatenate(parts)
