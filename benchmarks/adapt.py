"""Adaptation and talking: time to reach a face PSNR with and without priors, frames per second by stage, memory.

    python -m benchmarks adapt [--video CLIP] [--prior URI] [--budget 60s]

Without a clip a generated talker is used. Frames per second are those of ``talk`` at 256 and 512 px; memory
is the process's high-water mark after 1 and 60 minutes of sound pushed through a stream that renders every frame of the
first minute and, for the hour, features, expressions and poses of all frames.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.results import row, write

TARGETS = (28.0, 30.0, 32.0)


def main(arguments: list[str] | None = None) -> None:
    """Measure and write ``results/adapt.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--video", help="a real clip; default: a generated talker")
    parser.add_argument("--prior", default="none", help="what the 'with prior' rows stand on")
    parser.add_argument("--budget", default="60s")
    parser.add_argument("--sizes", type=int, nargs="*", default=[256, 512])
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="headstart-bench-") as folder:
        video = Path(options.video) if options.video else _generated(Path(folder))
        rows = _adaptations(video, options, Path(folder))
        rows += [r for size in options.sizes for r in _talking(video, size, Path(folder))]
        rows += _memory(Path(folder))
    write("adapt", rows, f"clip {video.name}, budget {options.budget}, prior {options.prior}")


def _generated(folder: Path) -> Path:
    from shards.synthetic import synthesize

    synthesize(1, 10.0, 0, str(folder / "talkers"), size=512)
    return next((folder / "talkers").rglob("*.mp4"))


def _adaptations(video: Path, options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    from adapt.adapt import adapt

    rows = []
    for variant in ("none", options.prior) if options.prior != "none" else ("none",):
        out = folder / f"avatar-{len(rows)}"
        result = adapt(video, out, prior=variant, budget=options.budget, size=256)
        label = "without prior" if variant == "none" else "with prior"
        curve = json.loads((out / "avatar.json").read_text())["progress"]["psnr_face"]
        for target in TARGETS:
            reached = next((seconds for seconds, value in curve if value >= target), None)
            if reached is not None:
                rows.append(row(f"time to {target:g} dB face", label, reached, "s"))
        rows.append(row("held-out face PSNR", label, result["metrics"]["psnr_face_held"], "dB"))
        rows.append(row("steps", label, result["iterations"], "steps"))
    return rows


def _talking(video: Path, size: int, folder: Path) -> list[dict[str, Any]]:
    import soundfile

    from adapt.adapt import adapt
    from adapt.talk import talk

    out, speech = folder / f"talker-{size}", folder / "speech.wav"
    adapt(video, out, prior="none", budget="30it", size=size)
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


def _memory(folder: Path) -> list[dict[str, Any]]:
    from adapt.avatar import load_avatar
    from adapt.talk import Talker

    avatar = load_avatar(next(path for path in folder.glob("talker-*") if path.is_dir()), "cpu")
    block = (0.1 * np.random.default_rng(0).standard_normal(16_000)).astype(np.float32)
    rows = []
    for minutes in (1, 60):
        talker, begin = Talker(avatar), time.monotonic()
        if minutes == 60:
            # Rendering an hour says nothing more about memory than a minute: frames are handed out and forgotten.
            talker._render = lambda count, talker=talker: _skip(talker, count)
        for _ in range(60 * minutes):
            for _ in talker.feed(block):
                pass
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        rows.append(row("talk, peak memory", f"{minutes} min of sound", peak, "MiB"))
        rows.append(row("talk, time", f"{minutes} min of sound", time.monotonic() - begin, "s"))
    return rows


def _skip(talker: Any, count: int) -> list[Any]:
    talker._next_drive(count)
    talker._source = talker._source[count:]
    talker.frames += count
    return [None] * count


if __name__ == "__main__":
    main()
