"""Export of a head of 60,000 Gaussians to every format: seconds, megabytes, and animation frames per second.

    python -m benchmarks export [--gaussians 60000] [--frames 25] [--avatar FOLDER]

The head is generated: positions on an ellipsoid-like surface, scales and colours like those of trained heads. Times are from
the renderer's tensors to the finished file, the best of three. USD is measured if ``usd-core`` is installed. With
``--avatar`` (one of 512 px has nearly as many Gaussians) its head and its web page are exported too, timed from the
loaded avatar to the finished folder. CPU time is that of all threads of the process.
"""

from __future__ import annotations

import argparse
import functools
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.results import row, write

GOAL = 1.0  # seconds a file
PAGE = 6.0  # MB of a page, without encoder and onnxruntime


class Spent(NamedTuple):
    """Seconds of a call: by the clock, and of all processors."""

    clock: float
    processor: float


def main(arguments: list[str] | None = None) -> None:
    """Measure and write ``results/export.json``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks export")
    parser.add_argument("--gaussians", type=int, default=60_000)
    parser.add_argument("--frames", type=int, default=25, help="frames of each animation")
    parser.add_argument("--avatar", type=Path, metavar="FOLDER", help="export this head and its page too")
    options = parser.parse_args(arguments)
    head = make_head(options.gaussians)
    with tempfile.TemporaryDirectory() as folder:
        rows = [*stills(head, Path(folder), "one moment"), *animations(head, options.frames, Path(folder))]
        rows += [] if options.avatar is None else of_avatar(options.avatar, Path(folder))
    named = [] if options.avatar is None else ["--avatar", options.avatar.name]
    notes = f"goal {GOAL:g} s a file; sizes depend on the head only where a file is compressed"
    write("export", rows, notes, command=" ".join(["export", *named]))


def make_head(count: int) -> Any:
    """``heads`` Gaussians ``[1, N, ...]`` in rig units, of a trained head's statistics."""
    import torch

    from heads import Gaussians

    rng = np.random.default_rng(0)
    around = rng.normal(size=(count, 3))
    means = around / np.linalg.norm(around, axis=1, keepdims=True) * [1.2, 1.9, 1.4] + rng.normal(0, 0.02, (count, 3))
    scales = np.exp(rng.normal(np.log(0.015), 0.8, (count, 3)))
    parts = means, rng.normal(size=(count, 4)), scales, rng.beta(8, 1, count), rng.uniform(0, 1, (count, 3))
    return Gaussians(*(torch.from_numpy(part.astype(np.float32))[None] for part in parts))


def written_formats() -> Iterator[tuple[str, Any]]:
    """Suffixes and formats that this machine can write."""
    from adapt.avatar.export import formats
    from configs import InputError

    for suffix, candidate in formats().items():
        try:
            if hasattr(candidate, "require_usd"):
                candidate.require_usd()
        except InputError as error:
            print(f"  {suffix}: not measured: {error}")
            continue
        yield suffix, candidate


def stills(head: Any, folder: Path, what: str) -> list[dict[str, Any]]:
    """Seconds and megabytes of one head in every format."""
    from adapt.avatar.export import Cloud

    case, rows = f"{head.n} Gaussians, {what}", []
    for suffix, candidate in written_formats():
        path = folder / f"head{suffix}"

        def once(path: Path = path, candidate: Any = candidate) -> None:
            candidate.write(path, Cloud.of_head(head), {})

        rows += seconds(case, suffix, once)
        rows.append(row(case, f"{suffix}, size", path.stat().st_size / 1e6, "MB"))
    return rows


def of_avatar(avatar: Path, folder: Path) -> list[dict[str, Any]]:
    """Seconds and megabytes of a trained head in every format, and of its page."""
    from adapt.avatar.avatar import load_avatar
    from adapt.web.folder import write_web

    opened = load_avatar(avatar, "cpu")
    head, page = opened.gaussians(None), folder / "page"
    rows = stills(head, folder, f"avatar of {opened.size} px")
    case = rows[0]["case"]
    record = {"statement": "", "tool": ""}
    rows += seconds(case, "--web", lambda: write_web(page, opened, record, overwrite=True))
    size = sum(path.stat().st_size for path in page.iterdir()) / 1e6
    return [*rows, row(case, "--web, size", size, "MB", f"goal {PAGE:g} MB", size / PAGE)]


def seconds(case: str, name: str, function: Callable[[], object]) -> list[dict[str, Any]]:
    """The shortest of three calls, by the clock and by the processor."""
    calls = [timed(function) for _ in range(3)]
    found = {"seconds": min(call.clock for call in calls), "processor time": min(call.processor for call in calls)}
    return [row(case, f"{name}, {what}", spent, "s", f"goal {GOAL:g} s", spent / GOAL) for what, spent in found.items()]


def animations(head: Any, frames: int, folder: Path) -> list[dict[str, Any]]:
    """Frames per second of processor time and megabytes a frame where every mean moves and nothing else does."""
    from adapt.avatar.export import Cloud, write_frames
    from adapt.avatar.export.registry import animates

    still = Cloud.of_head(head)

    def clouds() -> Iterator[Cloud]:
        for frame in range(frames):
            yield still.replace(means=still.means + np.float32(1e-4 * frame))

    case, rows = f"{head.n} Gaussians, {frames} frames", []
    for suffix, candidate in written_formats():
        if not animates(candidate):
            continue
        path = folder / f"moving{suffix}"
        spent = timed(functools.partial(candidate.write_sequence, path, clouds(), {})).processor
        rows.append(row(case, f"{suffix}, means move", frames / spent, "frames/CPU s", "25 frames/s of a live video",
                        frames / spent / 25))  # fmt: skip
        rows.append(row(case, f"{suffix}, size", path.stat().st_size / 1e6 / frames, "MB a frame"))
    spent = timed(lambda: write_frames(folder / "frames", clouds(), {})).processor
    rows.append(row(case, "folder of .ply", frames / spent, "frames/CPU s", "25 frames/s of a live video",
                    frames / spent / 25))  # fmt: skip
    return rows


def timed(function: Callable[[], object]) -> Spent:
    """Time of one call."""
    clock, processor = time.perf_counter(), time.process_time()
    function()
    return Spent(time.perf_counter() - clock, time.process_time() - processor)
