"""A hundred ranks of the real reader over a corpus of 200 GB on one machine: memory, first batch, resuming.

    python -m benchmarks ranks [--ranks 100] [--gigabytes 200]

The corpus is a few real shards under thousands of names (hard links), so that reading, checksums and decoding are real and
no disk is filled; the files are in the page cache. The ranks are forks of one process that has imported everything, and all
are alive at once, so that libraries are shared in memory. They read one after the other: figures are the CPU and wall-clock
seconds of each alone, which 100 ranks that share two cores could not show.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
import zlib
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.results import alone, peak_memory, row, write
from benchmarks.training import reader as small
from benchmarks.training.views import SequenceView
from shards import Reader, open_dataset
from shards.format.catalogue import index_url, read_catalogue, shard_url, write_catalogue
from shards.read.view import PairView, View

BATCH = 4096
VIEWS: dict[str, tuple[View, int]] = {  # of how many ranks one is measured: pictures take a second of CPU a batch
    "features and track of a segment": (SequenceView(window=50), 1),
    "six frames at 256 px": (PairView(size=256, targets=5, bytes=True), 10),
}


def main() -> None:
    """Write ``results/ranks.json``."""
    parser = argparse.ArgumentParser(prog="benchmarks ranks", description=__doc__)
    parser.add_argument("--ranks", type=int, default=100)
    parser.add_argument("--gigabytes", type=float, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = copies(small.make(Path(scratch) / "data"), options.gigabytes * 1e9)
        opened = open_dataset(folder)
        corpus = f"{len(read_catalogue(str(folder)).shards):,} shards, {len(opened):,} samples"
        rows = [row(corpus, "one rank by itself, peak memory", alone(first_alone, str(folder)), "MB")]
        for name, (view, every) in VIEWS.items():
            rows += of_view(f"{options.ranks} ranks, batch {BATCH}: {name}", folder, view, options.ranks, every)
    write("ranks", rows, f"{corpus}; load of the machine {os.getloadavg()[0]:.1f}", command="ranks")


def copies(folder: Path, size: float) -> Path:
    """The dataset with its shards under more names until they hold ``size`` bytes by name."""
    catalogue = read_catalogue(str(folder))
    originals = list(catalogue.shards)
    for number in range(1, round(size / sum(shard["bytes"] for shard in originals))):
        for shard in originals:
            name = f"{number:012x}-{shard['name'][-5:]}"
            for url in (shard_url, index_url):
                os.link(url(str(folder), shard["name"]), url(str(folder), name))
            catalogue.shards.append({**shard, "name": name})
    write_catalogue(str(folder), catalogue)
    return folder


def first_alone(folder: str) -> float:
    """Peak memory, MB, of a process that opens the dataset and reads one batch as rank 0 of 100."""
    reader = Reader(open_dataset(folder), SequenceView(window=50), batch_size=BATCH, rank=0, world_size=100)
    next(iter(reader))
    return peak_memory()


def of_view(case: str, folder: Path, view: View, ranks: int, every: int) -> list[dict[str, Any]]:
    """All ranks alive; each, or one of so many, is told in turn to read its first batch, then one at a random position."""
    fork = multiprocessing.get_context("fork")
    doors, processes = [], []
    for rank in range(ranks):
        here, there = fork.Pipe()
        processes.append(fork.Process(target=serve, args=(there, str(folder), view, rank, ranks), daemon=True))
        processes[-1].start()
        doors.append(here)
    measured = doors[::every]
    first = [asked(door, None) for door in measured]
    rng = np.random.default_rng(0)
    epoch = asked(doors[0], "length")
    step = int(rng.integers(1, max(2, epoch // BATCH)))
    resumed = [asked(door, step) for door in measured]
    again = [asked(door, step) for door in measured[:3]]
    memory = statistics.mean(shared_memory(process.pid or 0) for process in processes[::every])
    for door, process in zip(doors, processes, strict=True):
        door.send("end")
        process.join()
    if [r["digest"] for r in again] != [r["digest"] for r in resumed[:3]]:
        raise SystemExit("the same position gave other samples")
    if every == 1 and (read := sum(r["samples"] for r in resumed)) != BATCH:
        raise SystemExit(f"a step of {BATCH} held {read} samples")
    rows = [row(case, "memory a rank, shared libraries shared out", memory, "MB")]
    for what, found in (("first batch", first), (f"batch at step {step:,} of {epoch // BATCH:,}", resumed)):
        for kind, unit in (("wall", "s"), ("cpu", "s of CPU")):
            values = [f[kind] for f in found]
            rows.append(row(case, f"{what}, median rank", statistics.median(values), unit, "2 s"))
            rows.append(row(case, f"{what}, slowest rank", max(values), unit, "2 s"))
    return rows


def asked(door: Connection, what: object) -> Any:
    """A rank's answer."""
    door.send(what)
    return door.recv()


def serve(door: Connection, folder: str, view: View, rank: int, ranks: int) -> None:
    """One rank: reads a batch when told to, from the beginning or at a step; the first time it opens the dataset, too."""
    reader: Reader | None = None
    while (what := door.recv()) != "end":
        wall, cpu = time.perf_counter(), time.process_time()
        if reader is None:
            reader = Reader(open_dataset(folder), view, batch_size=BATCH, rank=rank, world_size=ranks)
        if what == "length":
            door.send(len(reader.plan(0)))
            continue
        if what is not None:
            reader.load_state_dict({"epoch": 0, "step": what, "offset": what * BATCH})
        batch = next(iter(reader))
        spent = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        found = {**spent, "samples": len(batch["keys"]), "digest": digest(batch)}
        del batch  # the training's, not the reader's; a hundred of them would fill the machine
        door.send(found)


def digest(batch: dict[str, Any]) -> int:
    """CRC-32 of all arrays of a batch."""
    total = 0
    for name in sorted(batch):
        if hasattr(batch[name], "numpy"):
            total = zlib.crc32(np.ascontiguousarray(batch[name].numpy()).tobytes(), total)
    return total


def shared_memory(pid: int) -> float:
    """Proportional set size of a process, MB: what it shares counts by its share."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(text.split("Pss:")[1].split()[0]) / 1024


if __name__ == "__main__":
    main()
