"""CPU time per frame of two builds in turn: of a live frame, from audio to message, and of a frame of ``talk``.

    git worktree add ../before c32969e
    python -m benchmarks live_frame --against ../before [--avatar FOLDER ...] [--rounds 5]

Each build is measured by this file in a separate process on one thread, several times in turn, with the same avatars:
those given, or a generated talker's at 256 and 512 px. CPU time depends less on the machine's other load than wall-clock
time does.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.results import commit_of, row, write

FRAMES = 100
GOAL = 0.6  # of the other build's cost
ROOT = Path(__file__).resolve().parents[2]


def main(arguments: list[str] | None = None) -> None:
    """Measure and write ``results/live_frame.json``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks live_frame")
    parser.add_argument("--against", required=True, metavar="CHECKOUT", help="folder with another commit")
    parser.add_argument("--avatar", nargs="*", type=Path, default=[], help="folders (default: adapted now)")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each build")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="headstart-benchmark-") as place:
        avatars = options.avatar or [_made(Path(place), size) for size in (256, 512)]
        rows = against_rows(avatars, Path(options.against), Path(place), options.rounds)
    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    notes = (
        f"medians of {options.rounds} rounds in turn; load at the end: {load:.1f} processes a core, others' included"
    )
    write("live_frame", rows, notes, command="live_frame --against CHECKOUT")


def _made(place: Path, size: int) -> Path:
    """A generated talker's avatar."""
    from benchmarks.adapting import adapt
    from shards.synthetic import synthetic_video

    video, out = place / f"talker-{size}.mp4", place / f"ada-{size}"
    synthetic_video(3, 12, video, size=size)
    adapt(video, out, prior="none", budget="100it", size=size)
    return out


def against_rows(avatars: list[Path], other: Path, place: Path, rounds: int) -> list[dict[str, Any]]:
    """Rows of this build against another one."""
    rows = []
    for folder in avatars:
        found: dict[str, dict[str, list[float]]] = {"now": {}, "before": {}}
        for _ in range(rounds):
            for build, root in (("before", other), ("now", ROOT)):
                for what, cost in _measured(folder, root, place).items():
                    found[build].setdefault(what, []).append(cost)
        for what, costs in found["now"].items():
            now, before = statistics.median(costs), statistics.median(found["before"][what])
            size = json.loads((folder / "avatar.json").read_text())["size"]
            case = f"{what} at {size}x{size}, one thread"
            against = f"{before:.2f} ms of commit {commit_of(other)}; goal <= {GOAL:g}"
            rows.append(row(case, "processor time", now, "ms a frame", against, now / before))
            rows.append(row(case, "frames a second of one core", 1000 / now, "frames/s", "25 frames/s", 40 / now))
    return rows


def _measured(folder: Path, root: Path, place: Path) -> dict[str, float]:
    """Milliseconds of processor time a frame, by what was done, with the code of ``root``."""
    single = dict.fromkeys(("OMP_NUM_THREADS", "HEADSTART_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    environment = {**os.environ, **single, "PYTHONPATH": str(root.resolve())}
    # Not as a script: its folder would come first on the path, and benchmarks have the rooms' names.
    run = "import runpy, sys; runpy.run_path(sys.argv[1], run_name='measure')['measured'](*sys.argv[2:])"
    command = [sys.executable, "-c", run, str(Path(__file__)), str(folder.resolve()), str(place)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=root)
    if done.returncode:
        raise RuntimeError(f"measuring {root} failed: {done.stderr.strip().splitlines()[-1:]}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(folder: Path, place: Path) -> dict[str, float]:
    """Milliseconds a frame of the build that is imported here: median over frames, or the mean of a whole video."""
    import soundfile
    import torch

    from adapt.talk.talk import talk
    from shards.synthetic.generate import make_talker

    torch.set_num_threads(1)
    speech = make_talker(3).perform(FRAMES / 25 + 1, 1, 64).audio.astype(np.float32)
    sound = place / "sound.wav"
    soundfile.write(sound, speech, 16_000)
    found = {"a live frame": live_cost(folder, speech)}
    for background, pose in (("model", "generated"), ("original", "clip")):
        options: dict[str, Any] = {"background": background, "pose": pose, "overwrite": True, "device": "cpu"}
        talk(folder, sound, place / "warm.mp4", **options)
        begin = time.process_time()
        frames = talk(folder, sound, place / "talk.mp4", **options)["frames"]
        found[f"a frame of talk, background {background},"] = 1000 * (time.process_time() - begin) / frames
    return found


def live_cost(folder: Path, speech: np.ndarray) -> float:
    """From 40 ms of sound to the message for the page: driver, head, body, label, watermark and JPEG."""
    from adapt.avatar.avatar import load_avatar
    from adapt.live import protocol
    from adapt.live.engine import Chunk, Engine, Look
    from adapt.marking.marker import Marker

    avatar = load_avatar(folder, "cpu")
    engine, mark = Engine(avatar, Look({})), Marker(avatar.provenance("").avatar_sha256, label="AI")
    costs = []
    for at in range(0, 640 * FRAMES, 640):
        begin = time.process_time()
        for frame in engine.step(Chunk(speech[at : at + 640], time.monotonic())):
            assert frame.image is not None, "one frame at a time is never left out"
            protocol.frame_message(replace(frame, image=mark(frame.image)))
        costs.append(time.process_time() - begin)
    return 1000 * statistics.median(costs[10:])


def measured(folder: str, place: str) -> None:
    """Print what :func:`measure` finds: the whole of a measuring process."""
    print(json.dumps(measure(Path(folder), Path(place))))
