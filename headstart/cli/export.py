"""``headstart export``."""

from __future__ import annotations

import argparse
import shlex
from typing import Any

from rich.console import Console

from configs import InputError
from headstart.cli import motion, output
from headstart.cli.parser import Subparsers, call, command


def add(commands: Subparsers) -> None:
    """Its parser."""
    text = "export a head (.ply, .glb, .spz, .usdc, .usdz) or an interactive web page"
    export = command(commands, "export", text, run, show, "headstart export me.avatar --out me.glb --control smile=0.5")
    export.add_argument("avatar", metavar="AVATAR")
    place = export.add_mutually_exclusive_group(required=True)
    place.add_argument(
        "--out", metavar="FILE", help="path or s3:// URL; its suffix sets the format; a folder with --web"
    )
    place.add_argument(
        "--frames", metavar="DIR", help="write one .ply file per frame of --audio, or of the training clip"
    )
    export.add_argument("--axes", help="opencv or opengl (default: the convention of the format)")
    export.add_argument(
        "--sign", nargs=2, metavar=("CHAIN.pem", "KEY.pem"), help="put a signed manifest beside it, FILE.c2pa (C2PA)"
    )
    export.add_argument("--overwrite", action="store_true")
    still = export.add_argument_group("a single frame")
    still.add_argument(
        "--frame", type=int, metavar="K", help="frame K of the training clip (default: the neutral head)"
    )
    motion.add_angles(still, "turns the head")
    motion.add_control(still)
    speaking = export.add_argument_group("a talking head")
    speaking.add_argument("--audio", metavar="FILE", help="driving audio; with .usdc, .usdz or --frames")
    speaking.add_argument("--pose", default="still", help="still, clip or generated")
    motion.add_blink(speaking)
    motion.add_speech(speaking)
    web = export.add_argument_group("a web page")
    web.add_argument(
        "--web", action="store_true", help="write a static web page with the talking head to the folder --out"
    )
    web.add_argument(
        "--onnxruntime",
        metavar="DIR",
        help="folder of npm's onnxruntime-web; needed to run the audio-expression prior in the page",
    )


def run(a: argparse.Namespace) -> dict[str, object]:
    """Export."""
    if a.web:
        return _web(a)
    if a.onnxruntime is not None:
        raise InputError("--onnxruntime belongs to --web, which writes a page")
    options = motion.options(a, "frame", "audio", "axes", "sign", "overwrite")
    place, as_frames = a.out or a.frames, a.frames is not None
    return call("adapt.export:export", a.avatar, place, as_frames=as_frames, controls=a.control, **options)


def _web(a: argparse.Namespace) -> dict[str, object]:
    unset: dict[str, object] = dict.fromkeys(("frame", "audio", "yaw", "pitch", "roll", "style", "axes", "frames"))
    unset |= {"control": [], "pose": "still", "blink": "natural", "seed": 0}
    given = next((name for name, value in unset.items() if getattr(a, name) != value), None)
    if given is not None:
        raise InputError(f"--{given} and --web contradict each other: sound, pose and controls are chosen in the page")
    if a.sign is not None:
        raise InputError(
            "--sign and --web contradict each other: a page is many files, of which none carries a signature"
        )
    options = {"onnxruntime": a.onnxruntime, "prior": a.prior, "overwrite": a.overwrite}
    return call("adapt.web.export:export_web", a.avatar, a.out, **options)


def show(out: Console, result: dict[str, Any], a: argparse.Namespace) -> None:
    """The file."""
    if a.web:
        output.line(out, f"{result['out']}: a page of {result['gaussians']} Gaussians, {output.size(result['bytes'])}")
        output.facts(out, {"moved by": result["driver"]})
        output.next_step(out, shlex.join(["open", f"{result['out']}/index.html"]))
        return
    frames = f"{result['frames']} frames of " if result["frames"] > 1 else ""
    output.line(out, f"{result['out']}: {frames}{result['gaussians']} Gaussians, {output.size(result['bytes'])}")
    output.facts(out, {"format": result["format"], "axes": result["axes"]})
