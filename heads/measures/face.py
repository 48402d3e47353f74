"""Measures of a face from its landmarks, and of rigs and expressions through the same landmarks.

Landmarks ``[..., N, 2 or 3]`` are FaceMesh's (:mod:`heads.rig.facemesh`), as numpy arrays or tensors, in px or in rig
units. Drop the third coordinate to measure in the picture's plane.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from configs import InputError
from heads.rig import Rig, facemesh, load_rig

Array = TypeVar("Array", np.ndarray, Tensor)


def distance(points: Array, a: int, b: int) -> Array:
    """Distance ``[...]`` between two landmarks of ``points [..., N, 2 or 3]``, in the points' unit."""
    return _length(points[..., a, :] - points[..., b, :])


def inner_lip_distance(points: Array) -> Array:
    """Distance ``[...]`` between the middles of the inner lips of ``points [..., N, 2 or 3]``."""
    return distance(points, *facemesh.INNER_MIDDLE)


def mouth_opening(points: Array) -> Array:
    """Vertical distance ``[...]`` of the inner lips, the mean of three pairs; below zero where the lips cross.

    Args:
        points: ``[..., N, 2 or 3]`` with y down.
    """
    lower, upper = points[..., list(facemesh.INNER_LOWER), 1], points[..., list(facemesh.INNER_UPPER), 1]
    return (lower - upper).mean(-1)


def mouth_width(points: Array) -> Array:
    """Distance ``[...]`` between the corners of the mouth of ``points [..., N, 2 or 3]``."""
    left, right = facemesh.LIP_CORNERS[1], facemesh.LIP_CORNERS[0]
    return distance(points, left, right)


def eye_distance(points: Array) -> Array:
    """Distance ``[...]`` between the eyes' centres (means of their corners) of ``points [..., N, 2 or 3]``.

    Give three dimensions where a rotation of the head must not change it.
    """
    right = points[..., list(facemesh.CORNERS_RIGHT), :].mean(-2)
    left = points[..., list(facemesh.CORNERS_LEFT), :].mean(-2)
    return _length(right - left)


def outer_eye_distance(points: Array) -> Array:
    """Distance ``[...]`` between the eyes' outer corners of ``points [..., N, 2 or 3]``; speech does not change it."""
    right, left = facemesh.OUTER_CORNERS
    return distance(points, left, right)


def iris_distance(points: Array) -> Array:
    """Distance ``[...]`` between the irises' centres of ``points [..., N, 2 or 3]``."""
    return distance(points, facemesh.IRIS_LEFT[0], facemesh.IRIS_RIGHT[0])


def lip_gap(points: Array) -> Array:
    """Inner lip distance ``[...]`` of ``points [..., N, 2 or 3]`` in eye distances: how open the mouth is."""
    return inner_lip_distance(points) / eye_distance(points)


def lid_gap(points: Array) -> Array:
    """Vertical opening ``[..., 2]`` of the left and the right eye of ``points [..., N, 2 or 3]``, y down."""
    gaps = [
        _mean([points[..., lower, 1] - points[..., upper, 1] for upper, lower in eye]) for eye in facemesh.LID_PAIRS
    ]
    return torch.stack(gaps, -1) if isinstance(points, Tensor) else np.stack(gaps, -1)


def _length(vectors: Array) -> Array:
    return vectors.norm(dim=-1) if isinstance(vectors, Tensor) else np.linalg.norm(vectors, axis=-1)


def _mean(values: list[Array]) -> Array:
    stacked = torch.stack(values, -1) if isinstance(values[0], Tensor) else np.stack(values, -1)
    return stacked.mean(-1)


@lru_cache(maxsize=2)
def default_rig() -> Rig:
    """The shipped rig, loaded once."""
    return load_rig()


