"""``headstart talk``."""

from __future__ import annotations

import argparse
from typing import Any

from rich.console import Console

from headstart.cli import output
from headstart.cli.parser import Subparsers, call, command


def add(commands: Subparsers) -> None:
    """Its parser."""
    text = "any speech through an avatar into a video"
    talk = command(commands, "talk", text, run, show, "headstart talk me.avatar speech.wav --out talking.mp4")
    talk.add_argument("avatar", metavar="AVATAR")
    talk.add_argument("audio", metavar="AUDIO", help="any file with sound")
    talk.add_argument("--out", required=True, metavar="VIDEO.mp4", help="path or s3:// URL")
    talk.add_argument("--overwrite", action="store_true")
    _add_motion(talk.add_argument_group("how the head moves"))
    _add_marks(talk.add_argument_group("marks that say it is synthetic"))
    picture = talk.add_argument_group("picture and voice")
    picture.add_argument(
        "--background",
        help="original (default with the clip's own poses), model (default with others), plain or rgba",
    )
    picture.add_argument("--style", help="speaking style: 'own', 'mean' or a file")
    picture.add_argument("--prior", metavar="URI", help="audio-expression prior to speak with (default: the avatar's)")
    picture.add_argument("--device", default="auto")
    picture.add_argument("--seed", type=int, default=0)


def _add_marks(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--label", nargs="?", const="AI", metavar="TEXT", help="a visible label (default text: AI)")
    group.add_argument("--sign", nargs=2, metavar=("CHAIN.pem", "KEY.pem"), help="sign the file (C2PA)")
    group.add_argument("--no-watermark", action="store_true", help="leave the imperceptible watermark out")


def _add_motion(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--blendshapes", metavar="FILE.csv|.json", help="52 ARKit weights over time move the face, not the sound"
    )
    group.add_argument("--pose-from", metavar="VIDEO", help="head motion of this clip")
    group.add_argument("--pose", default="clip", help="clip (the training clip's, looped), generated or still")
    for angle in ("yaw", "pitch", "roll"):
        group.add_argument(f"--{angle}", type=float, help="degrees; holds the head still at this angle")
    group.add_argument("--blink", default="natural", help="natural, none, or a closure from 0 to 1")
    group.add_argument(
        "--control",
        nargs="*",
        action="extend",
        default=[],
        metavar="NAME=AMOUNT",
        help="jaw, smile, brows_up, gaze_x, ...",
    )


def run(a: argparse.Namespace) -> dict[str, object]:
    """Talk."""
    names = (
        "pose_from",
        "yaw",
        "pitch",
        "roll",
        "pose",
        "blink",
        "style",
        "blendshapes",
        "background",
        "prior",
        "device",
        "seed",
    )
    options = {name: getattr(a, name) for name in names}
    options |= {"label": a.label, "sign": a.sign, "watermark": not a.no_watermark}
    return call("adapt.talk.talk:talk", a.avatar, a.audio, a.out, controls=a.control, overwrite=a.overwrite, **options)


def show(out: Console, result: dict[str, Any], a: argparse.Namespace) -> None:
    """Length, speed, what drove it."""
    out.print(f"video {result['video']}, {output.seconds(result['frames'] / 25)} long")
    output.facts(
        out,
        {
            "rendered": f"{result['frames']} frames at {result['fps']:.1f} a second",
            "driven by": result.get("driver"),
            "background": result.get("background"),
        },
    )
    out.print("[dim]Container and watermark say that it is synthetic; headstart detect reads them.[/dim]")
