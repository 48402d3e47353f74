"""``headstart shards info``: what a dataset holds, from ``dataset.json`` alone."""

from __future__ import annotations

from typing import Any

from shards.read.dataset import open_dataset


def info(dataset: str) -> dict[str, Any]:
    """Counts, hours, licences, rig, features and fingerprint of a dataset, from ``dataset.json`` alone.

    Returns:
        ``identities, clips, segments, frames, frames_with_sound, hours, bytes, schema, shards, features, feature_records,
        rig, licences, withdrawn, fingerprint``.

    Raises:
        InputError: no dataset there, or damaged.
    """
    return open_dataset(dataset).info
