"""Prior folders: ``prior.json`` beside ``weights.safetensors``; written by a run, loaded by everyone else."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from cluster.storage.storage import sha256 as file_sha256
from configs import InputError, load_config, nearest, to_dict
from configs.machine import code_version

SCHEMA = 1
# Where each prior's task and its ready-to-use form live; imported only when asked for.
HOMES = {
    "audio-expression": ("pretrain.audio_expression", "AudioExpressionTask", "AudioExpressionPrior"),
    "expression-visual": ("pretrain.expression_visual", "ExpressionVisualTask", "ExpressionVisualPrior"),
    "sync-expert": ("pretrain.sync_expert", "SyncExpertTask", "SyncExpert"),
}


def task_class(prior: str) -> type:
    """The task of a prior by its name on the command line.

    Raises:
        InputError: no such prior (with the nearest name).
    """
    return _member(prior, 1)


def prior_class(prior: str) -> type:
    """The ready-to-use class of a prior; its ``restore(info, tensors, device)`` builds one."""
    return _member(prior, 2)


def _member(prior: str, index: int) -> type:
    if prior not in HOMES:
        raise InputError(f"prior '{prior}': no such prior{nearest(prior, HOMES)}")
    return getattr(importlib.import_module(HOMES[prior][0]), HOMES[prior][index])


def write_prior(folder: str | Path, task: Any, objective: torch.nn.Module, metrics: dict[str, float]) -> dict[str, Any]:
    """Write a prior folder and return its ``prior.json`` as a dictionary.

    Args:
        folder: created; existing files of a prior in it are replaced.
        task: the task that trained it (name, config, features, training view).
        objective: the module whose weights are kept (the moving average).
        metrics: figures of the evidence on held-out people.
    """
    from pretrain import serving

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(task.weights(objective), folder / "weights.safetensors")
    info = {
        "schema": SCHEMA,
        "prior": task.name,
        "config": to_dict(task.config),
        "rig": dict(task.train.rig or {}),
        "features": task.features(),
        "dataset": dataset_record(task.train, task.held),
        "metrics": metrics,
        "code_version": code_version(),
        "weights_sha256": file_sha256(folder / "weights.safetensors"),
    }
    info["serving"] = serving.describe(info)
    (folder / "prior.json").write_text(json.dumps(info, indent=1, default=str))
    return info


def load_prior(uri: str | Path, device: str | torch.device = "cpu") -> Any:
    """A trained prior, ready to use, with ``.info`` (the ``prior.json`` dictionary).

    Args:
        uri: a local folder, ``models:/NAME@alias``, ``models:/NAME/VERSION`` or ``runs:/...``.
        device: where its weights go.

    Raises:
        InputError: nothing there, not a prior, damaged or foreign weights.
    """
    folder = _local(uri)
    info = read_info(folder)
    weights = folder / "weights.safetensors"
    if not weights.is_file():
        raise InputError(f"{uri}: prior.json without weights.safetensors; copy the whole folder")
    if file_sha256(weights) != info["weights_sha256"]:
        raise InputError(f"{uri}: weights.safetensors does not match its checksum in prior.json; fetch the prior again")
    try:
        tensors = load_file(weights)
    except SafetensorError as error:
        raise InputError(f"{uri}: weights.safetensors is not readable ({error}); fetch the prior again") from None
    try:
        return prior_class(info["prior"]).restore(info, tensors, torch.device(device))
    except RuntimeError as error:
        # torch lists every key; the first line names the module.
        raise InputError(
            f"{uri}: weights of another architecture than its config says ({str(error).splitlines()[0]})"
        ) from None


def _local(uri: str | Path) -> Path:
    if isinstance(uri, Path) or Path(str(uri)).is_dir():
        return Path(uri)
    from cluster.registry.registry import resolve

    return Path(resolve(str(uri)))


def read_info(folder: str | Path) -> dict[str, Any]:
    """The checked ``prior.json`` of a folder.

    Raises:
        InputError: missing, unreadable or of another schema.
    """
    path = Path(folder) / "prior.json"
    if not path.is_file():
        raise InputError(
            f"{folder}: holds no prior.json, so it is no prior; give the folder that 'headstart pretrain' wrote"
        )
    try:
        info = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise InputError(f"{path}: not readable as JSON; fetch the prior again") from None
    if info.get("schema") != SCHEMA:
        raise InputError(f"{path}: schema {info.get('schema')}, this version reads {SCHEMA}")
    return info


def restored_config(info: dict[str, Any]) -> Any:
    """The typed configuration that a prior was trained with."""
    return load_config(task_class(info["prior"]).config_class, info["config"])


def dataset_record(train: Any, held: Any) -> dict[str, Any]:
    """What a prior says about the data it has seen, and about the people it was kept from."""
    return {
        "fingerprint": train.fingerprint,
        "identities": sorted(train.identities),
        "held_out": sorted(held.identities),
        "hours": train.info["hours"],
        "licences": sorted({name for names in train.licences.values() for name in names}),
    }