@lru_cache(maxsize=2)
def mirror_signs(rig: Rig) -> dict[str, np.ndarray]:
    """Signs, 1 or -1, by which mirroring a head multiplies its coefficients: ``identity [K_id]`` and ``expression [K]``.

    Raises:
        InputError: a component is neither symmetric nor antisymmetric, so the rig cannot express a mirrored head.
    """
    from scipy.spatial import cKDTree

    flip, mean = np.array([-1.0, 1.0, 1.0]), _points(rig, rig.mean)
    apart, other = cKDTree(mean).query(mean * flip)
    signs = {}
    for name in ("identity", "expression"):
        basis = _points(rig, getattr(rig, name))
        mirrored = basis[:, other] * flip
        sign = np.sign((basis * mirrored).sum((1, 2)))
        signs[name] = sign.astype(np.float32)
        off = np.abs(mirrored - sign[:, None, None] * basis).max()
        if max(apart.max(), off) > 1e-3:
            raise InputError(f"rig {rig.name}: its {name} components are not symmetric, so heads cannot be mirrored; "
                             "set augment.mirror=0")  # fmt: skip
    return signs


def _points(rig: Rig, values: Tensor) -> np.ndarray:
    """Landmarks of ``values [..., V, 3]``; all vertices of a rig that names none."""
    return (rig.landmarks(values) if rig.n_landmarks else values).cpu().numpy()


@dataclass(frozen=True)
class LipMotion:
    """The lips of a sequence of T frames.

    Attributes:
        lips: ``[T, L, 3]`` lip vertices, rig units.
        opening: ``[T]`` as :func:`mouth_opening`, rig units.
        gap: ``[T]`` as :func:`lip_gap`, eye distances.
    """

    lips: np.ndarray
    opening: np.ndarray
    gap: np.ndarray


@torch.no_grad()
def lip_motion(rig: Rig, identity: np.ndarray, expression: np.ndarray, block: int = 512) -> LipMotion:
    """Lips of one person under a sequence of expressions.

    Args:
        identity: ``[K_id]``; expression: ``[T, K]``.
        block: frames computed at once.
    """
    lips, opening, gap = [], [], []
    person = torch.tensor(identity)[None]
    for start in range(0, len(expression), block):
        part = torch.tensor(expression[start : start + block])
        vertices = rig.vertices(person.expand(len(part), -1), part)
        points = rig.landmarks(vertices)
        lips.append(points[:, list(facemesh.LIPS)].numpy())
        opening.append(mouth_opening(points).numpy())
        gap.append(lip_gap(points).numpy())
    return LipMotion(np.concatenate(lips), np.concatenate(opening), np.concatenate(gap))


@torch.no_grad()
def component_importance(rig: Rig, scale: np.ndarray, lips: float) -> np.ndarray:
    """Mean squared motion of the face by each expression component at its standard deviation ``scale [K]``: ``[K]``, mean 1.

    ``lips``: the share (0..1) of the weight that comes from the lip landmarks alone; the rest comes from all landmarks.
    """
    count = len(scale)
    identity = torch.zeros(count + 1, rig.n_identity)
    moves = torch.cat([torch.zeros(1, count), torch.diag(torch.from_numpy(np.asarray(scale, np.float32)))])
    vertices = rig.landmarks(rig.vertices(identity, moves))
    energy = (vertices[1:] - vertices[:1]).square().sum(-1)
    of_lips, of_all = energy[:, list(facemesh.LIPS)].mean(1), energy.mean(1)
    mixed = lips * of_lips / of_lips.mean().clamp_min(1e-12) + (1 - lips) * of_all / of_all.mean().clamp_min(1e-12)
    return (mixed / mixed.mean()).numpy()


@torch.no_grad()
def mouth_directions(rig: Rig, scale: np.ndarray) -> np.ndarray:
    """Change ``[K, 2]`` of mouth opening and width, rig units, by each expression component at its spread ``scale [K]``.

    A finite difference from the mean head.
    """
    count = len(scale)
    identity = torch.zeros(count + 1, rig.n_identity)
    moves = torch.cat([torch.zeros(1, count), torch.diag(torch.from_numpy(np.asarray(scale, np.float32)))])
    points = rig.landmarks(rig.vertices(identity, moves))
    measured = torch.stack([mouth_opening(points), mouth_width(points)], 1)
    return (measured[1:] - measured[:1]).numpy()


def lip_error(a: np.ndarray, b: np.ndarray) -> float:
    """Mean distance between lip vertices ``a`` and ``b``, ``[T, L, 3]`` each, rig units."""
    return float(np.sqrt(((a - b) ** 2).sum(-1)).mean())
