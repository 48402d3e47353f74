"""Building shards: speed, relative to real time, from one video of 512 px to samples, with and without start-up."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.results import row, write
from configs import InputError
from shards.build.build import build
from shards.media.rates import FPS

CLIPS = Path(__file__).resolve().parents[3] / "shared" / "clips"
ROUNDS = 3


def main() -> None:
    """Write ``results/build.json``."""
    video = CLIPS / "cnn2_a.mp4"
    if not video.is_file():
        raise InputError(f"{video} is missing; put a talking video of 512 px there")
    rows, warm, costs = [], [], []
    with tempfile.TemporaryDirectory() as scratch:
        started = time.perf_counter()
        whole = build([video], Path(scratch) / "worker", workers=1)
        cold = time.perf_counter() - started
        for turn in range(ROUNDS):  # in this process, where everything is imported after the first
            started, cpu = time.perf_counter(), time.process_time()
            result = build([video], Path(scratch) / f"here{turn}", workers=0)
            warm.append(result["frames"] / (time.perf_counter() - started))
            costs.append((time.process_time() - cpu) / result["frames"] * 1000)
    case = f"one video, {whole['frames']} frames of 512 px"
    rows.append(row(case, "a fresh worker, imports included", whole["frames"] / cold, "frames/s", "a running worker"))
    best = statistics.median(warm[1:])
    rows.append(row(case, "a running worker", best, "frames/s", f"at least {FPS} frames/s on two cores", best / FPS))
    rows.append(row(case, "CPU time, for busy machines", min(costs), "ms a frame", "80 for real time on two cores"))
    load = os.getloadavg()[0]
    write("build", rows, f"median of {ROUNDS - 1} rounds; ratio is to real time; load of the machine {load:.1f}")


if __name__ == "__main__":
    main()
