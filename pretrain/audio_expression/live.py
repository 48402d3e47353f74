"""The prior's regression for live use: expressions from single rows of a feature that looks ahead 120 ms.

The denoiser takes in more than a second at a time. This regression is fitted beside it, in closed form, on the dataset's
rows of :mod:`shards.features.whisper_live`, which hold everything that a frame's lips may be told by.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch

from configs import InputError
from configs.records import FeatureRecord
from heads.measures.face import component_importance
from heads.rig import Rig
from pretrain.audio_expression.config import AudioExpressionConfig
from pretrain.audio_expression.model import LiveRegression
from pretrain.baselines.baselines import RidgeFit, principal_columns
from pretrain.baselines.lags import in_step
from pretrain.data.sequences import Sequence
from shards.features.whisper_live import BEFORE, LAYOUT, MEL_SIDE, MEL_SIZE, Layout
from shards.read.dataset import Dataset

MEL_COLUMNS = 48  # principal directions of log-mel, as in ``linear_columns`` of a prior on log-mel

Runs = Iterable[Sequence]


def live_record(dataset: Dataset, config: AudioExpressionConfig, feature: FeatureRecord) -> FeatureRecord | None:
    """The record of the dataset's feature for live use; ``None`` if none is wanted or the dataset lacks it.

    Raises:
        InputError: it was extracted with other weights than ``feature``, the prior's own.
    """
    record = dataset.feature_records.get(config.live) if config.live else None
    if record is not None and record["weights"] != feature["weights"] and _sha256(record) != _sha256(feature):
        raise InputError(
            f"dataset {dataset.url}: '{config.live}' was extracted with other weights than '{feature['name']}'; "
            f"extract both with the same, or set live=''"
        )
    return record


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
    means = []
    for run in runs:
        means.append(run.features.mean(0))
        fit.add(run.identity, *in_step(run.features, run.track["expression"], lags.get(run.clip, 0.0)))
    importance = component_importance(rig, np.ones(live.weight.shape[1]), 1.0)
    weight = fit.solve(importance=importance)[0][:, :, 0]
    live.weight.copy_(torch.from_numpy(np.ascontiguousarray(weight.T)))
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
