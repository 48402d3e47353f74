"""Where each rank's time goes, and which one is slow: waiting for data, computing, or waiting for the others.

A training loop uses it like this::

    meter = Meter()
    for batch in meter.data(batches):          # waiting for data
        with meter.computing():                # own work: forward and backward
            ...
        engine.clip_and_step()                 # all the rest counts as waiting for the others
    table = meter.table(engine)                # collective: one row per rank
    trouble = describe(table)
    print(trouble.sentence if trouble else "no rank is slow")
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from cluster.engine.engine import Engine

T = TypeVar("T")
SLOW = 1.2  # a rank is slow when its own work takes more than this multiple of the median
STALL = 0.1  # a rank is starved when it waits for data for more than this share of its time


@dataclass(frozen=True)
class RankTimes:
    """One rank since the meter's last reset; times in seconds."""

    rank: int
    data: float  # waiting for the reader
    compute: float  # own work
    others: float  # the rest: waiting for the other ranks, the optimiser's step, whatever is not measured
    steps_per_second: float

    @property
    def seconds(self) -> float:
        """Total time since the reset, s."""
        return self.data + self.compute + self.others


@dataclass(frozen=True)
class Trouble:
    """What slows a run.

    Attributes:
        rank: the slow one.
        cause: ``data`` or ``compute``.
        sentence: names the rank, its figure and the remedy.
    """

    rank: int
    cause: str
    sentence: str

    @property
    def kind(self) -> tuple[int, str]:
        """What is the same whenever the same thing is wrong again."""
        return self.rank, self.cause


class Meter:
    """Clocks of one rank."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Set all clocks to zero."""
        self._data = self._compute = 0.0
        self._steps, self._started = 0, time.perf_counter()

    def data(self, batches: Iterable[T]) -> Iterator[T]:
        """Yield the batches; the time until each comes counts as waiting for data. One batch counts as one step."""
        source = iter(batches)
        while True:
            started = time.perf_counter()
            try:
                batch = next(source)
            except StopIteration:
                return
            self._data += time.perf_counter() - started
            self._steps += 1
            yield batch

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Measure the block as this rank's own work; keep the exchange of gradients outside it."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._compute += time.perf_counter() - started

    def table(self, engine: Engine) -> list[RankTimes]:
        """Every rank's times, on every rank. Collective."""
        total = time.perf_counter() - self._started
        rows = engine.gather([self._data, self._compute, total, float(self._steps)])
        return [
            RankTimes(rank, data, compute, max(0.0, total - data - compute), steps / max(total, 1e-9))
            for rank, (data, compute, total, steps) in enumerate(rows)
        ]


def describe(table: list[RankTimes]) -> Trouble | None:
    """The rank that slows the run and the remedy, or None."""
    starved = max(table, key=lambda row: row.data / max(row.seconds, 1e-9))
    if starved.data > STALL * starved.seconds:
        return Trouble(
            starved.rank,
            "data",
            f"rank {starved.rank} waits for data {100 * starved.data / starved.seconds:.0f} % of its time; "
            "raise reader_workers or prefetch, or bring the data nearer (docs/scaling.md)",
        )
    work = sorted(row.compute for row in table)
    median, slowest = work[(len(work) - 1) // 2], max(table, key=lambda row: row.compute)
    if len(table) > 1 and slowest.compute > SLOW * median:
        return Trouble(
            slowest.rank,
            "compute",
            f"rank {slowest.rank} computes {slowest.compute / max(median, 1e-9):.1f} times as long as the median rank; "
            "look for another process or heat on its machine, or drain it",
        )
    return None


def metrics(table: list[RankTimes]) -> dict[str, float]:
    """The table as metrics for the run log: ``rank0/data`` and so on, every field of :class:`RankTimes` for every rank."""
    flat: dict[str, Any] = {}
    for row in table:
        flat |= {f"rank{row.rank}/{name}": value for name, value in asdict(row).items() if name != "rank"}
    return flat
