"""Reading: the reader compared with a bare loop over the same tars, and opening a dataset of 100,000 shards."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import simplejpeg

from benchmarks.results import row, write
from benchmarks.training.views import SequenceView
from shards import Reader, open_dataset
from shards.features import logmel
from shards.format.catalogue import Catalogue, write_catalogue
from shards.format.schema import frame_name, sample_key
from shards.tar.writer import DatasetWriter

SIZE, FRAMES, SAMPLES, ROUNDS = 512, 50, 16, 3
EPOCHS = 6  # through worker processes, after each has started and read
SHARDS, PEOPLE = 100_000, 20_000


class WholeView:
    """Every frame of a sample, decoded and dropped: what the bare loop does too."""

    features, window, needs_sound = None, 1, False

    def __call__(self, sample, rng):
        sample.prefetch(map(frame_name, range(sample.length)))
        return {"frames": sum(sample.frame(i).shape[0] > 0 for i in range(sample.length))}


def main() -> None:
    """Write ``results/reader.json``."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = make(Path(scratch) / "data")
        rows = [
            *against_bare_loop(folder),
            *decode_per_core(folder),
            *small_views(folder),
            *opening(Path(scratch) / "large"),
        ]
    notes = f"{SAMPLES} samples of {FRAMES} frames at {SIZE} px, one process, median of {ROUNDS} rounds; "
    write("reader", rows, notes + f"load of the machine {os.getloadavg()[0]:.1f}")


