"""Video to tracked samples, samples to shards, shards to batches. Names are imported when they are used."""

from __future__ import annotations

from importlib import import_module
from typing import Any

# `build` and `forget` are modules here; import the functions from them.
_WHERE = {
    "BrokenSample": "schema",
    "Dataset": "dataset",
    "DatasetWriter": "writer",
    "FEATURES": "audio",
    "PairView": "views",
    "Reader": "reader",
    "SCHEMA": "schema",
    "Sample": "schema",
    "SequenceView": "views",
    "SyncView": "views",
    "extract_features": "audio",
    "info": "audit",
    "logmel": "audio",
    "open_dataset": "dataset",
    "read_audio": "audio",
    "sample_key": "schema",
    "stream_audio": "audio",
    "synthesize": "synthetic",
    "track_frames": "tracking",
    "track_video": "tracking",
    "verify": "audit",
}

__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'shards' has no attribute '{name}'")
    return getattr(import_module(f"shards.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return __all__
