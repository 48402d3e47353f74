"""Rasterisation, operators and frames of an avatar."""
