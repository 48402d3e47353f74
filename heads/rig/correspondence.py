"""FaceMesh's landmarks among the vertices of another mesh: read from a file next to it, or matched from anchors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from configs import InputError
from heads.rig import facemesh

BESIDE = "landmarks.json"
# Multi-PIE's point to FaceMesh's landmark, for the 54 of 68 points at the same place on any head (few of the jaw line).
MULTI_PIE = {
    0: 127, 8: 152, 16: 356,
    17: 70, 18: 63, 19: 105, 20: 66, 21: 107, 22: 336, 23: 296, 24: 334, 25: 293, 26: 300,
    27: 168, 28: 197, 29: 5, 30: 4, 31: 98, 32: 97, 33: 2, 34: 326, 35: 327,
    36: 33, 37: 160, 38: 158, 39: 133, 40: 153, 41: 144, 42: 362, 43: 385, 44: 387, 45: 263, 46: 373, 47: 380,
    48: 61, 49: 39, 50: 37, 51: 0, 52: 267, 53: 269, 54: 291, 55: 321, 56: 314, 57: 17, 58: 84, 59: 91,
    60: 78, 61: 82, 62: 13, 63: 312, 64: 308, 65: 317, 66: 14, 67: 87,
}  # fmt: skip


def read_landmarks(folder: Path, n_vertices: int) -> np.ndarray | None:
    """Vertex numbers ``[478]`` from ``landmarks.json`` in a folder; ``None`` without such a file.

    The file is ``{"facemesh": [478 numbers from 0]}``.

    Raises:
        InputError: an unreadable file, another number of landmarks, or vertices that the mesh lacks.
    """
    path = folder / BESIDE
    if not path.exists():
        return None
    try:
        numbers = np.array(json.loads(path.read_text(encoding="utf-8"))["facemesh"], np.int64)
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise InputError(f"'{path}': expected {{\"facemesh\": [478 vertex numbers]}} ({error})") from None
    if numbers.shape != (facemesh.N_LANDMARKS,) or numbers.min() < 0 or numbers.max() >= n_vertices:
        raise InputError(
            f"'{path}': expected {facemesh.N_LANDMARKS} vertex numbers from 0 to {n_vertices - 1}, got shape "
            f"{numbers.shape} with values from {numbers.min(initial=0)} to {numbers.max(initial=0)}"
        )
    return numbers


def match_surface(template: np.ndarray, points: np.ndarray, anchors: dict[int, int]) -> np.ndarray:
    """Match each of FaceMesh's 468 surface landmarks to a different one of ``points``.

    A thin-plate spline warps the template so that the anchors coincide. Then landmarks are assigned to points with the
    least total squared distance, among the points nearest to each landmark.

    Args:
        template: ``[478, 3]`` landmarks of a mean head.
        points: ``[P, 3]`` neutral vertices to choose from, in about the same axes and unit.
        anchors: FaceMesh landmark to row of ``points``.

    Returns:
        rows ``[468]`` of ``points``.

    Raises:
        InputError: fewer points than landmarks.
    """
    from scipy.interpolate import RBFInterpolator
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial import cKDTree

    source, target = template[list(anchors)], points[list(anchors.values())]
    warped = RBFInterpolator(source, target, kernel="thin_plate_spline")(template[: facemesh.N_SURFACE])
    near = np.unique(cKDTree(points).query(warped, k=min(8, len(points)))[1])
    near = np.union1d(near, list(anchors.values()))
    cost = ((warped[:, None] - points[None, near]) ** 2).sum(-1)
    column = {int(row): k for k, row in enumerate(near)}
    for landmark, row in anchors.items():
        cost[landmark, column[row]] = -1.0
    if len(near) < len(warped):
        raise InputError(f"rig: {len(near)} points are too few to be FaceMesh's {len(warped)} landmarks")
    return near[linear_sum_assignment(cost)[1]]


def match_irises(template: np.ndarray, centre: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Rows ``[5]`` of an eyeball's ``points [P, 3]`` where the iris landmarks ``template [5, 3]`` lie on it.

    Args:
        template: iris landmarks relative to the centre of their own eyeball.
        centre: ``[3]`` of this eyeball.
    """
    from scipy.spatial import cKDTree

    return cKDTree(points).query(centre + template)[1]
