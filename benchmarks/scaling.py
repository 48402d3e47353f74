"""A run on 512 ranks over 10,000 shards, simulated over the reader's own plan: balance, loss, stalls, restarts, cost.

The order of samples is the real one: a catalogue of 10,000 shards in memory, read by the plan of
:class:`shards.read.reader.Reader`. Speeds and failures are assumptions, named in ``docs/scaling.md``.
"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from benchmarks.results import row, write
from benchmarks.simulate import Fleet, Report, Restart, Simulation, Store

SHARDS, PER_SHARD, FRAMES = 10_000, 32, 50
RANKS, BATCH = 512, 4096
# Bytes that a view reads of one sample of 50 frames at 512 px: JPEG q95 about 70 kB a frame, matte 6 kB.
VIEWS = {
    "audio-expression": (160 * 2 * FRAMES + 520 * 4 * FRAMES, 2),
    "expression-visual": (2 * 76_000 + 520 * 4 * FRAMES, 6),
    "sync-expert": (5 * 70_000 + 160 * 2 * FRAMES + 520 * 4 * FRAMES, 7),
}
SCENARIOS = {
    "quiet": Fleet(ranks=RANKS, slow_nodes=0.0, hours_between_failures=1e9),
    "stragglers": Fleet(ranks=RANKS, slow_nodes=0.02, slow_factor=1.3, hours_between_failures=1e9),
    "machines lost every 12 min each": Fleet(ranks=RANKS, hours_between_failures=0.2, hours_to_replace=0.02),
}


def catalogue(shards: int = SHARDS) -> object:
    """A dataset of ``shards`` shards that exists only as its table of contents; five shards a person."""
    from shards.format.catalogue import Catalogue
    from shards.read.dataset import Dataset

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


def simulate(dataset: object, fleet: Fleet, store: Store, restart: Restart, batch: int = BATCH) -> Report:
    """One epoch."""
    from shards.read.reader import Position, Reader
    from shards.read.view import PlainView

    reader = Reader(
        dataset, PlainView(lambda sample, rng: {}), batch_size=batch, seed=1, world_size=fleet.ranks, epochs=1
    )
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
    ).run()


def main() -> None:
    """Write ``results/scaling.json``."""
    started, rows, dataset = time.perf_counter(), [], catalogue()
    size, requests = VIEWS["sync-expert"]
    store, restart = Store(bytes_per_sample=size, requests_per_sample=requests), Restart(checkpoint_every=20)
    for name, fleet in SCENARIOS.items():
        rows += _rows(name, simulate(dataset, fleet, store, restart))
    thin = replace(store, total_bandwidth=1.25e9)
    rows += _rows("a store of 10 Gbit/s in all", simulate(dataset, SCENARIOS["quiet"], thin, restart))
    for hours in (100, 1_000, 10_000):
        rows += cost(hours)
    notes = (
        f"one epoch of {SHARDS * PER_SHARD} samples, batch {BATCH}; simulated in {time.perf_counter() - started:.0f} s"
    )
    write("scaling", rows, notes)


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


def cost(hours: float, frame_bytes: float = 76_000, gigabyte_month: float = 0.023) -> list[dict]:
    """Room and money of a dataset, and what one epoch reads, by prior (prices: docs/scaling.md)."""
    samples = hours * 3600 * 25 / FRAMES
    room = hours * 3600 * 25 * frame_bytes
    case = f"{hours:,.0f} h of video at 512 px"
    rows = [
        row(case, "room", room / 1e12, "TB"),
        row(case, "storage", room / 1e9 * gigabyte_month, "USD/month"),
    ]
    for prior, (size, requests) in VIEWS.items():
        rows.append(row(case, f"{prior}: an epoch reads", samples * size / 1e12, "TB"))
        rows.append(row(case, f"{prior}: requests of an epoch", samples * requests * 0.4e-6, "USD"))
    return rows


if __name__ == "__main__":
    main()
