"""Audio out of sync with the lips: is the offset found, and are clips in sync left unchanged?

    python -m benchmarks av_offset --clips FOLDER [--unreliable CLIP ...] [--whisper FOLDER] [--data DATASET]
                                   [--learn FOLDER]

FOLDER holds videos and a ``consent.csv``. Filters from log-mel to lips, with ``--whisper`` also those from the rows of that
encoder (:mod:`shards.tracking.av_offset`), are learned on other people, so that no person is scored by filters learned on
them. Clips out of sync blur the filters, so learning is repeated ``ROUNDS`` times: each time clips are first put in sync by
the previous filters; the clips' typical offset counts as in sync. ``--learn`` writes the filters learned on all people.
``--data`` takes the lips that ``shards build`` has tracked in these videos; without it they are tracked again.

* ``believed``: clips whose offset is accepted; ``moved``: those whose audio would be shifted.
* ``sound moved by 1 to 4 frames``: the share of all clips, accepted or not, whose estimated offset changes by as much,
  within half a frame; and of the clips that are accepted unshifted, the share for which it does so and is still accepted.
* ``halves``: the two halves of a clip, separately. Where one half is certainly in sync within a frame: is the other half
  shifted, and does that take it away from the first half's offset by half a frame or more?
* ``lips predicted from sound``: correlation of the opening in each half, with its sound as it is and moved by what the other
  half says (``--whisper`` predicts better than log-mel and judges both). So the choice of an offset does not bias its score.
"""

from __future__ import annotations

import argparse
import csv
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from benchmarks.results import row, write
from configs import InputError
from heads.measures.lips import lip_shape
from heads.ridge import apply_ridge
from pretrain.baselines.baselines import RidgeFit, correlation, principal_columns
from pretrain.baselines.lags import moved
from pretrain.data.sequences import sequences
from shards.features import Feature, open_feature
from shards.media.rates import SAMPLES_PER_FRAME
from shards.media.sound import read_audio
from shards.read.dataset import open_dataset
from shards.tracking.av_offset import LEAST_FRAMES, LipFilters, believed, likeliest_lag, lip_rows
from shards.tracking.first_pass import run_first_pass
from shards.tracking.options import TrackOptions

ROUNDS = 4
SHIFTS = (-4, -3, -2, -1, 1, 2, 3, 4)  # frames
SURE = 0.9  # probability from which a half is taken for in step


@dataclass(frozen=True)
class Kind:
    """Filters of one kind: frames to each side, principal columns, and the encoder whose rows they take (or log-mel)."""

    context: int
    columns: int
    feature: Feature | None = None

    @property
    def name(self) -> str:
        """Of its rows."""
        return "log-mel" if self.feature is None else self.feature.name


@dataclass(frozen=True)
class Clip:
    """The longest run of a video: lips ``[T, 3]``, and the whole sound with the sample beside its first frame."""

    name: str
    person: str
    lips: np.ndarray
    sound: np.ndarray
    first: int
    _kept: dict[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.lips)

    def rows(self, kind: Kind, lag: float = 0.0, frames: slice = slice(None)) -> np.ndarray:
        """Rows ``[T, C]`` of the sound ``lag`` frames after ``frames``; rows of an encoder are interpolated."""
        start, stop, _ = frames.indices(len(self))
        if kind.feature is None:
            return lip_rows(self._heard(self.first + round((start + lag) * SAMPLES_PER_FRAME), stop - start))
        if kind.name not in self._kept:
            self._kept[kind.name] = kind.feature.extract(self._heard(self.first, len(self)))
        return moved(self._kept[kind.name], lag)[start:stop].astype(np.float32)

    def _heard(self, begin: int, frames: int) -> np.ndarray:
        count = frames * SAMPLES_PER_FRAME
        before = min(max(0, -begin), count)
        part = self.sound[max(0, begin) :][: count - before]
        return np.pad(part, (before, count - before - len(part)))

    def lag(
        self, kind: Kind, weight: np.ndarray, shift: float = 0.0, frames: slice = slice(None)
    ) -> tuple[float, float]:
        """The likeliest lag of ``frames`` against the sound ``shift`` frames later, and its probability."""
        filters = LipFilters(weight, kind.feature)
        return likeliest_lag([(self.lips[frames], filters.lips(self.rows(kind, shift, frames)))])


