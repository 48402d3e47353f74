"""Adaptation: the four recipes on real people within one budget, driven by track and by audio.

    python -m benchmarks recipes --clips ../shared/clips --people cnn2_a french_a --prior URI,URI --budget 60s

Avatars are adapted on the first 10/11 of each person's clip and tested on the rest, by ``headstart evaluate``'s protocol and
measures: at most 40 evenly spaced frames for the measures of single pictures, all frames for lips, landmarks and jitter.
All scored pixels are rendered by the avatar, the body too. Do not use people whom the priors were trained on. Stored rows
are not measured again: delete them, or the file, to do so.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from adapt.evaluate.avatars import PROTOCOLS
from adapt.recipes import recipe_names
from benchmarks.results import row, stored, write
from configs import InputError

PEOPLE = ("cnn2_a", "french_a", "stock_sweaterman", "aoc", "katiehill")
CLIPS = Path(__file__).resolve().parents[3] / "shared" / "clips"
MEASURES = {
    "psnr_face": ("PSNR face", "dB"),
    "psnr": ("PSNR whole frame", "dB"),
    "psnr_head": ("PSNR head", "dB"),
    "psnr_mouth": ("PSNR mouth interior", "dB"),
    "ssim_face": ("SSIM face", ""),
    "lmd": ("LMD", "px at 512"),
    "aue_l": ("AUE-L", ""),
    "jitter_lips": ("jitter lips", ""),
    "seam": ("seam", "8-bit steps"),
    "sync_c": ("Sync-C (ours)", ""),
    "sync_d": ("Sync-D (ours)", ""),
}
PICTURES = 40


def main() -> None:
    """Measure what is not stored yet and write ``results/recipes.json`` after every avatar."""
    options = _parse()
    for name in options.people:
        if not (options.clips / f"{name}.mp4").is_file():
            raise InputError(f"{options.clips / name}.mp4 is missing; give the folder of the clips with --clips")
    rows = [r for r in stored(options.name) if not r["case"].startswith("mean of ")]
    for person in options.people:
        for recipe in options.recipes:
            case = f"{person}, {recipe}, {options.size}x{options.size}, {options.budget}"
            case += f", {options.seconds:g} s of video" if options.seconds else ""
            case += f", protocol {options.protocol}" if options.protocol != "own" else ""
            if any(r["case"] == case for r in rows):
                print(f"{case}: stored", file=sys.stderr)
                continue
            if options.seconds and options.seconds > tested_from(options.clips / f"{person}.mp4"):
                print(f"{case}: left out, its last 1/11, which is tested, begins earlier", file=sys.stderr)
                continue
            rows += measure(person, recipe, case, options)
            _write(rows, options, echo=False)
    _write(rows, options, echo=True)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, default=CLIPS, help="folder of NAME.mp4")
    parser.add_argument("--people", nargs="+", default=list(PEOPLE))
    parser.add_argument("--recipes", nargs="+", default=recipe_names(), choices=recipe_names())
    parser.add_argument("--budget", default="60s", help="of every adaptation: wall clock (60s) or steps (900it)")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--seconds", type=float, help="train on so many first seconds (default: the first 10/11)")
    parser.add_argument(
        "--scored-at", type=int, metavar="SIDE", help="also the PSNR of frames averaged to this side, to compare sizes"
    )
    parser.add_argument("--protocol", default="own", choices=list(PROTOCOLS), help="as of headstart evaluate")
    parser.add_argument("--prior", default="none", help="what the avatars stand on, a sync expert included")
    parser.add_argument("--sync", help="sync-expert prior that scores; default: the one in --prior")
    parser.add_argument("--set", nargs="*", default=[], help="key=value for every recipe")
    parser.add_argument("--keep", type=Path, help="keep avatars and pictures (real | rendered | error) here")
    parser.add_argument("--name", default="recipes", help="of the result file")
    return parser.parse_args()


def measure(person: str, recipe: str, case: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Adapt once and score both drives: one row a figure."""
    from adapt.avatar.avatar import load_avatar
    from adapt.evaluate.avatars import score_clip, test_range, track_test
    from benchmarks.adapting import adapt

    video = options.clips / f"{person}.mp4"
    with tempfile.TemporaryDirectory(prefix="headstart-recipes-") as temporary:
        folder = (options.keep or Path(temporary)) / f"{person}-{recipe}"
        result = adapt(
            video,
            folder,
            recipe=recipe,
            prior=options.prior,
            budget=options.budget,
            size=options.size,
            seconds=options.seconds,
            set=options.set,
            overwrite=True,
        )
        avatar = load_avatar(folder)
        start = None if options.seconds is None else tested_from(video)
        with track_test(avatar, video, *test_range(avatar, video, start)) as clip:
            drives, page = score_clip(
                avatar, clip, _tools(options, avatar), pictures=PICTURES, protocol=options.protocol
            )
            averaged = averaged_psnr(avatar, clip, options.scored_at) if options.scored_at else {}
    if options.keep:
        for part in page:
            save_strip(part["picked"], options.keep / f"{person}-{recipe}-{part['name']}.png")
    rows = [
        row(case, "adaptation", result["seconds"], "s", f"prior {_short(result['prior'])}"),
        row(case, "steps", result["iterations"], "steps"),
    ]
    for drive, scores in drives.items():
        for key, (label, unit) in MEASURES.items():
            if scores.get(key) is not None:
                rows.append(row(case, f"{label}, {drive}", float(scores[key]), unit))
    for key, value in averaged.items():
        rows.append(row(case, f"{MEASURES[key][0]} at {options.scored_at} px, track", value, "dB"))
    print(case, {k: round(drives["track"][k], 2) for k in ("psnr_face", "psnr", "lmd")}, file=sys.stderr)
    return rows


