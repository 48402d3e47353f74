"""Tiny samples and datasets for the tests of the dataset side; every value says which frame of which sample it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from shards.features import logmel
from shards.format.schema import sample_key
from shards.tar.writer import DatasetWriter

SIZE = 32
RIG = {"name": "test-rig/1", "sha256": "0" * 64}


def parts(seed: int, length: int = 6, size: int = SIZE) -> dict[str, Any]:
    """Arguments of DatasetWriter.add after key and meta."""
    rng = np.random.default_rng(seed)
    smooth = np.linspace(0, 200, size, dtype=np.uint8)
    frames = np.stack([np.stack([smooth[None].repeat(size, 0) // (1 + t % 3)] * 3, -1) for t in range(length)])
    frames[..., 2] = (np.arange(length) * 4)[:, None, None]
    track = {
        "landmarks": rng.uniform(0, size, (length, 478, 3)),
        "rotation": np.tile(np.eye(3), (length, 1, 1)),
        "translation": np.tile([0.0, 0.0, 10.0], (length, 1)),
        "intrinsics": np.array([[4 * size, 0, size / 2], [0, 4 * size, size / 2], [0, 0, 1]]),
        "identity": rng.normal(size=8),
        "expression": np.arange(length)[:, None] + np.zeros((length, 32)),
        "eyelids": np.zeros((length, 2)),
        "gaze": np.zeros((length, 2, 2)),
        "quality": np.ones(length),
    }
    audio = (0.1 * rng.normal(size=length * 640)).astype(np.float32)
    return {
        "frames": frames.astype(np.uint8),
        "matte": np.full((length, size, size), 255, np.uint8),
        "track": {name: value.astype(np.float32) for name, value in track.items()},
        "audio": audio,
        "features": {"logmel": logmel(audio)},
    }


def make_dataset(
    url: Path | str, people: dict[str, int] | None = None, per_shard: int = 4, per_clip: int = 3, length: int = 6
) -> str:
    """A dataset with so many samples of each person."""
    with DatasetWriter(url, samples_per_shard=per_shard, rig=RIG) as writer:
        for person, (name, samples) in enumerate((people or {"ann": 7, "bob": 5, "cyd": 9}).items()):
            for i in range(samples):
                key = sample_key(name, f"{name}_clip{i // per_clip}", i % per_clip)
                meta = {"first_frame": (i % per_clip) * length, "licence": "test", "consent": "yes"}
                writer.add(key, meta, **parts(1000 * person + i, length))
    return str(url)
