"""``headstart track``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from rich.console import Console

from headstart.cli import output
from headstart.cli.parser import Subparsers, call, command, number

if TYPE_CHECKING:
    from adapt.track import Tracked


def add(commands: Subparsers) -> None:
    """Its parser."""
    text = "track a face and write 52 ARKit weights over time"
    track = command(commands, "track", text, run, show, "headstart track me.mp4 --blendshapes me.csv")
    track.add_argument("video", metavar="VIDEO")
    track.add_argument("--blendshapes", required=True, metavar="OUT.csv|.json", help="path or s3:// URL")
    track.add_argument("--start", type=number, default=0.0, metavar="S", help="start at second S (default: 0)")
    track.add_argument("--seconds", type=number, metavar="S", help="length to track (default: to the end)")
    track.add_argument("--size", type=int, help="side of the tracked frames in px (default: 512)")
    track.add_argument("--overwrite", action="store_true")


def run(a: argparse.Namespace) -> dict[str, object]:
    """Track."""
    options = {name: getattr(a, name) for name in ("start", "seconds", "size", "overwrite")}
    return call("adapt.track:track", a.video, a.blendshapes, **options)


def show(out: Console, result: Tracked, a: argparse.Namespace) -> None:
    """The file, and the number of frames with a face."""
    output.line(out, f"{result['blendshapes']}: {result['frames']} frames, {output.seconds(result['seconds'])}")
    output.facts(out, {"with a face": f"{result['tracked']} frames"})
    output.next_step(
        out, output.command("talk", "AVATAR", a.video, "--blendshapes", a.blendshapes, "--out", "talking.mp4")
    )
