"""The visual prior's gain where the clip gives no evidence: trained on a few narrow frames, tested on the widest.

    python -m benchmarks prior_gain --people cnn2_a aoc --prior URI --budget 20s

Protocol. The whole clip is tracked once; all rows share its crop and identity. A frame's width is the larger of two ranks
within the clip, that of the distance of (yaw, pitch) from the clip's median and that of the mouth opening; blinks count
as wide. Training frames: the narrowest frame (``1 frame``), or the consecutive second or five seconds that are narrowest
on average (``1 s``, ``5 s``; at most two thirds of the clip). Test frames, at least half a second away from these: the 20
with the widest head angles and the 20 with the widest open mouths, driven by their own track. Runs with and without prior
differ only in ``--prior``; without, the texture of the most frontal training frame is copied onto the mesh.
Stored rows are not measured again.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.adaptation.recipes import CLIPS, PEOPLE, means
from benchmarks.results import row, stored, write

STRETCHES = {"1 frame": 1, "1 s": 25, "5 s": 125}
TESTED = 20
GUARD = 12
FIGURES = {
    "face, wide angles": ("angles", "face"),
    "face, open mouths": ("mouths", "face"),
    "mouth interior, open mouths": ("mouths", "mouth_inside"),
    "head, wide angles": ("angles", "head"),
}


def main() -> None:
    """Measure what is not stored yet and write ``results/prior_gain.json`` after every pair of avatars."""
    options = _parse()
    rows = [r for r in stored(options.name) if not r["case"].startswith("mean of ")]
    for person in options.people:
        cases = {
            trained: f"{person}, {trained}, {options.size}x{options.size}, {options.budget}"
            for trained in options.trained
        }
        missing = [t for t, case in cases.items() if not any(r["case"] == case for r in rows)]
        if missing:
            rows = _person(person, missing, cases, rows, options)
    _write(rows, options, echo=True)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, default=CLIPS, help="folder of NAME.mp4")
    parser.add_argument("--people", nargs="+", default=list(PEOPLE))
    parser.add_argument("--trained", nargs="+", default=list(STRETCHES), choices=STRETCHES)
    parser.add_argument("--budget", default="20s", help="of every adaptation: wall clock (20s) or steps (400it)")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument(
        "--prior",
        default="models:/expression-visual@champion",
        help="the expression-visual prior of the rows with prior",
    )
    parser.add_argument("--set", nargs="*", default=[], help="key=value of the recipe, for both")
    parser.add_argument("--keep", type=Path, help="keep pictures (real | with prior | without) here")
    parser.add_argument("--name", default="prior_gain", help="of the result file")
    return parser.parse_args()


def _person(person: str, missing: list[str], cases: dict[str, str], rows: list[dict], options: Any) -> list[dict]:
    from adapt.clip import track_clip

    video = options.clips / f"{person}.mp4"
    with track_clip(video, size=options.size) as clip:
        for trained in missing:
            first, count = narrowest(clip, STRETCHES[trained])
            rows = rows + _pair(cases[trained], video, clip, first, count, options)
            _write(rows, options, echo=False)
    return rows


def widths(clip: Any) -> tuple[np.ndarray, np.ndarray]:
    """Per frame: distance of (yaw, pitch) from the clip's median, radians; inner lip gap in eye distances."""
    from heads.geometry.rotation import rotation_to_euler
    from heads.measures.face import lip_gap

    angles = rotation_to_euler(clip.track["rotation"])[:, :2]
    return np.linalg.norm(angles - np.median(angles, 0), axis=1), lip_gap(clip.track["landmarks"])


