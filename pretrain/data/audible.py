"""Which samples a task that listens can learn from: some footage is silent, some clips' sound is known to be shifted."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import numpy as np

QUIET = 1e-4  # RMS of full scale below which a segment counts as silent
SEARCHED = 5000  # samples: beyond this people are not searched for sound when a dataset is opened
TRIES = 8


def has_sound(sample: Any) -> bool:
    """Whether a segment has any sound at all."""
    return float(np.sqrt(np.mean(np.square(sample.audio)))) > QUIET


def speaking_people(dataset: Any, unreliable: Collection[str] = ()) -> list[str]:
    """The people of a dataset who can be heard in some trusted clip.

    Large datasets are not searched (that would read them whole): everyone is returned, and :func:`audible` passes
    over silent segments one by one.
    """
    if len(dataset) > SEARCHED:
        return list(dataset.identities)
    heard: set[str] = set()
    for row in dataset.samples:
        if row.identity not in heard and row.clip not in unreliable and has_sound(dataset.read(row.key)):
            heard.add(row.identity)
    return sorted(heard)


def audible(
    sample: Any,
    rng: np.random.Generator,
    frames: int,
    unreliable: Collection[str] = (),
    heard: Callable[[Any], bool] = has_sound,
) -> tuple[Any, bool]:
    """The sample itself, or a sibling, that has sound, a trusted clip and at least ``frames`` frames.

    ``heard`` tells whether a sample has sound; by default its sound is decoded.

    Returns:
        the sample and whether it is usable; when no sibling is, the last one tried and False.
    """
    for _ in range(TRIES):
        if sample.length >= frames and sample.clip not in unreliable and heard(sample):
            return sample, True
        sample = sample.sibling(rng)
    return sample, False
