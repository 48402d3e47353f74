"""A simulated run on 512 ranks over 10,000 shards with the reader's own plan: balance, loss, stalls, restarts, cost.

The order of samples is the real one: a catalogue of 10,000 shards in memory, read by the plan of
:class:`shards.read.reader.Reader`. Speeds and failures are assumptions, listed in ``docs/scaling.md``.
"""

from __future__ import annotations

import argparse
import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np

from benchmarks.results import row, write
from benchmarks.training.simulate import Deal, Fleet, Held, Report, Restart, Simulation, Store, in_turn
from cluster.storage import cache, storage
from configs.scratch import ScratchFolder
from pretrain.audio_expression.config import AudioExpressionConfig
from pretrain.audio_expression.view import WindowView
from pretrain.expression_visual.config import ExpressionVisualConfig, VisualAugmentConfig
from pretrain.expression_visual.view import ReferenceView
from pretrain.sync_expert.config import SyncExpertConfig
from pretrain.sync_expert.view import LipRunView
from shards.format.catalogue import Catalogue
from shards.format.groups import TOGETHER as FEWEST
from shards.read.dataset import Dataset, open_dataset
from shards.read.deal import TOGETHER
from shards.read.reader import Position, Reader
from shards.read.view import PlainView, drawn_groups

SHARDS, PER_SHARD, FRAMES = 10_000, 32, 50
RANKS, BATCH = 512, 4096
RANGES_HELD = 4_000  # by a machine: 2 GB of about 420 kB, as cluster.storage.cache.shared_range
EPOCHS = 5  # over the few segments of the clip that views are measured on
# Bytes and requests of one sample of 50 frames at 512 px before lips.npz, motion.npz and groups of pictures. Of the first
# and last by arithmetic (JPEG q95 about 70 kB a frame, matte 6 kB); of expression-visual, six frames a sample, measured at
# commit 8f60b3b as below.
BEFORE = {
    "audio-expression": (160 * 2 * FRAMES + 520 * 4 * FRAMES, 2),
    "expression-visual": (965_106, 7.9),
    "sync-expert": (5 * 70_000 + 160 * 2 * FRAMES + 520 * 4 * FRAMES, 7),
}
CONFIG = ExpressionVisualConfig(size=512, targets=4, grouped=True, augment=VisualAugmentConfig(mirror=0.0))
# As ``large`` configurations read: without centring no neighbour's features are needed.
VIEWS = {
    "audio-expression": WindowView(AudioExpressionConfig(centre=False, scale=False), {}, {}),
    "expression-visual": ReferenceView(CONFIG, {}),
    "sync-expert": LipRunView(SyncExpertConfig(centre=False, size=512, cache_mb=0)),
}
# Bytes, requests and seconds of one core for a sample: ``--views`` on 20 s of one real clip at 512 px, index left out. The
# ten segments of the clip share groups of pictures as those of a shard do; :func:`shared_groups` counts these for 512 ranks.
MEASURED = {
    "audio-expression": (32_056.0, 1.0, 0.0011),
    "expression-visual": (293_242.0, 0.96, 0.0331),
    "sync-expert": (226_867.0, 1.0, 0.0083),
}
CORES = 64 * 192  # 64 machines of eight GPUs
PREFIXES, GETS = 1, 5_500  # of a public store, for one prefix
SCENARIOS = {
    "quiet": Fleet(ranks=RANKS, slow_nodes=0.0, hours_between_failures=1e9),
    "stragglers": Fleet(ranks=RANKS, slow_nodes=0.02, slow_factor=1.3, hours_between_failures=1e9),
    "machines lost every 12 min each": Fleet(ranks=RANKS, hours_between_failures=0.2, hours_to_replace=0.02),
}


