"""The gain of refining tracks on the pixels (:mod:`shards.tracking.refinement.photometric`).

    python -m benchmarks photometric --people may stock_sweaterman --budget 300it

Two adaptations of each person differ only in that. Trained on the first 10/11 of the clip, tested on the rest, which is
tracked in the same way as the training frames; scored regions are those of the unrefined landmarks in both. Drives as of
``headstart evaluate``: expressions of the test frames (``track``), or from their sound (``audio``). For LMD the lips are
tracked in rendered and real frames, always without refinement.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.adaptation.mirrored import figures_of
from benchmarks.adaptation.recipes import PEOPLE, means, people_parser
from benchmarks.results import row, stored, write

REGIONS = ("face", "eyes", "lips", "mouth_inside", "head", "whole frame")
TRACKS = {"landmarks": False, "refined": True}


def main() -> None:
    """Measure what is not stored yet and write ``results/photometric.json`` after every person."""
    options = people_parser(__doc__, PEOPLE).parse_args()
    rows = [r for r in stored("photometric") if not r["case"].startswith("mean of ")]
    for person in options.people:
        case = f"{person}, {options.size}x{options.size}, {options.budget}"
        if not any(r["case"] == case for r in rows):
            for tracks in TRACKS:
                figures = measure(options.clips / f"{person}.mp4", TRACKS[tracks], options)
                print(case, tracks, {k: round(v, 3) for k, (v, _) in figures.items()}, file=sys.stderr, flush=True)
                rows += [row(case, f"{tracks}: {name}", value, unit) for name, (value, unit) in figures.items()]
            _write(rows, echo=False)
    _write(rows, echo=True)


def measure(video: Path, refine: bool, options: argparse.Namespace) -> dict[str, tuple[float, str]]:
    """Figures of one adaptation: PSNR by region and LMD of the track drive, LMD of the audio drive."""
    from adapt.avatar.avatar import load_avatar
    from adapt.clip import track_clip
    from adapt.evaluate.drives import audio_drive, track_drive
    from benchmarks.adapting import adapt

    with (
        tempfile.TemporaryDirectory(prefix="headstart-photometric-") as folder,
        track_clip(video, size=options.size, refine=refine) as clip,
    ):
        length = len(clip) * 10 // 11
        with clip.stretch(0, length) as part:
            adapt(video, Path(folder) / "avatar", prior="none", budget=options.budget, clip=part)
        avatar = load_avatar(Path(folder) / "avatar")
        with clip.stretch(length, len(clip) - length) as test, ExitStack() as stack:
            plain = stack.enter_context(_landmarks_of(video, clip, options.size)) if refine else clip
            truth, chosen = stack.enter_context(plain.stretch(length, len(test))), np.arange(len(test))
            figures = {}
            for name, drive in {"track": track_drive(avatar, test)[0], "audio": audio_drive(avatar, test)[0]}.items():
                if drive is not None:
                    shown = np.stack([avatar.render(drive.pick([int(i)]))[0] for i in chosen])
                    found = figures_of(shown, truth, chosen, REGIONS)
                    figures |= {f"{figure}, {name}": value for figure, value in found.items()}
    return figures


def _landmarks_of(video: Path, clip: Any, size: int) -> Any:
    """The clip tracked without refinement, in the same crop."""
    from adapt.clip import track_clip

    return track_clip(video, size=size, refine=False, crop_box=tuple(round(v) for v in clip.crop_box), av_offset=0.0)


def _write(rows: list[dict[str, Any]], echo: bool) -> None:
    notes = "recipe headstart, prior none; PSNR in dB, mean over the tested frames; LMD by plain landmarks"
    write("photometric", rows + means(rows), notes, command=shlex.join(["photometric", *sys.argv[1:]]), echo=echo)


if __name__ == "__main__":
    main()
