"""From videos to tracked samples, from samples to shards, from shards to batches. Names are imported on first use."""

from __future__ import annotations

from importlib import import_module
from typing import Any

# `build` is a package here; import the function from it.
_WHERE = {
    "BrokenSample": "format.schema",
    "Dataset": "read.dataset",
    "DatasetWriter": "tar.writer",
    "FEATURES": "features",
    "PairView": "read.view",
    "Reader": "read.reader",
    "SCHEMA": "format.schema",
    "Sample": "format.schema",
    "extract_features": "features",
    "open_feature": "features",
    "info": "check.info",
    "logmel": "features",
    "open_dataset": "read.dataset",
    "read_audio": "media.sound",
    "sample_key": "format.schema",
    "stream_audio": "media.sound",
    "synthesize": "synthetic",
    "track_frames": "tracking",
    "track_video": "tracking",
    "verify": "check.verify",
}

__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'shards' has no attribute '{name}'")
    return getattr(import_module(f"shards.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return __all__
