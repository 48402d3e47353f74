"""Evidence of audio-expression: the prior, a ridge regression and the mean face on held-out people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from heads.measures.closure import closure_f1
from heads.measures.face import LipMotion, component_importance, lip_error, lip_motion
from heads.ridge import apply_ridge
from heads.rig import Rig
from pretrain.audio_expression.inference import AudioExpressionPrior
from pretrain.audio_expression.windows import normalise_utterance
from pretrain.baselines.baselines import RidgeFit, correlation, principal_columns
from pretrain.baselines.lags import in_step
from pretrain.data.sequences import Sequence
from pretrain.task import Evidence, people_means
from shards.media.rates import FPS

Runs = Iterable[Sequence]
LEAST_FRAMES = 60  # frames of a clip that is scored · guess: fewer say nothing about a correlation
NEEDS = f"{LEAST_FRAMES} frames ({LEAST_FRAMES / FPS:.1f} s) with sound in one piece"
AMPLITUDES = (0.2, 0.4, 0.7, 1.0, 1.4)  # noise amplitudes that are tried; between them the speed is nearly linear
FRAMES = 80  # frames sampled of a clip: two windows
CLIPS = 32  # clips sampled, at most one per person; the real speed is taken from all
STYLE_SHARE = 1 / 3  # share of a clip that find_style gets; the rest is scored


def fit_baseline(
    train: Runs, context: int, rig: Rig, scale: bool = False, columns: int = 48, lags: Mapping[str, float] | None = None
) -> np.ndarray:
    """The ridge regression ``[D, C, 2 * context + 1]`` from features to expression, fitted on the training people.

    A strong baseline: its features are normalised and reduced to as many principal ``columns`` as the prior's, and its
    penalty is the one with the least lip error in cross-validation over the training people.

    Args:
        context: frames to each side.
        scale: divide by each recording's spread.
        lags: frames by which clips' audio is late (:func:`pretrain.baselines.lags.clip_lags`); the clips are put in sync.
    """
    fit = moments(train, context, scale, columns, lags or {})
    components = len(next(iter(fit.people.values()))[2])
    return fit.solve(importance=component_importance(rig, np.ones(components), 1.0))[0]


def moments(train: Runs, context: int, scale: bool, columns: int, lags: Mapping[str, float]) -> RidgeFit:
    """The normal equations of :func:`fit_baseline`."""
    rows = (normalise_utterance(run.features, scale) for run in train)
    fit = RidgeFit(context=context, projection=principal_columns(rows, columns))
    for run in train:
        features = normalise_utterance(run.features, scale)
        fit.add(run.identity, *in_step(features, run.track["expression"], lags.get(run.clip, 0.0)))
    return fit


def collect(prior: AudioExpressionPrior, train: Runs, held: Runs, ridge_context: int, rig: Rig) -> Evidence:
    """Score every held-out clip; ``train`` is iterated several times, ``held`` once."""
    rows = []
    ridge = fit_baseline(train, ridge_context, rig, prior.config.scale, prior.config.linear_columns)
    mean_face = _mean_face(train)
    for sequence in held:
        if len(sequence) >= LEAST_FRAMES:
            rows.append(score(prior, sequence, ridge, mean_face, rig))
    return Evidence(rows=rows, summary=summarise(rows), notes=NOTES, needs=NEEDS)


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
    row["lip speed sampled/real"] = lip_travel(lips["sampled"]) / max(lip_travel(real), 1e-9)
    return row


def _own(
    prior: AudioExpressionPrior, sequence: Sequence, linear: np.ndarray, real: LipMotion, rig: Rig
) -> dict[str, float | None]:
    """The same with the first part of the clip given: the prior in the style found there, the others with its mean face."""
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


def summarise(rows: list[dict[str, object]]) -> dict[str, float]:
    """Means over people, named for the registry."""
    return {name.replace(" ", "_").replace("/", "_per_"): mean for name, mean in people_means(rows).items()}


# --- amplitude of the sampler's noise ---------------------------------------------------------------------------------
#
# Noise with the variance that the regression leaves unexplained makes lips 1.6 times too fast, for two reasons. That variance
# includes differences between people, and lips move in bursts. Their mean speed is 0.52 of the root mean square of their
# speed; that of Gaussian noise is 0.80 of it, so matching the variance cannot match the speed. Figures: docs/priors.md.


def lip_travel(motion: LipMotion) -> float:
    """Sum of the changes of the mouth opening from frame to frame, rig units."""
    return float(np.abs(np.diff(motion.opening)).sum())


def calibrate(prior: AudioExpressionPrior, runs: Iterable[Sequence], rig: Rig) -> float:
    """Set the model's ``amplitude`` so that sampled lips are as fast as real ones, pooled over people; returns it.

    Args:
        runs: the training people's sequences; without motion in them the amplitude is left unchanged.
    """
    travel, steps = 0.0, 0
    kept: dict[str, Sequence] = {}
    for run in runs:
        travel, steps = travel + _travel(rig, run.track["expression"]), steps + len(run) - 1
        kept.setdefault(run.identity, run)
    chosen = [kept[name] for name in sorted(kept)]
    chosen = [chosen[i] for i in np.linspace(0, len(chosen) - 1, min(CLIPS, len(chosen))).astype(int)]
    amplitude = prior.model.amplitude
    if travel > 0 and chosen:
        amplitude.fill_(1.0)
        speeds = [_speed(prior, chosen, rig, scale) for scale in AMPLITUDES]
        amplitude.fill_(float(np.interp(travel / steps, speeds, AMPLITUDES)))
    return float(amplitude)


def _travel(rig: Rig, expression: np.ndarray) -> float:
    """:func:`lip_travel` of the rig's mean head; the identity hardly affects a ratio."""
    return lip_travel(lip_motion(rig, np.zeros(rig.n_identity, np.float32), np.ascontiguousarray(expression)))


def _speed(prior: AudioExpressionPrior, runs: list[Sequence], rig: Rig, scale: float) -> float:
    """Mean change of the mouth opening per frame with noise of this ``scale``."""
    travel, steps = 0.0, 0
    for number, run in enumerate(runs):
        mean = prior.utterance_statistics(run.features)
        drawn = prior.sample(run.features[:FRAMES], mean=mean, temperature=scale, seed=number)["expression"]
        travel += _travel(rig, drawn)
        steps += len(drawn) - 1
    return travel / max(steps, 1)
