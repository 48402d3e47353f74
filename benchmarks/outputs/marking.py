"""The watermark: what it survives, its false positives, and its cost per frame.

``python -m benchmarks marking --clips DIR [--rendered VIDEO ...] [--avatar DIR] [--minutes M] [--only survival|alarms|speed]``

Measurements are stored as they are made, keyed by the code that they measure: a run that was interrupted, or limited by
``--minutes``, continues where it stopped when it is started again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adapt.marking import code, search, spectra, watermark
from adapt.marking.search import FALSE_ALARM, Finding, Search, working_size
from adapt.marking.watermark import Watermark
from adapt.talk.talk import talk
from benchmarks.outputs import conversions as media
from benchmarks.outputs import unmarked
from benchmarks.outputs.conversions import FPS, conversions, decoded, encoded
from benchmarks.results import row, stored, write
from heads.measures.image import decibels

PAYLOAD = 0x12345678
SECONDS = 5
# Every second frame of a video is looked at; the command looks at all of so short a one.
LOOKED_AT = 2
GENERATED = 200
# Talks that are timed, every other one with the mark.
TURNS = 4
KINDS = {"as they are": (None, False), "cropped, 320 px": (320, True), "256 px": (256, False)}


class TimeIsUp(Exception):
    """The minutes of this run are over."""


Job = tuple[str, Callable[[], Any]]
Segments = Callable[[], Iterator[list[np.ndarray]]]


class Kept:
    """Measurements that a run before has made, by what was measured and the code that it was measured with."""

    def __init__(self, path: Path, minutes: float, *, backwards: bool = False, so_far: bool = False) -> None:
        self.path, self.end = path, time.monotonic() + 60 * minutes
        self.backwards, self.so_far = backwards, so_far
        modules = (code, search, spectra, watermark, media, unmarked)
        self.code = _digest("".join(Path(str(module.__file__)).read_text() for module in modules).encode())
        self._read()

    def fill(self, jobs: list[Job]) -> list[Any]:
        """The measurement of every job, kept or new; with ``so_far`` ``None`` for those that are not kept.

        Raises:
            TimeIsUp: one is not there, and the time of this run is over.
        """
        todo = [] if self.so_far else jobs[::-1] if self.backwards else jobs
        for what, measure in todo:
            key = f"{self.code} {what}"
            # Another run may have measured it in the meantime.
            if key in self.known or key in self._read():
                continue
            if time.monotonic() > self.end:
                raise TimeIsUp
            line = json.dumps([key, measure()])
            with self.path.open("a") as file:
                file.write(line + "\n")
            print(what, flush=True)
        known = self._read()
        return [known.get(f"{self.code} {what}") for what, _ in jobs]

    def _read(self) -> dict[str, Any]:
        lines = self.path.read_text().splitlines() if self.path.is_file() else []
        self.known = dict(json.loads(line) for line in lines)
        return self.known


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


def main() -> None:
    options = _options()
    kept = Kept(options.kept, options.minutes, backwards=options.backwards, so_far=options.so_far)
    parts: dict[str, Callable[[argparse.Namespace, Kept], list[dict[str, Any]]]] = {
        "speed": speed,
        "survival": survival,
        "alarms": alarms,
    }
    try:
        measured = [r for name, part in parts.items() if options.only in (None, name) for r in part(options, kept)]
    except TimeIsUp:
        print(f"{options.minutes:g} minutes are over; the same command goes on with the rest")
        return
    rows = [r for r in stored("marking") if options.only and not _measured_now(r["case"], options)]
    notes = (
        "survival: share of the videos in which the mark is found / whose payload is read right, after H.264 crf 18; "
        f"alarms: segments of one second without a mark; found means a bound of at most {FALSE_ALARM:g}"
    )
    write("marking", rows + measured, notes, command=_command())


def _measured_now(case: str, options: argparse.Namespace) -> bool:
    """Whether a row of this case is replaced by this run."""
    sizes = tuple(f"survival, {size} px" for size in options.sizes)
    return case.startswith(sizes if options.only == "survival" else options.only)


def _command() -> str:
    """This call without the paths of this machine."""
    words: list[str] = []
    for word in sys.argv[1:]:
        words.append("PATH" if not word.startswith("--") and "/" in word else word)
    return shlex.join(["marking", *words])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks marking")
    parser.add_argument("--clips", type=Path, required=True, help="folder of real videos")
    parser.add_argument("--rendered", type=Path, nargs="*", default=[], help="unmarked videos that were rendered")
    parser.add_argument("--avatar", type=Path, help="an avatar whose talking is timed with and without the mark")
    parser.add_argument("--speech", type=Path, help="what it says")
    parser.add_argument("--survivors", type=int, default=20, help="real clips in the survival table")
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 256], help="px of the survival table's videos")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after so many")
    parser.add_argument("--backwards", action="store_true", help="begin at the end, beside a run that does not")
    parser.add_argument("--so-far", action="store_true", help="measure nothing: results from what is kept")
    parser.add_argument("--kept", type=Path, default=Path(tempfile.gettempdir()) / "headstart-marking.jsonl")
    parser.add_argument("--only", choices=("speed", "survival", "alarms"))
    return parser.parse_args()


def searched(frames: list[np.ndarray]) -> Finding:
    """What the detector finds in frames ``[H, W, 3]``."""
    import av

    looking = Search(*frames[0].shape[:2])
    rows, columns = working_size(*frames[0].shape[:2])
    for frame in frames:
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        looking.add(picture.reformat(columns, rows, "gray", interpolation="AREA").to_ndarray())
    return looking.finding()


# --- survival -------------------------------------------------------------------------------------------------------


def survival(options: argparse.Namespace, kept: Kept) -> list[dict[str, Any]]:
    """Rows of every conversion and size, over real clips and rendered videos."""
    clips = _spread(_long_enough(sorted(options.clips.glob("*.mp4"))), options.survivors)
    videos = [*clips, *options.rendered]
    jobs = [
        (f"survival {_digest(path.read_bytes())} {size}", partial(_survivor, path, size))
        for size in options.sizes
        for path in videos
    ]
    measured = kept.fill(jobs)
    rows = []
    for number, size in enumerate(options.sizes):
        found = measured[number * len(videos) : (number + 1) * len(videos)]
        real, rendered = (sum(m is not None for m in part) for part in (found[: len(clips)], found[len(clips) :]))
        case = f"survival, {size} px, {real} real and {rendered} rendered videos"
        rows += survivors(case, [m for m in found if m is not None])
    return rows


def _long_enough(paths: list[Path]) -> list[Path]:
    import av

    found = []
    for path in paths:
        with av.open(str(path)) as container:
            if container.streams.video[0].frames >= SECONDS * FPS:
                found.append(path)
    return found


def _spread(paths: list[Path], count: int) -> list[Path]:
    """So many of them, at equal distances in the list."""
    return [paths[int(i * len(paths) / count)] for i in range(min(count, len(paths)))]


def survivors(case: str, videos: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Shares of the videos of one kind in which the mark and its payload live on."""
    quality: list[float] = []
    found: dict[str, list[tuple[bool, bool, float]]] = {}
    for measured in videos:
        quality.append(measured["psnr"])
        for conversion, values in measured["conversions"].items():
            found.setdefault(conversion, []).append(values)
    case = f"{case} of {SECONDS} s"
    rows = [row(case, "PSNR of the marked frames, lowest", min(quality), "dB", "42 at least")]
    for conversion, values in found.items():
        is_found, is_right, score = zip(*values)
        rows.append(row(case, f"{conversion}: found", 100 * float(np.mean(is_found)), "%"))
        rows.append(row(case, f"{conversion}: avatar read", 100 * float(np.mean(is_right)), "%"))
        rows.append(row(case, f"{conversion}: lowest score", min(score), "sigma"))
    return rows


