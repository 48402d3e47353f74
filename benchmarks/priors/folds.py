"""The audio-expression prior, network included, by cross-validation over people.

    python -m benchmarks folds --data DATASET [--config tiny-whisper] [--earlier CLIP ...] [--unreliable CLIP ...]
                               [--kept FOLDER] [--set KEY=VALUE ...]

The product's own training of ``--config``, five times, each without a fifth of the people (the folds of
:mod:`benchmarks.priors.speech`). Every clip is scored by the prior that did not hear its speaker, around the clip's mean face as in
that benchmark. ``--kept`` keeps the trained weights, so that a second run only scores; ``--set`` changes the configuration.

* ``regression alone``: the prior's built-in ridge regression on the same features.
* ``network x W``: with the share W of the network's correction (``diffusion.correction_weight``).
* ``sampled``: one draw at temperature 1.
* ``style``: clips of 13 s and more; the resting face and style of the first ten seconds (``find_style``, also in closed form as
  adaptation uses it) against the mean style, scored on the rest without the clip's mean face.
* ``brows``, ``blinks``: correlation of the inner brow's height and of the lids with the tracked ones; chance is the same with the
  clip's track moved by half its length.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from benchmarks.priors.speech import LEAST_FRAMES, compared, folds, folds_parser, group_of
from benchmarks.results import row, write
from benchmarks.training.pretrain import Quiet
from configs import load_config
from heads.measures.closure import TOGETHER
from heads.measures.face import LipMotion, default_rig, lip_error, lip_motion, outer_eye_distance
from heads.rig.facemesh import UPPER_UNITS
from pretrain.audio_expression import AudioExpressionConfig, AudioExpressionPrior, AudioExpressionTask
from pretrain.baselines.baselines import correlation
from pretrain.data.sequences import Sequence, sequences
from pretrain.loop import Trainer
from pretrain.train import open_split
from shards.media.rates import FPS

WEIGHTS = (0.0, 0.1, 0.25, 0.5, 1.0)  # of the network's correction
STYLE_FRAMES, LEAST_REST = 10 * FPS, 3 * FPS


@dataclass
class Found:
    """Figures by group of clips, variant and name."""

    values: dict[tuple[str, str, str], list[float]] = field(default_factory=dict)

    def add(self, group: str, variant: str, figures: dict[str, float | None]) -> None:
        """One clip's figures; those that it has not are left out."""
        for name, value in figures.items():
            if value is not None:
                self.values.setdefault((group, variant, name), []).append(value)

    def rows(self) -> list[dict[str, Any]]:
        """Means over the clips."""
        return [
            row(f"{group} clips, {name}", variant, float(np.mean(values)), "", f"{len(values)} clips")
            for (group, variant, name), values in self.values.items()
        ]


def prior_parser(description: str | None) -> argparse.ArgumentParser:
    """Arguments of a benchmark that trains an audio-expression prior for each fold, see :func:`fold_task`."""
    parser = folds_parser(description)
    parser.add_argument("--config", default="tiny-whisper", metavar="SIZE", help="of audio-expression")
    parser.add_argument(
        "--set", nargs="*", default=[], dest="changes", metavar="KEY=VALUE", help="of the configuration"
    )
    return parser


def main() -> None:
    """Train, score and write ``results/folds.json``."""
    parser = prior_parser(__doc__)
    parser.add_argument("--kept", metavar="FOLDER", help="where trained weights are kept")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(options.kept or scratch)
        folder.mkdir(parents=True, exist_ok=True)
        found, counted = cross_validate(options, folder)
    notes = f"{counted}, {options.config}; means over clips"
    words = [word for i, word in enumerate(sys.argv[1:]) if "--kept" not in (word, sys.argv[i])]
    write("folds", found.rows(), notes, command=shlex.join(["folds", *words]))


def cross_validate(options: argparse.Namespace, folder: Path) -> tuple[Found, str]:
    """Figures of all clips, and how many there are."""
    found, earlier = Found(), frozenset(options.earlier)
    runs = all_runs(options)
    people, known = {run.identity for run in runs}, {run.identity for run in runs if run.clip in earlier}
    clips = 0
    for number, held in enumerate(folds(sorted(people), known)):
        task = fold_task(options, held)
        prior = trained(task, folder / f"{number}.safetensors")
        for run in task.sequences(task.held):
            if len(run) >= LEAST_FRAMES:
                clips += 1
                for variant, figures in scored(prior, run):
                    found.add(group_of(run.clip, earlier), variant, figures)
    return found, f"{clips} clips of {len(people)} people"


def all_runs(options: argparse.Namespace) -> list[Sequence]:
    """Every clip that is long enough to be scored."""
    from shards.read.dataset import open_dataset

    runs = sequences(open_dataset(options.data), config_of(options).features, unreliable=options.unreliable)
    return [run for run in runs if len(run) >= LEAST_FRAMES]


def config_of(options: argparse.Namespace, held: tuple[str, ...] = ()) -> AudioExpressionConfig:
    """The configuration of a fold."""
    lists = [f"unreliable=[{','.join(options.unreliable)}]", *([f"holdout=[{','.join(held)}]"] if held else [])]
    changes = ["allow_unknown_licence=true", *lists, *options.changes]
    return load_config(AudioExpressionConfig, f"pretrain/audio-expression/{options.config}", changes)


