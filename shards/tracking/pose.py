"""Head pose from landmarks: weak perspective to pinhole camera, then a similarity Procrustes fit on stable points.

Conventions (see ``heads.rig``): head space has x to image right, y down, z away from the camera; unit: the eye
distance of the mean head. ``x_camera = rotation @ x_head + translation``, ``pixel = intrinsics @ x_camera / z``.
"""

from __future__ import annotations

import numpy as np

FOCAL = 4.0  # focal length in image sizes, typical of head-and-shoulder footage


def intrinsics_for(size: float, focal: float = FOCAL) -> np.ndarray:
    """Pinhole matrix ``[3, 3]`` of a square picture of ``size`` px: focal ``focal * size``, centre in the middle."""
    return np.array([[focal * size, 0, size / 2], [0, focal * size, size / 2], [0, 0, 1]], dtype=np.float32)


def unproject(landmarks: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    """Landmarks ``[T, N, 3]`` px, z relative in px, as points ``[T, N, 3]`` of a camera whose head is at depth one.

    A landmark's own depth divides its pixel, so that projecting the points gives back exactly the pixels.
    """
    focal = intrinsics[0, 0]
    depth = 1 + landmarks[..., 2:] / focal
    return np.concatenate([(landmarks[..., :2] - intrinsics[:2, 2]) / focal * depth, depth], axis=-1)


def project(points: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    """Camera points ``[..., 3]`` to pixels with relative depth in px ``[..., 3]``, the inverse of :func:`unproject`.

    The relative depth needs the head's own distance, taken as the mean depth of the points.
    """
    focal, distance = intrinsics[0, 0], points[..., 2].mean(axis=-1, keepdims=True)
    pixel = points[..., :2] / points[..., 2:] * focal + intrinsics[:2, 2]
    return np.concatenate([pixel, ((points[..., 2] / distance - 1) * focal)[..., None]], axis=-1)


def reprojected(local: np.ndarray, rotation: np.ndarray, translation: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    """Landmarks ``[T, N, 3]`` px of points in head space; z relative to the head's own depth, in px."""
    camera = np.einsum("tij,tnj->tni", rotation, local) + translation[:, None]
    pixels = project(camera, intrinsics)
    pixels[..., 2] = (camera[..., 2] / translation[:, None, 2] - 1) * intrinsics[0, 0]
    return pixels


def similarity(
    source: np.ndarray, target: np.ndarray, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weighted least-squares ``target ~ scale * rotation @ source + translation`` (Umeyama 1991), batched.

    Args:
        source, target: ``[..., N, 3]``, broadcastable against each other.
        weights: ``[N]`` non-negative.

    Returns:
        scale ``[...]``, rotation ``[..., 3, 3]``, translation ``[..., 3]``.
    """
    weights = np.ones(source.shape[-2]) if weights is None else np.asarray(weights, float)
    weights = (weights / weights.sum())[:, None]
    source, target = np.broadcast_arrays(np.asarray(source, float), np.asarray(target, float))
    source_mean, target_mean = (source * weights).sum(-2), (target * weights).sum(-2)
    source_0, target_0 = source - source_mean[..., None, :], target - target_mean[..., None, :]
    u, s, vt = np.linalg.svd(np.swapaxes(target_0 * weights, -1, -2) @ source_0)
    sign = np.ones_like(s)
    sign[..., 2] = np.sign(np.linalg.det(u) * np.linalg.det(vt))
    rotation = (u * sign[..., None, :]) @ vt
    scale = (s * sign).sum(-1) / ((source_0**2) * weights).sum((-1, -2))
    translation = target_mean - scale[..., None] * np.einsum("...ij,...j->...i", rotation, source_mean)
    return scale, rotation, translation


def head_pose(
    landmarks: np.ndarray, intrinsics: np.ndarray, shape: np.ndarray, stable: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pose of every frame and its landmarks in head space.

    Args:
        landmarks: ``[T, N, 3]`` px.
        shape: ``[N, 3]`` the head to fit, rig units.
        stable: ``[n]`` indices of the points to fit on, or ``[N]`` weights.

    Returns:
        rotation ``[T, 3, 3]``, translation ``[T, 3]``, and the landmarks in head space ``[T, N, 3]``. Projecting the latter under
        the pose gives exactly the input pixels.
    """
    points = unproject(landmarks.astype(np.float64), intrinsics)
    weights = np.zeros(len(shape))
    if np.issubdtype(np.asarray(stable).dtype, np.integer):
        weights[stable] = 1
    else:
        weights = np.asarray(stable, float)
    used = weights > 0
    scale, rotation, translation = similarity(shape[used], points[:, used], weights[used])
    scale = scale[:, None]
    translation = translation / scale
    local = np.einsum("tji,tnj->tni", rotation, points / scale[..., None] - translation[:, None])
    return rotation, translation, local
