"""``headstart detect``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from headstart.cli import output
from headstart.cli.parser import Subparsers, call, command

if TYPE_CHECKING:
    from adapt.marking.detect import Report


def add(commands: Subparsers) -> None:
    """Its parser."""
    text = "check files for marks of synthetic origin; exit status 0: a mark was found, 3: none"
    detect = command(commands, "detect", text, run, show, "headstart detect talking.mp4")
    detect.add_argument("files", nargs="+", metavar="FILE", help="video, image, audio file, exported head or folder")


def run(a: argparse.Namespace) -> dict[str, object]:
    """Read all marks."""
    report = call("adapt.marking.detect:detect", a.files)
    return {**report, "status": call("adapt.marking.detect:exit_status", report)}


def show(out: Console, result: Report, a: argparse.Namespace) -> None:
    """One verdict per file, then its marks."""
    for row in result["files"]:
        avatar = f", avatar {row['avatar']}" if row["avatar"] else ""
        sure = f" ({_sure(row['confidence'])})" if row["synthetic"] else ""
        verdict = ("synthetic", "yellow") if row["synthetic"] else ("unknown", "")
        out.print(Text.assemble(f"{row['file']}: ", verdict, avatar, sure), soft_wrap=True)
        marks = [(mark["kind"], mark["state"], mark["detail"]) for mark in row["marks"]]
        output.table(out, ("mark", "state", "detail"), marks)


def _sure(confidence: float) -> str:
    """How sure the strongest mark makes."""
    return "more than 99.9999 % sure" if confidence > 1 - 1e-6 else f"{100 * confidence:.4g} % sure"
