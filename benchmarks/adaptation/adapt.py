"""Adaptation and talking: time to reach a face PSNR with and without priors, frames per second by stage, memory.

    python -m benchmarks adapt [--video CLIP] [--prior URI] [--budget 60s]

Without a clip a generated talker is used. Frames per second are those of ``talk`` at 256 and 512 px. Memory is the peak
of a separate process after 1 and 60 minutes of audio pushed through a stream. Both render every frame of the first
minute; for the rest of the hour, features, expressions and poses are computed, but no pictures.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.results import alone, peak_memory, row, write

TARGETS = (28.0, 30.0, 31.0, 32.0, 33.0)
# Seconds between looks at the held-out frames; users see them less often.
LOOK_EVERY = 1.0


def main(arguments: list[str] | None = None) -> None:
    """Measure and write ``results/adapt.json``."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--video", help="a real clip; default: a generated talker")
    parser.add_argument("--prior", default="none", help="what the 'with prior' rows stand on")
    parser.add_argument("--budget", default="60s")
    parser.add_argument("--sizes", type=int, nargs="*", default=[256, 512])
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="headstart-bench-") as folder:
        video = Path(options.video) if options.video else generated(Path(folder))
        rows = _adaptations(video, options, Path(folder))
        rows += [r for size in options.sizes for r in _talking(video, size, options.prior, Path(folder))]
        rows += _memory(Path(folder) / f"talker-{options.sizes[0]}")
    notes = f"clip {video.name}, budget {options.budget}, prior {options.prior}; {torch.get_num_threads()} thread(s)"
    write("adapt", rows, notes, command=shlex.join(["adapt", *sys.argv[1:]]))


def generated(folder: Path, seconds: float = 10.0, size: int = 512) -> Path:
    """A video of a generated talker."""
    from shards.synthetic.generate import make_talker
    from shards.synthetic.mp4 import write_mp4

    talker = make_talker(0)
    said = talker.perform(seconds, 0, size)
    write_mp4(folder / "talker.mp4", (frame for frame, _ in talker.render(said)), said.audio)
    return folder / "talker.mp4"


def _adaptations(video: Path, options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    from adapt.fit import loop as fit
    from benchmarks.adapting import adapt

    fit.MEASURE_EVERY = LOOK_EVERY
    rows = []
    for variant in ("none", options.prior) if options.prior != "none" else ("none",):
        out = folder / f"avatar-{len(rows)}"
        result = adapt(video, out, prior=variant, budget=options.budget, size=256)
        label = "without prior" if variant == "none" else "with prior"
        curve = json.loads((out / "avatar.json").read_text())["progress"]["psnr_face"]
        rows.append(row("first step done and looked at", label, curve[0][0], "s"))
        rows.append(row("face PSNR then", label, curve[0][1], "dB"))
        for target in TARGETS:
            reached = next((seconds for seconds, value in curve if value >= target), None)
            if reached is not None:
                rows.append(row(f"time to {target:g} dB face", label, reached, "s"))
        rows.append(row("held-out face PSNR", label, result["metrics"]["psnr_face_held"], "dB"))
        rows.append(row("steps", label, result["iterations"], "steps"))
        rows += fixed_costs(result, label)
    return rows


def fixed_costs(result: dict[str, Any], label: str) -> list[dict[str, Any]]:
    """Where the seconds of an adaptation went that were no optimisation step, from what ``adapt`` returns.

    Measuring is left out: here it happens more often than for users.
    """
    spent = dict(result["stages"])
    steps, measuring = spent.pop("steps", 0.0), spent.pop("measuring", 0.0)
    whole = result["seconds"] - steps - measuring
    rows = [row("all that is no step", label, whole, "s")]
    rows += [row(f"  {stage}", label, seconds, "s") for stage, seconds in spent.items()]
    rows.append(row("  the rest", label, whole - sum(spent.values()), "s"))
    rows.append(row("a step", label, 1000 * steps / max(1, result["iterations"]), "ms"))
    return rows


def _talking(video: Path, size: int, prior: str, folder: Path) -> list[dict[str, Any]]:
    import soundfile

    from adapt.talk.talk import talk
    from benchmarks.adapting import adapt

    out, speech = folder / f"talker-{size}", folder / "speech.wav"
    adapt(video, out, prior=prior, budget="30it", size=size)
    rng = np.random.default_rng(0)
    soundfile.write(speech, 0.1 * rng.standard_normal(16_000 * 4), 16_000)
    rows = []
    for background in ("model", "original"):
        result = talk(out, speech, folder / f"{size}-{background}.mp4", background=background)
        case = f"talk {size}x{size}, {background} background"
        rows.append(row(case, "all", result["fps"], "frames/s"))
        for stage, seconds in result["stages"].items():
            rows.append(row(case, stage, 1000 * seconds / result["frames"], "ms/frame"))
    return rows


def _memory(avatar: Path) -> list[dict[str, Any]]:
    rows = []
    for minutes in (1, 60):
        peak, seconds = alone(stream, avatar, minutes)
        rows.append(row("talk, peak memory", f"{minutes} min of sound", peak, "MB"))
        rows.append(row("talk, time", f"{minutes} min of sound", seconds, "s"))
    return rows


def stream(avatar: Path, minutes: int, rendered: int = 1) -> tuple[float, float]:
    """Peak memory (MB) of this process and seconds, after minutes of sound of which the first are rendered."""
    from adapt.avatar.avatar import load_avatar
    from adapt.talk.talker import Talker

    block = (0.1 * np.random.default_rng(0).standard_normal(16_000)).astype(np.float32)
    talker, begin = Talker(load_avatar(avatar, "cpu")), time.monotonic()
    for second in range(60 * minutes):
        for _ in talker.feed(block) if second < 60 * rendered else talker.motions(block):
            pass
    return peak_memory(), time.monotonic() - begin


if __name__ == "__main__":
    main()
