"""The gain of tracking every picture twice, as it is and mirrored, and averaging the landmarks.

    python -m benchmarks mirrored --people cnn2_a aoc --budget 300it

FaceMesh is biased to one side, which depends on the person; the mean over a picture and its mirror image is not. Two
adaptations of each person differ only in that. Crop, test frames and scored regions are those of plain tracking in both.
``unseen``: trained on the first 10/11 of the clip, tested on the rest. ``wide``: trained on the five seconds and tested
on the frames that ``benchmarks prior_gain`` would choose. For LMD the lips are tracked in rendered and real frames,
always by plain tracking. ``--bases`` instead compares the expression bases learned from the landmarks of either tracker,
fitted to a left-out person's landmarks of either tracker.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from benchmarks.adaptation.recipes import PEOPLE, means, people_parser
from benchmarks.priors.prior_gain import STRETCHES, narrowest, tested
from benchmarks.results import row, stored, write
from shards.media.decode import read_video
from shards.tracking import first_pass
from shards.tracking.models import FaceLandmarks, MirroredLandmarks

MORE = ("may", "hl_video4", "noaudio_mt_b")
FRAMES = 250  # of each clip, from its beginning
TRACKERS = {"plain": lambda parallel=False: FaceLandmarks(), "both sides": MirroredLandmarks}


def main() -> None:
    """Measure what is not stored yet and write ``results/mirrored.json`` after every person."""
    options = _parse()
    rows = [r for r in stored("mirrored") if not r["case"].startswith("mean of ")]
    if options.bases:
        rows = [r for r in rows if not r["case"].startswith("basis ")]
        _write(rows + bases([options.clips / f"{name}.mp4" for name in options.people]), echo=True)
        return
    for person in options.people:
        rest = f"{options.size}x{options.size}, {options.budget}"
        done = {r["case"] for r in rows}
        missing = [part for part in options.parts if f"{person}, {part}, {rest}" not in done]
        if missing:
            rows += measure(options.clips / f"{person}.mp4", rest, missing, options)
            _write(rows, echo=False)
    _write(rows, echo=True)


def _parse() -> argparse.Namespace:
    parser = people_parser(__doc__, [*PEOPLE, *MORE])
    parser.add_argument("--parts", nargs="+", default=["wide", "unseen"], choices=["wide", "unseen"])
    parser.add_argument("--bases", action="store_true", help="compare expression bases instead of avatars")
    return parser.parse_args()


def bases(videos: list[Path]) -> list[dict[str, Any]]:
    """Reconstruction errors of left-out people, in eye distances, by who tracked for the basis and for the test."""
    from shards.basis.basis import reconstruction_error
    from shards.tracking.shape_statistics import LandmarkClip, align, expression_basis, eyelid_basis, moments

    found = {tracker: [_landmarks(video, tracker) for video in videos] for tracker in TRACKERS}
    clips = {t: [LandmarkClip(v.stem, points, 512) for v, points in zip(videos, found[t])] for t in TRACKERS}
    aligned = {tracker: align(clips[tracker]) for tracker in TRACKERS}
    errors: dict[tuple[str, str], list[dict[str, float]]] = {}
    for learned, (mean, partner, people) in aligned.items():
        motion = [moments(person, mean) for person in people]
        for k in range(len(people)):
            eyelids = eyelid_basis(people[:k] + people[k + 1 :], mean, partner)
            basis = expression_basis(motion[:k] + motion[k + 1 :], eyelids, partner, 32)
            for judge, (_, _, others) in aligned.items():
                errors.setdefault((learned, judge), []).append(reconstruction_error(others[k], basis, eyelids, mean))
    return [
        row(f"basis of {len(videos)} people less one, {learned}", f"on {judge}: {part}",
            float(np.mean([one[part] for one in values])), "eye distances")
        for (learned, judge), values in errors.items()
        for part in ("all", "lips")
    ]  # fmt: skip


def _landmarks(video: Path, tracker: str) -> np.ndarray:
    """Landmarks ``[T, 478, 3]`` px at 512 of the first four seconds."""
    mesh, found = TRACKERS[tracker](), []
    for picture in read_video(video, seconds=4.0, size=512):
        points = mesh(picture)
        if points is not None:
            found.append(points)
    mesh.close()
    return np.stack(found)


def measure(video: Path, rest: str, missing: list[str], options: argparse.Namespace) -> list[dict[str, Any]]:
    """One person: rows of the trainings ``missing``, each by both trackers."""
    plain = _tracked(video, "plain", options.size, None)
    crop = tuple(round(v) for v in plain.crop_box)
    both = _tracked(video, "both sides", options.size, crop)
    length = len(plain) * 10 // 11
    first, count = narrowest(plain, STRETCHES["5 s"])
    parts = {
        "unseen": (0, length, np.arange(length, len(plain))),
        "wide": (first, count, tested(plain, first, count)["angles"]),
    }
    rows = []
    with plain, both:
        for part in missing:
            start, frames, chosen = parts[part]
            case = f"{video.stem}, {part}, {rest}"
            for tracker, clip in {"plain": plain, "both sides": both}.items():
                figures = adapted(video, clip.stretch(start, frames), clip, chosen, plain, options.budget)
                print(case, tracker, {k: round(v, 3) for k, (v, _) in figures.items()}, file=sys.stderr, flush=True)
                rows += [row(case, f"{tracker}: {name}", value, unit) for name, (value, unit) in figures.items()]
    return rows


def _tracked(video: Path, tracker: str, size: int, crop: tuple[int, ...] | None) -> Any:
    from adapt.clip import track_clip

    with mock.patch.object(first_pass, "MirroredLandmarks", TRACKERS[tracker]):
        return track_clip(video, frames=FRAMES, size=size, crop_box=crop, av_offset=0.0)


def adapted(
    video: Path, part: Any, clip: Any, chosen: np.ndarray, plain: Any, budget: str
) -> dict[str, tuple[float, str]]:
    """Figures of an avatar of ``part``, driven by the tracks that ``clip`` has of the chosen frames."""
    from adapt.avatar.avatar import load_avatar
    from adapt.evaluate.drives import track_drive
    from benchmarks.adapting import adapt

    with tempfile.TemporaryDirectory(prefix="headstart-mirrored-") as folder, part:
        adapt(video, Path(folder) / "avatar", prior="none", budget=budget, clip=part)
        avatar = load_avatar(Path(folder) / "avatar")
        drive, _ = track_drive(avatar, clip)
        assert drive is not None
        shown = np.stack([avatar.render(drive.pick([int(i)]))[0] for i in chosen])
    return figures_of(shown, plain, chosen)


def figures_of(
    shown: np.ndarray, plain: Any, chosen: np.ndarray, regions: tuple[str, ...] = ("face", "head")
) -> dict[str, tuple[float, str]]:
    """PSNR by region and LMD of rendered frames ``[n, H, W, 3]`` in [0, 1], the chosen ones of a clip tracked plainly."""
    from adapt.evaluate.measures.lmd import lmd
    from heads.measures.image import psnr
    from shards.tracking import detect_landmarks

    real = np.stack([plain.frames([int(i)])[0] for i in chosen])
    masks = [{**plain.masks([int(i)]), "whole frame": np.ones((1, *real.shape[1:3]), np.float32)} for i in chosen]
    decibels = {
        region: float(np.mean([psnr(a, b / np.float32(255), m[region][0]) for a, b, m in zip(shown, real, masks)]))
        for region in regions
    }
    (there, seen), (true, also) = detect_landmarks((shown * 255 + 0.5).astype(np.uint8)), detect_landmarks(real)
    good = seen & also
    return {
        **{region: (value, "dB") for region, value in decibels.items()},
        "LMD": (lmd(there[good], true[good], real.shape[2]), "px at 512"),
        "LMD, absolute": (lmd(there[good], true[good], real.shape[2], centred=False), "px at 512"),
    }


def _write(rows: list[dict[str, Any]], echo: bool) -> None:
    notes = "recipe headstart, prior none; PSNR in dB, mean over the tested frames, own tracks; LMD by plain tracking"
    people = [r for r in rows if not r["case"].startswith("basis ")]
    write("mirrored", rows + means(people), notes, command=shlex.join(["mirrored", *sys.argv[1:]]), echo=echo)


if __name__ == "__main__":
    main()