def make(folder: Path) -> Path:
    """A dataset whose JPEGs have the size of those of real faces (about 60 kB)."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (FRAMES, 40, 40, 3), np.uint8)
    frames = np.stack([_enlarged(picture) + rng.integers(0, 9, (SIZE, SIZE, 1), np.uint8) for picture in coarse])
    jpeg = [simplejpeg.encode_jpeg(frame, quality=95, colorsubsampling="420") for frame in frames]
    ramp = np.linspace(0, 255, SIZE).astype(np.uint8)
    audio = (0.1 * rng.normal(size=FRAMES * 640)).astype(np.float32)
    track = _track()
    with DatasetWriter(folder, samples_per_shard=8) as writer:
        for i in range(SAMPLES):
            writer.add(
                sample_key(f"person{i // 4}", f"clip{i // 4}", i % 4),
                {},
                frames_jpeg=jpeg,
                matte=np.broadcast_to(ramp, (FRAMES, SIZE, SIZE)),
                track=track,
                audio=audio,
                features={"logmel": logmel(audio)},
            )
    return folder


def _enlarged(picture: np.ndarray) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.fromarray(picture).resize((SIZE, SIZE), Image.Resampling.BICUBIC)) // 2


def _track() -> dict[str, np.ndarray]:
    shapes = {"landmarks": (FRAMES, 478, 3), "translation": (FRAMES, 3), "identity": (64,), "expression": (FRAMES, 32)}
    shapes |= {"eyelids": (FRAMES, 2), "gaze": (FRAMES, 2, 2), "quality": (FRAMES,), "intrinsics": (3, 3)}
    track = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    return {**track, "rotation": np.tile(np.eye(3, dtype=np.float32), (FRAMES, 1, 1))}


def bare_loop(folder: Path) -> int:
    """Frames of all tars, read in order and decoded with the same decoder; nothing else."""
    frames = 0
    for path in sorted((folder / "shards").glob("*.tar")):
        with tarfile.open(path, "r|") as tar:
            for member in tar:
                data = tar.extractfile(member).read()
                if member.name.endswith(".jpg"):
                    simplejpeg.decode_jpeg(data, "RGB")
                    frames += 1
    return frames


def read_all(folder: Path, view) -> int:
    """Frames of one epoch through the reader."""
    reader = Reader(open_dataset(folder), view, batch_size=4, epochs=1)
    return sum(len(batch["keys"]) for batch in reader) * FRAMES


def rate(action: Callable[[], int]) -> float:
    """Frames a second."""
    started = time.perf_counter()
    frames = action()
    return frames / (time.perf_counter() - started)


def against_bare_loop(folder: Path) -> list[dict]:
    """Rounds in turns, so that what else the machine does falls on both."""
    assert bare_loop(folder) == read_all(folder, WholeView()) == SAMPLES * FRAMES
    pairs = [(rate(lambda: bare_loop(folder)), rate(lambda: read_all(folder, WholeView()))) for _ in range(ROUNDS)]
    bare, ours = (statistics.median(pair[i] for pair in pairs) for i in (0, 1))
    ratio = statistics.median(b / a for a, b in pairs)
    case = "all frames decoded, one epoch"
    return [
        row(
            case,
            "bare loop over the tars",
            bare,
            "frames/s",
            "the peer: tarfile and a JPEG decoder, no order, no state",
        ),
        row(case, "Reader", ours, "frames/s", "at least 0.9 of the bare loop", ratio),
    ]


def decode_per_core(folder: Path) -> list[dict]:
    """Frames a second of CPU time in 2 and 4 worker processes against the decoder alone: other jobs share the cores.

    The start of the workers is left out: it is paid once in a run. The decoder alone is measured before and after each.
    """
    files = [open_dataset(folder).read(i) for i in range(SAMPLES)]
    jpegs = [sample.raw(frame_name(i)) for sample in files for i in range(FRAMES)]
    case, rows, peers = "JPEG decode, frames a second of CPU", [], [_decoder_alone(jpegs)]
    for workers in (2, 4):
        ours = _in_workers(folder, workers)
        peers.append(_decoder_alone(jpegs))
        ratio = ours / statistics.mean(peers[-2:])
        rows.append(row(case, f"Reader, {workers} workers", ours, "frames/s", "at least 0.9 alone", ratio))
    return [row(case, "simplejpeg alone", statistics.median(peers), "frames/s", "the peer"), *rows]


def _decoder_alone(jpegs: list[bytes]) -> float:
    """Frames a second of CPU."""
    started = time.process_time()
    for data in jpegs:
        simplejpeg.decode_jpeg(data, "RGB")
    return len(jpegs) / (time.process_time() - started)


def _in_workers(folder: Path, workers: int) -> float:
    """Frames a second of the workers' CPU, once each of them has given two batches."""
    reader = Reader(open_dataset(folder), WholeView(), batch_size=4, workers=workers)
    batches = iter(reader)
    for _ in range(2 * workers):
        next(batches)
    before = _children_seconds()
    frames = sum(len(next(batches)["keys"]) for _ in range(EPOCHS * SAMPLES // 4)) * FRAMES
    rate = frames / (_children_seconds() - before)
    batches.close()
    return rate


def _children_seconds() -> float:
    """CPU seconds so far of this process's children that live."""
    times = [process.cpu_times() for process in psutil.Process().children(recursive=True)]
    return sum(spent.user + spent.system for spent in times)


def small_views(folder: Path) -> list[dict]:
    """Views that need little of a sample read little of it."""
    rates = [rate(lambda: read_all(folder, SequenceView(window=50))) / FRAMES for _ in range(ROUNDS)]
    return [row("sound and track of a segment, no picture", "Reader", statistics.median(rates), "samples/s")]


def opening(folder: Path) -> list[dict]:
    """Open a dataset of 100,000 shards in a fresh process; its index is simulated, no tar exists."""
    simulate(folder)
    code = (
        "import time, json; from shards.read.dataset import open_dataset; "
        "t = time.perf_counter(); c = time.process_time(); "
        f"d = open_dataset({str(folder)!r}); n = len(d); s = time.perf_counter() - t; c = time.process_time() - c; "
        "from shards.read.plan import EpochPlan; t = time.perf_counter(); p = EpochPlan(d, 0, 0); p.shard_at(len(p) // 2); "
        # Not ru_maxrss: a child inherits its parent's peak.
        "m = int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0]) / 1024; "
        "print(json.dumps([n, s, time.perf_counter() - t, m, c]))"
    )
    runs = [json.loads(subprocess.check_output([sys.executable, "-c", code], text=True)) for _ in range(ROUNDS)]
    seconds, order, memory, cpu = (statistics.median(run[i] for run in runs) for i in (1, 2, 3, 4))
    case = f"opening {SHARDS:,} shards ({runs[0][0]:,} samples)"
    return [
        row(case, "open_dataset", seconds, "s", "under 2 s"),
        row(case, "its CPU time, for busy machines", cpu, "s", "under 2 s"),
        row(case, "order of an epoch, any position", order, "s", "0.24 s, a far seek with the first batch, in a study"),
        row(case, "peak memory of the process", memory, "MB", "under 500 MB"),
    ]


def simulate(folder: Path) -> None:
    """``dataset.json`` of a corpus of 100,000 shards, three people in each, 20,000 in all."""
    rng = np.random.default_rng(0)
    people = rng.integers(PEOPLE, size=(SHARDS, 3))
    catalogue = Catalogue(features={"logmel": 160}, track={"identity": 64, "expression": 32})
    catalogue.identities = [
        {"name": f"person{i:05d}", "licences": ["CC BY 4.0"], "consents": ["signed"]} for i in range(PEOPLE)
    ]
    for i, who in enumerate(people):
        catalogue.shards.append(
            {
                "name": f"{i:012x}-00000",
                "sha256": f"{i:064x}",
                "bytes": 96_000_000,
                "samples": 32 * len(set(who)),
                "frames": 1600 * len(set(who)),
                "index_sha256": f"{i:064x}",
                "people": [[int(number), 1, 32, 1600, 4] for number in sorted(set(who))],
            }
        )
    folder.mkdir()
    write_catalogue(str(folder), catalogue)


if __name__ == "__main__":
    main()
