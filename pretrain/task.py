"""A prior's side of the training loop: batch entries, loss, parameter groups, metrics, evidence. No cluster code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import torch
from torch import nn

from configs import InputError
from configs.records import FeatureRecord
from heads.rig import Rig
from pretrain.config import PretrainConfig
from pretrain.data.rigs import recorded_rig
from shards.features.registry import again, check_revision
from shards.read.dataset import Dataset
from shards.read.view import View

Objective = TypeVar("Objective", bound=nn.Module)


@dataclass(kw_only=True)
class Evidence:
    """A prior compared with doing without it, on held-out people.

    Attributes:
        rows: one dictionary per clip or person, with ``identity``.
        summary: figures for the registry.
        pictures: name to ``[H, W, 3]`` uint8.
        notes: sentences that explain the columns.
        needs: what a clip must have to be scored, as in "60 frames (2.4 s) in one piece"; said where no clip has it.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, float] = field(default_factory=dict)
    pictures: dict[str, np.ndarray] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    needs: str = ""

    def missing(self) -> str | None:
        """Why there are no figures, in one sentence; None if there are."""
        if self.rows:
            return None
        cause = f": none of their clips has {self.needs}" if self.needs else ""
        return f"no figures on held-out people{cause}; hold others out (holdout='[NAME, NAME]')"

    def markdown(self) -> str:
        """The table as GitHub Markdown; figures with three decimals."""
        if missing := self.missing():
            return f"{missing[0].upper()}{missing[1:]}.\n"
        columns = list(dict.fromkeys(key for row in self.rows for key in row))
        lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
        lines += ["| " + " | ".join(_cell(row.get(column)) for column in columns) + " |" for row in self.rows]
        return "\n".join(lines) + "\n\n" + "\n".join(self.notes) + "\n"


def people_means(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> dict[str, float]:
    """Mean of each column of an evidence table over people; a person's clips are averaged first, so each person counts once.

    Args:
        columns: by default every column of figures, that is all but ``identity, clip, frames``. Missing
            figures (``None`` or NaN) are left out; a column without any figure is NaN.

    Returns:
        column to mean, and ``people``: how many there are.
    """
    people: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        people.setdefault(row["identity"], []).append(row)
    if columns is None:
        columns = [name for name in (rows[0] if rows else {}) if name not in ("identity", "clip", "frames")]
    result = {}
    for name in columns if rows else ():
        values = [[v for row in clips if (v := row[name]) is not None and v == v] for clips in people.values()]
        means = [np.mean(theirs) for theirs in values if theirs]
        result[name] = float(np.mean(means)) if means else float("nan")
    return result | {"people": float(len(people))}


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


class Task(Generic[Objective]):
    """One prior's side of the training loop.

    Args:
        config: the prior's configuration (a :class:`pretrain.config.PretrainConfig`).
        train, held: training and held-out part of one dataset, which share no person.

    Attributes:
        name: as on the command line.
        config_class: the dataclass that the YAML fills.
        identity_weights: how often each person is read, see :class:`shards.read.plan.EpochPlan`.
    """

    name: ClassVar[str]
    config_class: ClassVar[type[PretrainConfig]]
    identity_weights: ClassVar[str | None] = None

    def __init__(self, config: PretrainConfig, train: Dataset, held: Dataset) -> None:
        self.config, self.train, self.held = config, train, held

    @cached_property
    def rig(self) -> Rig:
        """The rig of the dataset's coefficients.

        Raises:
            InputError: its files are missing.
        """
        return recorded_rig(self.train.rig, f"dataset {self.train.url}")

    def view(self, *, training: bool) -> View:
        """The function that turns a sample into the entries of a batch; augments when ``training``."""
        raise NotImplementedError

    @classmethod
    def usable(cls, dataset: Dataset, config: Any) -> Dataset:
        """The part of ``dataset`` that this task can learn from; all of it unless a task says otherwise."""
        return dataset

    def objective(self) -> Objective:
        """A module whose ``forward(batch)`` returns ``(loss, metrics)``: a scalar and named detached scalars."""
        raise NotImplementedError

    def prepare(self, objective: Objective) -> None:
        """Set closed-form initial values from the training people (statistics, linear parts).

        Called on the main rank only. The other ranks receive what it changed, and later runs with the same people and
        configuration take it from the cache (:mod:`pretrain.beginnings`).
        """

    def conclude(self, objective: Objective) -> None:
        """Set what is computed after the last step, on the averaged weights, from the training people only.

        Called on the main rank, possibly more than once: the same weights must give the same result.
        """

    def groups(self, objective: Objective) -> list[dict[str, Any]]:
        """Parameter groups for AdamW, without weight decay for vectors (gains, biases) and embeddings."""
        decay = [p for p in objective.parameters() if p.requires_grad and p.ndim > 1]
        rest = [p for p in objective.parameters() if p.requires_grad and p.ndim <= 1]
        return [{"params": decay}, {"params": rest, "weight_decay": 0.0}]

    def validate(self, objective: Objective) -> dict[str, float]:
        """Quick metrics on the held-out people; equal weights give bit-identical results."""
        raise NotImplementedError

    def pictures(self, objective: Objective) -> dict[str, np.ndarray]:
        """Pictures for the tracker, name to ``[H, W, 3]`` uint8."""
        return {}

    def evidence(self, objective: Objective) -> Evidence:
        """The end-of-run comparison with doing without this prior."""
        raise NotImplementedError

    def weights(self, objective: Objective) -> dict[str, torch.Tensor]:
        """What the prior folder holds."""
        return tensors_of(objective)

    def features(self) -> FeatureRecord | None:
        """The record of the audio feature that the prior uses (``name, size, weights``), or ``None``."""
        return None

    def live_features(self) -> FeatureRecord | None:
        """The record of the audio feature that the prior uses in live use besides, or ``None``."""
        return None


def tensors_of(module: nn.Module) -> dict[str, torch.Tensor]:
    """A module's weights and statistics by name, on the CPU."""
    return {name: value.detach().cpu().contiguous() for name, value in module.state_dict().items()}


def check_features(dataset: Dataset, name: str, prior: str) -> int:
    """The size of the audio features ``name`` in ``dataset``.

    Raises:
        InputError: the dataset was built without them.
    """
    if name not in dataset.features:
        raise InputError(
            f"dataset {dataset.url}: {prior} needs the audio features '{name}', but the dataset has "
            f"{', '.join(sorted(dataset.features)) or 'none'}; add them with 'headstart shards build --out "
            f"{dataset.url} --features {name}', or set features=NAME to one it has"
        )
    return int(dataset.features[name])


def feature_record(dataset: Dataset, name: str, prior: str) -> FeatureRecord:
    """The record ``{"name", "size", "weights"}`` of a dataset's feature, which travels with a prior.

    Raises:
        InputError: the dataset was built without it, or has rows of another revision.
    """
    check_features(dataset, name, prior)
    return current(dataset, dataset.feature_records[name])


def current(dataset: Dataset, record: FeatureRecord) -> FeatureRecord:
    """A record of the dataset's, whose rows are those that this version computes.

    Raises:
        InputError: they are of another revision.
    """
    check_revision(record, f"dataset {dataset.url}", f"make them again with '{again(dataset.url, record)}'")
    return record
