"""The fields of a sample's track: names, shapes and units."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from heads.rig.facemesh import N_LANDMARKS

# Letters are lengths: T frames; I, K the rig's numbers of identity and expression coefficients.
TRACK_SHAPES: dict[str, tuple[int | str, ...]] = {
    "landmarks": ("T", N_LANDMARKS, 3),  # px of the stored frame; z in px, smaller is nearer
    "rotation": ("T", 3, 3),  # head to camera
    "translation": ("T", 3),  # head to camera, rig units
    "intrinsics": (3, 3),  # px
    "identity": ("I",),  # coefficients of the rig's identity basis
    "expression": ("T", "K"),  # coefficients of the rig's expression basis
    "eyelids": ("T", 2),  # left, right closure, 0 open .. 1 closed
    "gaze": ("T", 2, 2),  # left, right eye: yaw, pitch in radians
    "quality": ("T",),  # 0 unusable .. 1 certain
}
# Fields that a track may lack; docs/dataset-format.md defines them.
OPTIONAL_TRACK_SHAPES = {
    "body": ("T", 6),  # affine displacement of the torso, in half pictures
    "body_quality": ("T",),  # 0 unusable .. 1 certain
    "background": ("T", 6),  # likewise
    "background_quality": ("T",),  # 0 still or unusable .. 1 certain
}


def known_fields(track: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The fields that this version knows, without those that a later version may have added."""
    return {name: value for name, value in track.items() if name in TRACK_SHAPES or name in OPTIONAL_TRACK_SHAPES}
