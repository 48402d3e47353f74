"""Axes of exported heads, and the conversion between them.

``opencv``: x to the picture's right, y down, z away from the viewer. The head looks along -z. Avatars and trained
Gaussians are in these axes.
``opengl``: x to the picture's right, y up, z towards the viewer. The head looks along +z. glTF, USD, SPZ, three.js and
Spark use these axes.

They differ by half a turn about x: (x, y, z) -> (x, -y, -z).
"""

from __future__ import annotations

import numpy as np

from adapt.avatar.export.cloud import Cloud
from configs import InputError

OPENCV, OPENGL = "opencv", "opengl"
AXES = (OPENCV, OPENGL)


def checked_axes(axes: str | None, standard: str) -> str:
    """The axes asked for, or the format's standard.

    Raises:
        InputError: unknown axes.
    """
    if axes is None:
        return standard
    if axes not in AXES:
        raise InputError(f"axes '{axes}': expected opencv or opengl")
    return axes


def to_axes(cloud: Cloud, axes: str) -> Cloud:
    """A cloud in OpenCV axes, in the axes asked for."""
    return cloud if axes == OPENCV else half_turn(cloud)


def half_turn(cloud: Cloud) -> Cloud:
    """The cloud turned by 180° about x: between ``opencv`` and ``opengl``, in either direction."""
    means = cloud.means * np.array([1, -1, -1], np.float32)
    # The quaternion of the half turn is (0, 1, 0, 0); its product with (w, x, y, z) is (-x, w, -z, y).
    w, x, y, z = cloud.quats.T
    return cloud.replace(means=means, quats=np.stack([-x, w, -z, y], -1))


def moved(cloud: Cloud, rotation: np.ndarray, translation: np.ndarray | None = None) -> Cloud:
    """The cloud turned by ``rotation [3, 3]``, then shifted by ``translation [3]`` metres."""
    means = cloud.means @ np.asarray(rotation, np.float32).T
    if translation is not None:
        means = means + np.asarray(translation, np.float32)
    return cloud.replace(means=means, quats=_product(_quaternion(rotation), cloud.quats))


def rotation_matrices(quats: np.ndarray) -> np.ndarray:
    """Rotations ``[N, 3, 3]`` of unit quaternions wxyz ``[N, 4]``."""
    w, x, y, z = np.asarray(quats, np.float64).T
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return np.stack([np.stack(row, -1) for row in rows], -2)


def _quaternion(rotation: np.ndarray) -> np.ndarray:
    """The unit quaternion wxyz ``[4]`` of a rotation ``[3, 3]``."""
    from scipy.spatial.transform import Rotation

    x, y, z, w = Rotation.from_matrix(np.asarray(rotation, np.float64)).as_quat()
    return np.array([w, x, y, z])


def _product(p: np.ndarray, quats: np.ndarray) -> np.ndarray:
    """Hamilton products ``[N, 4]`` of ``p [4]`` and ``quats [N, 4]``: the rotations ``quats``, then ``p``."""
    w, v = quats[:, :1], quats[:, 1:]
    real = p[0] * w - v @ p[1:, None]
    vector = p[0] * v + w * p[1:] + np.cross(np.broadcast_to(p[1:], v.shape), v)
    return np.concatenate([real, vector], 1).astype(np.float32)
