"""The record of an audio feature, which travels as JSON from datasets to priors and from there to avatars."""

from __future__ import annotations

from typing import TypedDict


class WeightsRecord(TypedDict):
    """Weights that a feature is computed with: where they came from, and the SHA-256 of the file."""

    source: str
    sha256: str


class FeatureRecord(TypedDict):
    """What an audio feature is known by.

    Attributes:
        name: as for ``shards.features.open_feature``.
        size: columns of a row, one row a frame of 25 fps.
        weights: ``None`` for a feature without learned weights.
    """

    name: str
    size: int
    weights: WeightsRecord | None
