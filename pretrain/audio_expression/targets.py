"""The prior's targets: track fields to and from one flat vector per frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

SIZES = {"eyelids": 2, "gaze": 4, "motion": 6}
TRACK_FIELDS = {"motion": ("rotation", "translation")}  # fields that a target is made from; other targets are fields


def target_sizes(targets: Sequence[str], n_expression: int) -> dict[str, int]:
    """Columns of each target, in the order of ``targets``."""
    return {name: n_expression if name == "expression" else SIZES[name] for name in targets}


def flatten_targets(track: Mapping[str, np.ndarray], targets: Sequence[str]) -> np.ndarray:
    """Track fields of T frames to ``[T, D]`` float32 in the order of ``targets``."""
    parts = [
        head_motion(track) if name == "motion" else track[name].reshape(len(track["expression"]), -1)
        for name in targets
    ]
    return np.concatenate(parts, axis=1).astype(np.float32)


def split_targets(flat: np.ndarray, targets: Sequence[str], n_expression: int) -> dict[str, np.ndarray]:
    """``[T, D]`` back to ``expression [T, K]``, ``eyelids [T, 2]``, ``gaze [T, 2, 2]``, ``motion [T, 6]``.

    ``motion`` is a rotation vector (radians) and a translation (rig units) relative to the clip's mean pose.
    """
    result, at = {}, 0
    for name, size in target_sizes(targets, n_expression).items():
        part = flat[:, at : at + size]
        result[name] = part.reshape(-1, 2, 2) if name == "gaze" else part
        at += size
    if "eyelids" in result:
        result["eyelids"] = np.clip(result["eyelids"], 0.0, 1.0)
    return result


def head_motion(track: Mapping[str, np.ndarray]) -> np.ndarray:
    """``[T, 6]``: rotation vector (radians) and translation (rig units) relative to the mean pose of these frames."""
    from scipy.spatial.transform import Rotation

    rotations = Rotation.from_matrix(track["rotation"])
    relative = (rotations.mean().inv() * rotations).as_rotvec()
    return np.concatenate([relative, track["translation"] - track["translation"].mean(0)], axis=1).astype(np.float32)
