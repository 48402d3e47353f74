"""Group normalisation followed by SiLU, and the gradient, for pictures ``[B, H, W, C]`` whose channels lie last.

Sources: Wu and He, *Group normalization* (2018); Elfwing et al., *Sigmoid-weighted linear units* (2018). Arrays are flat,
C is a multiple of eight, and a call works on images ``begin ... end - 1``. Pixels are taken in runs that stay in the L1
cache; their float32 sums are added in float64.
"""

# mypy: disable-error-code="no-untyped-def,misc"
# Numba gives kernels their types.
from __future__ import annotations

import math

from heads.raster.simd.jit import inline, kernel
from heads.raster.simd.maths import exp_fast, fma, splat
from heads.raster.simd.memory import load, store
from heads.raster.simd.vector import WIDTH

RUN = 64  # pixels of a run · guess
TABLE = 4  # numbers per channel that the kernels keep in ``table``


@inline
def _add(sums, at, vector, lanes):
    """Add eight lanes to ``sums[at : at + 8]``, through the eight numbers of ``lanes``."""
    store(lanes, 0, vector)
    for k in range(WIDTH):
        sums[at + k] += lanes[k]


@inline
def _by_group(sums, channels, size):
    """Replace the sums of channels by those of their groups of ``size`` channels."""
    for first in range(0, channels, size):
        total = 0.0
        for c in range(first, first + size):
            total += sums[c]
        sums[first : first + size] = total


@kernel
def normalise(x, skip, weight, bias, begin, end, pixels, channels, size, epsilon, sums, table, means, rates, out):
    """``silu(weight * (x - mean) / deviation + bias) + skip`` to ``out``; ``skip`` may be empty.

    ``size``: channels of a group; ``sums [C]`` float64 and ``table [TABLE * C]``: scratch; ``means`` and ``rates [B, C]``: mean
    and 1 / deviation of each channel's group, for the gradient.
    """
    zero = splat(x, 0.0)
    for image in range(begin, end):
        start, of = image * pixels * channels, image * channels
        sums[:channels] = 0.0
        for first in range(0, pixels, RUN):
            for c in range(0, channels, WIDTH):
                total = zero
                for p in range(first, min(first + RUN, pixels)):
                    total = total + load(x, start + p * channels + c)
                _add(sums, c, total, table)
        _by_group(sums, channels, size)
        for c in range(channels):
            means[of + c] = sums[c] / (size * pixels)
        sums[:channels] = 0.0
        for first in range(0, pixels, RUN):
            for c in range(0, channels, WIDTH):
                total, mean = zero, load(means, of + c)
                for p in range(first, min(first + RUN, pixels)):
                    off = load(x, start + p * channels + c) - mean
                    total = fma(off, off, total)
                _add(sums, c, total, table)
        _by_group(sums, channels, size)
        for c in range(channels):
            rates[of + c] = 1 / math.sqrt(sums[c] / (size * pixels) + epsilon)
            table[c] = rates[of + c] * weight[c]
            table[channels + c] = bias[c] - means[of + c] * table[c]
        for first in range(0, pixels, RUN):
            for c in range(0, channels, WIDTH):
                factor, shift = load(table, c), load(table, channels + c)
                for p in range(first, min(first + RUN, pixels)):
                    at = start + p * channels + c
                    z = fma(load(x, at), factor, shift)
                    value = z / (1.0 + exp_fast(-z))
                    store(out, at, value + load(skip, at) if len(skip) > 0 else value)


@kernel
def normalise_backward(
    upstream, x, weight, bias, means, rates, begin, end, pixels, channels, size, sums, table, v_weight, v_bias, out
):
    """Gradient in ``x`` to ``out``, and each image's part of those in ``weight`` and ``bias``, ``[B, C]``.

    ``sums [2 * C]`` float64 and ``table [TABLE * C]``: scratch.
    """
    zero = splat(x, 0.0)
    for image in range(begin, end):
        start, of = image * pixels * channels, image * channels
        sums[:] = 0.0
        for first in range(0, pixels, RUN):
            for c in range(0, channels, WIDTH):
                mean, rate, factor, shift = load(means, of + c), load(rates, of + c), load(weight, c), load(bias, c)
                plain, scaled = zero, zero
                for p in range(first, min(first + RUN, pixels)):
                    at = start + p * channels + c
                    unit = (load(x, at) - mean) * rate
                    z = fma(unit, factor, shift)
                    gate = 1.0 / (1.0 + exp_fast(-z))
                    slope = load(upstream, at) * gate * fma(z, 1.0 - gate, 1.0)
                    store(out, at, slope)
                    plain = plain + slope
                    scaled = fma(slope, unit, scaled)
                _add(sums, c, plain, table)
                _add(sums, channels + c, scaled, table)
        for c in range(channels):
            v_bias[of + c], v_weight[of + c] = sums[c], sums[channels + c]
            sums[c] *= weight[c]
            sums[channels + c] *= weight[c]
        _by_group(sums, channels, size)
        _by_group(sums[channels:], channels, size)
        count = size * pixels
        for c in range(channels):
            rate = rates[of + c]
            table[c] = rate * weight[c]
            table[channels + c] = -rate * rate * sums[channels + c] / count
            table[2 * channels + c] = -rate * sums[c] / count - means[of + c] * table[channels + c]
        for first in range(0, pixels, RUN):
            for c in range(0, channels, WIDTH):
                of_slope, of_x, constant = load(table, c), load(table, channels + c), load(table, 2 * channels + c)
                for p in range(first, min(first + RUN, pixels)):
                    at = start + p * channels + c
                    store(out, at, fma(load(out, at), of_slope, fma(load(x, at), of_x, constant)))
