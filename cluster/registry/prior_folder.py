"""A prior's folder, ``prior.json`` and ``weights.safetensors``, as every room reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypedDict, cast

from cluster.storage.files import sha256
from configs import InputError
from configs.records import FeatureRecord

WEIGHTS = "weights.safetensors"
ARTIFACT = "prior"  # the folder's name in a run's folder and among an MLflow run's artifacts


class DatasetRecord(TypedDict):
    """What a prior records of the data it was trained on, and of the held-out people.

    Attributes:
        fingerprint: of the training people's part of the dataset.
        identities: names of the people it was trained on.
        held_out: names of the people it was validated on.
        hours: of the training people's clips.
        licences: of the training people's clips.
    """

    fingerprint: str
    identities: list[str]
    held_out: list[str]
    hours: float
    licences: list[str]


class ArrayEntry(TypedDict):
    """One input or output of a served prior; -1 in ``shape`` stands for any length."""

    name: str
    dtype: str
    shape: list[int]


class Parameter(TypedDict):
    """One option of a served prior."""

    name: str
    dtype: str
    default: object


class Signature(TypedDict, total=False):
    """Inputs, outputs and options of a served prior."""

    inputs: list[ArrayEntry]
    outputs: list[ArrayEntry]
    params: list[Parameter]


class Serving(Signature, total=False):
    """A signature, and the module that MLflow loads the prior with."""

    module: str


class PriorInfo(TypedDict, total=False):
    """``prior.json``.

    Attributes:
        schema: version of this document.
        prior: its kind, such as ``audio-expression``.
        config: the training configuration as plain values.
        rig: ``{"name", "sha256", "source"}``, empty for a prior that needs none.
        features: record of the audio feature that it uses, if any.
        live: record of the one that it uses in live use, if it has a regression for that.
        dataset: what it was trained on.
        metrics: measured on held-out people.
        code_version: of the training code.
        weights_sha256: of ``weights.safetensors``.
        serving: how MLflow serves it.
    """

    schema: int
    prior: str
    config: dict[str, object]
    rig: dict[str, str]
    features: FeatureRecord | None
    live: FeatureRecord | None
    dataset: DatasetRecord
    metrics: dict[str, float]
    code_version: str
    weights_sha256: str
    serving: Serving


def read_info(folder: str | Path) -> PriorInfo:
    """The ``prior.json`` of a folder.

    Raises:
        InputError: missing or unreadable.
    """
    path = Path(folder) / "prior.json"
    if not path.is_file():
        raise InputError(
            f"{folder}: contains no prior.json, so it is not a prior; give the folder that 'headstart pretrain' wrote"
        )
    try:
        info = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise InputError(f"{path}: not readable as JSON; fetch the prior again") from None
    if not isinstance(info, dict):
        raise InputError(f"{path}: holds a {type(info).__name__}, expected an object of keys; fetch the prior again")
    return cast(PriorInfo, info)


def feature_size(info: PriorInfo) -> int:
    """Columns of the audio feature that a prior uses.

    Raises:
        InputError: it records none.
    """
    feature = info.get("features")
    if feature is None:
        raise InputError("prior.json names no audio feature, so its prior cannot be opened; train it again")
    return feature["size"]


def check_weights(folder: str | Path, info: PriorInfo, shown: object = None) -> Path:
    """The weights file of a prior, verified by the checksum in its ``prior.json``.

    Args:
        shown: the user's name for the folder, for the error's sentence.

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


def check_prior(folder: str | Path) -> PriorInfo:
    """The ``prior.json`` of a complete and undamaged prior folder.

    Raises:
        InputError: no prior, or damaged.
    """
    info = read_info(folder)
    check_weights(folder, info)
    return info
