"""The pinhole camera: head space to camera space to pixels, for numpy arrays and tensors.

Conventions (OpenCV): x to image right, y down, z forward; ``x_camera = rotation @ x_head + translation`` and
``pixel = (intrinsics @ x_camera)[:2] / z``. A picture's first pixel has its centre at (0.5, 0.5). Lengths are rig units
(one is the mean head's eye distance).
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from torch import Tensor

from configs.devices import constant

Array = TypeVar("Array", np.ndarray, Tensor)

FOCAL = 4.0  # focal length over image size · guess, typical of head-and-shoulder footage
NEAREST = 1e-3  # least depth in rig units · guess: smaller and negative depths are replaced by it


def intrinsics_for(size: float, focal: float = FOCAL) -> np.ndarray:
    """Pinhole matrix ``[3, 3]`` of a square picture of ``size`` px: focal ``focal * size``, centre in the middle."""
    return np.array([[focal * size, 0, size / 2], [0, focal * size, size / 2], [0, 0, 1]], dtype=np.float32)


def view_intrinsics(
    intrinsics: Tensor, stored: tuple[int, int], size: tuple[int, int], corner: tuple[int, int] = (0, 0)
) -> Tensor:
    """Intrinsics ``[3, 3]`` of a part of a resized picture.

    Args:
        intrinsics: ``[3, 3]`` of the stored picture.
        stored, size: (height, width) px of the stored and of the resized picture.
        corner: (top, left) px of the part in the resized picture.
    """
    if size == stored and corner == (0, 0):
        return intrinsics
    scale = constant(((size[1] / stored[1],), (size[0] / stored[0],), (1.0,)), intrinsics)
    moved = intrinsics * scale
    if corner == (0, 0):
        return moved
    # Windows move with the head: their corners are numbers that the kernel is launched with, not a tensor to copy.
    unit = constant((((0, 0, 1), (0, 0, 0), (0, 0, 0)), ((0, 0, 0), (0, 0, 1), (0, 0, 0))), intrinsics)
    return moved.sub(unit[0], alpha=corner[1]).sub(unit[1], alpha=corner[0])


def to_camera(points: Array, rotation: Array, translation: Array) -> Array:
    """Points ``[..., N, 3]`` in camera space, from head space under poses ``[..., 3, 3]`` and ``[..., 3]``."""
    return points @ rotation.swapaxes(-1, -2) + translation[..., None, :]


def to_pixels(points: Array, intrinsics: Array, nearest: float = NEAREST) -> Array:
    """Pixels ``[..., N, 2]`` of points ``[..., N, 3]`` in camera space under ``intrinsics [..., 3, 3]``.

    Depths under ``nearest`` count as ``nearest``, so that points behind the camera stay finite.
    """
    pixels = points @ intrinsics.swapaxes(-1, -2)
    return pixels[..., :2] / pixels[..., 2:].clip(nearest)


def project(points: Array, rotation: Array, translation: Array, intrinsics: Array) -> tuple[Array, Array]:
    """Pixels ``[B, N, 2]`` and depths ``[B, N]`` (rig units) of head-space ``points [B, N, 3]`` under B cameras.

    Args:
        rotation: ``[B, 3, 3]`` head to camera.
        translation: ``[B, 3]`` rig units.
        intrinsics: ``[B, 3, 3]`` px.
    """
    seen = to_camera(points, rotation, translation)
    return to_pixels(seen, intrinsics), seen[..., 2].clip(NEAREST)


def landmarks_to_camera(landmarks: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    """Landmarks ``[T, N, 3]`` px, z relative in px, as points ``[T, N, 3]`` of a camera whose head is at depth one.

    Each landmark is unprojected at its own depth, so that :func:`camera_to_landmarks` gives back exactly the pixels.
    """
    focal = intrinsics[0, 0]
    depth = 1 + landmarks[..., 2:] / focal
    return np.concatenate([(landmarks[..., :2] - intrinsics[:2, 2]) / focal * depth, depth], axis=-1)


def camera_to_landmarks(points: np.ndarray, intrinsics: np.ndarray, distance: np.ndarray | None = None) -> np.ndarray:
    """Landmarks ``[..., N, 3]`` px, z relative in px, of camera points.

    The inverse of :func:`landmarks_to_camera` for a ``distance`` of one.

    Args:
        points: ``[..., N, 3]`` in camera space.
        distance: ``[...]`` depth of the head's origin, at which z is zero; by default the points' mean depth.
    """
    focal = intrinsics[0, 0]
    distance = points[..., 2].mean(axis=-1) if distance is None else distance
    pixel = points[..., :2] / points[..., 2:] * focal + intrinsics[:2, 2]
    return np.concatenate([pixel, ((points[..., 2] / distance[..., None] - 1) * focal)[..., None]], axis=-1)
