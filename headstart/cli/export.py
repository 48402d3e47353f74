"""``headstart export``."""

from __future__ import annotations

import argparse
from typing import Any

from rich.console import Console

from headstart.cli import output
from headstart.cli.parser import Subparsers, call, command


def add(commands: Subparsers) -> None:
    """Its parser."""
    text = "a head for other programs: .ply, .glb, .spz, .usdc or .usdz"
    export = command(commands, "export", text, run, show, "headstart export me.avatar --out me.glb --control smile=0.5")
    export.add_argument("avatar", metavar="AVATAR")
    place = export.add_mutually_exclusive_group(required=True)
    place.add_argument("--out", metavar="FILE", help="path or s3:// URL; the suffix chooses the format")
    place.add_argument(
        "--frames", metavar="DIR", help="a folder of .ply files: of the sound, else of the training clip"
    )
    export.add_argument("--axes", help="opencv or opengl (default: what the format's standard says)")
    export.add_argument(
        "--sign", nargs=2, metavar=("CHAIN.pem", "KEY.pem"), help="put a signed manifest beside it, FILE.c2pa (C2PA)"
    )
    export.add_argument("--overwrite", action="store_true")
    still = export.add_argument_group("one moment")
    still.add_argument("--frame", type=int, metavar="K", help="frame of the training clip (default: the neutral head)")
    for angle in ("yaw", "pitch", "roll"):
        still.add_argument(f"--{angle}", type=float, help="degrees; turns the head")
    still.add_argument(
        "--control", nargs="*", action="extend", default=[], metavar="NAME=AMOUNT", help="jaw, smile, brows_up, ..."
    )
    speaking = export.add_argument_group("a head that speaks")
    speaking.add_argument("--audio", metavar="FILE", help="the sound; with .usdc, .usdz or --frames")
    speaking.add_argument("--pose", default="still", help="still, clip or generated")
    speaking.add_argument("--blink", default="natural", help="natural, none, or a closure from 0 to 1")
    speaking.add_argument("--style", help="'own', 'mean' or a file")
    speaking.add_argument("--prior", metavar="URI", help="audio-expression prior to speak with (default: the avatar's)")
    speaking.add_argument("--seed", type=int, default=0)


def run(a: argparse.Namespace) -> dict[str, Any]:
    """Export."""
    names = (
        "frame",
        "audio",
        "yaw",
        "pitch",
        "roll",
        "pose",
        "blink",
        "style",
        "axes",
        "prior",
        "seed",
        "sign",
        "overwrite",
    )
    options = {name: getattr(a, name) for name in names}
    place, as_frames = a.out or a.frames, a.frames is not None
    return call("adapt.export:export", a.avatar, place, as_frames=as_frames, controls=a.control, **options)


def show(out: Console, result: dict[str, Any], a: argparse.Namespace) -> None:
    """The file."""
    frames = f"{result['frames']} frames of " if result["frames"] > 1 else ""
    out.print(f"{result['out']}: {frames}{result['gaussians']} Gaussians, {output.size(result['bytes'])}")
    output.facts(out, {"format": result["format"], "axes": result["axes"]})
