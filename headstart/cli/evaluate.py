"""``headstart evaluate``."""

from __future__ import annotations

import argparse
import shlex
from typing import Any

from rich.console import Console

from configs.words import counted
from headstart.cli import output
from headstart.cli.parser import Subparsers, call, command, number


def add(commands: Subparsers) -> None:
    """Its parser."""
    text = "evaluate an avatar: metrics.json, a report page and a side-by-side video"
    evaluate = command(commands, "evaluate", text, run, show, "headstart evaluate me.avatar me.mp4 --out scores")
    evaluate.add_argument("avatar", nargs="?", metavar="AVATAR")
    evaluate.add_argument("video", nargs="?", metavar="VIDEO")
    evaluate.add_argument(
        "--from",
        type=number,
        dest="start",
        metavar="S",
        help="test on the clip from second S on (default: the last 1/11)",
    )
    evaluate.add_argument(
        "--protocol",
        default="own",
        metavar="NAME",
        help="own: every pixel is the avatar's; paper: the test frame's own body and background around the head (default: own)",
    )
    evaluate.add_argument("--frames", metavar="VIDEO", help="evaluate this video, made by any method; needs --against")
    evaluate.add_argument("--against", metavar="VIDEO", help="the ground-truth video for --frames")
    evaluate.add_argument(
        "--ablations", action="store_true", help="adapt again without each prior and each component, and compare"
    )
    evaluate.add_argument("--out", required=True, metavar="DIR", help="folder or s3:// URL")
    evaluate.add_argument(
        "--lpips", metavar="BACKBONE,LINEAR", help="weight files of LPIPS; without them, LPIPS is null"
    )
    evaluate.add_argument("--sync", metavar="URI", help="sync expert for Sync-C and Sync-D (default: the champion)")
    evaluate.add_argument(
        "--syncnet", metavar="FILE", help="weights of the original SyncNet, for syncnet_c and syncnet_d"
    )
    evaluate.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    evaluate.add_argument("--overwrite", action="store_true")


def run(a: argparse.Namespace) -> dict[str, object]:
    """Evaluate."""
    names = ("start", "protocol", "frames", "against", "ablations", "lpips", "sync", "syncnet", "device", "overwrite")
    return call("adapt.evaluate.evaluate:evaluate", a.avatar, a.video, a.out, **{n: getattr(a, n) for n in names})


def show(out: Console, result: dict[str, Any], a: argparse.Namespace) -> None:
    """One table with a row per measure and a column per drive; then what could not be measured."""
    drives = result["drives"]
    output.line(
        out, f"{counted(result['frames'], 'frame')} of {result.get('size')} px, held out; {result.get('device')}"
    )
    if not result.get("test", {}).get("own_clip", True):
        text = "is not the clip that the avatar was made of; of another person, light or framing, scores of the picture say little"
        output.line(out, f"{a.video}: {text}")
    rows = []
    for key, column in call("adapt.evaluate.measures.registry:columns").items():
        values = [scores.get(key) for scores in drives.values()]
        if any(value is not None for value in values):
            shown = (output.with_unit(value, "", column.decimals) for value in values)
            rows.append((column.label, *shown, column.unit or "–", column.better))
    output.table(out, ("measure", *drives, "unit", "better"), rows)
    _show_ablations(out, result)
    for reason in sorted({text for scores in drives.values() for text in (scores.get("null_reasons") or {}).values()}):
        output.line(out, reason, "not measured:")
    output.next_step(out, shlex.join(["open", str(result.get("report"))]))


def _show_ablations(out: Console, result: dict[str, Any]) -> None:
    rows = [
        [row[name] for name in ("setting", "trained on", "drive", "psnr_face", "lmd")]
        for row in result.get("ablations") or []
    ]
    output.table(out, ("setting", "trained on", "drive", "face, dB", "lips, px"), rows)
