"""How well audio predicts lips, by cross-validation over people.

    python -m benchmarks speech --data DATASET [--earlier CLIP ...] [--unreliable CLIP ...] [--retracked 100]

DATASET holds ``logmel`` and ``whisper`` (``shards build --features logmel,whisper=FOLDER``). There are five folds of
people; no person is scored by a regression fitted on them. Every regression predicts the expression, from which the rig
gives the mouth opening (inner lips, rig units) and the lips. All of them are given a clip's mean face, so figures compare
motion. Rows are means over the clips of a group: ``earlier`` (named by ``--earlier``) and ``new`` (all others).

``in step``: training clips whose audio is late or early are shifted first, as the prior's regression does with ``align``;
the lags are estimated from training people only. ``lips pressed``: lips that nearly meet are closed, as by the drivers of
avatars (:mod:`adapt.drivers.closing`); the clip shows how, and whether, the person's lips close.

``r, lag of the other half``: each half of a clip is scored at the lag estimated from its other half, so that the choice does
not bias the score; ``r, halves`` is the same at lag 0. Their difference is the cost of clips out of sync.

``tracked again`` rows are the upper limit: opening and closures of the same frames, tracked again in the mirrored or
zoomed picture, compared with the tracked ones.
"""

from __future__ import annotations

import argparse
import itertools
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image

from adapt.drivers.closing import LipClosing
from benchmarks.results import row, write
from heads.measures.closure import TOGETHER, closure_f1
from heads.measures.face import LipMotion, default_rig, lip_error, lip_gap, lip_motion, mouth_directions
from heads.ridge import apply_ridge
from pretrain.audio_expression.evidence import fit_baseline, moments
from pretrain.audio_expression.windows import normalise_utterance
from pretrain.baselines.baselines import correlation
from pretrain.baselines.lags import clip_lags, likeliest, likelihood, moved
from pretrain.data.sequences import Sequence, sequences
from shards.tracking import detect_landmarks

FOLDS = 5
LEAST_FRAMES = 60
MOST_LAG = 5.0  # frames
ZOOM = 0.85  # of the picture that the other crop keeps


@dataclass(frozen=True)
class Regression:
    """A ridge regression as a prior has it built in: see the keys of AudioExpressionConfig.

    ``align``: training clips are put in step; ``press``: so are lips that nearly meet.
    """

    feature: str
    context: int
    columns: int
    scale: bool = False
    align: bool = False
    press: bool = False

    @property
    def name(self) -> str:
        """Of its rows."""
        kinds = {", scaled": self.scale, ", in step": self.align, ", lips pressed": self.press}
        return f"ridge on {self.feature}, {self.columns} columns" + "".join(k for k, used in kinds.items() if used)


REGRESSIONS = (
    Regression("logmel", 3, 48, scale=True),
    Regression("logmel", 3, 48, scale=True, align=True),
    Regression("whisper", 2, 192),
    Regression("whisper", 2, 192, align=True),
    Regression("whisper", 2, 192, align=True, press=True),
)
FIGURES = {
    "r": "",
    "r, halves": "",
    "r, lag of the other half": "",
    "lip error": "eye distance",
    "closure F1": "",
    "gap while the lips are shut": "eye distance",
    "spread of the opening": "of the real one's",
    "speed of the opening": "of the real one's",
}


