"""Prior folders, which hold ``prior.json`` and ``weights.safetensors``: written by a run, loaded by its users."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from cluster.registry import prior_folder
from cluster.registry.prior_folder import DatasetRecord, PriorInfo, Serving, check_weights
from cluster.registry.registry import resolve
from cluster.storage.files import sha256
from cluster.storage.tensors import misfit, save_tensors
from configs import InputError, to_dict
from configs.machine import code_version
from pretrain.prior import SERVING, find_prior
from pretrain.task import Task
from shards.read.dataset import Dataset

SCHEMA = 1


def task_class(prior: str) -> type[Task]:
    """The task class of a prior, by the prior's name on the command line.

    Raises:
        InputError: no such prior (with the nearest name).
    """
    return find_prior(prior).task


def write_prior(folder: str | Path, task: Task, objective: torch.nn.Module, metrics: dict[str, float]) -> PriorInfo:
    """Write a prior folder and return its ``prior.json`` as a dictionary.

    Args:
        folder: created if needed; a prior's files in it are replaced.
        task: the task that trained it (name, config, features, training view).
        objective: the module whose weights are kept (the moving average).
        metrics: figures of the evidence on held-out people.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_tensors(task.weights(objective), folder / "weights.safetensors")
    info = PriorInfo(
        schema=SCHEMA,
        prior=task.name,
        config=to_dict(task.config),
        rig=dict(task.train.rig or {}),
        features=task.features(),
        dataset=dataset_record(task.train, task.held),
        metrics=metrics,
        code_version=code_version(),
        weights_sha256=sha256(folder / "weights.safetensors"),
    )
    if (live := task.live_features()) is not None:
        info["live"] = live
    info["serving"] = Serving(module=SERVING, **find_prior(task.name).signature(info))
    (folder / "prior.json").write_text(json.dumps(info, indent=1, default=str))
    return info


def load_prior(uri: str | Path, device: str | torch.device = "cpu") -> Any:
    """Load a trained prior, ready to use; its ``.info`` is the ``prior.json`` dictionary.

    Args:
        uri: a local folder, ``models:/NAME@alias``, ``models:/NAME/VERSION`` or ``runs:/...``.
        device: device of its weights.

    Raises:
        InputError: nothing there, not a prior, or weights that are damaged or do not fit.
    """
    folder = _local(uri)
    info = read_info(folder)
    weights = check_weights(folder, info, uri)
    try:
        tensors = load_file(weights)
    except SafetensorError as error:
        raise InputError(f"{uri}: weights.safetensors is not readable ({error}); fetch the prior again") from None
    try:
        return find_prior(info["prior"]).restore(info, tensors, torch.device(device))
    except InputError as error:
        raise InputError(f"{uri}: {error}") from None
    except RuntimeError as error:
        raise InputError(f"{uri}: weights of another architecture than its config says ({misfit(error)})") from None


def _local(uri: str | Path) -> Path:
    if isinstance(uri, Path) or Path(str(uri)).is_dir():
        return Path(uri)
    return Path(resolve(str(uri)))


def read_info(folder: str | Path) -> PriorInfo:
    """The checked ``prior.json`` of a folder.

    Raises:
        InputError: missing, unreadable or of another schema version.
    """
    info = prior_folder.read_info(folder)
    if info.get("schema") != SCHEMA:
        raise InputError(f"{Path(folder) / 'prior.json'}: schema {info.get('schema')}, this version reads {SCHEMA}")
    return info


def dataset_record(train: Dataset, held: Dataset) -> DatasetRecord:
    """A prior's record of its training data and of the held-out people."""
    return DatasetRecord(
        fingerprint=train.fingerprint,
        identities=sorted(train.identities),
        held_out=sorted(held.identities),
        hours=train.info["hours"],
        licences=sorted({name for names in train.licences.values() for name in names}),
    )
