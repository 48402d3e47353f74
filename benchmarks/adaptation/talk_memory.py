"""Peak memory and time of ``talk`` by the length of the speech: memory is to be constant.

    python -m benchmarks talk_memory --avatar FOLDER [--seconds 60 180]

The speech is a synthetic talker's. Each length is measured in a process of its own, on one thread.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.results import alone, peak_memory, row, write
from shards.media.rates import FPS, SAMPLE_RATE

PART = 20.0  # seconds of speech that are repeated
GOAL = 1.05  # of the memory of the shortest


def main() -> None:
    """Measure and write ``results/talk_memory.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--avatar", required=True, type=Path, metavar="FOLDER")
    parser.add_argument("--seconds", nargs="+", type=int, default=[60, 180], help="lengths, the shortest first")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    first = 0.0
    for seconds in options.seconds:
        memory, cpu, size, driver = alone(measured, options.avatar, seconds)
        first = first or memory
        case = f"{seconds} s of speech at {size}x{size}"
        rows.append(
            row(case, f"peak memory, {driver}", memory, "MB", f"the shortest; goal <= {GOAL:g}", memory / first)
        )
        rows.append(row(case, "processor time", 1000 * cpu / (FPS * seconds), "ms a frame", "40 ms a frame"))
    lengths = " ".join(map(str, options.seconds))
    write("talk_memory", rows, command=f"talk_memory --avatar FOLDER --seconds {lengths}")


def measured(avatar: Path, seconds: int) -> tuple[float, float, int, str]:
    """Peak memory in MB, seconds of processor time, the side of a frame and what moved the lips."""
    import soundfile
    import torch

    from adapt.avatar.avatar import load_avatar
    from adapt.talk.talk import talk
    from shards.synthetic.speech.voice import compose, sample_voice, speak

    torch.set_num_threads(1)
    rng = np.random.default_rng(3)
    voice = sample_voice(rng, 0.5)
    part = np.asarray(speak(compose(PART, rng, voice), voice, rng), np.float32)
    with tempfile.TemporaryDirectory(prefix="headstart-benchmark-") as place:
        sound = Path(place) / "speech.wav"
        soundfile.write(sound, np.resize(part, seconds * SAMPLE_RATE), SAMPLE_RATE)
        begin = time.process_time()
        talk(avatar, sound, Path(place) / "talk.mp4", device="cpu", background="model")
        cpu = time.process_time() - begin
    opened = load_avatar(avatar, "cpu")
    return peak_memory(), cpu, opened.size, opened.document["features"]["name"]


if __name__ == "__main__":
    main()
