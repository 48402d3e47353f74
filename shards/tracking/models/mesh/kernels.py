"""Kernels of small convolutional networks: one pass over a layer's pixels for what frameworks compute operator by operator.

A layer is a depthwise 3 x 3 convolution, a pointwise one, the sum with the layer's input and a PReLU; its pixels stay in the
cache from the first to the last. Arrays are flat and float32. Maps ``[H + 2, W + 2, C]`` have a margin of zeros.
"""

# mypy: disable-error-code="no-untyped-def,misc"
# Numba gives kernels their types.
from __future__ import annotations

import numpy as np

from heads.raster.simd.jit import inline, kernel
from heads.raster.simd.maths import fma
from heads.raster.simd.memory import load, store
from shards.tracking.models.mesh.tiles import OUT, TILE, alone, pooled, summed

F32, INDEX = np.float32, np.uintp
LANES = 8
ROOM = 4096  # numbers of the pixels that are taken at once: 16 kB of an L1 cache of at least 32
# Columns of a program, one row a step.
KIND, SOURCE, TARGET, ADDED, POOLED, ADDED_CHANNELS, SIDE, SOURCE_SIDE, CHANNELS, OUTPUTS, STRIDE, REACH = range(12)
DEPTHWISE, DEPTHWISE_BIAS, WEIGHTS, BIAS, SLOPES, MARGIN = range(12, 18)
COLUMNS = 18
DEPTHWISE_STEP, PATCH_STEP, CROP_STEP = range(3)


@inline
def _filter_row(maps, parameters, source, width, channels, stride, weights, bias, count, rows, to):
    """``rows[to :]``: depthwise 3 x 3 sums ``[count, channels]`` of a row of outputs; ``source``: its first input."""
    c, step, line = INDEX(channels), INDEX(stride * channels), INDEX(width * channels)
    for k in range(INDEX(0), c, INDEX(LANES)):
        w = INDEX(weights) + k
        w0, w1, w2 = load(parameters, w), load(parameters, w + c), load(parameters, w + INDEX(2) * c)
        w += INDEX(3) * c
        w3, w4, w5 = load(parameters, w), load(parameters, w + c), load(parameters, w + INDEX(2) * c)
        w += INDEX(3) * c
        w6, w7, w8 = load(parameters, w), load(parameters, w + c), load(parameters, w + INDEX(2) * c)
        start = load(parameters, INDEX(bias) + k)
        at, end = INDEX(source) + k, INDEX(to) + k
        for _ in range(count):
            value = fma(load(maps, at), w0, start)
            value = fma(load(maps, at + c), w1, value)
            value = fma(load(maps, at + c + c), w2, value)
            below = at + line
            value = fma(load(maps, below), w3, value)
            value = fma(load(maps, below + c), w4, value)
            value = fma(load(maps, below + c + c), w5, value)
            below += line
            value = fma(load(maps, below), w6, value)
            value = fma(load(maps, below + c), w7, value)
            value = fma(load(maps, below + c + c), w8, value)
            store(rows, end, value)
            at += step
            end += c


@inline
def _multiply(maps, parameters, rows, count, depth, step, where, added, line):
    """The pointwise part of a layer: ``count`` pixels of ``rows [count, depth]`` to their places ``where`` in the maps.

    Args:
        step: row of the program; added: where each pixel's own input is, -1 where nothing is added.
        line: numbers in a row of the map that is added.
    """
    width = step[ADDED_CHANNELS]
    for p in range(count, TILE):  # a tile's pixels beyond the last one go where nothing is read
        where[p], added[p] = len(maps) - step[OUTPUTS], 0
    for out in range(0, step[OUTPUTS], OUT):
        w, bias, slopes = step[WEIGHTS] + out * depth, step[BIAS] + out, step[SLOPES] + out
        for tile in range(0, count, TILE):
            first = max(0, min(tile, count - TILE))
            row = first * depth
            if step[ADDED] < 0 or out >= width:
                alone(rows, row, depth, parameters, w, bias, slopes, maps, where, added, first, out, line, width)
            elif step[POOLED]:
                pooled(rows, row, depth, parameters, w, bias, slopes, maps, where, added, first, out, line, width)
            else:
                summed(rows, row, depth, parameters, w, bias, slopes, maps, where, added, first, out, line, width)


