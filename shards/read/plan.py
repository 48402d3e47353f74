"""The order of samples as a pure function of (dataset, seed, epoch), so that a few integers are all of its state.

Each epoch the shards are dealt to a fixed number of virtual streams. A stream shuffles its samples within windows of a
few shards; the epoch takes one sample of each stream in turn, skipping exhausted streams. So position p of an epoch is
found by arithmetic in every rank, worker, and run that resumes with another world size. At any time an epoch mixes
``STREAMS * WINDOW`` shards.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np

from configs import InputError
from shards.format.catalogue import known_people
from shards.read.dataset import IDENTITY, SAMPLES, Dataset

Key = TypeVar("Key")
Value = TypeVar("Value")
STREAMS = 240  # divisible by most numbers of ranks, so that a rank keeps its streams
WINDOW = 2  # shards shuffled together within a stream

Weights = Mapping[str, float] | str | None


class EpochPlan:
    """The order of one epoch.

    Args:
        dataset: a dataset or a view of it.
        seed: of the run.
        epoch: number of the epoch, from 0.
        weights: how often a sample appears on average. None: exactly once. ``"balanced"``: every identity equally often,
            with the same length of the epoch. A mapping identity → factor: 1 for people it does not name, 0 excludes.
    """

    def __init__(self, dataset: Dataset, seed: int, epoch: int, weights: Weights = None) -> None:
        self.dataset, self.seed, self.epoch = dataset, seed, epoch
        table = dataset.table
        copies = self._copies(identity_factors(dataset, weights)) * dataset.chosen
        self._row_copies = copies
        counts = np.bincount(table.shard_of, weights=copies, minlength=len(table.names)).astype(np.int64)
        active = np.flatnonzero(counts)
        order = self._rng(0).permutation(active)
        self.n_streams = min(STREAMS, len(order))
        self._streams = [order[stream :: self.n_streams] for stream in range(self.n_streams)]
        self._counts = [counts[shards] for shards in self._streams]
        self._turns([int(count.sum()) for count in self._counts])
        self._windows: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()
        self._lines: OrderedDict[int, np.ndarray] = OrderedDict()

    def __len__(self) -> int:
        return self._starts[-1]

    def locate(self, position: int) -> tuple[int, int]:
        """Shard number, and position in the shard, of the sample at ``position`` of the epoch.

        Raises:
            InputError: the shard's index cannot be used.
        """
        stream, turn = self._turn(position)
        shard, copy = self._in_window(stream, turn)
        return shard, int(self._shard_lines(shard)[copy])

    def shard_at(self, position: int) -> int:
        """Shard number at ``position``, without opening any index."""
        return self._in_window(*self._turn(position))[0]

    def streams(self, positions: np.ndarray) -> np.ndarray:
        """``[N]`` stream of each position ``[N]``."""
        found = np.empty(len(positions), np.int64)
        pieces = np.searchsorted(self._starts, positions, side="right") - 1
        for piece in np.unique(pieces):
            here, alive = pieces == piece, self._alive_in(int(piece))
            found[here] = alive[(positions[here] - self._starts[piece]) % len(alive)]
        return found

    def _copies(self, factors: np.ndarray) -> np.ndarray:
        people = self.dataset.table.people
        wanted = factors[people[:, IDENTITY]] * people[:, SAMPLES]
        # Fractions are rounded up or down at random in each epoch, so that the mean is exact.
        chance = self._rng(1).random(len(people))
        return np.floor(wanted + np.where(wanted == np.round(wanted), 0.0, chance)).astype(np.int64)

    def _turns(self, lengths: list[int]) -> None:
        """Pieces of rounds: while the j shortest streams are exhausted, each round has ``n_streams - j`` samples."""
        self._lengths = np.array(lengths, np.int64)
        ordered = np.sort(self._lengths)
        starts, rounds = [0], [0]
        for used_up, length in enumerate(ordered):
            starts.append(starts[-1] + (int(length) - rounds[-1]) * (len(ordered) - used_up))
            rounds.append(int(length))
        self._starts, self._rounds = starts, rounds
        self._alive: dict[int, np.ndarray] = {}

    def _turn(self, position: int) -> tuple[int, int]:
        if not 0 <= position < len(self):
            raise IndexError(f"position {position} of an epoch of {len(self)} samples")
        piece = bisect_right(self._starts, position) - 1
        alive = self._alive_in(piece)
        turn, slot = divmod(position - self._starts[piece], len(alive))
        return int(alive[slot]), self._rounds[piece] + turn

    def _alive_in(self, piece: int) -> np.ndarray:
        """The streams that are not exhausted in a piece."""
        if piece not in self._alive:
            self._alive[piece] = np.flatnonzero(self._lengths > self._rounds[piece])
        return self._alive[piece]

    def _in_window(self, stream: int, turn: int) -> tuple[int, int]:
        ends = np.cumsum(self._counts[stream])
        window = int(np.searchsorted(ends, turn, side="right")) // WINDOW
        first = window * WINDOW
        start = int(ends[first - 1]) if first else 0
        inside = ends[first : first + WINDOW] - start
        item = int(self._window(stream, window, int(inside[-1]))[turn - start])
        which = int(np.searchsorted(inside, item, side="right"))
        return int(self._streams[stream][first + which]), item - (int(inside[which - 1]) if which else 0)

    def _window(self, stream: int, window: int, size: int) -> np.ndarray:
        return _cached(self._windows, (stream, window), lambda: self._rng(2, stream, window).permutation(size), STREAMS)

    def _shard_lines(self, shard: int) -> np.ndarray:
        return _cached(self._lines, shard, lambda: self._draw_lines(shard), 2 * STREAMS)

    def _draw_lines(self, shard: int) -> np.ndarray:
        """Positions in a shard, each as often as this epoch needs it; a person's samples differ by at most one copy."""
        parts = []
        for row, lines in self.dataset.rows_of(shard):
            shuffled = self._rng(3, shard, row).permutation(lines)
            parts.append(np.resize(shuffled, self._row_copies[row]) if self._row_copies[row] else lines[:0])
        return np.concatenate(parts)

    def _rng(self, *purpose: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, self.epoch, *purpose])


