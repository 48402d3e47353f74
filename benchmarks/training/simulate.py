"""Simulation of a long run on many machines, with the reader's real plan.

The plan is given as a function, so that this module does not depend on shards: ``positions(start) -> (positions of the step
over all ranks, where the next step begins)``, as :meth:`shards.read.reader.Reader.positions`. The simulation deals them to
the ranks by ``deal`` (:meth:`shards.read.reader.Reader.owners`), draws the durations of computing and fetching, kills
machines, restarts from checkpoints with the machines that are left, and counts every sample.

Everything is drawn from one seed; times are seconds of the simulated run.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Positions = Callable[[Any], tuple[list[Any], Any]]
Deal = Callable[[list[Any], int], np.ndarray]
INDEXES_HELD = 600  # by a rank, as shards.read.store.Store
ON_DISK = 30_000  # by a machine: 2 GB of about 60 kB, as cluster.storage.cache.shared_bytes


def in_turn(step: list[Any], ranks: int) -> np.ndarray:
    """Rank r takes every ``ranks``-th sample."""
    return np.arange(len(step)) % ranks


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """Machines, their speed and how they fail."""

    ranks: int = 512
    ranks_per_node: int = 8
    compute: float = 1.0  # seconds of a step on a healthy rank
    jitter: float = 0.03  # relative standard deviation from step to step
    slow_nodes: float = 0.02  # share of machines that are stragglers
    slow_factor: float = 1.3
    exchange: float = 0.05  # seconds of the gradient exchange
    hours_between_failures: float = 500.0  # mean, of one machine
    hours_to_replace: float = 0.25  # until a lost machine is back


@dataclass(frozen=True, kw_only=True)
class Store:
    """Where the samples come from."""

    bytes_per_sample: float = 40e3
    requests_per_sample: float = 2.0
    latency: float = 0.03  # seconds of a request until its first byte, median
    tail: float = 1.0  # sigma of the log-normal around it
    node_bandwidth: float = 1.25e9  # bytes/s of one machine (10 Gbit/s)
    total_bandwidth: float = 12.5e9  # bytes/s of the store
    parallel: int = 4  # requests under way on one rank
    prefetch: int = 4  # steps that a rank reads ahead


@dataclass(frozen=True, kw_only=True)
class Restart:
    """What a failure costs beside the steps since the last checkpoint."""

    checkpoint_every: int = 100  # steps
    checkpoint: float = 2.0  # seconds that every rank waits for one
    notice: float = 5.0  # until a lost machine is noticed
    start: float = 40.0  # workers, process group, weights


@dataclass
class Report:
    """What happened; shares are of the run's wall-clock time."""

    steps: int = 0
    wall: float = 0.0
    failures: int = 0
    steps_redone: int = 0
    least_ranks: int = 0
    useful: float = 0.0
    waiting_for_data: float = 0.0
    waiting_for_stragglers: float = 0.0
    restarting: float = 0.0
    redoing: float = 0.0
    checkpointing: float = 0.0
    samples_read: int = 0
    samples_lost: int = 0
    samples_repeated: int = 0
    rank_samples: tuple[int, int] = (0, 0)
    rank_shards: tuple[int, int] = (0, 0)
    shards_at_once: int = 0
    indexes_read: float = 0.0  # indexes that ranks open for each sample read
    indexes_fetched: float = 0.0  # those that a machine asks the store for: its ranks share them
    notes: list[str] = field(default_factory=list)


class Held:
    """What a rank or a machine holds of indexes or ranges, by number; those used longest ago go first."""

    def __init__(self, most: int) -> None:
        self.most, self.loads = most, 0
        self.touched: set[Hashable] = set()
        self._held: OrderedDict[Hashable, None] = OrderedDict()

    def use(self, name: Hashable) -> None:
        """Load it if it is not held."""
        if name not in self._held:
            self.loads += 1
            self.touched.add(name)
            if len(self._held) == self.most:
                self._held.popitem(last=False)
        self._held[name] = None
        self._held.move_to_end(name)


