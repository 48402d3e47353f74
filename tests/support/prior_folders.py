"""Small prior folders for the tests of the registry."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch

from cluster.storage import storage

INFO = {
    "schema": 1,
    "prior": "sync-expert",
    "config": {"steps": 3},
    "rig": {"name": "mediapipe-478/1", "sha256": "a" * 64},
    "features": {"name": "logmel", "size": 160},
    "dataset": {"fingerprint": "f" * 16, "identities": ["ann", "bob"], "hours": 0.1, "licences": ["CC-BY-4.0"]},
    "metrics": {"accuracy": 0.75},
    "code_version": "0.1.0",
    "serving": {
        "module": "registry_toy",
        "inputs": [{"name": "x", "dtype": "float32", "shape": [-1, 2]}],
        "outputs": [{"name": "y", "dtype": "float32", "shape": [-1, 3]}],
    },
}


def make_prior(folder: Path, seed: int = 0, **changes) -> Path:
    """A prior folder with random weights."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    weight = torch.randn(2, 3, generator=torch.Generator().manual_seed(seed))
    save_file({"weight": weight}, folder / "weights.safetensors")
    info = INFO | {"weights_sha256": storage.sha256(folder / "weights.safetensors")} | changes
    (folder / "prior.json").write_text(json.dumps(info))
    return folder


def sqlite_registry(folder: Path, empty_store: Path) -> str:
    """A copy of the migrated store in a folder of its own; its URI."""
    folder.mkdir()
    shutil.copyfile(empty_store, folder / "own.db")
    return f"sqlite:///{folder / 'own.db'}"
