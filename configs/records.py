"""The record of an audio feature, which travels as JSON from datasets to priors and from there to avatars."""

from __future__ import annotations

from typing import TypedDict


class WeightsRecord(TypedDict):
    """Weights that a feature is computed with.

    Attributes:
        source: folder or hub name that they were loaded from.
        sha256: of the weight file (of several files, see ``shards.features.weights``).
    """

    source: str
    sha256: str


class FeatureRecord(TypedDict):
    """What identifies an audio feature.

    Attributes:
        name: as for ``shards.features.open_feature``.
        size: columns of a row; there is one row per frame at 25 fps.
        weights: ``None`` for a feature without learned weights.
    """

    name: str
    size: int
    weights: WeightsRecord | None
