"""How well lips fit the audio, without rendering: drivers of held-out people, by the audio feature of the prior.

    python -m benchmarks drivers --data DATASET --people CLIP CLIP ... [--unreliable CLIP ...]

The prior is its built-in regression on all people but those of ``--people``, without training steps (on few people these
change little, see docs/priors.md). Each person's driver is made from the first two thirds of the clip, as ``adapt`` does,
and the rig's lips are compared with tracked ones:

* ``own voice``: the last third;
* ``another's voice``: the whole clip of the next person in the list, whose lips are the reference.

``r`` is the correlation of the mouth opening at the same frame; ``r, lag of the other half`` is that of
:mod:`benchmarks.priors.speech`, for clips out of sync. Rows are means over the people. Priors: ``tiny`` (log-mel),
``tiny-whisper``, and ``tiny-whisper`` without the closing of lips; ``live``: the driver for live use of a ``tiny-whisper`` prior
whose dataset has rows for it.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from adapt.drivers.base import Driver, drive
from adapt.drivers.calibration import lip_weights
from adapt.drivers.live import LiveDriver
from adapt.drivers.personal_voice import live_frames, person_driver
from benchmarks.priors.speech import halves
from benchmarks.results import row, write
from configs import load_config
from heads.measures.closure import TOGETHER, closure_scores
from heads.measures.face import default_rig, lip_error, lip_motion
from pretrain.audio_expression import AudioExpressionConfig, AudioExpressionPrior, AudioExpressionTask
from pretrain.baselines.baselines import correlation
from pretrain.data.sequences import Sequence, sequences
from shards.read.dataset import Dataset, open_dataset

KNOWN = 2 / 3  # of a clip that the driver is made from
PRIORS = ("tiny", "tiny-whisper")


class Known:
    """The part of a clip that a driver is made from, as :func:`adapt.drivers.personal_voice.person_driver` reads it."""

    def __init__(self, run: Sequence, frames: int) -> None:
        constant = ("identity", "intrinsics")
        self.track = {name: rows if name in constant else rows[:frames] for name, rows in run.track.items()}
        self.identity, self.rows = run.track["identity"], run.features[:frames]

    def features(self) -> np.ndarray:
        """Audio features ``[T, C]``."""
        return self.rows


def main() -> None:
    """Score all drivers and write ``results/drivers.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, metavar="DATASET")
    parser.add_argument("--people", nargs="+", required=True, metavar="CLIP", help="strangers, two or more")
    parser.add_argument("--unreliable", nargs="*", default=[], metavar="CLIP", help="clips whose sound is not trusted")
    options = parser.parse_args()
    dataset, rows = open_dataset(options.data), []
    for name in PRIORS:
        prior, runs = untrained(dataset, name, options.people, options.unreliable)
        rows_for_live = live_rows(dataset, prior, options.people)
        found: dict[str, list[dict[str, Any]]] = {}
        for i, run in enumerate(runs):
            for kind, figures in scored(prior, run, runs[(i + 1) % len(runs)], rows_for_live):
                found.setdefault(kind, []).append(figures)
        for kind, several in found.items():
            case, _, without = kind.partition(", ")
            rows += averaged(", ".join(filter(None, (name, without))), case, several)
    write(
        "drivers", rows, f"means over {len(options.people)} strangers", command=shlex.join(["drivers", *sys.argv[1:]])
    )


def untrained(
    dataset: Dataset, name: str, clips: list[str], unreliable: list[str]
) -> tuple[AudioExpressionPrior, list[Sequence]]:
    """A prior as it begins, on everybody but the people of ``clips``; and these clips."""
    config = load_config(AudioExpressionConfig, f"pretrain/audio-expression/{name}")
    config = replace(config, unreliable=unreliable)
    usable = AudioExpressionTask.usable(dataset, config)
    by_clip = {run.clip: run for run in sequences(usable, config.features)}
    runs = [by_clip[clip] for clip in clips]
    strangers = {run.identity for run in runs}
    train = usable.subset([who for who in usable.identities if who not in strangers])
    task = AudioExpressionTask(config, train, usable.subset(sorted(strangers)))
    objective = task.objective()
    task.prepare(objective)
    return task.prior(objective), runs


def live_rows(dataset: Dataset, prior: AudioExpressionPrior, clips: list[str]) -> dict[str, np.ndarray]:
    """Rows ``[T, C]`` for live use by clip; none where the prior has no regression for it."""
    if prior.live is None:
        return {}
    return {run.clip: run.features for run in sequences(dataset, prior.live.feature) if run.clip in clips}


def scored(
    prior: AudioExpressionPrior, run: Sequence, other: Sequence, live: dict[str, np.ndarray]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Kinds of driving and their figures, of one person's driver."""
    cut = int(len(run) * KNOWN)
    driver = person_driver(prior, Known(run, cut), {}, default_rig())  # type: ignore[arg-type]  # all of a clip it reads
    for suffix, voice in (("", driver), (", lips not pressed", driver.closed(None))):
        yield f"own voice{suffix}", compared(voice, run, run, cut)
        yield f"another's voice{suffix}", compared(voice, run, other, 0)
    if prior.live is not None:
        tracked, frames = run.track["expression"][:cut], live_frames(cut)
        rest = tracked.mean(0) if driver.calibration is None else driver.calibration[2]
        weights = lip_weights(default_rig(), tracked.shape[1])
        quick = LiveDriver.fit(prior.live, live[run.clip][frames], tracked[frames], weights, rest).closed(
            driver.closing
        )
        yield "own voice, live", compared(quick, run, replace(run, features=live[run.clip]), cut)
        yield "another's voice, live", compared(quick, run, replace(other, features=live[other.clip]), 0)


def compared(driver: Driver, person: Sequence, speaker: Sequence, first: int) -> dict[str, Any]:
    """How the person's lips fit the speaker's from frame ``first`` on."""
    rig, truth = default_rig(), speaker.track["expression"][first:]
    face = drive(driver, speaker.features)["expression"][first:]
    guess, real = (
        lip_motion(rig, who.track["identity"], np.ascontiguousarray(f)) for who, f in ((person, face), (speaker, truth))
    )
    figures: dict[str, Any] = {"r": correlation(guess.opening, real.opening), **halves(guess.opening, real.opening)}
    closures = closure_scores(guess.gap, real.gap)
    for name in ("f1", "precision", "recall"):
        figures[f"closure {name.upper() if name == 'f1' else name}"] = (
            None if closures is None else getattr(closures, name)
        )
    figures["closed frames"] = float((guess.gap < TOGETHER).mean())
    figures["closed frames of the real lips"] = float((real.gap < TOGETHER).mean())
    figures["spread of the opening"] = float(guess.opening.std() / real.opening.std())
    figures["speed of the opening"] = float(
        np.abs(np.diff(guess.opening)).mean() / np.abs(np.diff(real.opening)).mean()
    )
    return figures | ({"lip error": lip_error(guess.lips, real.lips)} if person.clip == speaker.clip else {})


def averaged(variant: str, case: str, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means over the people who have a figure."""
    values = {name: [f[name] for f in found if f.get(name) is not None] for name in found[0]}
    return [row(f"{case}, {name}", variant, float(np.mean(v)), "") for name, v in values.items() if v]


if __name__ == "__main__":
    main()
