"""Words, not loudness: what sound tells about lips, by cross-validation over people.

    python -m benchmarks speech --data DATASET [--earlier CLIP ...] [--lags 4]

DATASET holds ``logmel`` and ``whisper`` (``shards build --features logmel,whisper=FOLDER``). Five folds of people; nobody
is scored by a regression that heard them. Every regression predicts the expression; the mouth opening (inner lips, rig
units) and the lips are the rig's. A clip's mean face is known to all alike, so figures compare motion. Rows are means over
the clips of a group: ``earlier`` (named by ``--earlier``) and ``new`` (all others).

``r, lag chosen``: the same correlation where each clip's sound may be moved by up to ``--lags`` frames to where it fits
best. It is no result of the regression, whose lag is 0. Choosing raises any r, log-mel's as well, so it is an upper bound
of what lag costs.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.results import row, write
from heads.measures.closure import closure_f1
from heads.measures.face import LipMotion, default_rig, lip_error, lip_motion
from pretrain.audio_expression.evidence import fit_baseline
from pretrain.audio_expression.windows import normalise_utterance
from pretrain.baselines.baselines import apply_ridge, correlation
from pretrain.data.sequences import Sequence, sequences

FOLDS = 5
LEAST_FRAMES = 60


@dataclass(frozen=True)
class Regression:
    """A ridge regression as a prior has it built in: see the keys of AudioExpressionConfig."""

    feature: str
    context: int
    columns: int
    scale: bool

    @property
    def name(self) -> str:
        """Of its rows."""
        return f"ridge on {self.feature}, {self.columns} columns" + (", scaled" if self.scale else "")


REGRESSIONS = (
    Regression("logmel", 3, 48, True),
    Regression("whisper", 2, 48, True),
    Regression("whisper", 2, 48, False),
    Regression("whisper", 2, 192, False),
)


def main() -> None:
    """Score all regressions and write ``results/speech.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, metavar="DATASET")
    parser.add_argument("--earlier", nargs="*", default=[], metavar="CLIP", help="clips of the group 'earlier'")
    parser.add_argument("--lags", type=int, default=4, help="frames that a clip's sound may be moved to either side")
    options = parser.parse_args()
    rows, counted = [], ""
    for regression in REGRESSIONS:
        found = cross_validate(options.data, regression, set(options.earlier), options.lags)
        rows += grouped(regression.name, found)
        counted = f"{len(found)} clips of {len({f['identity'] for f in found})} people"
        if regression is REGRESSIONS[0]:
            rows = grouped("mean face", [f["mean face"] for f in found]) + rows
    notes = f"{counted}, {FOLDS} folds over people; means over clips; r at the same frame"
    write("speech", rows, notes, command=shlex.join(["speech", *sys.argv[1:]]))


def folds(people: list[str], first: set[str]) -> list[set[str]]:
    """People in folds that each hold their share of ``first``."""
    groups = [sorted(p for p in people if p in first), sorted(p for p in people if p not in first)]
    return [{name for group in groups for name in group[i::FOLDS]} for i in range(FOLDS)]


def cross_validate(data: str, regression: Regression, earlier: set[str], lags: int) -> list[dict[str, Any]]:
    """Figures of every clip by a regression that did not hear its speaker."""
    from shards.read.dataset import open_dataset

    runs = [run for run in sequences(open_dataset(data), regression.feature) if len(run) >= LEAST_FRAMES]
    known = {run.identity for run in runs if run.clip in earlier}
    found = []
    for held in folds(sorted({run.identity for run in runs}), known):
        train = [run for run in runs if run.identity not in held]
        weight = fit_baseline(train, regression.context, default_rig(), regression.scale, regression.columns)
        found += [figures(run, weight, regression, earlier, lags) for run in runs if run.identity in held]
    return found


def figures(run: Sequence, weight: np.ndarray, regression: Regression, earlier: set[str], lags: int) -> dict[str, Any]:
    """One clip's row; ``mean face`` holds the same of a face that does not move."""
    rig, truth = default_rig(), run.track["expression"]
    still = np.ascontiguousarray(np.broadcast_to(truth.mean(0), truth.shape))
    moved = still + apply_ridge(weight, normalise_utterance(run.features, regression.scale)).astype(np.float32)
    real, guess, rest = (lip_motion(rig, run.track["identity"], face) for face in (truth, moved, still))
    who = {"identity": run.identity, "group": "earlier" if run.clip in earlier else "new"}
    figure = {
        "r": correlation(guess.opening, real.opening),
        "r, lag chosen": max(lagged(guess.opening, real.opening, lag, lags) for lag in range(-lags, lags + 1)),
    }
    return {**who, **figure, **_both(guess, real), "mean face": {**who, **_both(rest, real)}}


def _both(guess: LipMotion, real: LipMotion) -> dict[str, float | None]:
    return {"lip error": lip_error(guess.lips, real.lips), "closure F1": closure_f1(guess.gap, real.gap)}


def lagged(guess: np.ndarray, real: np.ndarray, lag: int, most: int) -> float:
    """Correlation of ``guess`` ``lag`` frames later with ``real``, over the frames that all lags up to ``most`` share."""
    count = len(real) - 2 * most
    return correlation(guess[most + lag : most + lag + count], real[most : most + count])


def grouped(variant: str, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means over the clips of each group; clips without a figure (no closure) are left out."""
    rows = []
    for group in ("earlier", "new"):
        for name, unit in (("r", ""), ("r, lag chosen", ""), ("lip error", "eye distance"), ("closure F1", "")):
            values = [f[name] for f in found if f["group"] == group and f.get(name) is not None]
            if values:
                rows.append(row(f"{group} clips, {name}", variant, float(np.mean(values)), unit))
    return rows


if __name__ == "__main__":
    main()
