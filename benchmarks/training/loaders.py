"""Data loaders compared on the same samples: ours, WebDataset's and litdata's; speed, and samples lost by a resume.

    python -m benchmarks loaders

litdata reads its own format, to which the samples are converted; without it (``pip install litdata``) its rows say so.
Each loader shuffles, reads in one process and decodes every frame with the same decoder. A run that is stopped in the
middle of an epoch and resumed should see each sample of the epoch exactly once.
"""

from __future__ import annotations

import contextlib
import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg

from benchmarks.results import row, write
from benchmarks.training import reader as small
from shards import Reader, open_dataset
from shards.format.schema import frame_name

BATCH, ROUNDS, READ = 2, 3, 3  # samples of a batch; rounds; batches before the stop
Batches = Iterator[list[str]]  # the keys of each batch, whose frames have been decoded
Start = Callable[[object], tuple[Batches, Callable[[], object]]]  # from a state or None: batches, and the state now


def main() -> None:
    """Write ``results/loaders.json``."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = small.make(Path(scratch) / "data")
        loaders: dict[str, Start | str] = {
            "headstart Reader": lambda state: ours(folder, state),
            "webdataset WebLoader": lambda state: plain(folder, state),
            "litdata StreamingDataLoader": _litdata(folder, Path(scratch) / "litdata"),
        }
        found = {name: start for name, start in loaders.items() if not isinstance(start, str)}
        speeds = speed(found)
        rows = []
        for name, start in loaders.items():
            if isinstance(start, str):
                rows.append(row("loaders", name, 0.0, "not measured", start))
            else:
                rows += of_loader(name, start, speeds[name], speeds["webdataset WebLoader"])
    notes = f"{small.SAMPLES} samples of {small.FRAMES} frames at {small.SIZE} px, one process, CPU time, median of {ROUNDS}"
    write("loaders", rows, f"{notes}; load of the machine {os.getloadavg()[0]:.1f}")


def speed(loaders: dict[str, Start]) -> dict[str, float]:
    """Frames a second of CPU time over one epoch, in turns."""
    rates: dict[str, list[float]] = {name: [] for name in loaders}
    for _ in range(ROUNDS):
        for name, start in loaders.items():
            started = time.process_time()
            frames = sum(len(keys) for keys in start(None)[0]) * small.FRAMES
            rates[name].append(frames / (time.process_time() - started))
    return {name: statistics.median(values) for name, values in rates.items()}


def of_loader(name: str, start: Start, rate: float, peer: float) -> list[dict[str, Any]]:
    """Speed, and an epoch that is stopped after some batches and goes on in a new loader."""
    batches, state = start(None)
    before = [key for _, keys in zip(range(READ), batches, strict=False) for key in keys]
    kept = state()
    started = time.process_time()
    rest = start(kept)[0]
    first = next(rest)
    resumed = time.process_time() - started
    after = first + [key for keys in rest for key in keys]
    lost = small.SAMPLES - len({*before, *after})
    repeated = len(before) + len(after) - len({*before, *after})
    case = "an epoch stopped in the middle"
    return [
        row("all frames decoded, one epoch", name, rate, "frames/s of CPU", "webdataset", rate / peer),
        row(case, f"{name}: samples lost", lost, "samples", "0"),
        row(case, f"{name}: samples repeated", repeated, "samples", "0"),
        row(case, f"{name}: to the first batch again", resumed, "s of CPU"),
    ]


def ours(folder: Path, state: Any) -> tuple[Batches, Callable[[], object]]:
    """The product's reader."""
    reader = Reader(open_dataset(folder), small.WholeView(), batch_size=BATCH, epochs=1)
    if state is not None:
        reader.load_state_dict(state)
    return (list(batch["keys"]) for batch in reader), reader.state_dict


def plain(folder: Path, state: Any) -> tuple[Batches, Callable[[], object]]:
    """WebDataset as its documentation shows it; it has no position to save, so a resume begins the epoch again."""
    import webdataset

    tars = sorted(str(path) for path in (folder / "shards").glob("*.tar"))

    def decoded(sample: dict[str, Any]) -> tuple[str]:
        for i in range(small.FRAMES):
            simplejpeg.decode_jpeg(sample[frame_name(i)], "RGB")
        return (str(sample["__key__"]),)

    stream = webdataset.WebDataset(tars, shardshuffle=len(tars), seed=0).shuffle(small.SAMPLES).map(decoded)
    loader = webdataset.WebLoader(stream.batched(BATCH), batch_size=None, num_workers=0)
    return (list(keys) for (keys,) in loader), lambda: None


def _litdata(folder: Path, out: Path) -> Start | str:
    try:
        import litdata
    except ImportError as error:
        return f"{error}; pip install litdata"
    dataset = open_dataset(folder)
    samples = [dataset.read(i) for i in range(len(dataset))]
    with contextlib.redirect_stdout(io.StringIO()):
        writer = litdata.streaming.writer.BinaryWriter(str(out), chunk_bytes="64MB")
        for i, sample in enumerate(samples):
            jpegs = [sample.raw(frame_name(k)) for k in range(small.FRAMES)]
            sizes = np.array([len(data) for data in jpegs])
            writer.add_item(i, {"key": sample.key, "sizes": sizes, "jpegs": b"".join(jpegs)})
        writer.done()
        writer.merge()
    return lambda state: lit(out, state)


def lit(folder: Path, state: Any) -> tuple[Batches, Callable[[], object]]:
    """litdata's loader, which saves its position."""
    import litdata

    class Decoded(litdata.StreamingDataset):  # type: ignore[misc, name-defined]
        def __getitem__(self, index: Any) -> str:
            item = super().__getitem__(index)
            ends = np.cumsum(item["sizes"])
            for start, end in zip(ends - item["sizes"], ends, strict=True):
                simplejpeg.decode_jpeg(item["jpegs"][start:end], "RGB")
            return str(item["key"])

    loader = litdata.StreamingDataLoader(Decoded(str(folder), shuffle=True, seed=0), batch_size=BATCH, num_workers=0)
    if state is not None:
        loader.load_state_dict(state)
    return (list(keys) for keys in loader), loader.state_dict


if __name__ == "__main__":
    main()
