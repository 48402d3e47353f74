"""Which rank reads which samples of a step: equal numbers, and few shards per rank without losing variety.

Up to ``TOGETHER`` ranks R take every R-th sample. More ranks form groups of ``TOGETHER``: the samples of a step are sorted
by stream and cut into one run for each group, whose ranks take turns. A step of 4,096 samples holds 17 of each of 240
streams, so a group of eight keeps to four streams from step to step, and a rank opens an eighth of the shards that it
would meet by taking every 512th sample.
"""

from __future__ import annotations

import numpy as np

TOGETHER = 8  # ranks, usually those of one machine


def deal(streams: np.ndarray, world_size: int) -> np.ndarray:
    """The rank of each sample of a step.

    Args:
        streams: ``[N]`` stream of each sample, in the order of the epoch.
        world_size: number of ranks.

    Returns:
        ``[N]`` ranks. Where N is a multiple of ``world_size`` every rank gets N / ``world_size`` samples; else every
        rank gets at least one if N is at least ``world_size``, and group sizes differ by less than one per rank.
    """
    count = len(streams)
    owners = np.arange(count) % world_size
    if world_size <= TOGETHER:
        return owners
    order = np.argsort(streams, kind="stable")
    for first in range(0, world_size, TOGETHER):
        last = min(first + TOGETHER, world_size)
        members = order[count * first // world_size : count * last // world_size]
        owners[members] = first + np.arange(len(members)) % (last - first)
    return owners
