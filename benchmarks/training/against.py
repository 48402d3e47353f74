"""Two commits compared: the cost of a training step and of a sample, in this checkout and an earlier one, in turn.

    python -m benchmarks against [--commit c32969e] [--priors sync-expert ...] [--data DATASET] [--rounds 4] [--curve 300]

The earlier commit's sources are extracted from git into a temporary folder. Both run as separate processes that take
turns, so that the machine's other load affects both. Each reads, decodes and trains in one thread. Figures are CPU
seconds, which other jobs disturb least, and their ratios. The floor is the part that every step of expression-visual
needs: convolutions and rasterisation.
``--curve`` trains both instead, with equal seeds and settings, and compares their losses.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.results import row, stored, write
from benchmarks.training.pretrain import dataset

HERE = Path(__file__).parents[2]
PRIORS = ("expression-visual", "sync-expert")
STEPS, SAMPLES = 3, 20
LAST, TURN = 50, 10  # steps of a mean of losses, and of a turn
# Settings that the earlier commit did not have or that tiny has changed since, as they were then.
SAME = {"expression-visual": ["model.seen_from=1"]}

WORKER = """
import json, sys, tempfile, time
import numpy as np, torch
sys.path.insert(0, sys.argv[1])
try:
    from benchmarks.training.pretrain import trainer
except ModuleNotFoundError:  # a commit at which the benchmarks lay in one folder
    from benchmarks.pretrain import trainer
from shards.read.store import Store

prior, data = sys.argv[2], sys.argv[3]
torch.set_num_threads(1)
changes = ["allow_unknown_licence=true", "reader_workers=0", "prefetch=0", *sys.argv[4:]]
changes += {"sync-expert": ["cache_mb=0"], "expression-visual": ["batch_size=6"]}[prior]
built = trainer(prior, "tiny", data, tempfile.mkdtemp(), *changes)


def counted(store, shard, start, stop):
    count[0], count[1] = count[0] + 1, count[1] + stop - start
    return real(store, shard, start, stop)


def step(next_batch, steps):
    built.batches.next = next_batch
    started = time.process_time()
    losses = [built.train_step()["loss"] for _ in range(steps)]
    return {"cpu": (time.process_time() - started) / steps, "losses": losses}


def samples(number):
    view, rng = built.task.view(training=True), np.random.default_rng(number)
    number = min(number, len(built.task.train))
    chosen = rng.choice(len(built.task.train), number, replace=False)
    count[:], Store._read = [0, 0], counted
    started = time.process_time()
    for i in chosen:
        view(built.task.train.read(int(i)), np.random.default_rng(int(i)))
    spent, Store._read = time.process_time() - started, real
    return {"cpu": spent / number, "requests": count[0] / number, "bytes": count[1] / number}


def curve(steps):
    started = time.process_time()
    losses = [built.train_step()["loss"] for _ in range(steps)]
    return {"losses": losses, "cpu": time.process_time() - started}


if "steps=" not in "".join(changes):  # of a curve, the first step is one of a fresh model on the first batch
    held, read, count, real = built.batches.next(), built.batches.next, [0, 0], Store._read
    step(lambda: held, 2)
    samples(2)
print("ready", flush=True)
for line in sys.stdin:
    what, number = line.split()
    action = {"held": lambda n: step(lambda: held, n), "read": lambda n: step(read, n), "samples": samples}
    action = {**action, "curve": curve}[what]
    print(json.dumps(action(int(number))), flush=True)
built.close()
"""

FLOOR = """
import json, sys, tempfile, time
import torch
sys.path.insert(0, sys.argv[1])
from benchmarks.training.pretrain import trainer
from heads.gaussians.cloud import Gaussians
from heads.gaussians.render import render_head
from pretrain.expression_visual.objective import lit
from pretrain.expression_visual.view import POSE

