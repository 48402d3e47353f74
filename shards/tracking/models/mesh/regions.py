"""The turned squares around lips and eyes, of which the network looks at a feature map's points once more."""

# mypy: disable-error-code="no-untyped-def,misc"
# Numba gives kernels their types.
from __future__ import annotations

import math

import numpy as np

from heads.raster.simd.jit import kernel

F32 = np.float32
IRIS, RING = 5, 16  # landmarks of an iris; those of an eye's part, the first ones, around the opening


@kernel
def place_regions(mesh, points, ends, corners, room, side, scale, matrices):
    """``matrices [R, 6]`` from points of the squares to those of the feature map · MediaPipe's Landmarks2TransformMatrix.

    Args:
        mesh: ``[468, 3]`` px of the picture.
        points: landmarks around which the squares are, one square after the other; ends: where each one's end.
        corners: ``[R, 2]`` landmarks whose line is level in a square.
        room: size of a square relative to its landmarks' extent; side: its points along a side.
        scale: px of the picture per px of the feature map.
    """
    start = 0
    for number in range(len(ends)):
        left, right = corners[number]
        angle = math.atan2(mesh[right, 1] - mesh[left, 1], mesh[right, 0] - mesh[left, 0])
        c, s = math.cos(angle), math.sin(angle)
        low_x = low_y = math.inf
        high_x = high_y = -math.inf
        for k in range(start, ends[number]):
            x, y = mesh[points[k], 0], mesh[points[k], 1]
            u, v = (c * x + s * y) / scale, (c * y - s * x) / scale
            low_x, high_x, low_y, high_y = min(low_x, u), max(high_x, u), min(low_y, v), max(high_y, v)
        start = ends[number]
        across, down = (high_x - low_x) * room / side, (high_y - low_y) * room / side
        u, v = (low_x + high_x) / 2 - across * (side - 1) / 2, (low_y + high_y) / 2 - down * (side - 1) / 2
        matrix = matrices[number]
        matrix[0], matrix[1], matrix[2] = F32(c * across), F32(-s * down), F32(c * u - s * v - 0.5)
        matrix[3], matrix[4], matrix[5] = F32(s * across), F32(c * down), F32(s * u + c * v - 0.5)


@kernel
def put_landmarks(maps, mesh, parts, irises, flat, ends, matrices, scale, landmarks):
    """``landmarks [478, 3]`` px of the picture: the mesh's, with those of lips, eyes and irises as their squares have them.

    Args:
        maps: what the network wrote; mesh, parts, irises: where in it the mesh's landmarks and those of each square start.
        flat, ends, matrices, scale: as :func:`place_regions` takes and gives them; the first square is the lips'.
    """
    surface = len(landmarks) - 2 * IRIS
    for k in range(surface):
        for axis in range(3):
            landmarks[k, axis] = maps[mesh + 3 * k + axis]
    half, start = 0.5 * scale, 0
    for number in range(len(ends)):
        matrix = matrices[number]
        a, b, c, d = matrix[0], matrix[1], matrix[3], matrix[4]
        shift_x, shift_y = (matrix[2] + 0.5) * scale, (matrix[5] + 0.5) * scale
        for k in range(ends[number] - start):
            x, y = maps[parts[number] + 2 * k] - half, maps[parts[number] + 2 * k + 1] - half
            point = landmarks[flat[start + k]]
            point[0], point[1] = F32(a * x + b * y + shift_x), F32(c * x + d * y + shift_y)
        if number > 0:
            depth = F32(0)
            for k in range(RING):
                depth += landmarks[flat[start + k], 2] / F32(RING)
            for k in range(IRIS):
                at = irises[number - 1] + 2 * k
                x, y = maps[at] - half, maps[at + 1] - half
                point = landmarks[surface + (number - 1) * IRIS + k]
                point[0], point[1], point[2] = F32(a * x + b * y + shift_x), F32(c * x + d * y + shift_y), depth
        start = ends[number]
