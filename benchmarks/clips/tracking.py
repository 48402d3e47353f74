"""Tracking of real clips: time per frame, and the distance of the tracked rig from newly detected landmarks.

    git worktree add ../before c32969e
    python -m benchmarks tracking [--against ../before] [--rounds 3]

With ``--against``, each build tracks the same clips in a separate process, in turn, as ``headstart adapt`` does (threads, and
its own choice of frames that get a matte of their own) and as ``headstart shards build`` does (one thread). Models and
kernels are loaded before. CPU time depends less on the machine's other load than wall-clock time does.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.results import row, write
from heads.rig import load_rig
from heads.rig.facemesh import IRIS_LEFT, IRIS_RIGHT, LIPS_INNER, LIPS_OUTER
from shards.tracking import Segment, TrackOptions, detect_landmarks, track_frames, track_video

CLIPS = Path(__file__).resolve().parents[3] / "shared" / "clips"
NAMES = ("aoc", "cnn2_a", "french_a", "stock_coatwoman", "mead_m003_b", "katiehill", "noaudio_smilewoman")
SECONDS = 5.0
IN_TURN = ("cnn2_a", "may", "french_a", "hl_video4")  # that two builds track
SIZES = (512, 256)
GOAL = 0.4  # of the other build's cost
ROOT = Path(__file__).resolve().parents[2]


def main(arguments: list[str] | None = None) -> None:
    """Tracks five seconds of each clip; figures are medians over the clips."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks tracking")
    parser.add_argument("--against", metavar="CHECKOUT", help="folder with another commit, whose speed is compared")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each build")
    options = parser.parse_args(arguments)
    videos = [CLIPS / f"{name}.mp4" for name in NAMES if (CLIPS / f"{name}.mp4").exists()]
    if not videos:
        write("tracking", [], f"not run: no clips in {CLIPS}")
        return
    figures = [measure(path) for path in videos]
    median = {key: float(np.median([figure[key] for figure in figures])) for key in figures[0]}
    case = f"{len(videos)} clips of 512 or 320 px, {SECONDS:g} s each"
    rows = [
        row(case, "first pass: decoding, landmarks, cuts, faces", median["scan"], "CPU ms a frame", "4.3 for landmarks alone"),
        row(case, "second pass: decoding, matte, track", median["second"], "CPU ms a frame", "21 for a matte of every frame"),
        row(case, "both passes", median["scan"] + median["second"], "CPU ms a frame", "40 for real time on one core"),
        row(case, "rig against landmarks, all", median["all"], "px at 512, median"),
        row(case, "rig against landmarks, lips", median["lips"], "px at 512, median"),
        row(case, "rig against landmarks, middle of the irises", median["iris"], "px at 512, median"),
        row(case, "jitter of stable points, measured", median["before"], "px a frame^2"),
        row(case, "jitter of stable points, smoothed", median["after"], "px a frame^2", "measured",
            median["after"] / median["before"]),
        row(case, "range of the mouth's opening kept", median["mouth"], "share, 5 to 95 percentile", "1: nothing is smoothed away"),
    ]  # fmt: skip
    notes, command = "Landmarks of reference are detected again in every finished frame, without smoothing.", "tracking"
    if options.against:
        rows += against_rows(Path(options.against), options.rounds)
        load = os.getloadavg()[0] / (os.cpu_count() or 1)
        notes += (
            f" Two builds: medians of {options.rounds} rounds in turn; load {load:.1f} processes a core, own included."
        )
        command += " --against CHECKOUT"
    write("tracking", rows, notes, command=command)


def against_rows(other: Path, rounds: int) -> list[dict[str, Any]]:
    """Rows of this build's speed against another one's."""
    from benchmarks.results import commit_of  # not above: an older checkout, which runs this file too, has none

    found: dict[str, dict[str, list[float]]] = {"now": {}, "before": {}}
    for _ in range(rounds):
        for build, root in (("before", other), ("now", ROOT)):
            for what, cost in _measured(root).items():
                found[build].setdefault(what, []).append(cost)
    rows = []
    for what, costs in found["now"].items():
        now, before = statistics.median(costs), statistics.median(found["before"][what])
        case, variant = what.split(": ")
        against = f"{before:.2f} ms of commit {commit_of(other)}; goal <= {GOAL:g}"
        rows.append(row(case, variant, now, "ms a frame", against, now / before))
    return rows


