"""``headstart adapt``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console

from headstart.cli import output
from headstart.cli.parser import Subparsers, call, command


def add(commands: Subparsers) -> None:
    """Its parser."""
    text, example = "one person's clip into an avatar", "headstart adapt me.mp4 --out me.avatar --budget 60s"
    adapt = command(commands, "adapt", text, run, show, example)
    adapt.add_argument("video", metavar="VIDEO")
    adapt.add_argument("--out", required=True, metavar="AVATAR", help="folder or s3:// URL")
    adapt.add_argument("--recipe", default="headstart", help="headstart | ggtalker | talkinggaussian | fg3dgs")
    adapt.add_argument(
        "--prior", metavar="URI|none", help="folder, models:/NAME@alias, or 'none' (default: champions when registered)"
    )
    adapt.add_argument("--seconds", type=float, help="train on the first S seconds")
    adapt.add_argument("--budget", default="60s", help="60s, 10m or 1000it (default: 60s)")
    adapt.add_argument("--size", type=int, help="side of the trained frames in px")
    adapt.add_argument("--set", nargs="*", action="extend", default=[], metavar="key=value", dest="overrides")
    adapt.add_argument("--resume", action="store_true", help="go on with the unfinished avatar at --out")
    adapt.add_argument("--self-contained", action="store_true", help="store the prior's weights inside the avatar")
    adapt.add_argument("--device", default="auto")
    adapt.add_argument("--seed", type=int, default=0)
    adapt.add_argument("--overwrite", action="store_true", help="replace what stands at --out")


def run(a: argparse.Namespace) -> dict[str, Any]:
    """Adapt."""
    return call(
        "adapt.job:adapt",
        a.video,
        a.out,
        recipe=a.recipe,
        prior=a.prior,
        seconds=a.seconds,
        budget=a.budget,
        resume=a.resume,
        set=a.overrides,
        self_contained=a.self_contained,
        size=a.size,
        device=a.device,
        seed=a.seed,
        overwrite=a.overwrite,
    )


def show(out: Console, result: dict[str, Any], a: argparse.Namespace) -> None:
    """What was made, how good it is, and the line that makes it speak."""
    avatar = result["avatar"]
    out.print(f"avatar {avatar}, after {result['iterations']} steps in {output.seconds(result['seconds'])}")
    prior = result["prior"]
    output.facts(
        out,
        {
            "recipe": result["recipe"],
            "prior": f"{prior['name']} {prior['version']}" if prior else "none",
            "face": output.with_unit(result["metrics"].get("psnr_face_held"), "dB on frames that no step saw"),
            "frames": f"{result['frames']} of {result['size']} px",
            "speaks by": result["driver"],
            "size": output.size(result.get("bytes")),
            "preview": str(Path(avatar) / "preview.jpg") if "://" not in str(avatar) else f"{avatar}/preview.jpg",
        },
    )
    if not result.get("complete", True):
        output.next_step(out, f"headstart adapt {a.video} --out {avatar} --resume --budget {a.budget}")
        return
    output.next_step(
        out,
        f"headstart talk {avatar} speech.wav --out talking.mp4",
        f"headstart evaluate {avatar} {a.video} --out scores",
    )