torch.set_num_threads(1)
built = trainer("expression-visual", "tiny", sys.argv[2], tempfile.mkdtemp(), "allow_unknown_licence=true")
batch, model = built.batches.next(), built.engine.unwrapped.model
batch = lit(batch, model.config, vary=False)
rows = batch["seen"].flatten().nonzero()[:, 0]
image, matte = (batch[f"source_{name}"].flatten(0, 1)[rows] for name in ("image", "matte"))
pose = {name: batch[f"target_{name}"].float().flatten(0, 1) for name in POSE}
people, side = len(batch["seen"]), model.config.model.resolution // model.config.model.patch
cells = torch.randn(people, model.config.model.channels, side, side).to(memory_format=torch.channels_last)
cells.requires_grad_()
identity = batch["identity"].float().repeat_interleave(len(pose["gaze"]) // people, 0)
bound = model.binding.bind(model.vertices(identity, pose), model.neutral[None])
leaves = [x.detach().expand(len(identity), *x.shape[1:]).contiguous().requires_grad_() for x in vars(bound).values()]
size = model.config.size


def draw():
    camera = (pose["rotation"], pose["translation"], pose["intrinsics"])
    return sum(x.sum() for x in render_head(Gaussians(*leaves), *camera, size, size)[:2])


def best(action):
    times = []
    for _ in range(4):
        started = time.process_time()
        action().backward()
        times.append(time.process_time() - started)
    return min(times)


parts = {"image encoder": lambda: model.encoder(image, matte).sum(), "U-Net": lambda: model.unet.between(cells).sum()}
print(json.dumps({name: best(action) for name, action in {**parts, "rasterisation": draw}.items()}))
built.close()
"""


class Side:
    """One commit's process."""

    def __init__(self, root: Path, prior: str, data: str, changes: Sequence[str] = ()) -> None:
        environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "HEADSTART_THREADS": "1"}
        command = [sys.executable, "-c", WORKER, str(root), prior, data, *changes]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, cwd=root, env=environment, **pipes)
        while (line := self._line()).strip() != "ready":
            if not line:
                raise RuntimeError(f"{prior}: the process of {root.name} ended before it was ready")

    def ask(self, what: str, number: int) -> dict[str, Any]:
        """Let it work, and wait for its figures."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{what} {number}\n")
        self.process.stdin.flush()
        return json.loads(self._line())

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def close(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def checkout(commit: str, folder: Path) -> Path:
    """The sources of a commit in a folder."""
    folder.mkdir()
    packed = folder.with_suffix(".tar")
    with packed.open("wb") as out:
        subprocess.run(["git", "archive", commit], cwd=HERE, stdout=out, check=True)
    with tarfile.open(packed) as tar:
        tar.extractall(folder, filter="data")
    return folder


def compare(prior: str, earlier: Path, data: str, rounds: int) -> list[dict[str, Any]]:
    """Rows of one prior: a step with a batch in memory, a step with its reading, and reading alone."""
    sides = [Side(root, prior, data) for root in (earlier, HERE)]
    rows = []
    try:
        figures = {
            what: [[side.ask(what, number) for side in sides] for _ in range(rounds)]
            for what, number in (("held", STEPS), ("read", STEPS), ("samples", SAMPLES))
        }
    finally:
        for side in sides:
            side.close()
    names = {"held": "a step, batch in memory", "read": "a step and its reading", "samples": "reading a sample"}
    for what, pairs in figures.items():
        for key, unit, scale in (("cpu", "ms of CPU", 1e3), ("requests", "requests", 1), ("bytes", "kB", 1e-3)):
            if key in pairs[0][0]:
                before, after = (statistics.median(pair[i][key] for pair in pairs) for i in (0, 1))
                ratio = statistics.median(pair[0][key] / max(pair[1][key], 1e-9) for pair in pairs)
                case = f"{prior} tiny, {names[what]}"
                rows.append(row(case, "earlier commit", before * scale, unit))
                rows.append(
                    row(case, "this checkout", after * scale, unit, "times less than the earlier commit", ratio)
                )
    losses = [[loss for pair in figures["held"] for loss in pair[i]["losses"]] for i in (0, 1)]
    apart = max(abs(a / b - 1) for a, b in zip(*losses))
    rows.append(
        row(f"{prior} tiny, losses of {len(losses[0])} steps on one batch", "largest difference", apart, "share")
    )
    return rows


def curves(prior: str, earlier: Path, data: str, steps: int) -> list[dict[str, Any]]:
    """Rows of one prior: losses of both checkouts when they train on the same samples with equal seeds and settings."""
    changes = [f"steps={steps}"]
    sides = [Side(earlier, prior, data, changes), Side(HERE, prior, data, [*changes, *SAME.get(prior, ())])]
    losses: list[list[float]] = [[], []]
    try:
        while len(losses[0]) < steps:
            for side, found in zip(sides, losses):
                found += side.ask("curve", min(TURN, steps - len(found)))["losses"]
    finally:
        for side in sides:
            side.close()
    rows = []
    for first in range(0, steps, LAST):
        case = f"{prior} tiny, mean loss of steps {first + 1} to {min(first + LAST, steps)}"
        before, after = (statistics.fmean(found[first : first + LAST]) for found in losses)
        rows.append(row(case, "earlier commit", before, ""))
        rows.append(row(case, "this checkout", after, "", "share of the earlier commit's", after / before))
    return rows


def floor(data: str) -> list[dict[str, Any]]:
    """What convolutions and rasterisation of one batch cost, forward and backward."""
    environment = {**os.environ, "PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1", "HEADSTART_THREADS": "1"}
    command = [sys.executable, "-c", FLOOR, str(HERE), data]
    parts = json.loads(subprocess.check_output(command, cwd=HERE, env=environment, text=True).splitlines()[-1])
    case = "expression-visual tiny, floor of a step"
    return [row(case, name, 1e3 * value, "ms of CPU", "the floor") for name, value in parts.items()]


def _measured(case: str, priors: Sequence[str], curve: bool) -> bool:
    """Whether a stored row is of the kind that is measured now."""
    return case.startswith(tuple(priors)) and (", mean loss of steps " in case) == curve


def main() -> None:
    """Write ``results/against.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commit", default="c32969e")
    parser.add_argument("--priors", nargs="+", choices=PRIORS, default=PRIORS)
    parser.add_argument("--data", metavar="DATASET", help="a dataset with lips and motion; default: synthetic talkers")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--curve", type=int, metavar="STEPS", help="compare losses of so many steps, not times")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        data = given.data or dataset(scratch)
        earlier = checkout(given.commit, Path(scratch) / given.commit)
        if given.curve:
            rows = [line for prior in given.priors for line in curves(prior, earlier, data, given.curve)]
        else:
            rows = [line for prior in given.priors for line in compare(prior, earlier, data, given.rounds)]
            rows += floor(data) if "expression-visual" in given.priors else []
    kept = [line for line in stored("against") if not _measured(line["case"], given.priors, bool(given.curve))]
    notes = (
        f"earlier commit {given.commit}; one thread each, in turn, medians of {given.rounds} rounds; batches of six "
        "(expression-visual) or of tiny (sync-expert)"
    )
    command = f"against --commit {given.commit} --rounds {given.rounds} --priors {' '.join(given.priors)}"
    command += f" --curve {given.curve}" if given.curve else ""
    write("against", kept + rows, notes, command=command + (" --data DATASET" if given.data else ""))


if __name__ == "__main__":
    main()
