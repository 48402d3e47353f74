"""Prior folders of the real architectures with random weights, for tests of adaptation: small, and hearing any feature."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from cluster.storage import storage
from configs import load_config, to_dict
from heads.rig import load_rig
from pretrain.audio_expression.config import AudioExpressionConfig
from pretrain.audio_expression.model import ExpressionModel
from pretrain.sync_expert.config import SyncExpertConfig
from pretrain.sync_expert.model import SyncModel


def audio_expression(folder: Path, feature: Mapping[str, Any], *, rig: Mapping[str, Any] | None = None) -> Path:
    """An audio-expression prior that hears a feature, given by its record."""
    changes = [f"features={feature['name']}"]
    config = load_config(AudioExpressionConfig, "pretrain/audio-expression/tiny", changes)
    torch.manual_seed(0)
    model = ExpressionModel(config, int(feature["size"]), load_rig().n_expression, 2)
    return write_folder(folder, "audio-expression", to_dict(config), model, feature, rig)


def sync_expert(folder: Path, feature: Mapping[str, Any], *, rig: Mapping[str, Any] | None = None) -> Path:
    """A sync expert that hears a feature."""
    config = load_config(SyncExpertConfig, "pretrain/sync-expert/tiny", [f"features={feature['name']}"])
    torch.manual_seed(0)
    return write_folder(folder, "sync-expert", to_dict(config), SyncModel(config, int(feature["size"])), feature, rig)


def write_folder(
    folder: Path,
    kind: str,
    config: dict[str, Any],
    model: torch.nn.Module,
    feature: Mapping[str, Any],
    rig: Mapping[str, Any] | None = None,
) -> Path:
    """The folder that training would have left."""
    folder.mkdir(parents=True)
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, folder / "weights.safetensors")
    info = {
        "schema": 1,
        "prior": kind,
        "config": config,
        "rig": dict(rig or load_rig().record),
        "features": dict(feature),
        "dataset": {"fingerprint": "f" * 16, "identities": ["ann", "bob"], "hours": 0.1, "licences": ["CC0"]},
        "metrics": {},
        "code_version": "0",
        "weights_sha256": storage.sha256(folder / "weights.safetensors"),
    }
    (folder / "prior.json").write_text(json.dumps(info, default=str))
    return folder
