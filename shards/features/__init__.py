"""Audio features, one row per video frame."""

from shards.features.features import FEATURES, FeatureStream, extract_features, feature_size, logmel, parse_feature

__all__ = ["FEATURES", "FeatureStream", "extract_features", "feature_size", "logmel", "parse_feature"]