class Simulation:
    """One run from ``start`` to ``finished(position)``.

    Args:
        positions: the reader's plan, see the module's text.
        start: where it begins; finished: whether a position is the end.
        shard_of: the shard of a sample's position, for balance; None skips that part.
        deal: the rank of each sample of a step.
    """

    def __init__(
        self,
        positions: Positions,
        start: Any,
        finished: Callable[[Any], bool],
        *,
        fleet: Fleet,
        store: Store,
        restart: Restart,
        shard_of: Callable[[Any], int] | None = None,
        deal: Deal = in_turn,
        seed: int = 0,
    ) -> None:
        self.deal = deal
        self.positions, self.start, self.finished, self.shard_of = positions, start, finished, shard_of
        self.fleet, self.store, self.restart = fleet, store, restart
        self.rng = np.random.default_rng(seed)
        self.nodes = -(-fleet.ranks // fleet.ranks_per_node)
        slow = self.rng.random(self.nodes) < fleet.slow_nodes
        self.node_speed = np.where(slow, fleet.slow_factor, 1.0)
        self.back_at = np.zeros(self.nodes)  # when a lost machine is in use again
        self.report = Report(least_ranks=fleet.ranks)
        self._span = 0.0  # useful seconds since the last checkpoint, for nothing if a machine fails

    def run(self) -> Report:
        """Simulate to the end."""
        report, trained = self.report, []
        saved, position, since = self.start, self.start, 0
        ahead = None
        while not self.finished(position):
            ranks = self._ranks()
            report.least_ranks = min(report.least_ranks, len(ranks))
            step, after = self.positions(position)
            times, ahead = self._step(len(step), ranks, ahead)
            if self._fails(sum(times.values())):
                self._go_back(since, times)
                del trained[len(trained) - since :]
                position, ahead, since = saved, None, 0
                continue
            self._account(times)
            trained.append((step, len(ranks)))
            position, since = after, since + 1
            report.steps += 1
            if since == self.restart.checkpoint_every:
                report.wall += self.restart.checkpoint
                report.checkpointing += self.restart.checkpoint
                saved, since, self._span = position, 0, 0.0
        self._count(trained)
        return self._shares()

    def _ranks(self) -> np.ndarray:
        """Relative slowness of each rank on the machines that are here now."""
        here = self.back_at <= self.report.wall
        return np.repeat(self.node_speed[here], self.fleet.ranks_per_node)[: self.fleet.ranks]

    def _step(self, samples: int, ranks: np.ndarray, ahead: np.ndarray | None) -> tuple[dict[str, float], np.ndarray]:
        """Seconds of a step by what they went to, and how far (seconds) each rank's reader is ahead now."""
        fleet, store = self.fleet, self.store
        compute = fleet.compute * ranks * np.clip(self.rng.normal(1, fleet.jitter, len(ranks)), 0.5, 2)
        share = samples / len(ranks)
        requests = max(1, round(share * store.requests_per_sample))
        latency = store.latency * np.exp(self.rng.normal(0, store.tail, (len(ranks), requests))).sum(1) / store.parallel
        volume = share * store.bytes_per_sample
        speed = min(store.node_bandwidth / fleet.ranks_per_node, store.total_bandwidth / len(ranks))
        fetch = latency + volume / speed
        ahead = np.zeros(len(ranks)) if ahead is None or len(ahead) != len(ranks) else ahead
        stall = np.maximum(0.0, fetch - ahead)
        slowest = float((compute + stall).max())
        # While a step runs the reader goes on; it can be ahead by so many steps' worth and no more.
        ahead = np.minimum(np.maximum(0.0, ahead - fetch) + slowest + fleet.exchange, store.prefetch * fetch.mean())
        healthy = float(np.median(compute))
        data = max(0.0, slowest - float(compute.max()))
        times = {"useful": healthy + fleet.exchange, "waiting_for_data": data}
        times["waiting_for_stragglers"] = max(0.0, slowest - data - healthy)
        return times, ahead

    def _fails(self, seconds: float) -> bool:
        here = np.flatnonzero(self.back_at <= self.report.wall)
        lost = self.rng.random(len(here)) < seconds / 3600 / self.fleet.hours_between_failures
        if not lost.any():
            return False
        self.report.failures += 1
        self.back_at[here[lost]] = self.report.wall + self.fleet.hours_to_replace * 3600
        return True

    def _go_back(self, since: int, times: dict[str, float]) -> None:
        """Forget the steps since the checkpoint: their time was for nothing."""
        report, cost = self.report, self.restart.notice + self.restart.start
        report.steps -= since
        report.steps_redone += since
        report.useful -= self._span
        report.redoing += self._span + sum(times.values())
        report.wall += sum(times.values()) + cost
        report.restarting += cost
        self._span = 0.0

    def _account(self, times: dict[str, float]) -> None:
        for name, seconds in times.items():
            setattr(self.report, name, getattr(self.report, name) + seconds)
        self.report.wall += sum(times.values())
        self._span += times["useful"]

    def _count(self, trained: list[tuple[list[Any], int]]) -> None:
        """Every sample that counts in the end: once, never or twice; and how evenly the ranks were used."""
        report = self.report
        seen = Counter(sample for step, _ in trained for sample in step)
        report.samples_read = sum(seen.values())
        report.samples_repeated = sum(count - 1 for count in seen.values())
        wanted, position = set(), self.start
        while not self.finished(position):
            step, position = self.positions(position)
            wanted.update(step)
        report.samples_lost = len(wanted - set(seen))
        full = [step for step, ranks in trained if ranks == self.fleet.ranks]
        if not full:
            return
        counts = np.zeros(self.fleet.ranks, int)
        caches = [Held(INDEXES_HELD) for _ in range(self.fleet.ranks)]
        machines = [Held(ON_DISK) for _ in range(self.nodes)]
        at_once = 0
        for step in full:
            owners = self.deal(step, self.fleet.ranks)
            counts += np.bincount(owners, minlength=self.fleet.ranks)
            if self.shard_of is not None:
                numbers = [self.shard_of(sample) for sample in step]
                at_once = max(at_once, len(set(numbers)))
                for rank, number in zip(owners, numbers):
                    caches[rank].use(number)
                    machines[rank // self.fleet.ranks_per_node].use(number)
        report.rank_samples = (int(counts.min()), int(counts.max()))
        report.shards_at_once = at_once
        if self.shard_of is not None:
            touched = [len(cache.touched) for cache in caches]
            report.rank_shards = (min(touched), max(touched))
            read = max(1, int(counts.sum()))
            report.indexes_read = sum(cache.loads for cache in caches) / read
            report.indexes_fetched = sum(machine.loads for machine in machines) / read

    def _shares(self) -> Report:
        report = self.report
        for name in ("useful", "waiting_for_data", "waiting_for_stragglers", "restarting", "redoing", "checkpointing"):
            setattr(report, name, getattr(report, name) / max(report.wall, 1e-9))
        return report
