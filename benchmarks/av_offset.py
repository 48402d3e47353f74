"""Audio out of sync with the lips: is the offset found, and are clips in sync left unchanged?

    python -m benchmarks av_offset --clips FOLDER [--unreliable CLIP ...] [--learn FILE.npz]

FOLDER holds videos and a ``consent.csv``. Filters from log-mel to lips (:mod:`shards.tracking.av_offset`) are learned on
other people, so that no person is scored by filters learned on them. Clips out of sync blur the filters, so learning is
repeated ``ROUNDS`` times: each time clips are first put in sync by the previous filters; the clips' typical offset
counts as in sync. ``--learn`` writes the filters learned on all people.

* ``believed``: clips whose offset is accepted; ``moved``: those whose audio would be shifted.
* ``sound moved by 1 to 4 frames``: the share of all clips, accepted or not, whose estimated offset changes by as much,
  within half a frame; and of the clips that are accepted unshifted, the share for which it does so and is still accepted.
* ``halves``: the two halves of a clip, separately. Where one half is certainly in sync within a frame: is the other half
  shifted, and does that take it away from the first half's offset by half a frame or more?
"""

from __future__ import annotations

import argparse
import csv
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.results import row, write
from configs import InputError
from heads.measures.lips import lip_shape
from pretrain.baselines.baselines import RidgeFit, principal_columns
from shards.media.rates import FPS, SAMPLES_PER_FRAME
from shards.media.sound import read_audio
from shards.tracking.av_offset import (
    LEAST,
    LEAST_FRAMES,
    SURE,
    likeliest_lag,
    lip_rows,
    offset_of,
)
from shards.tracking.first_pass import run_first_pass
from shards.tracking.options import TrackOptions

CONTEXT, COLUMNS, ROUNDS = 5, 48, 4
SHIFTS = (-4, -3, -2, -1, 1, 2, 3, 4)  # frames


@dataclass(frozen=True)
class Clip:
    """The longest run of a video: lips ``[T, 3]``, and the whole sound with the sample beside its first frame."""

    name: str
    person: str
    lips: np.ndarray
    sound: np.ndarray
    first: int

    def __len__(self) -> int:
        return len(self.lips)

    def heard(self, lag: float = 0.0, frames: slice = slice(None)) -> tuple[np.ndarray, np.ndarray]:
        """Lips of ``frames`` and the sound ``lag`` frames later."""
        start, stop, _ = frames.indices(len(self))
        begin = self.first + round((start + lag) * SAMPLES_PER_FRAME)
        count = (stop - start) * SAMPLES_PER_FRAME
        before = min(max(0, -begin), count)
        part = self.sound[max(0, begin) :][: count - before]
        return self.lips[frames], np.pad(part, (before, count - before - len(part)))


def main() -> None:
    """Learn, score and write ``results/av_offset.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", required=True, type=Path, metavar="FOLDER")
    parser.add_argument("--unreliable", nargs="*", default=[], metavar="CLIP", help="clips whose sound is not trusted")
    parser.add_argument("--learn", type=Path, metavar="FILE.npz", help="write the filters of all people")
    options = parser.parse_args()
    clips = list(read_clips(options.clips, set(options.unreliable)))
    fit, lags = learned(clips)
    if options.learn:
        np.savez_compressed(options.learn, weight=fit.solve()[0].astype(np.float16))
    notes = (
        f"{len(clips)} clips of {len({clip.person for clip in clips})} people, each by filters learned on other people"
    )
    write("av_offset", scored(clips, fit, lags), notes, command=shlex.join(["av_offset", *sys.argv[1:]]))


def read_clips(folder: Path, unreliable: set[str]) -> Iterator[Clip]:
    """Clips with sound."""
    with (folder / "consent.csv").open(newline="") as file:
        people = {record["clip"]: record["identity"] for record in csv.DictReader(file)}
    for path in sorted(folder.glob("*.mp4")):
        if path.stem in people and path.stem not in unreliable and (clip := read_clip(path, people[path.stem])):
            yield clip


def read_clip(path: Path, person: str) -> Clip | None:
    """``None`` for a clip that is silent, or shows no face for long enough."""
    try:
        sound = read_audio(path)
    except InputError:
        return None
    if not np.abs(sound).max(initial=0) > 0:
        return None
    found = run_first_pass(path, TrackOptions())
    try:
        run = max(found.runs, key=lambda run: run.end - run.start, default=None)
        if run is None or run.end - run.start < LEAST_FRAMES:
            return None
        lips = lip_shape(torch.from_numpy(found.landmarks(run.start, run.end)[0])).numpy()
        return Clip(path.stem, person, lips, sound, run.start * SAMPLES_PER_FRAME)
    finally:
        found.close()


def learned(clips: list[Clip]) -> tuple[RidgeFit, dict[str, float]]:
    """The normal equations of the last round, and the lags by which its clips were put in step."""
    lags: dict[str, float] = {}
    fit = fitted(clips, lags)
    for _ in range(ROUNDS - 1):
        weights = fit.held_out()
        found = {clip.name: likeliest_lag([clip.heard()], weights[clip.person])[0] for clip in clips}
        typical = float(np.median(list(found.values())))
        lags = {name: lag - typical for name, lag in found.items()}
        fit = fitted(clips, lags)
    return fit, lags


def fitted(clips: list[Clip], lags: dict[str, float]) -> RidgeFit:
    """Filters' normal equations on clips whose sound is late by ``lags``."""
    heard = [(clip, *clip.heard(lags.get(clip.name, 0.0))) for clip in clips]
    rows = [lip_rows(sound) for _, _, sound in heard]
    fit = RidgeFit(context=CONTEXT, projection=principal_columns(rows, COLUMNS))
    for (clip, lips, _), features in zip(heard, rows):
        fit.add(clip.person, features, lips)
    return fit


