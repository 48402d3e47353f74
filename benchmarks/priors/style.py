"""What a few seconds of a person tell about how they speak, by cross-validation over people.

    python -m benchmarks style --data DATASET [--config tiny-whisper] [--earlier CLIP ...] [--unreliable CLIP ...]
                               [--set KEY=VALUE ...]

The folds of :mod:`benchmarks.priors.speech`; in each, the prior is its built-in regression on the other folds' people, without
training steps (which change little, see docs/priors.md). From the first 3, 5 and 10 s of a clip of a held-out person, what
``adapt`` makes of them is scored on the rest of the clip, where at least 3 s are left. The clip's mean face is not given.

* ``mean style``: the prior as it is.
* ``resting face``: in the style that :meth:`find_style` gives in closed form.
* ``person's voice``: the driver of an adaptation (:func:`adapt.drivers.personal_voice.person_driver`), lips not closed; ``shut``
  with its lips closed.
* ``another's sound``: the same drivers hear another person's clip, each time one of another language or person; ``mean lips``
  is the distance of the driven mean lips from those of the person in the rest of their own clip.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from typing import Any

import numpy as np
import torch

from adapt.drivers.base import Driver, drive
from adapt.drivers.personal_voice import person_driver
from adapt.drivers.prior import PriorDriver
from benchmarks.priors.drivers import Known
from benchmarks.priors.folds import all_runs, fold_task, motion, prior_parser
from benchmarks.priors.speech import folds
from benchmarks.results import row, write
from heads.measures.face import default_rig, lip_error
from pretrain.audio_expression import AudioExpressionPrior
from pretrain.data.sequences import Sequence
from shards.media.rates import FPS

SECONDS = (3, 5, 10)
LEAST_REST = 3 * FPS
GOAL = 0.9  # of the lip error in the mean style, with ten seconds


def main() -> None:
    """Score and write ``results/style.json``."""
    options = prior_parser(__doc__).parse_args()
    torch.set_num_threads(1)
    found: dict[tuple[int, str], dict[str, float]] = {}
    runs = all_runs(options)
    known = {run.identity for run in runs if run.clip in options.earlier}
    for held in folds(sorted({run.identity for run in runs}), known):
        prior = untrained(options, held)
        theirs = [run for run in runs if run.identity in held]
        for i, run in enumerate(theirs):
            other = next(o for o in theirs[i + 1 :] + theirs if o.identity != run.identity)
            for seconds in SECONDS:
                if len(run) >= seconds * FPS + LEAST_REST:
                    for name, value in scored(prior, run, other, seconds * FPS).items():
                        found.setdefault((seconds, name), {})[run.clip] = value
    notes = "five folds over people, priors without training steps; means over clips"
    write(
        "style",
        [line for key in found for line in lines(key, found)],
        notes,
        command=shlex.join(["style", *sys.argv[1:]]),
    )


def untrained(options: argparse.Namespace, held: set[str]) -> AudioExpressionPrior:
    """A fold's prior as it begins."""
    task = fold_task(options, held)
    objective = task.objective()
    task.prepare(objective)
    return task.prior(objective)


@torch.no_grad()
def scored(prior: AudioExpressionPrior, run: Sequence, other: Sequence, cut: int) -> dict[str, float]:
    """Figures of one clip, by name."""
    truth, clip = run.track["expression"][cut:], Known(run, cut)
    real = motion(run, truth)
    driver = person_driver(prior, clip, {}, default_rig())  # type: ignore[arg-type]  # all of a clip that it reads
    style = prior.find_style(clip.rows, clip.track, iterations=0)
    voices = {"person's voice": driver.closed(None), "person's voice, shut": driver}
    faces = {
        name: prior.expect(run.features, style=of)["expression"]
        for name, of in (("mean style", None), ("resting face", style))
    }
    faces |= {name: drive(voice, run.features)["expression"] for name, voice in voices.items()}
    figures = {name: lip_error(motion(run, face[cut:]).lips, real.lips) for name, face in faces.items()}
    sounds: dict[str, Driver] = {"mean style": PriorDriver(prior), "person's voice": driver.closed(None)}
    for name, voice in sounds.items():
        mean = drive(voice, other.features)["expression"].mean(0, keepdims=True)
        figures[f"another's sound, mean lips: {name}"] = lip_error(
            motion(run, mean).lips, motion(run, truth.mean(0)[None]).lips
        )
    return figures


def lines(key: tuple[int, str], found: dict[tuple[int, str], dict[str, float]]) -> list[dict[str, Any]]:
    """Rows of one figure: its mean, and its share of that in the mean style."""
    seconds, name = key
    case, _, variant = name.rpartition(": ")
    base = found[seconds, f"{case}: mean style" if case else "mean style"]
    values = np.array(list(found[key].values()))
    better = float(np.mean(values < np.array(list(base.values()))))
    against = "" if variant == "mean style" else f"mean style; better for {better:.0%} of {len(values)} clips"
    goal = f"; goal <= {GOAL:g}" if (seconds, variant, case) == (10, "person's voice", "") else ""
    ratio = float(values.mean() / np.mean(list(base.values())))
    return [
        row(
            f"{seconds} s of a clip, {case or 'lip error of the rest'}",
            variant,
            float(values.mean()),
            "eye distance",
            against + goal,
            ratio,
        )
    ]


if __name__ == "__main__":
    main()
