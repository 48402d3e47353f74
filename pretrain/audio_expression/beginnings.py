"""Closed-form initial values of audio-expression: statistics, weights of the components, the built-in regression."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch

from configs import InputError
from configs.records import FeatureRecord
from heads.measures.closure import TOGETHER
from heads.measures.face import component_importance, lip_motion, mouth_directions
from heads.rig import Rig
from pretrain.audio_expression.config import AudioExpressionConfig
from pretrain.audio_expression.model import ExpressionModel, LinearPart, LiveRegression
from pretrain.audio_expression.objective import SequenceObjective
from pretrain.audio_expression.targets import flatten_targets, target_sizes
from pretrain.audio_expression.windows import normalise_utterance
from pretrain.baselines.baselines import RidgeFit, principal_columns
from pretrain.baselines.lags import clip_lags, in_step
from pretrain.data import sequences
from pretrain.data.moments import Moments
from pretrain.task import current
from shards.features.whisper_live import BEFORE, LAYOUT, MEL_SIDE, MEL_SIZE, Layout
from shards.read.dataset import Dataset

MEL_COLUMNS = 48  # principal directions of log-mel in rows for live use, as in ``linear_columns`` of a prior on log-mel
LEAST_STD = 1e-3  # of a column, in its own units · guess: constant columns are not amplified
LEAST_IMPORTANCE = 0.05  # of a component, relative to the mean · guess: otherwise small ones would drift
SPREAD = (0.1, 1.0)  # bounds of the share of a target's variance that the regression leaves unexplained · guess

Runs = Iterable[sequences.Sequence]


def prepare(objective: SequenceObjective, runs: Runs, people: Sequence[str], rig: Rig) -> dict[str, float]:
    """Set the objective's statistics from the training people's sequences, in several passes.

    Args:
        runs: sequences that can be iterated repeatedly, see :class:`pretrain.data.recording.Recording`.
        people: names in the order of the style table.
        rig: the rig whose coefficients are learned.

    Returns:
        frames by which clips' sound is late, by clip, as far as the configuration has them estimated.
    """
    model = objective.model
    _set_statistics(model, runs)
    _weigh(objective, rig)
    model.denoiser.set_resting(torch.from_numpy(_resting(model, runs, people)))
    if model.denoiser.linear is None:
        return {}
    return _fit_linear(model, model.denoiser.linear, runs, objective, rig)


def _set_statistics(model: ExpressionModel, runs: Runs) -> None:
    config = model.config
    inputs, moved, rests = Moments(), Moments(), Moments()
    for run in runs:
        targets = flatten_targets(run.track, config.targets)
        features = normalise_utterance(run.features, config.scale)
        inputs.add(features - features.mean(0) if config.centre else features)
        moved.add(targets)
        rests.add(targets.mean(0, keepdims=True))
    model.feature_mean.copy_(torch.from_numpy(inputs.mean()))
    model.feature_std.copy_(torch.from_numpy(inputs.std()).clamp_min(LEAST_STD))
    # Clips count equally: a new person's resting face is no more likely to be that of a long clip.
    model.target_mean.copy_(torch.from_numpy(rests.mean()))
    model.target_std.copy_(torch.from_numpy(moved.std()).clamp_min(LEAST_STD))


def _resting(model: ExpressionModel, runs: Runs, people: Sequence[str]) -> np.ndarray:
    """Normalised mean targets ``[people, D]`` of each training person; zero for people without a sequence."""
    moments = {name: Moments() for name in people}
    for run in runs:
        moments[run.identity].add(_targets(model, run))
    empty = np.zeros(model.dims, np.float32)
    return np.stack([moments[name].mean() if moments[name].count else empty for name in people])


def _targets(model: ExpressionModel, run: sequences.Sequence) -> np.ndarray:
    return model.encode(torch.from_numpy(flatten_targets(run.track, model.config.targets))).numpy()


def expression_columns(config: AudioExpressionConfig, n_expression: int) -> slice:
    """Columns of the expression among the flat targets."""
    sizes = target_sizes(config.targets, n_expression)
    at = sum(sizes[name] for name in config.targets[: config.targets.index("expression")])
    return slice(at, at + n_expression)


def _weigh(objective: SequenceObjective, rig: Rig) -> None:
    model = objective.model
    here = expression_columns(model.config, model.n_expression)
    scale = model.target_std[here].numpy()
    weight = component_importance(rig, scale, model.config.loss.lips)
    objective.importance[here] = torch.from_numpy(np.maximum(weight, LEAST_IMPORTANCE))
    directions = mouth_directions(rig, scale)
    spread = np.sqrt((directions**2).sum(0, keepdims=True))  # for independent components
    objective.mouth[here] = torch.from_numpy((directions / spread).astype(np.float32))


def _fit_linear(
    model: ExpressionModel, linear: LinearPart, runs: Runs, objective: SequenceObjective, rig: Rig
) -> dict[str, float]:
    config, feature_std, opening = model.config, model.feature_std.numpy(), objective.mouth[:, 0].numpy()
    importance = _with_closure(model.closure is not None, objective.importance.numpy())
    std = feature_std if config.linear_unit_columns else np.ones_like(feature_std)

    def inputs(run: sequences.Sequence) -> np.ndarray:
        return normalise_utterance(run.features, config.scale) / std

    columns = principal_columns((inputs(run) for run in runs), config.linear_columns, centre=config.centre)

    def fitted(lags: dict[str, float], closure: bool = False) -> RidgeFit:
        fit = RidgeFit(context=config.linear_context, centre=config.centre, projection=columns)
        for run in runs:
            targets = _targets(model, run)
            targets = np.column_stack([targets, shut_lips(rig, run)]) if closure else targets
            fit.add(run.identity, *in_step(inputs(run), targets, lags.get(run.clip, 0.0)))
        return fit

    lags: dict[str, float] = {}
    if config.align:
        lags = clip_lags(fitted({}), runs, inputs, lambda run: _targets(model, run) @ opening, opening, config.align)
    weight, unexplained = fitted(lags, model.closure is not None).solve(importance=importance)
    # The model always divides its features by their spread, whatever the regression was fitted on.
    weight = weight * (feature_std / std)[:, None]
    linear.weight.copy_(torch.from_numpy(weight[: model.dims]))
    model.denoiser.spread.copy_(torch.from_numpy(unexplained[: model.dims]).clamp(*SPREAD))
    if model.closure is not None:
        model.closure.weight.copy_(torch.from_numpy(weight[model.dims :]))
    return lags


def shut_lips(rig: Rig, run: sequences.Sequence) -> np.ndarray:
    """``[T]`` float32: 1 where the lips are shut, else 0.

    A regression to this finds closures that the expression does not show: a mean of shut and nearly shut lips is half open.
    """
    gap = lip_motion(rig, run.track["identity"], run.track["expression"]).gap
    return (gap < TOGETHER).astype(np.float32)


def _with_closure(closure: bool, importance: np.ndarray) -> np.ndarray:
    """The importance of each target, none of which is that of shut lips: the penalty is that of the expression."""
    return np.append(importance, 0.0) if closure else importance


# ------------------------------------------------------------------------------------------------------- for live use


def live_record(dataset: Dataset, config: AudioExpressionConfig, feature: FeatureRecord) -> FeatureRecord | None:
    """The record of the dataset's feature for live use; ``None`` if none is wanted or the dataset lacks it.

    Raises:
        InputError: it was extracted with other weights than ``feature``, the prior's own, or is of another revision.
    """
    record = dataset.feature_records.get(config.live) if config.live else None
    if record is not None and record["weights"] != feature["weights"] and _sha256(record) != _sha256(feature):
        raise InputError(
            f"dataset {dataset.url}: '{config.live}' was extracted with other weights than '{feature['name']}'; "
            f"extract both with the same, or set live=''"
        )
    return None if record is None else current(dataset, record)


def _sha256(record: FeatureRecord) -> str:
    return "" if record["weights"] is None else record["weights"]["sha256"]


def fit_live(
    live: LiveRegression, runs: Runs, rig: Rig, columns: int, lags: Mapping[str, float], layout: Layout = LAYOUT
) -> None:
    """Fit the regression to sequences whose ``features`` are rows for live use.

    Args:
        columns: principal directions of the encoder's rows that it uses.
        layout: what a row holds.
        lags: frames by which clips' sound is late; the clips are put in step.
    """
    fit = RidgeFit(context=0, projection=projection(runs, len(live.mean), columns, layout))
    means, count, closure = [], live.weight.shape[1], live.closure is not None
    for run in runs:
        means.append(run.features.mean(0))
        targets = run.track["expression"]
        targets = np.column_stack([targets, shut_lips(rig, run)]) if closure else targets
        fit.add(run.identity, *in_step(run.features, targets, lags.get(run.clip, 0.0)))
    importance = _with_closure(closure, component_importance(rig, np.ones(count), 1.0))
    weight = fit.solve(importance=importance)[0][:, :, 0]
    live.weight.copy_(torch.from_numpy(np.ascontiguousarray(weight[:count].T)))
    if live.closure is not None:
        live.closure.copy_(torch.from_numpy(weight[count]))
    live.mean.copy_(torch.from_numpy(np.mean(means, axis=0)))


def projection(runs: Runs, size: int, columns: int, layout: Layout = LAYOUT) -> np.ndarray:
    """``[C, P]`` onto the principal directions of the encoder's rows and of log-mel: those of a frame's own, for all of them."""
    width = layout.width(size)
    own, mel_own = BEFORE * width, layout.encoded * width + MEL_SIDE * MEL_SIZE
    parts = [
        (principal_columns((run.features[:, own : own + width] for run in runs), columns), layout.encoded),
        (principal_columns((run.features[:, mel_own : mel_own + MEL_SIZE] for run in runs), MEL_COLUMNS), layout.mels),
    ]
    whole = np.zeros((size, sum(count * part.shape[1] for part, count in parts)), np.float32)
    row = column = 0
    for part, count in parts:
        for _ in range(count):
            whole[row : row + part.shape[0], column : column + part.shape[1]] = part
            row, column = row + part.shape[0], column + part.shape[1]
    return whole
