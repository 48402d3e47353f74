"""Batches for training. Which samples a step holds is arithmetic, so runs resume, with any number of ranks, exactly.

Batches form one endless sequence over epochs: step s holds the samples at the next ``batch_size`` positions, and a
batch that reaches the end of an epoch is filled from the next one. Every epoch holds every sample exactly once (or as
often as the identity weights say). Ranks divide the samples of a batch (:mod:`shards.read.deal`), workers the steps.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from cluster.storage import storage
from configs import InputError
from shards.format.schema import BrokenSample, Sample
from shards.read.collate import collate
from shards.read.dataset import Dataset
from shards.read.deal import TOGETHER, deal
from shards.read.plan import STREAMS, EpochPlan, Weights
from shards.read.view import View, check_view
from shards.tar import tars

log = logging.getLogger("headstart.reader")

BROKEN, AFTER, ERROR = "__broken__", "__after__", "__error__"  # keys of what a worker sends besides data
REMOTE_READS = 8  # samples read concurrently from a store


@dataclass(frozen=True)
class Position:
    """Where a step begins: ``offset`` samples into ``epoch``, after ``step`` steps in total."""

    epoch: int = 0
    step: int = 0
    offset: int = 0


class Reader:
    """Iterates over batches: a dict of stacked tensors and ``keys``, a list of the samples' keys.

    Args:
        dataset: a dataset or a view of it (:meth:`Dataset.split`). Views with ``needs_sound`` read only samples whose
            clip had sound.
        view: what to read of a sample, see :mod:`shards.read.view`.
        batch_size: samples per step over all ranks, each of which reads an equal share (within one if it is no multiple).
        seed: of the order and of the view's random choices.
        rank: of this process.
        world_size: number of ranks; a resumed run with another number continues the same sequence of batches.
        workers: DataLoader processes; 0 reads in this one. Batches do not depend on it.
        weights: None, ``"balanced"``, or identity → factor; see :class:`shards.read.plan.EpochPlan`.
        max_broken: most broken samples on this rank before the run stops; each is logged and kept in :attr:`broken`.
        epochs: number of epochs; the last batch then holds what is left. ``None``: endless.
        prefetch: batches that each worker keeps ready.

    Raises:
        InputError: nothing to read, fewer samples in a batch than ranks, features that the dataset lacks, or, while
            iterating, too many broken samples.
        StorageError: while iterating, a store that does not answer.
    """

    def __init__(
        self,
        dataset: Dataset,
        view: View,
        *,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
        weights: Weights = None,
        max_broken: int = 100,
        epochs: int | None = None,
        prefetch: int = 2,
    ) -> None:
        if not 0 <= rank < world_size:
            raise InputError(f"rank {rank} of world size {world_size}: expected 0 to {world_size - 1}")
        if batch_size < world_size:
            raise InputError(f"batch_size {batch_size} is less than the {world_size} ranks; every rank needs a sample")
        check_view(view, dataset)
        if view.needs_sound:
            dataset = dataset.with_sound()  # a silent clip would teach that speech moves no lips
        self.dataset, self.view, self.batch_size = dataset, view, batch_size
        self.seed, self.rank, self.world_size, self.workers = seed, rank, world_size, workers
        self.weights, self.max_broken, self.epochs, self.prefetch = weights, max_broken, epochs, prefetch
        self.broken: list[dict[str, str]] = []
        self.n_broken = 0
        self._position = Position()
        self._plans: dict[int, EpochPlan] = {}
        if len(self.plan(0)) == 0:
            raise InputError(
                f"{dataset.url}: no samples to read for {len(dataset.identities)} identities; add videos with sound"
            )

    def __len__(self) -> int:
        """Steps per epoch, rounded up, for the current epoch."""
        return -(-len(self.plan(self._position.epoch)) // self.batch_size)

    def __iter__(self) -> Iterator[dict[str, object]]:
        steps = tars.pipeline(self._steps, self._batches)
        for batch in tars.loader(steps, self.workers, self.prefetch):
            if ERROR in batch:
                raise storage.StorageError(batch[ERROR])
            self._count(batch.pop(BROKEN))
            self._position = Position(*batch.pop(AFTER))
            if batch:
                yield batch

    def state_dict(self) -> dict[str, int]:
        """``epoch, step, offset``: where the next batch begins; the same on every rank."""
        return {"epoch": self._position.epoch, "step": self._position.step, "offset": self._position.offset}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue from a saved position, whichever rank, world size and workers saved it.

        Raises:
            InputError: not a reader's state, or beyond the end of this dataset's epoch.
        """
        try:
            position = Position(int(state["epoch"]), int(state["step"]), int(state["offset"]))
        except (KeyError, TypeError, ValueError):
            raise InputError(f"reader state {state!r}: expected whole numbers epoch, step and offset") from None
        if position.epoch < 0 or not 0 <= position.offset < len(self.plan(position.epoch)):
            raise InputError(
                f"reader state {state}: the epoch has {len(self.plan(position.epoch))} samples; is it another dataset?"
            )
        self._position = position

    def plan(self, epoch: int) -> EpochPlan:
        """The order of an epoch."""
        if epoch not in self._plans:
            self._plans = {e: plan for e, plan in self._plans.items() if abs(e - epoch) <= 1}
            self._plans[epoch] = EpochPlan(self.dataset, self.seed, epoch, self.weights)
        return self._plans[epoch]

    def positions(self, start: Position) -> tuple[list[tuple[int, int]], Position]:
        """``(epoch, offset)`` of every sample of the step at ``start`` over all ranks, and where the next begins."""
        epoch, offset = start.epoch, start.offset
        found: list[tuple[int, int]] = []
        while len(found) < self.batch_size and (self.epochs is None or epoch < self.epochs):
            taken = min(self.batch_size - len(found), len(self.plan(epoch)) - offset)
            found += [(epoch, offset + i) for i in range(taken)]
            offset += taken
            if offset == len(self.plan(epoch)):
                epoch, offset = epoch + 1, 0
        return found, Position(epoch, start.step + 1, offset)

    def owners(self, samples: list[tuple[int, int]], world_size: int) -> np.ndarray:
        """``[N]`` the rank, among ``world_size``, that reads each ``(epoch, offset)`` of a step."""
        if world_size <= TOGETHER:
            return deal(np.arange(len(samples)), world_size)
        where = np.array(samples)
        streams = np.empty(len(where), np.int64)
        for epoch in np.unique(where[:, 0]):
            here = where[:, 0] == epoch
            streams[here] = epoch * STREAMS + self.plan(int(epoch)).streams(where[here, 1])
        return deal(streams, world_size)

    # ------------------------------------------------------------------------------------------ pipeline stages

    def _steps(self) -> Iterator[tuple[list[tuple[int, int]], Position]]:
        """The steps of this worker: every n-th, so that the loader, which takes workers in turn, returns them in order."""
        number, count = tars.worker()
        position, turn = self._position, 0
        while self.epochs is None or position.epoch < self.epochs:
            samples, after = self.positions(position)
            if turn % count == number:
                own = np.flatnonzero(self.owners(samples, self.world_size) == self.rank)
                yield [samples[i] for i in own], after
            position, turn = after, turn + 1

    def _batches(self, steps: Iterator[tuple[list[tuple[int, int]], Position]]) -> Iterator[dict[str, object]]:
        """Read, decode and stack; from a bucket several samples at a time, since each waits for the network."""
        with ThreadPoolExecutor(REMOTE_READS if self.dataset.direct else 1) as pool:
            for samples, after in steps:
                broken: list[dict[str, str]] = []
                try:
                    batch = self._batch(samples, broken, pool.map if self.dataset.direct else map)
                except storage.StorageError as error:
                    yield {ERROR: str(error)}  # as text: a worker's exception would arrive with its traceback inside
                    return
                yield {**batch, AFTER: (after.epoch, after.step, after.offset), BROKEN: broken}

    def _batch(self, samples: list[tuple[int, int]], broken: list[dict[str, str]], run: Callable) -> dict[str, object]:
        if self.dataset.direct:
            list(run(self._fetch_index, {self.plan(epoch).shard_at(offset) for epoch, offset in samples}))
        opened = [self._open(*where, broken) for where in samples]
        read = [item for item in run(lambda entry: self._view(entry, broken), opened) if item is not None]
        if samples and not read:
            read = self._substitute(*samples[-1], broken)
        return collate(read)

    def _fetch_index(self, shard: int) -> None:
        """Fetch an index concurrently with others; an error in it is raised when its sample is opened."""
        with suppress(InputError):
            self.dataset.index(shard)

    def _open(self, epoch: int, offset: int, broken: list[dict[str, str]]) -> tuple[Sample, int, int] | None:
        plan = self.plan(epoch)
        try:
            return self.dataset.sample(*plan.locate(offset), epoch=(self.seed, epoch)), epoch, offset
        except InputError as error:
            self._note(error, self.dataset.table.names[plan.shard_at(offset)], broken)
        return None

    def _view(self, opened: tuple[Sample, int, int] | None, broken: list[dict[str, str]]) -> dict[str, object] | None:
        if opened is None:
            return None
        sample, epoch, offset = opened
        try:
            return {"keys": sample.key, **self.view(sample, np.random.default_rng([self.seed, epoch, 4, offset]))}
        except InputError as error:
            self._note(error, sample.shard, broken, sample.key)
        return None

    def _note(self, error: InputError, shard: str, broken: list[dict[str, str]], key: str = "") -> None:
        """Record a broken sample; raise the error of a store that does not answer, which is no damage to the data."""
        away = isinstance(error, storage.StorageError) and not isinstance(error.__cause__, FileNotFoundError)
        if away and self.dataset.remote:
            raise error
        known = error.as_dict() if isinstance(error, BrokenSample) else {}
        broken.append({"shard": shard, "key": key, "member": "", "reason": str(error), **known})

    def _substitute(self, epoch: int, offset: int, broken: list[dict[str, str]]) -> list[dict[str, object]]:
        """If a rank's whole share is broken, the next intact sample, so that no rank is left without a batch."""
        length = len(self.plan(epoch))
        for further in range(1, min(length, self.max_broken + 2)):
            item = self._view(self._open(epoch, (offset + further) % length, broken), broken)
            if item is not None:
                return [item]
        return []

    def _count(self, broken: list[dict[str, str]]) -> None:
        for entry in broken:
            self.n_broken += 1
            self.broken = [*self.broken, entry][-1000:]
            log.warning("broken sample %d: %s %s %s: %s", self.n_broken, *entry.values())
        if self.n_broken > self.max_broken:
            last = self.broken[-1]
            where = " ".join(filter(None, (last["shard"], last["key"], last["member"])))
            raise InputError(
                f"{self.dataset.url}: {self.n_broken} broken samples, at most {self.max_broken} are allowed; "
                f"last {where}: {last['reason']}; run headstart shards verify"
            )