def _survivor(path: Path, size: int) -> dict[str, Any]:
    """PSNR, and by conversion: found, payload right, score."""
    plain = decoded(path, SECONDS * FPS, size)
    mark = Watermark(PAYLOAD)
    marked = [mark.mark(frame) for frame in plain]
    after = {}
    with tempfile.TemporaryDirectory() as folder:
        made = encoded(marked, Path(folder) / "made.mp4", crf="18", preset="veryfast")
        for name, convert in conversions(made, Path(folder)):
            finding = searched(convert()[::LOOKED_AT])
            after[name] = [finding.found, finding.payload == PAYLOAD, finding.score]
    return {"psnr": psnr(plain, marked), "conversions": after}


def psnr(plain: list[np.ndarray], marked: list[np.ndarray]) -> float:
    """Of all frames together, dB."""
    error = np.mean([np.mean((a.astype(np.float32) - b) ** 2) for a, b in zip(plain, marked)])
    return float(decibels(torch.tensor(error / 255**2)))


# --- false alarms ---------------------------------------------------------------------------------------------------


def alarms(options: argparse.Namespace, kept: Kept) -> list[dict[str, Any]]:
    """How often segments without a mark reach a bound, against the bound itself."""
    sources = list(_unmarked(options))
    jobs = [(f"alarms {kind} {name}", partial(_bounds, segments)) for kind, name, segments in sources]
    kinds: dict[str, list[float]] = {}
    for (kind, _, _), bounds in zip(sources, kept.fill(jobs)):
        kinds.setdefault(kind, []).extend(bounds or [])
    logs = np.array([bound for bounds in kinds.values() for bound in bounds])
    case = f"alarms, {len(logs)} segments without a mark"
    rows = [row(case, f"segments: {kind}", len(bounds), "segments") for kind, bounds in kinds.items()]
    rows.append(row(case, "found", int((logs <= math.log(FALSE_ALARM)).sum()), "segments"))
    rows.append(row(case, "smallest bound", float(np.exp(logs.min())), "", f"{FALSE_ALARM:g} would be found"))
    for tenth in range(30, -61, -5):
        share = float((logs <= tenth / 10 * math.log(10)).mean())
        rows.append(row(case, f"share with a bound of at most 10^{tenth / 10:g}", share, "", "the bound"))
    return rows


