"""What ``detect`` reads from a signed talking video after other tools have converted it.

    python -m benchmarks detect [--avatar FOLDER] [--speech FILE]

The avatar speaks five seconds, the video is signed with a certificate of ``sign-init``, and ``ffmpeg`` converts it.
Without ``--avatar`` a generated talker is adapted first; without ``--speech`` the audio is another generated talker's.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from adapt.marking.certificates import sign_init
from adapt.marking.detect import FileReport, detect
from adapt.talk.talk import talk
from benchmarks.outputs.web import SECONDS, generated_avatar, sound_file
from benchmarks.results import row, write

MADE = "talking.mp4"
# File, what was done to it, and ffmpeg's words for that.
CONVERSIONS = {
    "remuxed.mkv": ("another container, streams copied", "-c copy"),
    "again.mp4": ("H.264 crf 28", "-c:v libx264 -crf 28 -c:a copy"),
    "half.webm": (
        "half the size, VP9 crf 40",
        "-vf scale=iw/2:ih/2 -c:v libvpx-vp9 -crf 40 -b:v 0 -deadline realtime -cpu-used 6 -c:a libopus",
    ),
    "cropped.mov": (
        "10 % cut off each side, off centre, brighter, 400 kbit/s",
        "-vf crop=iw*0.8:ih*0.8:iw*0.07:ih*0.12,eq=brightness=0.05 -c:v libx264 -b:v 400k -c:a copy",
    ),
    "talking.gif": ("GIF of 320 px, 10 fps", "-an -vf fps=10,scale=320:-1"),
    "frame.jpg": ("one frame as a JPEG", "-an -ss 2 -frames:v 1 -q:v 5"),
}


def main() -> None:
    """Measure and write ``results/detect.json``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks detect")
    parser.add_argument("--avatar", type=Path, help="its folder")
    parser.add_argument("--speech", type=Path, help="what it says")
    options = parser.parse_args()
    if shutil.which("ffmpeg") is None:
        print("not measured: ffmpeg is not installed")
        return
    with tempfile.TemporaryDirectory(prefix="headstart-detect-") as place:
        folder = Path(place)
        avatar = options.avatar or generated_avatar(folder)
        made, side = _talked(avatar, sound_file(folder, options.speech), folder)
        files = {made: f"nothing; {side} px, {SECONDS} s"}
        for name, (what, words) in CONVERSIONS.items():
            subprocess.run(["ffmpeg", "-v", "error", "-i", made, *words.split(), folder / name], check=True)
            files[folder / name] = what
        rows = [each for path, what in files.items() for each in rows_of(detect([path])["files"][0], path.name, what)]
    given = {"--avatar": options.avatar, "--speech": options.speech}
    named = [word for name, path in given.items() if path is not None for word in (name, path.name)]
    write("detect", rows, "1: the mark was read, 0: it was not", command=" ".join(["detect", *named]))


def _talked(avatar: Path, speech: Path, folder: Path) -> tuple[Path, int]:
    """A signed video of the avatar, and its side in pixels."""
    from shards.media.decode import read_video

    keys = sign_init(folder / "keys")
    talk(avatar, speech, folder / MADE, sign=(keys["certificate"], keys["key"]))
    return folder / MADE, len(next(iter(read_video(folder / MADE))))


def rows_of(report: FileReport, name: str, what: str) -> list[dict[str, Any]]:
    """Which marks one file still carries, and the watermark's score."""
    marks = {mark["kind"]: mark for mark in report["marks"]}
    watermark = marks["watermark"]["detail"]
    score = re.search(r"score ([\d.]+)", watermark)
    values = {
        "signature valid": marks["c2pa"]["state"] == "valid",
        "statement found": marks["statement"]["state"] == "found",
        "watermark found": marks["watermark"]["state"] == "found",
        "avatar read from the watermark": watermark.startswith("avatar "),
    }
    case = f"{name}: {what}"
    rows = [row(case, variant, float(value), "") for variant, value in values.items()]
    return rows if score is None else [*rows, row(case, "watermark's score", float(score[1]), "sigma")]
