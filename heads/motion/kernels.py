"""Kernels of the tri-plane hash encoding on a CPU: features of positions, and the gradients of tables and positions.

The tables of three planes are visited one after the other, level by level, so that what a level reads stays in the cache. A
plane is one thread's work: its table's gradient is added up in the order of the positions, the same bits in every run.
All arrays are flat.
"""

# mypy: disable-error-code="no-untyped-def,misc"
# Numba gives kernels their types.
from __future__ import annotations

import numpy as np

from heads.raster.simd.jit import inline, kernel

MULTIPLIER = np.uint32(2_654_435_761)  # second prime of the hash · paper (Müller et al. 2022, eq. 4)


@inline
def _entry(x, y, side, size, hashed):
    """Row of a level's table that holds the grid point (x, y)."""
    if hashed:  # a power of two
        return np.int64((np.uint32(x) ^ (np.uint32(y) * MULTIPLIER)) & np.uint32(size - 1))
    index = x + y * side
    return index - size if index >= size else index  # the last column's neighbour


@inline
def _cell(u, v, side, size, offset, hashed, features):
    """Where a position lies in its cell of a level's grid, and where the features of the cell's four corners begin."""
    u, v = u + np.float32(0.5), v + np.float32(0.5)
    x, y = np.int64(u), np.int64(v)
    return (
        u - np.float32(x),
        v - np.float32(y),
        (offset + _entry(x, y, side, size, hashed)) * features,
        (offset + _entry(x + 1, y, side, size, hashed)) * features,
        (offset + _entry(x, y + 1, side, size, hashed)) * features,
        (offset + _entry(x + 1, y + 1, side, size, hashed)) * features,
    )


@kernel
def encode(points, table, axes, scales, sides, sizes, offsets, features, dense, out, column, width):
    """Write features of one plane: ``out[i * width + column + level * features + f]``.

    Args:
        points: ``[N * 3]`` in [0, 1].
        table: ``[rows * features]`` of this plane.
        axes: the plane's two coordinates.
        scales, sides, sizes, offsets: of the levels; from level ``dense`` on, tables are hashed.
    """
    count, first, second = len(points) // 3, axes[0], axes[1]
    for level in range(len(scales)):
        scale, side, size, offset = scales[level], sides[level], sizes[level], offsets[level]
        hashed = level >= dense
        for i in range(count):
            u, v = points[3 * i + first] * scale, points[3 * i + second] * scale
            fx, fy, a, b, c, d = _cell(u, v, side, size, offset, hashed, features)
            at = i * width + column + level * features
            for f in range(features):
                near = table[a + f] + fx * (table[b + f] - table[a + f])
                far = table[c + f] + fx * (table[d + f] - table[c + f])
                out[at + f] = near + fy * (far - near)


@kernel
def encode_backward(
    points, table, axes, scales, sides, sizes, offsets, features, dense, upstream, column, width, of_table, of_points
):
    """Add to the gradients of one plane's table, and of its positions ``of_points [N * 2]`` along the plane's two axes."""
    count, first, second = len(points) // 3, axes[0], axes[1]
    one = np.float32(1)
    for level in range(len(scales)):
        scale, side, size, offset = scales[level], sides[level], sizes[level], offsets[level]
        hashed = level >= dense
        for i in range(count):
            u, v = points[3 * i + first] * scale, points[3 * i + second] * scale
            fx, fy, a, b, c, d = _cell(u, v, side, size, offset, hashed, features)
            at = i * width + column + level * features
            along, across = np.float32(0), np.float32(0)
            for f in range(features):
                slope = upstream[at + f]
                lower, upper = table[b + f] - table[a + f], table[d + f] - table[c + f]
                along += slope * (lower + fy * (upper - lower))
                left, right = table[c + f] - table[a + f], table[d + f] - table[b + f]
                across += slope * (left + fx * (right - left))
                of_table[a + f] += slope * (one - fx) * (one - fy)
                of_table[b + f] += slope * fx * (one - fy)
                of_table[c + f] += slope * (one - fx) * fy
                of_table[d + f] += slope * fx * fy
            of_points[2 * i] += along * scale
            of_points[2 * i + 1] += across * scale
