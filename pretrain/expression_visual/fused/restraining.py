"""Kernels of the penalties on UV maps: offsets beyond a triangle's size and Gaussians that grow, and their gradient.

Maps are flat ``[N, 14]``: offset 3, quaternion 4, log-scale 3, colour 3, opacity 1. A call works on one map. The reference
in plain PyTorch is :func:`pretrain.expression_visual.fused.penalties.penalties_reference`.
"""

# mypy: disable-error-code="no-untyped-def,misc"
# Numba gives kernels their types.
from __future__ import annotations

import math

from heads.raster.simd.jit import inline, kernel

CHANNELS, SCALE = 14, 7


@inline
def _beyond(maps, at, free):
    """Length of a texel's offset, and how far it exceeds ``free``."""
    x, y, z = maps[at], maps[at + 1], maps[at + 2]
    length = math.sqrt(x * x + y * y + z * z + maps.dtype.type(1e-12))
    return length, max(length - free, maps.dtype.type(0))


@kernel
def restrain(maps, largest, free, count, sums):
    """Add the sums of the squared excesses of offsets over ``free`` and of log-scales over ``largest [N, 3]`` to ``sums [2]``."""
    offsets, scales = 0.0, 0.0
    for i in range(count):
        at = i * CHANNELS
        _, excess = _beyond(maps, at, free)
        offsets += excess * excess
        for k in range(3):
            more = max(maps[at + SCALE + k] - largest[3 * i + k], maps.dtype.type(0))
            scales += more * more
    sums[0] += offsets
    sums[1] += scales


@kernel
def restrain_backward(maps, largest, free, count, of_offsets, of_scales, out):
    """Write the gradient ``[N, 14]`` of ``of_offsets`` and ``of_scales`` times half the two sums of :func:`restrain`."""
    zero = maps.dtype.type(0)
    for i in range(count):
        at = i * CHANNELS
        out[at : at + CHANNELS] = zero
        length, excess = _beyond(maps, at, free)
        if excess > zero:
            for k in range(3):
                out[at + k] = of_offsets * excess / length * maps[at + k]
        for k in range(SCALE, SCALE + 3):
            out[at + k] = of_scales * max(maps[at + k] - largest[3 * i + k - SCALE], zero)
