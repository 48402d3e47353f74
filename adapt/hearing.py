"""Interim: one audio feature by name (``shards.features.open_feature`` takes its place)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from shards.features import extract_features, feature_size


class Feature:
    """A named feature."""

    def __init__(self, name: str) -> None:
        self.name, self.size = name, feature_size(name)

    @property
    def record(self) -> dict[str, Any]:
        """Name and size."""
        return {"name": self.name, "size": self.size}

    def extract(self, sound: np.ndarray) -> np.ndarray:
        """Rows ``[T, C]``."""
        return extract_features(self.name, sound)


def open_feature(spec: str | Mapping[str, Any]) -> Feature:
    """A feature by name or record."""
    return Feature(spec if isinstance(spec, str) else spec["name"])
