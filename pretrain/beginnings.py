"""Closed-form initial values that a task computes before step 1, on the main rank; cached by dataset and configuration."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import uuid
from functools import lru_cache
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

import heads
from cluster.engine.engine import Engine
from cluster.storage import storage
from cluster.storage.tensors import save_tensors
from configs import to_dict
from configs.progress import task as step
from pretrain.config import FREE_ON_RESUME
from pretrain.task import Task

log = logging.getLogger("headstart.pretrain")
KEPT = 32  # results kept in the cache, over all datasets and configurations


def prepare(task: Task, objective: nn.Module, engine: Engine) -> None:
    """Give every rank's objective the task's closed-form initial values. Collective.

    They come from the cache if the same people, configuration and code were prepared before.
    """
    if engine.is_main:
        path = _place(task)
        if not _recall(objective, path):
            before = {name: value.clone() for name, value in objective.state_dict().items()}
            with step(f"preparing {task.name}"):
                task.prepare(objective)
            _remember({k: v for k, v in objective.state_dict().items() if not torch.equal(v, before[k])}, path)
    engine.broadcast(objective)


def _place(task: Task) -> Path:
    config = {key: value for key, value in to_dict(task.config).items() if key not in FREE_ON_RESUME}
    said = json.dumps([task.name, task.train.fingerprint, config, code_digest()], sort_keys=True, default=str)
    return storage.home() / "beginnings" / f"{task.name}-{hashlib.sha256(said.encode()).hexdigest()[:24]}.safetensors"


@lru_cache(maxsize=1)
def code_digest() -> str:
    """sha256 of the sources that compute the initial values; results of other code are not reused."""
    digest = hashlib.sha256()
    for room in (Path(__file__).parent, Path(heads.__file__).parent):
        for path in sorted(room.rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _recall(objective: nn.Module, path: Path) -> bool:
    state = objective.state_dict()
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError):
        return False
    if any(name not in state or state[name].shape != value.shape for name, value in tensors.items()):
        return False
    with torch.no_grad():
        for name, value in tensors.items():
            state[name].copy_(value)
    os.utime(path)
    return True


def _remember(tensors: dict[str, Tensor], path: Path) -> None:
    """Store them for the next run; a cache that cannot be written is not an error."""
    temporary = path.with_name(f".tmp-{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_tensors(tensors, temporary)
        os.replace(temporary, path)
        for old in sorted(path.parent.glob("*.safetensors"), key=lambda file: file.stat().st_mtime)[:-KEPT]:
            old.unlink(missing_ok=True)
    except OSError as error:
        log.warning("beginnings are not kept for next time: %s", error)
    finally:
        temporary.unlink(missing_ok=True)