def _measured(root: Path) -> dict[str, float]:
    """What :func:`speeds` finds with the code of ``root``."""
    environment = {**os.environ, "PYTHONPATH": str(root.resolve()), "OMP_NUM_THREADS": "1"}
    # Not as a script: its folder would come first on the path, and benchmarks have the rooms' names.
    run = "import runpy, sys; runpy.run_path(sys.argv[1], run_name='measure')['measured'](*sys.argv[2:])"
    command = [sys.executable, "-c", run, str(Path(__file__)), str(CLIPS)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=root)
    if done.returncode:
        raise RuntimeError(f"measuring {root} failed: {done.stderr.strip().splitlines()[-1:]}")
    return json.loads(done.stdout.splitlines()[-1])


def measured(clips: str) -> None:
    """Print what :func:`speeds` finds: the whole of a measuring process."""
    print(json.dumps(speeds(Path(clips))))


def speeds(clips: Path) -> dict[str, float]:
    """Milliseconds a frame of the build that is imported here, of processor and wall-clock time, mean over the clips."""
    from adapt import job

    torch.set_num_threads(1)
    every = getattr(job, "MATTE_EVERY", None) or TrackOptions().matte_every  # older builds have a choice of their own
    ways: dict[str, Callable[[Path, int], Iterator[Segment]]] = {
        "as adapt tracks": lambda path, size: track_frames(path, size=size, seconds=SECONDS, matte_every=every),
        "as shards build tracks, one thread": lambda path, size: (
            segment for shot in track_video(path, TrackOptions(size=size, seconds=SECONDS)) for segment in shot
        ),
    }
    found = {}
    for way, track in ways.items():
        for size in SIZES:
            sum(len(segment) for segment in track(clips / f"{IN_TURN[0]}.mp4", size))
            cpu, wall = time.process_time(), time.monotonic()
            frames = sum(len(segment) for name in IN_TURN for segment in track(clips / f"{name}.mp4", size))
            case = f"{way}, {size} px"
            found[f"{case}: processor time"] = 1000 * (time.process_time() - cpu) / frames
            found[f"{case}: wall-clock time of one clip at a time"] = 1000 * (time.monotonic() - wall) / frames
    return found


def measure(path: Path) -> dict[str, float]:
    """The figures of one clip."""
    began = time.process_time()
    video = track_video(path, TrackOptions(seconds=SECONDS))
    scanned = time.process_time()
    segments: list[Segment] = []
    jitters = []
    for shot in video:
        segments += list(shot)
        jitters.append((len(shot), shot.jitter))
    finished = time.process_time()
    jitter = {key: np.average([j[key] for _, j in jitters], weights=[n for n, _ in jitters]) for key in jitters[0][1]}
    return {
        "scan": (scanned - began) / video.frames * 1e3,
        "second": (finished - scanned) / video.tracked_frames * 1e3,
        **jitter,
        **_agreement(segments),
    }


def _agreement(segments: list[Segment]) -> dict[str, float]:
    errors, openings = [], []
    for segment in segments:
        found, seen = detect_landmarks(segment.frames)
        scale = 512 / segment.frames.shape[1]
        errors.append(np.linalg.norm(_rig_pixels(segment.track) - found[..., :2], axis=-1)[seen] * scale)
        openings.append(np.stack([_opening(found), _opening(segment.track["landmarks"])], 1)[seen])
    error, opening = np.concatenate(errors), np.concatenate(openings)
    spread = np.quantile(opening, 0.95, axis=0) - np.quantile(opening, 0.05, axis=0)
    return {
        "all": float(np.median(error)),
        "lips": float(np.median(error[:, list(LIPS_INNER + LIPS_OUTER)])),
        "iris": float(np.median(error[:, [IRIS_LEFT[0], IRIS_RIGHT[0]]])),
        "mouth": float(spread[1] / spread[0]),
    }


def _rig_pixels(track: dict[str, np.ndarray]) -> np.ndarray:
    """Where the rig's landmarks (T, 478, 2) appear under the track."""
    arrays = {key: torch.from_numpy(value) for key, value in track.items()}
    vertices = load_rig().vertices(arrays["identity"][None], arrays["expression"], arrays["eyelids"], arrays["gaze"])
    camera = vertices[:, :478] @ arrays["rotation"].transpose(1, 2) + arrays["translation"][:, None]
    pixels = camera @ arrays["intrinsics"].T
    return (pixels[..., :2] / pixels[..., 2:]).numpy()


def _opening(landmarks: np.ndarray) -> np.ndarray:
    """Distance (T,) between the inner lips over the distance between the eyes."""
    eyes = np.linalg.norm(landmarks[:, IRIS_LEFT[0], :2] - landmarks[:, IRIS_RIGHT[0], :2], axis=-1)
    return np.linalg.norm(landmarks[:, 13, :2] - landmarks[:, 14, :2], axis=-1) / np.maximum(eyes, 1e-6)


if __name__ == "__main__":
    main()
