"""Rotations and the pinhole camera, the one place of each formula."""