def _cached(cache: OrderedDict[Key, Value], key: Key, make: Callable[[], Value], limit: int) -> Value:
    if key in cache:
        cache.move_to_end(key)
        return cache[key]
    cache[key] = make()
    while len(cache) > limit:
        cache.popitem(last=False)
    return cache[key]


def identity_factors(dataset: Dataset, weights: Weights) -> np.ndarray:
    """Mean copies per sample ``[identities]`` for each identity of the catalogue; 0 for people outside the view.

    Raises:
        InputError: an unknown identity or rule, or a factor that is negative or not finite.
    """
    people, chosen, allowed = dataset.table.people, dataset.chosen, dataset._allowed
    samples = np.bincount(people[chosen, IDENTITY], people[chosen, SAMPLES], len(allowed))
    factors = allowed.astype(float)
    if weights is None:
        return factors
    if isinstance(weights, str):
        if weights != "balanced":
            raise InputError(f"identity weights '{weights}': expected 'balanced' or identity: factor pairs")
        share = samples.sum() / max(1, int((samples > 0).sum()))
        return np.divide(share, samples, out=np.zeros_like(factors), where=samples > 0)
    names = dataset.identities
    numbers = np.flatnonzero(allowed)
    for name, factor in weights.items():
        if name not in names:
            raise InputError(f"identity weights: '{name}' is not in {dataset.url}{known_people(name, names)}")
        if not np.isfinite(factor) or factor < 0:
            raise InputError(f"identity weights: '{name}' has factor {factor}, expected 0 or more")
        factors[numbers[names.index(name)]] = factor
    return factors
