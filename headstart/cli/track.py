"""``headstart track``."""

from __future__ import annotations

import argparse
from typing import Any

from rich.console import Console

from headstart.cli import output
from headstart.cli.parser import Subparsers, call, command


def add(commands: Subparsers) -> None:
    """Its parser."""
    text = "a video's face as 52 ARKit weights over time"
    track = command(commands, "track", text, run, show, "headstart track me.mp4 --blendshapes me.csv")
    track.add_argument("video", metavar="VIDEO")
    track.add_argument("--blendshapes", required=True, metavar="OUT.csv|.json", help="path or s3:// URL")
    track.add_argument("--start", type=float, default=0.0, metavar="S")
    track.add_argument("--seconds", type=float, metavar="S", help="default: to the end")
    track.add_argument("--size", type=int, help="side of the tracked frames, px (default: 512)")
    track.add_argument("--overwrite", action="store_true")


def run(a: argparse.Namespace) -> dict[str, object]:
    """Track."""
    options = {name: getattr(a, name) for name in ("start", "seconds", "size", "overwrite")}
    return call("adapt.track:track", a.video, a.blendshapes, **options)


def show(out: Console, result: dict[str, Any], a: argparse.Namespace) -> None:
    """The file, and how much of it was seen."""
    out.print(f"{result['blendshapes']}: {result['frames']} frames, {output.seconds(result['seconds'])}")
    output.facts(out, {"with a face": f"{result['tracked']} frames"})
    output.next_step(out, f"headstart talk AVATAR {a.video} --blendshapes {a.blendshapes} --out talking.mp4")
