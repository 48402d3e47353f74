"""Kernels of the penalties on a UV map: distance from its start, excess of offsets and scales, roughness.

Value and gradient come from one pass over the texels, roughness from another; the reference in plain PyTorch is in
:mod:`heads.keeping`. Arrays are flat, numbers float32.
"""

# mypy: disable-error-code="no-untyped-def,misc"
# Numba gives kernels their types.
from __future__ import annotations

import math

import numpy as np

from heads.raster.simd.jit import inline, kernel

F32 = np.float32
OFFSETS, QUATS, SCALES, COLORS = 3, 4, 3, 3
CHANNELS = OFFSETS + QUATS + SCALES + COLORS + 1


@inline
def _drift(values, count, n, start, first, shares, twice, gradient):
    """Sum of share * (value - start)^2 over the channels of one part of a texel; writes its gradient."""
    total = F32(0)
    for c in range(count):
        away = values[n * count + c] - start[n * CHANNELS + first + c]
        total += shares[first + c] * away * away
        gradient[n * count + c] = twice * shares[first + c] * away
    return total


@inline
def _excess_of_offsets(offsets, n, free, twice, gradient):
    """Squared length beyond ``free``."""
    x, y, z = offsets[3 * n], offsets[3 * n + 1], offsets[3 * n + 2]
    length = F32(math.sqrt(x * x + y * y + z * z + F32(1e-12)))
    excess = max(length - free, F32(0))
    pull = twice * excess / length
    gradient[3 * n] += pull * x
    gradient[3 * n + 1] += pull * y
    gradient[3 * n + 2] += pull * z
    return excess * excess


@inline
def _excess_of_scales(scales, n, largest, twice, gradient):
    """Squared excess of the scales themselves over ``largest``."""
    total, limit = F32(0), F32(math.log(largest))
    for k in range(3 * n, 3 * n + 3):
        if scales[k] > limit:
            size = F32(math.exp(min(scales[k], F32(20))))
            excess = size - largest
            total += excess * excess
            gradient[k] += twice * excess * size if scales[k] <= F32(20) else F32(0)
    return total


@inline
def _needle(scales, n, ratio, twice, gradient):
    """Squared excess of the longest axis over the second one, in log units, beyond ``ratio``."""
    i, j, k = 3 * n, 3 * n + 1, 3 * n + 2
    if scales[i] < scales[j]:
        i, j = j, i
    if scales[j] < scales[k]:
        j, k = k, j
    if scales[i] < scales[j]:
        i, j = j, i
    excess = max(scales[i] - scales[j] - ratio, F32(0))
    gradient[i] += twice * excess
    gradient[j] -= twice * excess
    return excess * excess


@kernel
def keep(
    offsets, quats, scales, colors, opacities, start, shares, number, weight, free, ratio,
    v_offsets, v_quats, v_scales, v_colors, v_opacities,
):  # fmt: skip
    """Weighted sum of all penalties; their gradients are written to the arrays at the end.

    ``start [N, 14]``: the initial map; ``shares [14]``: weights of the squared distance from it, per channel.
    ``weight``: of the other penalties; ``free``: limit of offsets and scales; ``ratio``: limit of the log ratio of axes.
    """
    total = 0.0
    two = F32(2)
    mean, third = weight / F32(number), weight / F32(3 * number)
    for n in range(number):
        way = _drift(offsets, OFFSETS, n, start, 0, shares, two, v_offsets)
        way += _drift(quats, QUATS, n, start, 3, shares, two, v_quats)
        way += _drift(scales, SCALES, n, start, 7, shares, two, v_scales)
        way += _drift(colors, COLORS, n, start, 10, shares, two, v_colors)
        way += _drift(opacities, 1, n, start, 13, shares, two, v_opacities)
        beyond = mean * _excess_of_offsets(offsets, n, free, two * mean, v_offsets)
        beyond += third * _excess_of_scales(scales, n, free, two * third, v_scales)
        beyond += mean * _needle(scales, n, ratio, two * mean, v_scales)
        total += way + beyond
    return total


@kernel
def smooth(offsets, start, links, axes, number, weight, moved, v_offsets):
    """Weighted sum over linked texels of the squared difference of their offsets' change; its gradient is added.

    ``start [N, 14]``: the initial map; ``links [N, 4]``, ``axes [N, 3, 3]``: see :class:`heads.gaussians.neighbours.Neighbours`;
    ``moved [N, 3]``: scratch.
    """
    for n in range(number):
        x, y, z = (
            offsets[3 * n] - start[CHANNELS * n],
            offsets[3 * n + 1] - start[CHANNELS * n + 1],
            offsets[3 * n + 2] - start[CHANNELS * n + 2],
        )
        for c in range(3):
            moved[3 * n + c] = axes[9 * n + 3 * c] * x + axes[9 * n + 3 * c + 1] * y + axes[9 * n + 3 * c + 2] * z
    total, twice = 0.0, F32(2) * weight
    for n in range(number):
        x, y, z = F32(0), F32(0), F32(0)
        for k in range(4 * n, 4 * n + 4):
            m = links[k]
            dx, dy, dz = (
                moved[3 * n] - moved[3 * m],
                moved[3 * n + 1] - moved[3 * m + 1],
                moved[3 * n + 2] - moved[3 * m + 2],
            )
            x, y, z = x + dx, y + dy, z + dz
            total += F32(0.5) * weight * (dx * dx + dy * dy + dz * dz)  # both texels of a pair count it
        for c in range(3):
            pull = axes[9 * n + c] * x + axes[9 * n + 3 + c] * y + axes[9 * n + 6 + c] * z
            v_offsets[3 * n + c] += twice * pull
    return total
