"""``headstart adapt``."""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from configs import progress
from configs.words import counted
from headstart.cli import output
from headstart.cli.parser import Subparsers, call, command, number

if TYPE_CHECKING:
    from adapt.avatar.document import Adapted


def add(commands: Subparsers) -> None:
    """Its parser."""
    text, example = "make an avatar from one person's clip", "headstart adapt me.mp4 --out me.avatar --budget 60s"
    adapt = command(commands, "adapt", text, run, show, example)
    adapt.add_argument("video", metavar="VIDEO")
    adapt.add_argument("--out", required=True, metavar="AVATAR", help="folder or s3:// URL")
    adapt.add_argument(
        "--recipe",
        help="headstart | ggtalker | talkinggaussian | fg3dgs (default: headstart; with --resume, as it was begun)",
    )
    adapt.add_argument(
        "--prior", metavar="URI|none", help="folder, models:/NAME@alias, or 'none' (default: champions when registered)"
    )
    adapt.add_argument(
        "--seconds", type=number, metavar="S", help="train on the first S seconds (default: the first 10/11)"
    )
    adapt.add_argument(
        "--budget", default="60s", help="total time or optimisation steps: 60s, 10m or 1000it (default: 60s)"
    )
    adapt.add_argument("--size", type=int, help="side of the trained frames in px")
    adapt.add_argument(
        "--set",
        nargs="*",
        action="extend",
        default=[],
        metavar="key=value",
        dest="overrides",
        help="override keys of the recipe's configuration",
    )
    adapt.add_argument("--resume", action="store_true", help="continue the unfinished avatar at --out")
    adapt.add_argument("--self-contained", action="store_true", help="store the prior's weights inside the avatar")
    adapt.add_argument(
        "--consent",
        metavar="FILE|TEXT",
        help="who agreed: a sentence, a file, or 'unknown'; asked in a terminal when not given",
    )
    adapt.add_argument(
        "--dataset", metavar="URL", help="refuse people who were withdrawn from this dataset (shards forget)"
    )
    text = "leave sound that is out of step with the lips as it is (default: it is put in step where that is sure)"
    adapt.add_argument("--keep-offset", action="store_true", help=text)
    adapt.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    adapt.add_argument("--seed", type=int, default=0)
    adapt.add_argument("--view", action="store_true", help="watch the adaptation in a browser, then talk to the avatar")
    adapt.add_argument("--overwrite", action="store_true", help="replace an existing avatar at --out")


def run(a: argparse.Namespace) -> dict[str, object]:
    """Adapt; ``--view`` also serves a page until it is interrupted."""
    if a.consent is None and not a.resume and Path(a.video).is_file() and sys.stdin is not None and sys.stdin.isatty():
        a.consent = _asked(a.video)
    with _viewer(a.out, a.device) if a.view else contextlib.nullcontext() as viewer:
        result = _adapted(a)
        if viewer is not None and viewer.poll() is None:
            progress.say("the avatar is finished; talk to it on the page, and press Ctrl-C to stop")
            with contextlib.suppress(KeyboardInterrupt):
                viewer.wait()
    return result


def _asked(video: str) -> str:
    """The answer given at the terminal; an empty line means ``unknown``."""
    progress.say(call("adapt.consent:question", video))
    return sys.stdin.readline().strip() or "unknown"


@contextlib.contextmanager
def _viewer(avatar: str, device: str) -> Iterator[subprocess.Popen[str]]:
    """The live page in a separate process of lower priority, whose messages are forwarded."""
    command = [sys.executable, "-m", "headstart", "live", avatar, "--follow", "--port", "0", "--device", device]
    give_way = _give_way if os.name == "posix" else None
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=give_way
    )
    saying = threading.Thread(target=_say_all, args=(process,), daemon=True)
    saying.start()
    try:
        yield process
    finally:
        process.terminate()
        process.wait()
        saying.join(5)


def _say_all(process: subprocess.Popen[str]) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if not line.startswith("stop with"):  # Ctrl-C would end the adaptation, too
            progress.say(line.rstrip())


def _give_way() -> None:
    os.nice(10)


def _adapted(a: argparse.Namespace) -> dict[str, object]:
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
        consent=a.consent,
        dataset=a.dataset,
        in_step=not a.keep_offset,
    )


def show(out: Console, result: Adapted, a: argparse.Namespace) -> None:
    """The avatar, its quality, and the commands to try next."""
    avatar = result["avatar"]
    compiling = result["stages"].get("compiling")
    beside = f", and {output.seconds(compiling)} of compiling kernels (once on this machine)" if compiling else ""
    steps = counted(result["iterations"], "step")
    output.line(out, f"avatar {avatar}, after {steps} in {output.seconds(result['seconds'])}{beside}")
    prior = result["prior"]
    output.facts(
        out,
        {
            "recipe": result["recipe"],
            "prior": f"{prior['name']} {prior['version']}" if prior else "none",
            "face": output.with_unit(result["metrics"].get("psnr_face_held"), "dB on held-out frames"),
            "frames": f"{result['frames']} of {result['size']} px",
            "driven by": result["driver"],
            "consent": result["consent"],
            "size": output.size(result.get("bytes")),
            "preview": str(Path(avatar) / "preview.jpg") if "://" not in str(avatar) else f"{avatar}/preview.jpg",
        },
    )
    for reason in result.get("null_reasons", {}).values():
        output.line(out, reason, "face not measured:")
    if not result.get("complete", True):
        output.next_step(out, output.command("adapt", a.video, "--out", avatar, "--resume", "--budget", a.budget))
        return
    output.next_step(
        out,
        output.command("talk", avatar, "speech.wav", "--out", "talking.mp4"),
        output.command("evaluate", avatar, a.video, "--out", "scores"),
    )
