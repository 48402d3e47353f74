"""``headstart live``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from rich.console import Console

from headstart.cli import output
from headstart.cli.parser import Subparsers, call, command

if TYPE_CHECKING:
    from adapt.live.server import Served


def add(commands: Subparsers) -> None:
    """Its parser."""
    text = "talk to avatars in a browser, on this machine alone"
    live = command(commands, "live", text, run, show, "headstart live me.avatar")
    live.add_argument("avatars", metavar="AVATAR", nargs="+", help="folder or s3:// URL")
    live.add_argument("--port", type=int, default=8765, help="port on 127.0.0.1; 0 chooses a free one (default: 8765)")
    live.add_argument(
        "--sessions", type=int, default=1, metavar="N", help="maximum number of simultaneous pages (default: 1)"
    )
    live.add_argument(
        "--tts",
        metavar="COMMAND",
        help="text-to-speech program: text on stdin, audio file on stdout (default: espeak-ng)",
    )
    live.add_argument(
        "--prior", metavar="URI", help="new location of the avatar's audio-expression prior, if it was moved"
    )
    live.add_argument(
        "--follow", action="store_true", help="follow a running adaptation: show each new state of the avatar"
    )
    live.add_argument("--device", default="auto")


def run(a: argparse.Namespace) -> dict[str, object]:
    """Serve until interrupted."""
    options = {name: getattr(a, name) for name in ("port", "sessions", "tts", "prior", "device", "follow")}
    return call("adapt.live.server:serve", a.avatars, **options)


def show(out: Console, result: Served, a: argparse.Namespace) -> None:
    """What was shown."""
    out.print(f"served {result['sessions']} page(s) for {output.seconds(result['seconds'])}")
    output.facts(
        out,
        {
            "frames": str(result["frames"]),
            "left out": f"{result['dropped']} pictures, because the machine or a page's connection was too slow"
            if result["dropped"]
            else None,
            "refused": f"{result['refused']} messages" if result["refused"] else None,
        },
    )