def tested_from(video: Path) -> float:
    """Seconds at which the tested part of a clip begins."""
    from adapt.plan import split_frames
    from shards.media.rates import FPS

    return split_frames(video)[0] / FPS


def averaged_psnr(avatar: Any, clip: Any, side: int) -> dict[str, float]:
    """``psnr`` and ``psnr_face`` of the drive ``track``, with rendered and real frames averaged to ``side`` px."""
    from adapt.evaluate.drives import track_drive
    from heads.measures.image import psnr
    from shards.media.encode import as_uint8
    from shards.tracking.shrinking import shrunk

    drive, _ = track_drive(avatar, clip)
    frames = np.arange(0, len(clip), -(-len(clip) // PICTURES))
    whole, face = [], []
    for frame in frames:
        real, mask = clip.frames([frame])[0], clip.masks([frame])["face"][0]
        rendered = as_uint8(avatar.render(drive.pick([frame])))[0]
        inside = shrunk(np.float32(mask), side)
        ours, true = (np.float32(shrunk(picture, side)) / 255 for picture in (rendered, real))
        whole.append(psnr(ours, true))
        face.append(psnr(ours, true, inside))
    return {"psnr": float(np.mean(whole)), "psnr_face": float(np.nanmean(face))}


def _tools(options: argparse.Namespace, avatar: Any) -> Any:
    """What scores are made with; the sync expert is the given one, or that of the priors."""
    from adapt.evaluate.tools import open_tools
    from adapt.priors import record_of
    from pretrain.roles import SYNC

    record = record_of(avatar.document["priors"], SYNC)
    tools = open_tools(sync=options.sync or (record["uri"] if record else None))
    return tools


def _short(prior: dict[str, Any] | None) -> str:
    return "none" if prior is None else f"{prior['name']} {prior['version']}"


def save_strip(picked: list[Any], path: Path) -> None:
    """A picture for people to look at: a row a frame, real | rendered | four times the difference."""
    from PIL import Image

    lines = []
    for frame in picked:
        error = np.abs(frame.picture.astype(np.int16) - frame.real).clip(0, 63).astype(np.uint8) * 4
        lines.append(np.concatenate([frame.real, frame.picture, error], 1))
    if lines:
        Image.fromarray(np.concatenate(lines)).save(path)


def people_parser(description: str | None, people: Sequence[str]) -> argparse.ArgumentParser:
    """The options of benchmarks that adapt each person with a budget: ``--clips --people --budget --size``."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, default=CLIPS, help="folder of NAME.mp4")
    parser.add_argument("--people", nargs="+", default=list(people))
    parser.add_argument("--budget", default="300it", help="of every adaptation")
    parser.add_argument("--size", type=int, default=256)
    return parser


def means(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean of each finite figure over the people, for every case that differs in the person alone."""
    groups: dict[tuple[str, str, str], list[float]] = {}
    for r in rows:
        if np.isfinite(r["value"]):
            rest = r["case"].split(", ", 1)[1]
            groups.setdefault((rest, r["variant"], r["unit"]), []).append(r["value"])
    return [
        row(f"mean of {len(v)}, {rest}", variant, float(np.mean(v)), unit)
        for (rest, variant, unit), v in groups.items()
    ]


def _write(rows: list[dict[str, Any]], options: argparse.Namespace, echo: bool) -> None:
    notes = (
        "unseen last 1/11 of each clip; drives: 'track' = tracked expression and pose of the test frames, 'audio' = "
        "expression from the test sound, pose of the test frames; PSNR in dB, mean over frames; body and background are "
        f"the avatar's own, with protocol 'paper' the test frame's; prior {options.prior}"
    )
    # Another call of this script adds rows to those that are there: means are over all of them.
    write(options.name, rows + means(rows), notes, command=shlex.join(["recipes", *sys.argv[1:]]), echo=echo)


if __name__ == "__main__":
    main()
