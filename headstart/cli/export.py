"""``headstart export``."""

from __future__ import annotations

import argparse
from typing import Any

from rich.console import Console

from headstart.cli import output
from headstart.cli.parser import Subparsers, call, command


def add(commands: Subparsers) -> None:
    """Its parser."""
    text = "an avatar as a .ply of 3D Gaussians"
    export = command(commands, "export", text, run, show, "headstart export me.avatar --out me.ply")
    export.add_argument("avatar", metavar="AVATAR")
    export.add_argument("--out", required=True, metavar="FILE.ply", help="path or s3:// URL")
    export.add_argument("--overwrite", action="store_true")
    export.add_argument("--frame", type=int, help="frame of the training clip (default: the neutral head)")


def run(a: argparse.Namespace) -> dict[str, Any]:
    """Export."""
    return call("adapt.avatar.export.ply:export", a.avatar, a.out, frame=a.frame, overwrite=a.overwrite)


def show(out: Console, result: dict[str, Any], a: argparse.Namespace) -> None:
    """The file."""
    out.print(f"{a.out}: {result['gaussians']} Gaussians, {output.size(result['bytes'])}")