def fold_task(options: argparse.Namespace, held: set[str]) -> AudioExpressionTask:
    """The training of everybody but ``held``."""
    config = config_of(options, tuple(sorted(held)))
    return AudioExpressionTask(config, *open_split(AudioExpressionTask, config, options.data))


def trained(task: AudioExpressionTask, kept: Path) -> AudioExpressionPrior:
    """A fold's prior as ``headstart pretrain`` would publish it, from ``kept`` if it is there."""
    if kept.exists():
        objective = task.objective()
        objective.model.load_state_dict(load_file(kept))
        return task.prior(objective)
    with tempfile.TemporaryDirectory() as run:
        trainer = Trainer(task, run, Quiet())
        trainer.begin(None)
        for _ in range(task.config.steps):
            trainer.train_step()
        objective = trainer.average
        trainer.close()
    task.conclude(objective)
    save_file({name: value.contiguous() for name, value in task.weights(objective).items()}, kept)
    return task.prior(objective)


def scored(prior: AudioExpressionPrior, run: Sequence) -> Iterator[tuple[str, dict[str, float | None]]]:
    """Variants and their figures for one held-out clip."""
    truth = run.track["expression"]
    real, mean = motion(run, truth), prior.utterance_statistics(run.features)
    yield "mean face", all_figures(motion(run, np.broadcast_to(truth.mean(0), truth.shape)), real)
    for weight in WEIGHTS:
        variant = f"network x {weight:g}" if weight else "regression alone"
        expected = prior.sample(
            run.features, steps=1, temperature=0.0, guidance=1.0, mean=mean, correction_weight=weight
        )
        yield variant, all_figures(motion(run, centred(expected["expression"], truth)), real)
    sampled = prior.sample(run.features, mean=mean)
    yield "sampled", all_figures(motion(run, centred(sampled["expression"], truth)), real)
    expected = prior.expect(run.features)
    for variant, face in (("one-step mean", expected), ("sampled", sampled)):
        yield variant, upper_face(run, face)
    if len(run) >= STYLE_FRAMES + LEAST_REST:
        yield from styled(prior, run, real)


def motion(run: Sequence, expression: np.ndarray) -> LipMotion:
    """Lips of the clip's person under expressions ``[T, K]``."""
    return lip_motion(default_rig(), run.track["identity"], np.ascontiguousarray(expression, np.float32))


def centred(expression: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """``expression [T, K]`` around the mean of ``truth [T, K]``."""
    return expression - expression.mean(0) + truth.mean(0)


def all_figures(guess: LipMotion, real: LipMotion) -> dict[str, float | None]:
    """One clip's figures."""
    shut = real.gap < TOGETHER
    return {
        "r": correlation(guess.opening, real.opening),
        **compared(guess, real),
        "lip error while the lips are shut": lip_error(guess.lips[shut], real.lips[shut]) if shut.any() else None,
    }


def styled(
    prior: AudioExpressionPrior, run: Sequence, real: LipMotion
) -> Iterator[tuple[str, dict[str, float | None]]]:
    """Lip error of the rest of a clip in the mean style and in those of its first ten seconds."""
    cut = STYLE_FRAMES
    part = {n: v if v.ndim < 2 or n == "intrinsics" else v[:cut] for n, v in run.track.items()}
    styles: dict[str, np.ndarray | None] = {"mean style": None}
    for name, iterations in (("style of 10 s, closed form", 0), ("style of 10 s", 40)):
        styles[name] = prior.find_style(run.features[:cut], part, iterations=iterations)
    for name, style in styles.items():
        guess = motion(run, prior.expect(run.features, style=style)["expression"][cut:])
        yield name, {"lip error of the rest": lip_error(guess.lips, real.lips[cut:])}


@torch.no_grad()
def brows(run: Sequence, expression: np.ndarray) -> np.ndarray:
    """Height ``[T]`` of the inner brows above the eyes, in outer eye distances."""
    rig, faces = default_rig(), torch.tensor(np.ascontiguousarray(expression, np.float32))
    person = torch.tensor(run.track["identity"])[None].expand(len(faces), -1)
    points = rig.landmarks(rig.vertices(person, faces)).numpy()
    heights = [points[:, eye, 1] - points[:, brow, 1] for brow, eye in UPPER_UNITS["AU1 inner brow"]]
    return np.mean(heights, axis=0) / outer_eye_distance(points)


def upper_face(run: Sequence, face: dict[str, np.ndarray]) -> dict[str, float | None]:
    """Correlations of brows and lids, and their chance."""
    half, figures = len(run) // 2, {}
    series = {
        "brows": (brows(run, face["expression"]), brows(run, run.track["expression"])),
        "blinks": (face["eyelids"].mean(1), run.track["eyelids"].mean(1)),
    }
    for name, (guess, real) in series.items():
        figures[f"{name}, r"] = correlation(guess, real)
        figures[f"{name}, r by chance"] = correlation(guess, np.roll(real, half))
    return figures


if __name__ == "__main__":
    main()