def catalogue(shards: int = SHARDS) -> Dataset:
    """A dataset of ``shards`` shards that exists only as its table of contents; five shards a person."""
    people = [{"name": f"p{i:05d}", "licences": ["CC-BY-4.0"], "consents": ["yes"]} for i in range(-(-shards // 5))]
    table = [
        {
            "name": f"s{i:05d}",
            "sha256": "",
            "bytes": PER_SHARD * FRAMES * 76_000,
            "samples": PER_SHARD,
            "frames": PER_SHARD * FRAMES,
            "index_sha256": "",
            "people": [[i // 5, 1, PER_SHARD, PER_SHARD * FRAMES, 4]],
        }
        for i in range(shards)
    ]
    return Dataset("memory", Catalogue(identities=people, shards=table))


def measure(folder: str | Path) -> dict[str, tuple[float, float, float]]:
    """Mean bytes, requests and CPU seconds of a sample, by view, read as from a bucket without a cache; no index."""
    found = {}
    for name, view in VIEWS.items():
        dataset = open_dataset(folder)
        dataset._store.remote = True  # ranged requests, as to a bucket, though the files are here
        view(dataset.read(0), np.random.default_rng(0))  # compiles and imports
        spans: list[int] = []
        started, turns = time.process_time(), [(epoch, i) for epoch in range(EPOCHS) for i in range(len(dataset))]
        with ScratchFolder("scaling") as home, patch.dict(os.environ, {"HEADSTART_HOME": str(home)}):
            for epoch, i in turns:
                getattr(view, "memory", {}).clear()
                sample = dataset.sample(*dataset.samples.locate(i), epoch=(0, epoch))
                with counted(spans):
                    view(sample, np.random.default_rng([epoch, i]))
        spent = time.process_time() - started
        found[name] = (sum(spans) / len(turns), len(spans) / len(turns), spent / len(turns))
    return found


@contextmanager
def counted(spans: list[int]) -> Iterator[None]:
    """Collects the length of every ranged read."""
    real = storage.read_bytes

    def read(url: str, start: int | None = None, end: int | None = None) -> bytes:
        data = real(url, start, end)
        spans.append(len(data))
        return data

    with patch.object(storage, "read_bytes", read), patch.object(cache, "read_bytes", read):
        yield


def reader_of(dataset: Dataset, ranks: int, batch: int = BATCH) -> Reader:
    """The real reader of one epoch; its view is never asked."""
    return Reader(dataset, PlainView(lambda sample, rng: {}), batch_size=batch, seed=1, world_size=ranks, epochs=1)


class Pairs:
    """The groups of pictures that expression-visual reads of each sample of an epoch, drawn as its view draws them."""

    def __init__(self, config: ExpressionVisualConfig) -> None:
        self.config, self.rng = config, np.random.default_rng(0)

    def of(self, shard: int, line: int) -> set[tuple[str, int]]:
        """Segment and number of each group of the sample at ``line`` of ``shard``."""
        other = int(self.rng.integers(PER_SHARD)) if self.rng.random() < self.config.across else line
        found = {(f"{shard}/{other}", self._drawn(shard, other)[0])}
        return found | ({(f"{shard}/{line}", self._drawn(shard, line)[1])} if other != line else set())

    def _drawn(self, shard: int, line: int) -> tuple[int, int]:
        return drawn_groups(FRAMES // FEWEST, self.config.wide, self.rng, f"{shard}/{line}", (1, 0))


def shared_groups(dataset: Dataset, config: ExpressionVisualConfig, steps: int = 24) -> tuple[float, float]:
    """Groups of pictures that a sample shows, and those that a machine fetches for it, over the first steps of an epoch."""
    reader, pairs, position = reader_of(dataset, RANKS), Pairs(config), Position()
    machines = [Held(RANGES_HELD) for _ in range(RANKS // TOGETHER)]
    lines: Counter[int] = Counter()
    shown = samples = 0
    for _ in range(steps):
        step, position = reader.positions(position)
        for (epoch, offset), rank in zip(step, reader.owners(step, RANKS)):
            shard = reader.plan(epoch).shard_at(offset)
            groups = pairs.of(shard, lines[shard])
            lines[shard] += 1
            shown, samples = shown + len(groups), samples + 1
            for group in groups:
                machines[rank // TOGETHER].use(group)
    return shown / samples, sum(machine.loads for machine in machines) / samples


def simulate(
    dataset: Dataset, fleet: Fleet, store: Store, restart: Restart, batch: int = BATCH, deal: Deal | None = None
) -> Report:
    """One epoch; ``deal`` in the place of the reader's own way."""
    reader = reader_of(dataset, fleet.ranks, batch)
    plan = reader.plan(0)
    shards = np.array([plan.shard_at(position) for position in range(len(plan))])
    return Simulation(
        reader.positions,
        Position(),
        lambda position: position.epoch >= 1,
        fleet=fleet,
        store=store,
        restart=restart,
        shard_of=lambda sample: int(shards[sample[1]]),
        deal=deal or reader.owners,
    ).run()


def main() -> None:
    """Write ``results/scaling.json``; ``--views DATASET`` measures bytes on a dataset of real clips at 512 px, ``--groups`` counts
    the groups of pictures that 512 ranks fetch."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--views", metavar="DATASET", help="measure what views read on this dataset, and stop")
    parser.add_argument("--groups", action="store_true", help="count shared groups of pictures only, and stop")
    options = parser.parse_args()
    if options.groups:
        print("{:.2f} groups of pictures a sample, {:.2f} of them fetched".format(*shared_groups(catalogue(), CONFIG)))
        return
    if options.views:
        for name, (size, requests, cpu) in measure(options.views).items():
            print(f"{name}: {size:.0f} bytes, {requests:.2f} requests, {1000 * cpu:.1f} ms of CPU a sample")
        return
    started, dataset = time.perf_counter(), catalogue()
    restart = Restart(checkpoint_every=20)
    rows, indexes = deals(dataset, restart)
    groups = shared_groups(dataset, CONFIG)
    for variant, value in zip(("shown by a sample", "fetched by a machine"), groups):
        rows.append(row("512 ranks, 10,000 shards: groups of pictures", variant, value, "a sample"))
    costs = at_scale(groups[1])
    rows += bottlenecks(indexes, costs)
    size, requests, _ = costs["sync-expert"]
    store = Store(bytes_per_sample=size, requests_per_sample=requests + indexes)
    for name, fleet in SCENARIOS.items():
        rows += _rows(name, simulate(dataset, fleet, store, restart))
    thin = replace(store, total_bandwidth=1.25e9)
    rows += _rows("a store of 10 Gbit/s in all", simulate(dataset, SCENARIOS["quiet"], thin, restart))
    for hours in (100, 1_000, 10_000):
        rows += cost(hours, costs)
    notes = (
        f"one epoch of {SHARDS * PER_SHARD} samples, batch {BATCH}; simulated in {time.perf_counter() - started:.0f} s"
    )
    write("scaling", rows, notes)


def deals(dataset: Dataset, restart: Restart) -> tuple[list[dict], float]:
    """Indexes for each sample when every R-th sample is a rank's own, and as the reader deals; the latter's fetched ones."""
    rows, found = [], 0.0
    for variant, deal in (("every 512th sample", in_turn), ("as the reader deals", None)):
        report = simulate(dataset, SCENARIOS["quiet"], Store(), restart, deal=deal)
        found = report.indexes_fetched
        case = "512 ranks, 10,000 shards: shards of a rank"
        rows.append(row(case, variant, report.rank_shards[1], "shards in an epoch"))
        rows.append(row("512 ranks, 10,000 shards: indexes opened", variant, report.indexes_read, "a sample"))
        rows.append(row("512 ranks, 10,000 shards: indexes fetched by a machine", variant, found, "a sample"))
    return rows, found


def at_scale(groups: float) -> dict[str, tuple[float, float, float]]:
    """Bytes, requests and seconds of a sample where a machine fetches ``groups`` groups of pictures for it, of the same sizes."""
    size, requests, cpu = MEASURED["expression-visual"]
    return {**MEASURED, "expression-visual": (size / requests * groups, groups, cpu)}


def bottlenecks(indexes: float, costs: dict[str, tuple[float, float, float]]) -> list[dict]:
    """Requests and bytes a second at one step a second, and how many steps a second use a resource up."""
    rows = []
    for name, (size, requests, cpu) in costs.items():
        before, asked = BEFORE[name], requests + indexes
        case = f"{name}, 512 ranks, {BATCH} samples a second"
        rows += [
            row(case, "requests to the store, before", BATCH * before[1], "requests/s"),
            row(case, "requests to the store", BATCH * asked, "requests/s", "1/5 of before", asked / before[1]),
            row(case, "bytes from the store, before", BATCH * before[0] / 1e9, "GB/s"),
            row(case, "bytes from the store", BATCH * size / 1e9, "GB/s", "before", size / before[0]),
            row(case, "cores that read and decode", BATCH * cpu, "cores", f"{CORES} beside 512 GPUs"),
        ]
        limits = {
            f"{PREFIXES} prefixes of {GETS} requests/s": PREFIXES * GETS / (BATCH * asked),
            "a store of 100 Gbit/s": 12.5e9 / (BATCH * size),
            "half of the cores": CORES / 2 / (BATCH * cpu),
        }
        rows += [
            row(f"{name}: steps of {BATCH} a second until", what, value, "steps/s") for what, value in limits.items()
        ]
    return rows


def _rows(name: str, report: Report) -> list[dict]:
    case = f"512 ranks, 10,000 shards: {name}"
    low, high = report.rank_samples
    values = [
        ("samples lost", report.samples_lost, "samples", "0"),
        ("samples repeated", report.samples_repeated, "samples", "0"),
        ("samples a rank, most over fewest", high / max(1, low), "ratio", "1"),
        ("shards a rank touched, at most", report.rank_shards[1], "shards", ""),
        ("useful time", 100 * report.useful, "%", "100"),
        ("waiting for data", 100 * report.waiting_for_data, "%", "0"),
        ("waiting for stragglers", 100 * report.waiting_for_stragglers, "%", "0"),
        ("failures", report.failures, "failures", ""),
        ("steps done twice", report.steps_redone, "steps", ""),
        ("restarting and redoing", 100 * (report.restarting + report.redoing), "%", ""),
        ("fewest ranks", report.least_ranks, "ranks", "512"),
    ]
    return [row(case, variant, value, unit, against) for variant, value, unit, against in values]


def cost(
    hours: float,
    costs: dict[str, tuple[float, float, float]],
    frame_bytes: float = 76_000,
    gigabyte_month: float = 0.023,
) -> list[dict]:
    """Room and money of a dataset, and what one epoch reads, by prior (prices: docs/scaling.md)."""
    samples = hours * 3600 * 25 / FRAMES
    room = hours * 3600 * 25 * frame_bytes
    case = f"{hours:,.0f} h of video at 512 px"
    rows = [
        row(case, "room", room / 1e12, "TB"),
        row(case, "storage", room / 1e9 * gigabyte_month, "USD/month"),
    ]
    for prior, (size, requests, _) in costs.items():
        rows.append(row(case, f"{prior}: an epoch reads", samples * size / 1e12, "TB"))
        rows.append(row(case, f"{prior}: requests of an epoch", samples * requests * 0.4e-6, "USD"))
    return rows


if __name__ == "__main__":
    main()
