"""``headstart talk``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from rich.console import Console

from headstart.cli import motion, output
from headstart.cli.parser import Subparsers, call, command

if TYPE_CHECKING:
    from adapt.talk.talk import Talked


def add(commands: Subparsers) -> None:
    """Its parser."""
    text = "make a video of an avatar that speaks any audio"
    talk = command(commands, "talk", text, run, show, "headstart talk me.avatar speech.wav --out talking.mp4")
    talk.add_argument("avatar", metavar="AVATAR")
    talk.add_argument("audio", metavar="AUDIO", help="any audio or video file with sound")
    talk.add_argument("--out", required=True, metavar="VIDEO.mp4", help="path or s3:// URL")
    talk.add_argument("--overwrite", action="store_true")
    _add_motion(talk.add_argument_group("head motion"))
    _add_marks(talk.add_argument_group("marks of synthetic origin"))
    picture = talk.add_argument_group("image and voice")
    picture.add_argument(
        "--background",
        help="original (default with the clip's own poses), model (default with others), plain or rgba",
    )
    motion.add_speech(picture)
    picture.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")


def _add_marks(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--label", nargs="?", const="AI", metavar="TEXT", help="draw a visible label (default text: AI)")
    group.add_argument("--sign", nargs=2, metavar=("CHAIN.pem", "KEY.pem"), help="sign the file (C2PA)")
    group.add_argument("--no-watermark", action="store_true", help="omit the imperceptible watermark")


def _add_motion(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--blendshapes",
        metavar="FILE.csv|.json",
        help="drive the face by 52 ARKit weights over time instead of the audio",
    )
    group.add_argument("--pose-from", metavar="VIDEO", help="take the head motion from this clip")
    group.add_argument("--pose", default="clip", help="clip (the training clip's, looped), generated or still")
    motion.add_angles(group, "fixes the head at this angle")
    motion.add_blink(group)
    motion.add_control(group)


def run(a: argparse.Namespace) -> dict[str, object]:
    """Talk."""
    options = motion.options(a, "pose_from", "blendshapes", "background", "device")
    options |= {"label": a.label, "sign": a.sign, "watermark": not a.no_watermark}
    return call("adapt.talk.talk:talk", a.avatar, a.audio, a.out, controls=a.control, overwrite=a.overwrite, **options)


def show(out: Console, result: Talked, a: argparse.Namespace) -> None:
    """Length, speed and driver."""
    output.line(out, f"video {result['video']}, {output.seconds(result['frames'] / 25)} long")
    output.facts(
        out,
        {
            "rendered": f"{result['frames']} frames at {result['fps']:.1f} frames/s",
            "driven by": result.get("driver"),
            "background": result.get("background"),
        },
    )
    marks = "in its metadata" if a.no_watermark else "in its metadata and by a watermark"
    subject = "Every frame" if result.get("background") == "rgba" else "The video"
    output.line(out, "", f"{subject} is marked as synthetic {marks}; headstart detect reads that.")