def main() -> None:
    """Learn, score and write ``results/av_offset.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", required=True, type=Path, metavar="FOLDER")
    parser.add_argument("--unreliable", nargs="*", default=[], metavar="CLIP", help="clips whose sound is not trusted")
    parser.add_argument("--whisper", metavar="FOLDER", help="encoder of the second kind of filters")
    parser.add_argument("--data", metavar="DATASET", help="whose tracked lips are taken")
    parser.add_argument("--learn", type=Path, metavar="FOLDER", help="write the filters of all people there")
    options = parser.parse_args()
    clips = list(read_clips(options.clips, set(options.unreliable), options.data))
    kinds = [Kind(5, 48)]
    if options.whisper:
        kinds.append(Kind(2, 192, open_feature("whisper", options.whisper)))
    rows, learnt = [], {kind.name: learned(clips, kind) for kind in kinds}
    judge = kinds[-1], learnt[kinds[-1].name][0].held_out()
    for kind in kinds:
        fit, lags = learnt[kind.name]
        if options.learn:
            save(options.learn, kind, fit)
        rows += scored(clips, kind, fit, lags) + judged(clips, kind, fit.held_out(), judge)
    notes = (
        f"{len(clips)} clips of {len({clip.person for clip in clips})} people, each by filters learned on other people"
    )
    write("av_offset", rows, notes, command=shlex.join(["av_offset", *sys.argv[1:]]))


def save(folder: Path, kind: Kind, fit: RidgeFit) -> None:
    """The filters as :mod:`shards.tracking.av_offset` ships them."""
    weights = None if kind.feature is None else kind.feature.record["weights"]
    known = {} if weights is None else {"sha256": np.array(weights["sha256"])}
    name = "av_offset.npz" if weights is None else f"av_offset_{kind.name}.npz"
    np.savez_compressed(folder / name, weight=fit.solve()[0].astype(np.float16), **known)


def read_clips(folder: Path, unreliable: set[str], data: str | None = None) -> Iterator[Clip]:
    """Clips with sound."""
    with (folder / "consent.csv").open(newline="") as file:
        people = {record["clip"]: record["identity"] for record in csv.DictReader(file)}
    tracked = {} if data is None else tracked_lips(data)
    for path in sorted(folder.glob("*.mp4")):
        if path.stem not in people or path.stem in unreliable or (data and path.stem not in tracked):
            continue
        if clip := read_clip(path, people[path.stem], tracked.get(path.stem)):
            yield clip


def tracked_lips(data: str) -> dict[str, tuple[int, np.ndarray]]:
    """First frame and lips ``[T, 3]`` of the longest run of every clip of a dataset."""
    dataset, longest = open_dataset(data), {}
    for run in sequences(dataset, None):
        if len(run) > len(longest.get(run.clip, (0, ()))[1]):
            first = int(dataset.read(run.keys[0][0]).meta["first_frame"])
            longest[run.clip] = (first, lip_shape(torch.from_numpy(run.track["landmarks"])).numpy())
    return longest


def read_clip(path: Path, person: str, tracked: tuple[int, np.ndarray] | None = None) -> Clip | None:
    """``None`` for a clip that is silent, or shows no face for long enough."""
    try:
        sound = read_audio(path)
    except InputError:
        return None
    if not np.abs(sound).max(initial=0) > 0:
        return None
    first, lips = tracked or found_lips(path)
    return Clip(path.stem, person, lips, sound, first * SAMPLES_PER_FRAME) if len(lips) >= LEAST_FRAMES else None


def found_lips(path: Path) -> tuple[int, np.ndarray]:
    """First frame and lips ``[T, 3]`` of a video's longest run."""
    found = run_first_pass(path, TrackOptions())
    try:
        run = max(found.runs, key=lambda run: run.end - run.start, default=None)
        if run is None:
            return 0, np.zeros((0, 3), np.float32)
        return run.start, lip_shape(torch.from_numpy(found.landmarks(run.start, run.end)[0])).numpy()
    finally:
        found.close()


def learned(clips: list[Clip], kind: Kind) -> tuple[RidgeFit, dict[str, float]]:
    """The normal equations of the last round, and the lags by which its clips were put in step."""
    lags: dict[str, float] = {}
    fit = fitted(clips, kind, lags)
    for _ in range(ROUNDS - 1):
        weights = fit.held_out()
        found = {clip.name: clip.lag(kind, weights[clip.person])[0] for clip in clips}
        typical = float(np.median(list(found.values())))
        lags = {name: lag - typical for name, lag in found.items()}
        fit = fitted(clips, kind, lags)
    return fit, lags


