"""Rotations and the pinhole camera."""
