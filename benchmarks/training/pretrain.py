"""Pretraining: samples per second of each prior and size, the loop against the bare step, memory, cost of data.

    python -m benchmarks pretrain [--data DATASET]

Without a dataset, synthetic talkers are generated first. It takes some minutes on two cores. Every prior and size has its
own process, so that memory is measured separately. Without a GPU, ``base`` is measured by a few steps of ``tiny``'s batch
in float32, which gives the cost of a sample; ``base`` is not meant to be trained this way.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.results import alone, peak_memory, row, write
from configs import load_config
from pretrain.names import prior_names

# Steps of one round, and rounds of bare step and loop in turn: what else the machine does changes from second to second.
STEPS, ROUNDS = 4, 5
SLOW_STEPS, SLOW_ROUNDS = 1, 3


class Quiet:
    """The context of a run in this process."""

    rank, world_size, is_main = 0, 1, True

    def should_stop(self) -> bool:
        return False

    def report(self, checkpoint: str | None, metrics: dict[str, float]) -> None:
        return None


def dataset(folder: str, people: int = 8, seconds: float = 6.0) -> str:
    """Synthetic talkers to train on; made once."""
    from shards.synthetic import synthesize

    url = str(Path(folder) / "talkers")
    synthesize(people, seconds, 0, url)
    return url


def trainer(prior: str, size: str, data: str, run: str, *changes: str) -> Any:
    """A trainer of a shipped configuration that neither validates nor saves while it is measured."""
    from pretrain.folder import task_class
    from pretrain.loop import Trainer
    from pretrain.train import open_split

    kind = task_class(prior)
    overrides = ["steps=100000", "checkpoint_every=100000", "validate_every=100000", "log_every=100000"]
    config = load_config(kind.config_class, f"pretrain/{prior}/{size}", [*overrides, *changes])
    built = Trainer(kind(config, *open_split(kind, config, data)), run, Quiet())
    built.begin(None)
    return built


def per_second(step: Callable[[], Any], batch: int, steps: int) -> float:
    """Samples a second of ``step()``."""
    started = time.perf_counter()
    for _ in range(steps):
        step()
    return steps * batch / (time.perf_counter() - started)


def measure(prior: str, size: str, data: str, folder: str) -> list[dict[str, Any]]:
    """The loop and the bare forward and backward pass on one batch held in memory, in turn; the loop as it reads."""
    slow = slowed(prior, size)
    built = trainer(prior, size, data, f"{folder}/{prior}-{size}", *slow)
    batch = built.config.batch_size
    steps, rounds = (SLOW_STEPS, SLOW_ROUNDS) if slow else (STEPS, ROUNDS)
    held, read = built.batches.next(), built.batches.next
    bares, loops = [], []
    for turn in range(rounds + 1):  # the first one warms up
        built.batches.next = lambda: held
        bare, loop = (per_second(step, batch, steps) for step in (lambda: bare_step(built, held), built.train_step))
        if turn:
            bares.append(bare)
            loops.append(loop)
    built.batches.next = read
    built._wait = 0.0
    started = time.perf_counter()
    reading = per_second(built.train_step, batch, steps * rounds)
    waiting = built._wait / (time.perf_counter() - started)
    on_gpu = built.engine.device.type == "cuda"
    peak = built.speed()["peak_memory_mb"] if on_gpu else peak_memory()
    built.close()
    bare, loop = statistics.median(bares), statistics.median(loops)
    ratio = statistics.median(a / b for a, b in zip(loops, bares))
    case = f"{prior} {size}, batch {batch}" + (" in float32" if slow else "")
    return [
        row(case, "the loop, reading the dataset", reading, "samples/s", "a batch in memory", reading / loop),
        row(case, "the loop, a batch in memory", loop, "samples/s", "bare step, at least 0.9", ratio),
        row(case, "bare forward and backward", bare, "samples/s", "the peer: what no loop can do without"),
        row(case, "share of the time waiting for data", waiting, "", "0"),
        row(case, "peak memory", peak, "MB", "of the GPU" if on_gpu else "of the process"),
    ]


def slowed(prior: str, size: str) -> list[str]:
    """Changes of the configuration where this machine is too small for it; none for ``tiny`` and on a GPU."""
    import torch

    from pretrain.folder import task_class

    if size == "tiny" or torch.cuda.is_available():
        return []
    tiny = load_config(task_class(prior).config_class, f"pretrain/{prior}/tiny")
    return [f"batch_size={tiny.batch_size}", "engine.precision=fp32"]


def bare_step(built: Any, batch: dict[str, Any]) -> None:
    """What no loop can do without: forward, backward and the optimiser's step."""
    loss, _ = built.model(batch)
    built.engine.backward(loss)
    built.engine.clip_and_step()


def cost_of_data(data: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Seconds of training that one pass over an identity and over an hour of speech costs, at the measured rates."""
    from shards.read.dataset import open_dataset

    info = open_dataset(data).info
    result = []
    for measured in rows:
        if measured["variant"] == "the loop, reading the dataset":
            seconds = info["segments"] / measured["value"]
            result.append(row(measured["case"], "one pass, per identity", seconds / info["identities"], "s"))
            result.append(row(measured["case"], "one pass, per hour of speech", seconds / info["hours"], "s"))
    return result


def main() -> None:
    """Measure what this machine can run."""
    import torch

    from shards.read.dataset import open_dataset

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", metavar="DATASET", help="a dataset with log-mel; default: synthetic talkers")
    given = parser.parse_args().data
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        data = given or dataset(folder)
        for prior in prior_names():
            for size in ("tiny", "base"):
                rows += alone(measure, prior, size, data, folder)
        rows += cost_of_data(data, rows)
        info = open_dataset(data).info
    notes = (
        f"torch threads: {torch.get_num_threads()}; a sample is a segment of at most 50 frames; "
        f"{info['identities']} people, {info['segments']} segments, {60 * info['hours']:.1f} min"
    )
    write("pretrain", rows, notes, command="pretrain" + (" --data DATASET" if given else ""))


if __name__ == "__main__":
    main()