def folds_parser(description: str | None) -> argparse.ArgumentParser:
    """The arguments of every benchmark over these folds: the dataset, and what is known of its clips."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, metavar="DATASET")
    parser.add_argument("--earlier", nargs="*", default=[], metavar="CLIP", help="clips of the group 'earlier'")
    parser.add_argument("--unreliable", nargs="*", default=[], metavar="CLIP", help="clips whose sound is not trusted")
    return parser


def main() -> None:
    """Score all regressions and write ``results/speech.json``."""
    parser = folds_parser(__doc__)
    parser.add_argument("--retracked", type=int, default=0, metavar="FRAMES", help="of each clip, for the ceiling")
    options = parser.parse_args()
    earlier, rows, counted = frozenset(options.earlier), [], ""
    if options.retracked:
        rows += ceiling(options.data, earlier, options.retracked)
    for regression in REGRESSIONS:
        found = cross_validate(options.data, regression, earlier, frozenset(options.unreliable))
        counted = f"{len(found)} clips of {len({f['identity'] for f in found})} people"
        if regression is REGRESSIONS[0]:
            rows += grouped("mean face", [f["mean face"] for f in found])
        rows += grouped(regression.name, found)
    notes = f"{counted}, {FOLDS} folds over people; means over clips; r at the same frame"
    write("speech", rows, notes, command=shlex.join(["speech", *sys.argv[1:]]))


def folds(people: list[str], first: set[str]) -> list[set[str]]:
    """People in folds that each hold their share of ``first``."""
    groups = [sorted(p for p in people if p in first), sorted(p for p in people if p not in first)]
    return [{name for group in groups for name in group[i::FOLDS]} for i in range(FOLDS)]


def cross_validate(
    data: str, regression: Regression, earlier: frozenset[str], unreliable: frozenset[str]
) -> list[dict[str, Any]]:
    """Figures of every clip by a regression that did not hear its speaker."""
    fitted = fit_folds(data, replace(regression, press=False), earlier, unreliable)
    return [figures(run, weight, regression, earlier) for runs, weight in fitted for run in runs]


@lru_cache(maxsize=1)  # the same regression is scored with lips pressed
def fit_folds(
    data: str, regression: Regression, earlier: frozenset[str], unreliable: frozenset[str]
) -> list[tuple[list[Sequence], np.ndarray]]:
    """Held-out clips of each fold and the filters of a regression on the other folds' people."""
    from shards.read.dataset import open_dataset

    trusted = sequences(open_dataset(data), regression.feature, unreliable=unreliable)
    runs = [run for run in trusted if len(run) >= LEAST_FRAMES]
    known = {run.identity for run in runs if run.clip in earlier}
    fitted = []
    for held in folds(sorted({run.identity for run in runs}), known):
        train = [run for run in runs if run.identity not in held]
        lags = training_lags(train, regression) if regression.align else {}
        weight = fit_baseline(train, regression.context, default_rig(), regression.scale, regression.columns, lags)
        fitted.append(([run for run in runs if run.identity in held], weight))
    return fitted


def training_lags(train: list[Sequence], regression: Regression) -> dict[str, float]:
    """Frames by which the sound of training clips is late, found on training people alone."""
    fit = moments(train, regression.context, regression.scale, regression.columns, {})
    opening = mouth_directions(default_rig(), np.ones(train[0].track["expression"].shape[1]))[:, 0]
    return clip_lags(
        fit,
        train,
        lambda run: normalise_utterance(run.features, regression.scale),
        lambda run: run.track["expression"] @ opening,
        opening,
        MOST_LAG,
    )


def figures(run: Sequence, weight: np.ndarray, regression: Regression, earlier: frozenset[str]) -> dict[str, Any]:
    """One clip's row; ``mean face`` holds the same of a face that does not move."""
    rig, truth, identity = default_rig(), run.track["expression"], run.track["identity"]
    still = np.ascontiguousarray(np.broadcast_to(truth.mean(0), truth.shape))
    face = still + apply_ridge(weight, normalise_utterance(run.features, regression.scale)).astype(np.float32)
    lips = LipClosing.fit(rig, identity, truth) if regression.press else None
    face = lips(face) if lips is not None else face
    real, guess, rest = (lip_motion(rig, identity, f) for f in (truth, face, still))
    who = {"identity": run.identity, "group": group_of(run.clip, earlier)}
    r = {"r": correlation(guess.opening, real.opening), **halves(guess.opening, real.opening)}
    return {**who, **r, **_both(guess, real), "mean face": {**who, **_both(rest, real)}}


def group_of(clip: str, earlier: frozenset[str]) -> str:
    """Of a clip's rows."""
    return "earlier" if clip in earlier else "new"


def _both(guess: LipMotion, real: LipMotion) -> dict[str, float | None]:
    shut = real.gap < TOGETHER
    return {
        **compared(guess, real),
        "gap while the lips are shut": float(guess.gap[shut].mean()) if shut.any() else None,
    }