def _bounds(segments: Segments) -> list[float]:
    """Logarithm of the bound of every segment."""
    return [searched(frames).log_bound for frames in segments()]


def _unmarked(options: argparse.Namespace) -> Iterator[tuple[str, str, Segments]]:
    """Kind, name and segments of made pictures, of rendered videos and of real clips, the clips also cropped and scaled."""
    yield "generated", str(GENERATED), lambda: ([frame] for frame in unmarked.generated(GENERATED))
    for path in options.rendered:
        yield "rendered", _digest(path.read_bytes()), partial(unmarked.segments, path, None)
    for kind, (size, crop) in KINDS.items():
        for path in sorted(options.clips.glob("*.mp4")):
            name = _digest(path.read_bytes())
            yield f"real, {kind}", name, partial(unmarked.segments, path, size, crop)


# --- time -----------------------------------------------------------------------------------------------------------


def speed(options: argparse.Namespace, kept: Kept) -> list[dict[str, Any]]:
    """Processor time a frame on one thread beside encoding the same frames, in turn in one run; the least of each."""
    frames = decoded(next(options.clips.glob("*.mp4")), 2 * FPS, 512)
    mark = Watermark(PAYLOAD)
    mark.mark(frames[0])
    times: dict[str, list[float]] = {"mark": [], "encode": []}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(5):
            start = time.process_time()
            for frame in frames:
                mark.mark(frame)
            middle = time.process_time()
            _encode_alone(frames, Path(folder) / "a.mp4")
            times["mark"].append((middle - start) / len(frames))
            times["encode"].append((time.process_time() - middle) / len(frames))
    marking, encoding = (1e3 * min(times[name]) for name in ("mark", "encode"))
    case = "speed, 512 px, processor time of one frame"
    return [
        row(case, "mark, one thread", marking, "ms", "3 ms"),
        row(case, "H.264 crf 18 veryfast", encoding, "ms", "the mark", encoding / marking),
        *_talking(options),
    ]


def _talking(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Processor time a frame of ``talk`` with and without the mark, in turn in one run; the least of each."""
    if options.avatar is None or options.speech is None:
        return []
    times: dict[bool, list[float]] = {True: [], False: []}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(TURNS):
            marked, start = bool(turn % 2), time.process_time()
            done = talk(options.avatar, options.speech, Path(folder) / f"{turn}.mp4", watermark=marked)
            times[marked].append(1e3 * (time.process_time() - start) / done["frames"])
    plain, with_mark = min(times[False]), min(times[True])
    case = "speed, talk, processor time of one frame"
    return [
        row(case, "without the mark", plain, "ms"),
        row(case, "with the mark", with_mark, "ms", "without, at most 1.10x", with_mark / plain),
    ]


def _encode_alone(frames: list[np.ndarray], path: Path) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(
            "libx264", rate=FPS, options={"crf": "18", "preset": "veryfast", "threads": "1"}
        )
        stream.width, stream.height, stream.pix_fmt = 512, 512, "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


if __name__ == "__main__":
    main()
