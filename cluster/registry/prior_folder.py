"""A prior's folder as every room reads it: ``prior.json`` beside ``weights.safetensors``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cluster.storage.files import sha256
from configs import InputError

WEIGHTS = "weights.safetensors"
ARTIFACT = "prior"  # its name in a run's folder and among an MLflow run's files


def read_info(folder: str | Path) -> dict[str, Any]:
    """The ``prior.json`` of a folder.

    Raises:
        InputError: missing or unreadable.
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
    if not isinstance(info, dict):
        raise InputError(f"{path}: holds a {type(info).__name__}, expected an object of keys; fetch the prior again")
    return info


def check_weights(folder: str | Path, info: dict[str, object], shown: object = None) -> Path:
    """The weights file of a prior, verified by the checksum in its ``prior.json``.

    Args:
        shown: what the user called the folder, for the sentence.

    Raises:
        InputError: missing, or not the file that was written.
    """
    weights, shown = Path(folder) / WEIGHTS, shown or folder
    if not weights.is_file():
        raise InputError(f"{shown}: prior.json without {WEIGHTS}; copy the whole folder")
    if sha256(weights) != info.get("weights_sha256"):
        raise InputError(
            f"{shown}: {WEIGHTS} does not match its checksum in prior.json; fetch the prior or train it again"
        )
    return weights


def check_prior(folder: str | Path) -> dict[str, Any]:
    """The ``prior.json`` of a complete and undamaged prior folder.

    Raises:
        InputError: no prior, or damaged.
    """
    info = read_info(folder)
    check_weights(folder, info)
    return info