def compared(guess: LipMotion, real: LipMotion) -> dict[str, float | None]:
    """Figures of one clip's lips beside the real ones."""
    speed = [float(np.abs(np.diff(motion.opening)).mean()) for motion in (guess, real)]
    return {
        "lip error": lip_error(guess.lips, real.lips),
        "closure F1": closure_f1(guess.gap, real.gap),
        "spread of the opening": float(guess.opening.std() / real.opening.std()),
        "speed of the opening": speed[0] / speed[1],
    }


def halves(guess: np.ndarray, real: np.ndarray) -> dict[str, float]:
    """Mean correlation of a clip's halves, at lag 0 and each at the lag that the other half shows."""
    edge = int(MOST_LAG)
    lags = np.arange(-2 * edge, 2 * edge + 1) / 2
    middle = len(real) // 2
    parts = [slice(0, middle + edge), slice(middle - edge, len(real))]
    lag = [likeliest(lags, likelihood(guess[part], real[part], lags)) for part in parts]

    def scored(part: slice, by: float) -> float:
        return correlation(moved(guess, by)[part][edge:-edge], real[part][edge:-edge])

    return {
        "r, halves": float(np.mean([scored(part, 0.0) for part in parts])),
        "r, lag of the other half": float(np.mean([scored(parts[0], lag[1]), scored(parts[1], lag[0])])),
    }


def ceiling(data: str, earlier: frozenset[str], frames: int) -> list[dict[str, Any]]:
    """How the lips found again in changed pictures agree with the tracked ones, first ``frames`` of each clip."""
    found, rows = list(retracked(data, earlier, frames)), []
    for group, how, name in itertools.product(("earlier", "new"), ("mirrored", "zoomed"), ("r", "closure F1")):
        figures = [f[name] for where, kind, f in found if (where, kind) == (group, how)]
        values = [value for value in figures if value is not None]
        if values:
            rows.append(
                row(f"{group} clips, {name}", f"the same frames tracked again, {how}", float(np.mean(values)), "")
            )
    return rows


def retracked(data: str, earlier: frozenset[str], frames: int) -> Iterator[tuple[str, str, dict[str, float | None]]]:
    """Group, kind of change and figures of every clip."""
    from shards.read.dataset import open_dataset

    dataset = open_dataset(data)
    clips: dict[str, list[Any]] = {}
    for entry in sorted(dataset.samples, key=lambda entry: entry.key):
        clips.setdefault(entry.clip, []).append(entry)
    for clip, entries in clips.items():
        samples = [dataset.read(entry.key) for entry in entries[: -(-frames // 50)]]
        pictures = np.concatenate([sample.frames() for sample in samples])[:frames]
        real = lip_gap(np.concatenate([sample.track["landmarks"] for sample in samples])[:frames])
        for how, changed in (("mirrored", pictures[:, :, ::-1]), ("zoomed", zoomed(pictures))):
            points, valid = detect_landmarks(np.ascontiguousarray(changed))
            if valid.all() and real.std() > 0:
                again = lip_gap(points)
                agreed: dict[str, float | None] = {"r": correlation(again, real), "closure F1": closure_f1(again, real)}
                yield group_of(clip, earlier), how, agreed


def zoomed(pictures: np.ndarray) -> np.ndarray:
    """The middle of pictures ``[T, H, W, 3]``, at their size."""
    height, width = pictures.shape[1:3]
    top, left = (length * (1 - ZOOM) / 2 for length in (height, width))
    box = (left, top, width - left, height - top)
    images = (Image.fromarray(picture) for picture in pictures)
    return np.stack([np.asarray(i.resize((width, height), Image.Resampling.BICUBIC, box)) for i in images])


def grouped(variant: str, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means over the clips of each group; clips without a figure (no closure) are left out."""
    rows = []
    for group in ("earlier", "new"):
        for name, unit in FIGURES.items():
            values = [f[name] for f in found if f["group"] == group and f.get(name) is not None]
            if values:
                rows.append(row(f"{group} clips, {name}", variant, float(np.mean(values)), unit))
    return rows


if __name__ == "__main__":
    main()