def fitted(clips: list[Clip], kind: Kind, lags: dict[str, float]) -> RidgeFit:
    """Filters' normal equations on clips whose sound is late by ``lags``."""
    rows = [clip.rows(kind, lags.get(clip.name, 0.0)) for clip in clips]
    fit = RidgeFit(context=kind.context, projection=principal_columns(rows, kind.columns))
    for clip, features in zip(clips, rows):
        fit.add(clip.person, features, clip.lips)
    return fit


def scored(clips: list[Clip], kind: Kind, fit: RidgeFit, lags: dict[str, float]) -> list[dict[str, object]]:
    """Rows of the result."""
    weights, trust = fit.held_out(), LipFilters(np.zeros((3, 1, 1)), kind.feature).trust
    own = {clip.name: clip.lag(kind, weights[clip.person]) for clip in clips}
    sure = [clip for clip in clips if own[clip.name][1] >= trust.sure]
    by = {name: believed(*found, trust) for name, found in own.items()}
    shifted = [clip for clip in clips if by[clip.name]]
    still = [believed(*c.lag(kind, weights[c.person], by[c.name]), trust) == 0 for c in shifted]

    def recovered(clip: Clip, shift: int) -> tuple[bool, bool]:
        lag, confidence = clip.lag(kind, weights[clip.person], -shift)
        right = abs(lag - own[clip.name][0] - shift) <= 0.5
        return right, right and confidence >= trust.sure

    shifts = {clip.name: [recovered(clip, shift) for shift in SHIFTS] for clip in clips}
    found = [right for several in shifts.values() for right, _ in several]
    both = [both for clip in sure for _, both in shifts[clip.name]]
    figures = [
        ("clips", "spread of the offsets", float(np.std(list(lags.values()))), "frames"),
        ("clips", "believed", len(sure) / len(clips), "share"),
        ("clips", "moved", len(shifted) / len(clips), "share"),
        ("clips that were moved", "left alone afterwards", float(np.mean(still)), "share"),
        ("sound moved by 1 to 4 frames", "found, all clips", float(np.mean(found)), "share"),
        ("sound moved by 1 to 4 frames", "found and believed, believed clips", float(np.mean(both)), "share"),
        *halves(clips, kind, weights),
    ]
    return [row(f"{kind.name}: {case}", variant, value, unit) for case, variant, value, unit in figures]


def cut(clip: Clip) -> Iterator[tuple[slice, slice]]:
    """Each half of a clip, and the other one."""
    middle = len(clip) // 2
    yield slice(0, middle), slice(middle, None)
    yield slice(middle, None), slice(0, middle)


def halves(clips: list[Clip], kind: Kind, weights: dict[str, np.ndarray]) -> list[tuple[str, str, float, str]]:
    """What one half of a clip says where the other half is surely in step, and where it is surely not."""
    trust = LipFilters(np.zeros((3, 1, 1)), kind.feature).trust
    moves, worse, agree = [], [], []
    for clip in clips:
        for one, other in cut(clip):
            lag, sure = clip.lag(kind, weights[clip.person], 0.0, one)
            again, too = clip.lag(kind, weights[clip.person], 0.0, other)
            by = believed(again, too, trust)
            if sure >= SURE and abs(lag) < 1.0:
                moves.append(by != 0)
                worse.append(abs(lag - by) - abs(lag) >= 0.5)
            if sure >= SURE and too >= SURE:
                agree.append(abs(lag - again) <= 1.0)
    return [
        ("halves", "moved, the other half surely in step", float(np.mean(moves)), f"share of {len(moves)}"),
        ("halves", "further from the other half by that", float(np.mean(worse)), f"share of {len(worse)}"),
        ("halves", "within a frame, where both are believed", float(np.mean(agree)), f"share of {len(agree)}"),
    ]


def judged(
    clips: list[Clip], kind: Kind, weights: dict[str, np.ndarray], judge: tuple[Kind, dict[str, np.ndarray]]
) -> list[dict[str, object]]:
    """How well each half's opening is predicted from its sound, as it is and moved by what the other half says."""
    trust = LipFilters(np.zeros((3, 1, 1)), kind.feature).trust
    found: dict[str, list[float]] = {}
    for clip in clips:
        for one, other in cut(clip):
            by = believed(*clip.lag(kind, weights[clip.person], 0.0, other), trust)
            for name, shift in (("as it is", 0.0), ("moved by what the other half says", by)):
                guess = apply_ridge(judge[1][clip.person], clip.rows(judge[0], shift, one))[:, 0]
                found.setdefault(name, []).append(correlation(guess, clip.lips[one, 0]))
    return [
        row(f"{kind.name}: lips predicted from {judge[0].name}", name, float(np.mean(values)), "r")
        for name, values in found.items()
    ]


if __name__ == "__main__":
    main()
