"""Audio-expression against the mean face and against a ridge regression, on people neither of them saw."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from heads.measures.closure import closure_f1
from heads.measures.face import LipMotion, component_importance, lip_error, lip_motion
from heads.rig import Rig
from pretrain.audio_expression.inference import AudioExpressionPrior
from pretrain.audio_expression.windows import normalise_utterance
from pretrain.baselines.baselines import RidgeFit, apply_ridge, correlation, principal_columns
from pretrain.data.sequences import Sequence
from pretrain.task import Evidence, people_means

Runs = Iterable[Sequence]
LEAST_FRAMES = 60  # a correlation of fewer frames says nothing
STYLE_SHARE = 1 / 3  # of a clip is given to find_style; the rest is scored


def fit_baseline(train: Runs, context: int, rig: Rig, scale: bool = False, columns: int = 48) -> np.ndarray:
    """The ridge regression (D, C, 2·context+1) from features to expression, fitted on the training people.

    As strong as we can make it: its features are normalised and reduced to as many principal ``columns`` as the
    prior's are, and its penalty is the one with the least error of the lips on training people left out.
    """
    rows = (normalise_utterance(run.features, scale) for run in train)
    fit = RidgeFit(context=context, projection=principal_columns(rows, columns))
    for run in train:
        fit.add(run.identity, normalise_utterance(run.features, scale), run.track["expression"])
    components = len(next(iter(fit.people.values()))[2])
    return fit.solve(importance=component_importance(rig, np.ones(components), 1.0))[0]


def collect(prior: AudioExpressionPrior, train: Runs, held: Runs, ridge_context: int, rig: Rig) -> Evidence:
    """Score every held-out clip; ``train`` is gone through several times, ``held`` once."""
    rows = []
    ridge = fit_baseline(train, ridge_context, rig, prior.config.scale, prior.config.linear_columns)
    mean_face = _mean_face(train)
    for sequence in held:
        if len(sequence) >= LEAST_FRAMES:
            rows.append(score(prior, sequence, ridge, mean_face, rig))
    return Evidence(rows=rows, summary=summarise(rows), notes=NOTES)


NOTES = [
    "r: correlation of the mouth opening (inner lip gap) with the tracked one; lip error: mean distance of lip vertices",
    "in rig units (1 = eye distance, about 63 mm). The person's resting face is unknown to all of them except in the columns",
    "'own', where the first third of the clip is given: to the prior as its style, to the others as that part's mean face;",
    "they are scored on the rest. 'closure f1': lips together within one frame of the tracked ones, where these close at",
    "all. 'sampled' is one draw of the sampler, the other prior columns its one-step mean.",
]


def _mean_face(train: Iterable[Sequence]) -> np.ndarray:
    means = [sequence.track["expression"].mean(0) for sequence in train]
    return np.mean(means, axis=0).astype(np.float32)


def score(
    prior: AudioExpressionPrior, sequence: Sequence, ridge: np.ndarray, mean_face: np.ndarray, rig: Rig
) -> dict[str, object]:
    """One clip's row."""
    truth = sequence.track["expression"]
    linear = apply_ridge(ridge, normalise_utterance(sequence.features, prior.config.scale)).astype(np.float32)
    guesses = {
        "prior": prior.expect(sequence.features)["expression"],
        "ridge": linear + mean_face,
        "mean": np.broadcast_to(mean_face, truth.shape),
        "sampled": prior.sample(sequence.features, mean=prior.utterance_statistics(sequence.features))["expression"],
    }
    lips = {name: lip_motion(rig, sequence.track["identity"], guess) for name, guess in guesses.items()}
    real = lip_motion(rig, sequence.track["identity"], truth)
    row: dict[str, object] = {"identity": sequence.identity, "clip": sequence.clip, "frames": len(sequence)}
    for name in ("prior", "ridge", "sampled"):
        row[f"r {name}"] = correlation(lips[name].opening, real.opening)
    for name in ("prior", "ridge", "mean"):
        row[f"lip error {name}"] = lip_error(lips[name].lips, real.lips)
    row |= _own(prior, sequence, linear, real, rig)
    row["lip speed sampled/real"] = _speed(lips["sampled"]) / max(_speed(real), 1e-9)
    return row


def _own(
    prior: AudioExpressionPrior, sequence: Sequence, linear: np.ndarray, real: LipMotion, rig: Rig
) -> dict[str, float | None]:
    """The same when the first part of the clip is known: the prior's found style against that part's mean face."""
    cut = int(len(sequence) * STYLE_SHARE)
    known = {
        name: value if value.ndim < 2 or name == "intrinsics" else value[:cut] for name, value in sequence.track.items()
    }
    style = prior.find_style(sequence.features[:cut], known)
    rest = sequence.track["expression"][:cut].mean(0)
    guesses = {
        "prior": prior.expect(sequence.features, style=style)["expression"],
        "ridge": linear - linear[:cut].mean(0) + rest,
        "mean": np.broadcast_to(rest, linear.shape),
    }
    result: dict[str, float | None] = {}
    for name, guess in guesses.items():
        lips = lip_motion(rig, sequence.track["identity"], np.ascontiguousarray(guess[cut:]))
        result[f"own lip error {name}"] = lip_error(lips.lips, real.lips[cut:])
        result[f"own closure f1 {name}"] = closure_f1(lips.gap, real.gap[cut:])
    return result


def _speed(motion: LipMotion) -> float:
    return float(np.abs(np.diff(motion.opening)).mean())


def summarise(rows: list[dict[str, object]]) -> dict[str, float]:
    """Means over people, named for the registry."""
    return {name.replace(" ", "_").replace("/", "_per_"): mean for name, mean in people_means(rows).items()}
