"""Operator launches and waits of the host: per training step of each prior, per fitting step, per avatar frame.

    python -m benchmarks ops

Small work on a fast GPU takes as long as its launches, about 5 us each from Python, so their number decides the speed. They
are counted on the stand-in device (:mod:`benchmarks.standin`), which runs the code that a GPU would run: gsplat's path,
tinycudann's path, PyTorch elsewhere. A launch is an operator that reaches the device; views do not count.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from benchmarks.adaptation.adapt import generated
from benchmarks.results import row, write
from benchmarks.standin import Counts, counting, load
from benchmarks.standin.kernels import played
from benchmarks.training.pretrain import dataset, trainer
from pretrain.names import prior_names

BEFORE = {"avatar frame": 257, "fit step": 963}  # commit c32969e, counted by this benchmark with its faults mended
SIZE, STEPS = 128, 4
CHANGES = ("engine.device=standin", "batch_size=2")
SMALLER = ("size=64", "model.resolution=32", "model.channels=8")  # as many launches in less time


def main() -> None:
    """Count, and write ``results/ops.json``."""
    argparse.ArgumentParser(prog="benchmarks ops", description=__doc__).parse_args()
    load()
    with played(), tempfile.TemporaryDirectory() as folder:
        rows = training_rows(folder) + avatar_rows(Path(folder))
    write("ops", rows, "launches on the stand-in device; each is about 5 us of a host that has nothing else to do")


def rows_of(case: str, counts: Counts, steps: int) -> list[dict[str, Any]]:
    """Launches, waits and copies of one step of several."""
    common = ", ".join(f"{name.removeprefix('aten::')} {n / steps:.0f}" for name, n in counts.launches.most_common(5))
    before = BEFORE.get(case.split(",")[0])
    launches = counts.launches.total() / steps
    ratio = None if before is None else launches / before
    return [
        row(case, f"launches ({common})", launches, "per step", f"{before or 'none known'}", ratio),
        row(
            case,
            f"waits of the host{_named(counts.synchronisations)}",
            counts.synchronisations.total() / steps,
            "per step",
            "0",
        ),
        row(case, "copies to the device that wait", counts.to_device.total() / steps, "per step", "0"),
    ]


def _named(counter: Counter[str]) -> str:
    return f" ({', '.join(sorted(counter))})" if counter else ""


def training_rows(folder: str) -> list[dict[str, Any]]:
    """A training step of each prior, ``tiny``."""
    data, rows = dataset(folder, people=4, seconds=4.0), []
    for prior in prior_names():
        built = trainer(
            prior, "tiny", data, f"{folder}/{prior}", *CHANGES, *(SMALLER if prior == "expression-visual" else ())
        )
        built.train_step()
        with counting() as counts:
            for _ in range(STEPS):
                built.train_step()
        built.close()
        rows += rows_of(f"{prior}, training step", counts, STEPS)
    return rows


def avatar_rows(folder: Path) -> list[dict[str, Any]]:
    """A step of fitting the default recipe, and a frame of its avatar: alone, and as one of a block."""
    from adapt.avatar.avatar import load_avatar
    from adapt.clip import track_clip
    from adapt.fit.loop import Fit
    from adapt.talk.talker import BATCH
    from benchmarks.adapting import adapt

    counts, real = Counts(), Fit._step

    def counted(fit: Fit, *arguments: Any) -> None:
        with counting() as one:
            real(fit, *arguments)
        steps.append(one)

    steps: list[Counts] = []
    video = generated(folder, seconds=1.6, size=2 * SIZE)
    with mock.patch.object(Fit, "_step", counted), track_clip(video, size=SIZE) as clip:
        adapt(video, folder / "avatar", prior="none", budget="24it", device="standin", clip=clip)
    shown = list(steps[8:16])
    for one in shown:
        counts.launches += one.launches
        counts.waits += one.waits
        counts.to_host += one.to_host
        counts.to_device += one.to_device
    rows = rows_of("fit step, headstart recipe", counts, len(shown))
    avatar = load_avatar(folder / "avatar", "standin")
    for frames, name in ((1, "alone"), (BATCH, f"one of {BATCH}, as talk renders them")):
        drive = avatar.tracked_drive(list(np.arange(frames) + 3))
        avatar.render(drive)
        with counting() as counts:
            avatar.render(drive)
        rows += rows_of(f"avatar frame, {name}", counts, frames)
    return rows