def scored(clips: list[Clip], fit: RidgeFit, lags: dict[str, float]) -> list[dict[str, object]]:
    """Rows of the result."""
    weights = fit.held_out()
    own = {clip.name: offset_of([clip.heard()], weights[clip.person]) for clip in clips}
    sure = [clip for clip in clips if own[clip.name].confidence >= SURE]
    moved = [clip for clip in clips if own[clip.name].seconds]
    still = [offset_of([c.heard(own[c.name].seconds * FPS)], weights[c.person]).seconds == 0 for c in moved]

    def recovered(clip: Clip, shift: int) -> tuple[bool, bool]:
        before = likeliest_lag([clip.heard()], weights[clip.person])[0]
        lag, confidence = likeliest_lag([clip.heard(-shift)], weights[clip.person])
        right = abs(lag - before - shift) <= 0.5
        return right, right and confidence >= SURE

    shifts = {clip.name: [recovered(clip, shift) for shift in SHIFTS] for clip in clips}
    found = [right for several in shifts.values() for right, _ in several]
    believed = [both for clip in sure for _, both in shifts[clip.name]]
    rows = [
        row("clips", "spread of the offsets", float(np.std(list(lags.values()))), "frames"),
        row("clips", "believed", len(sure) / len(clips), "share"),
        row("clips", "moved", len(moved) / len(clips), "share"),
        row("clips that were moved", "left alone afterwards", float(np.mean(still)), "share"),
        row("sound moved by 1 to 4 frames", "found, all clips", float(np.mean(found)), "share"),
        row("sound moved by 1 to 4 frames", "found and believed, believed clips", float(np.mean(believed)), "share"),
    ]
    return rows + halves(clips, weights)


def halves(clips: list[Clip], weights: dict[str, np.ndarray]) -> list[dict[str, object]]:
    """What one half of a clip says where the other half is surely in step, and where it is surely not."""
    moved, worse, agree = [], [], []
    for clip in clips:
        cut = len(clip) // 2
        for one, other in ((slice(0, cut), slice(cut, None)), (slice(cut, None), slice(0, cut))):
            lag, sure = likeliest_lag([clip.heard(0.0, one)], weights[clip.person])
            again, too = likeliest_lag([clip.heard(0.0, other)], weights[clip.person])
            by = offset_of([clip.heard(0.0, other)], weights[clip.person]).seconds * FPS
            if sure >= SURE and abs(lag) < LEAST:
                moved.append(by != 0)
                worse.append(abs(lag - by) - abs(lag) >= 0.5)
            if sure >= SURE and too >= SURE:
                agree.append(abs(lag - again) <= 1.0)
    return [
        row("halves", "moved, the other half surely in step", float(np.mean(moved)), f"share of {len(moved)}"),
        row("halves", "further from the other half by that", float(np.mean(worse)), f"share of {len(worse)}"),
        row("halves", "within a frame, where both are believed", float(np.mean(agree)), f"share of {len(agree)}"),
    ]


if __name__ == "__main__":
    main()
