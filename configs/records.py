"""The record of an audio feature, which travels as JSON from datasets to priors and from there to avatars."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict, cast


class WeightsRecord(TypedDict):
    """Weights that a feature is computed with.

    Attributes:
        source: folder or hub name that they were loaded from.
        sha256: of the weight file (of several files, see ``shards.features.weights``).
    """

    source: str
    sha256: str


class _Feature(TypedDict):
    name: str
    size: int
    weights: WeightsRecord | None


class FeatureRecord(_Feature, total=False):
    """What identifies an audio feature.

    Attributes:
        name: as for ``shards.features.open_feature``.
        size: columns of a row; there is one row per frame at 25 fps.
        weights: ``None`` for a feature without learned weights.
        revision: of the computation, see ``shards.features.Feature``; absent for the first one.
    """

    revision: int


def revision_of(record: Mapping[str, object] | None) -> int:
    """The revision of a feature's record."""
    return cast(int, (record or {}).get("revision", 1))