@inline
def _crop(maps, step, matrix):
    """A turned part of a map, interpolated linearly, zero outside: ``matrix [6]`` takes its pixels to those of the map."""
    side, from_side, c = step[SIDE], step[SOURCE_SIDE], step[CHANNELS]
    line = (from_side + 2) * c
    for y in range(side):
        for x in range(side):
            u = matrix[0] * F32(x) + matrix[1] * F32(y) + matrix[2]
            v = matrix[3] * F32(x) + matrix[4] * F32(y) + matrix[5]
            to = INDEX(step[TARGET] + ((y + 1) * (side + 2) + x + 1) * c)
            last = F32(from_side - 1)
            inside = u >= F32(0) and v >= F32(0) and u <= last and v <= last
            column, row = (int(u), int(v)) if inside else (0, 0)
            fx, fy = u - F32(column), v - F32(row)
            at = INDEX(step[SOURCE] + (row + 1) * line + (column + 1) * c)
            for k in range(INDEX(0), INDEX(c), INDEX(LANES)):
                a = load(maps, at + k)
                if inside:
                    above = load(maps, at + k + INDEX(c))
                    upper = fma(above - a, fx, a)
                    a, b = load(maps, at + k + INDEX(line)), load(maps, at + k + INDEX(line + c))
                    lower = fma(b - a, fx, a)
                    store(maps, to + k, fma(lower - upper, fy, upper))
                else:
                    store(maps, to + k, a - a)


@kernel
def run(program, parameters, maps, matrices, rows, where, added):
    """Runs the steps of a program, one after the other.

    Args:
        program: ``[steps, COLUMNS]`` int64.
        parameters: weights of all steps, where the program says; maps: all feature maps, in the same way.
        matrices: ``[crops, 6]`` of the steps that crop, in their order.
        rows: scratch ``[ROOM + TILE * depth]``; where, added: scratch ``[ROOM]`` int64.
    """
    crops = 0
    for number in range(len(program)):
        step = program[number]
        if step[KIND] == CROP_STEP:
            _crop(maps, step, matrices[crops])
            crops += 1
            continue
        side, from_side, channels, reach = step[SIDE], step[SOURCE_SIDE], step[CHANNELS], step[REACH]
        depth = channels if step[KIND] == DEPTHWISE_STEP else reach * reach * channels
        line, margin, stride = (from_side + 2) * channels, step[MARGIN], step[STRIDE]
        added_line = (side * (2 if step[POOLED] else 1) + 2) * step[ADDED_CHANNELS]
        at_once = max(1, ROOM // (depth * side))
        for top in range(0, side, at_once):
            count = 0
            for y in range(top, min(top + at_once, side)):
                first = step[SOURCE] + (y * stride + margin) * line + margin * channels
                if step[KIND] == DEPTHWISE_STEP:
                    _filter_row(
                        maps, parameters, first, from_side + 2, channels, stride, step[DEPTHWISE],
                        step[DEPTHWISE_BIAS], side, rows, count * depth,
                    )  # fmt: skip
                else:
                    for x in range(side):
                        to, at = INDEX((count + x) * depth), INDEX(first + x * stride * channels)
                        for _ in range(reach):
                            for k in range(INDEX(0), INDEX(reach * channels), INDEX(LANES)):
                                store(rows, to + k, load(maps, at + k))  # what is too much is overwritten by the next
                            to += INDEX(reach * channels)
                            at += INDEX(line)
                for x in range(side):
                    where[count] = step[TARGET] + ((y + 1) * (side + 2) + x + 1) * step[OUTPUTS]
                    added[count] = -1
                    if step[ADDED] >= 0:
                        if step[POOLED]:
                            added[count] = step[ADDED] + (2 * y + 1) * added_line + (2 * x + 1) * step[ADDED_CHANNELS]
                        else:
                            added[count] = step[ADDED] + (y + 1) * added_line + (x + 1) * step[ADDED_CHANNELS]
                    count += 1
            _multiply(maps, parameters, rows, count, depth, step, where, added, added_line)