def narrowest(clip: Any, count: int) -> tuple[int, int]:
    """First frame and number of the ``count`` consecutive frames with the smallest mean width (larger of two ranks).

    Frames in a blink count as wide: they show no eyes.
    """
    ranks = [values.argsort().argsort() / max(1, len(values) - 1) for values in widths(clip)]
    lids = clip.track["eyelids"].mean(1)
    width = np.maximum(*ranks) + (lids > np.median(lids) + 0.2)
    count = min(count, len(width) * 2 // 3)
    sums = np.convolve(width, np.ones(count), "valid")
    return int(sums.argmin()), count


def tested(clip: Any, first: int, count: int) -> dict[str, np.ndarray]:
    """Frames with the widest head angles and with the widest open mouths, away from the trained ones."""
    angle, mouth = widths(clip)
    frames = np.arange(len(angle))
    free = frames[(frames < first - GUARD) | (frames >= first + count + GUARD)]
    return {
        "angles": np.sort(free[np.argsort(angle[free])[-TESTED:]]),
        "mouths": np.sort(free[np.argsort(mouth[free])[-TESTED:]]),
    }


def _pair(case: str, video: Path, clip: Any, first: int, count: int, options: Any) -> list[dict[str, Any]]:
    """Adapt with and without the prior and score both: a row a figure."""
    frames, found, shown = tested(clip, first, count), {}, []
    for variant, prior in (("with prior", options.prior), ("without prior", "none")):
        found[variant], pictures = fitted(video, clip, (first, count), frames, prior, options)
        shown.append(pictures)
    if options.keep:
        _save(shown, clip, frames, options.keep / f"{case.split(', ')[0]}-{count}.png")
    rows = [
        row(case, f"{variant}: {name}", value, "steps" if name == "steps" else "dB")
        for variant, values in found.items()
        for name, value in values.items()
    ]
    gains = {name: found["with prior"][name] - found["without prior"][name] for name in FIGURES}
    print(case, {name: round(gain, 2) for name, gain in gains.items()}, file=sys.stderr)
    return rows + [row(case, f"gain: {name}", gain, "dB") for name, gain in gains.items()]


def fitted(
    video: Path, clip: Any, stretch: tuple[int, int], frames: dict[str, np.ndarray], prior: str, options: Any
) -> tuple[dict[str, float], dict[int, np.ndarray]]:
    """What :func:`score` gives for an avatar of a stretch (first frame, number), and the number of its ``steps``.

    Args:
        options: with ``budget`` and ``set`` of the adaptation.
    """
    from adapt.avatar.avatar import load_avatar
    from benchmarks.adapting import adapt

    with tempfile.TemporaryDirectory(prefix="headstart-gain-") as folder, clip.stretch(*stretch) as part:
        out = Path(folder) / "avatar"
        result = adapt(video, out, prior=prior, budget=options.budget, set=options.set, clip=part)
        found, shown = score(load_avatar(out), clip, frames)
    return found | {"steps": float(result["iterations"])}, shown


def score(avatar: Any, clip: Any, frames: dict[str, np.ndarray]) -> tuple[dict[str, float], dict[int, np.ndarray]]:
    """PSNR (dB, mean over frames) by figure, and the rendered frames by number."""
    from adapt.evaluate.drives import track_drive
    from heads.measures.image import psnr

    drive, _ = track_drive(avatar, clip)
    rows = np.unique(np.concatenate(list(frames.values())))
    shown = {int(i): avatar.render(drive.pick([i]))[0] for i in rows}
    values: dict[str, float] = {}
    for name, (chosen, region) in FIGURES.items():
        found = []
        for i in frames[chosen]:
            real, mask = clip.frames([i])[0] / np.float32(255), clip.masks([i])[region][0]
            # A closed mouth has a few anti-aliased pixels of "inside", which measure the lips' edge instead.
            if region != "mouth_inside" or mask.sum() > 2e-4 * mask.size:
                found.append(psnr(shown[int(i)], real, mask))
        values[name] = float(np.nanmean(found)) if found else float("nan")
    return values, shown


def _save(pictures: list[dict[int, np.ndarray]], clip: Any, frames: dict[str, np.ndarray], path: Path) -> None:
    """Two wide angles and two open mouths: real | with prior | without."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    some = [int(rows[k]) for rows in frames.values() for k in (0, len(rows) // 2)]
    lines = [
        np.concatenate([clip.frames([i])[0], *((shown[i] * 255).astype(np.uint8) for shown in pictures)], 1)
        for i in some
    ]
    Image.fromarray(np.concatenate(lines)).save(path)


def _write(rows: list[dict[str, Any]], options: argparse.Namespace, echo: bool) -> None:
    notes = (
        "trained on the narrowest frames of a clip, tested on the widest (benchmarks/priors/prior_gain.py says how they are "
        f"chosen); PSNR in dB, mean over frames, own track; recipe headstart; prior {options.prior}"
    )
    write(options.name, rows + means(rows), notes, command=shlex.join(["prior_gain", *sys.argv[1:]]), echo=echo)


if __name__ == "__main__":
    main()
