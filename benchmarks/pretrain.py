"""Pretraining: samples a second of each prior and size, the loop against the bare step, memory, cost of data.

Runs on synthetic talkers; ``python -m benchmarks pretrain`` takes some minutes on two cores. ``base`` and ``large`` are
measured by one step each and only where there is a GPU, at their own sizes.
"""

from __future__ import annotations

import resource
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.results import row, write
from configs import load_config

PRIORS = ("audio-expression", "expression-visual", "sync-expert")
STEPS = 12


class _Quiet:
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


def trainer(prior: str, size: str, data: str, run: str, **changes: Any) -> Any:
    """A trainer of a shipped configuration that neither validates nor saves while it is measured."""
    from pretrain.loop import Trainer
    from pretrain.priors import task_class
    from pretrain.train import open_split

    kind = task_class(prior)
    overrides = ["steps=100000", "checkpoint_every=100000", "validate_every=100000", "log_every=100000"]
    config = load_config(kind.config_class, f"pretrain/{prior}/{size}", [*overrides, "allow_unknown_licence=true"])
    built = Trainer(kind(config, *open_split(kind, config, data)), run, _Quiet())
    built.begin(None)
    return built


def per_second(step: Any, batch: int, steps: int = STEPS) -> float:
    """Samples a second of ``step()``, after two steps of warming up."""
    for _ in range(2):
        step()
    started = time.perf_counter()
    for _ in range(steps):
        step()
    return steps * batch / (time.perf_counter() - started)


def measure(prior: str, size: str, data: str, folder: str) -> list[dict[str, Any]]:
    """The loop and the bare forward and backward pass on one batch held in memory."""
    built = trainer(prior, size, data, f"{folder}/{prior}-{size}")
    batch = built.config.batch_size
    held = built.batches.next()
    bare = per_second(lambda: bare_step(built, held), batch)
    taken, built.batches.next = built.batches.next, lambda: held
    loop = per_second(built.train_step, batch)
    built.batches.next = taken
    built._wait = built._busy = 0.0
    started = time.perf_counter()
    reading = per_second(built.train_step, batch)
    waiting = built._wait / (time.perf_counter() - started)
    built.close()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    case = f"{prior} {size}, batch {batch}"
    return [
        row(case, "the loop, reading the dataset", reading, "samples/s", "the loop, a batch in memory", reading / loop),
        row(
            case,
            "the loop, a batch in memory",
            loop,
            "samples/s",
            "bare forward and backward, at least 0.9",
            loop / bare,
        ),
        row(case, "bare forward and backward", bare, "samples/s", "the peer: what no loop can do without"),
        row(case, "share of the time waiting for data", waiting, "", "0"),
        row(case, "peak memory of the process so far", peak, "MB"),
    ]


def bare_step(built: Any, batch: dict[str, Any]) -> None:
    """What no loop can do without: forward, backward and the optimiser's step."""
    loss, _ = built.model(batch)
    built.engine.backward(loss)
    built.engine.clip_and_step()


def cost_of_data(data: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Seconds of training that one pass over an identity and over an hour of speech costs, at the measured rates."""
    from shards.dataset import open_dataset

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

    sizes = ("tiny", "base") if torch.cuda.is_available() else ("tiny",)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        data = dataset(folder)
        for prior in PRIORS:
            for size in sizes:
                rows += measure(prior, size, data, folder)
        rows += cost_of_data(data, rows)
    write("pretrain", rows, f"torch threads: {torch.get_num_threads()}; segments of 50 frames are the samples")


if __name__ == "__main__":
    main()
