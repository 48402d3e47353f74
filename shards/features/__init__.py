"""Audio features, one file each: one row for each video frame of 40 ms."""

from shards.features.base import Feature
from shards.features.logmel import logmel
from shards.features.registry import FeatureStream, extract_features, feature_size, features, open_feature

__all__ = ["Feature", "FeatureStream", "extract_features", "feature_size", "logmel", "open_feature"]


def __getattr__(name: str) -> dict[str, int]:
    """``FEATURES``: every feature's width with its default weights."""
    if name != "FEATURES":
        raise AttributeError(f"module 'shards.features' has no attribute '{name}'")
    return {kind.name: kind.default_size for kind in features().values()}
