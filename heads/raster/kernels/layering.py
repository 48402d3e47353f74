"""Kernels that compose a rendered head over its body layer and background, and convert pictures to bytes and back.

One pass over the rows of a frame replaces a dozen passes over whole pictures: it interpolates the displacement field,
samples the body, composes it over the background and under the head, and clamps the result to [0, 1].
"""

# mypy: disable-error-code="no-untyped-def,misc"
# Numba gives kernels their types.
from __future__ import annotations

import math

import numpy as np

from heads.raster.simd.channels import load_pixels, store_pixels
from heads.raster.simd.jit import exact, inline, kernel
from heads.raster.simd.maths import fma, select, splat
from heads.raster.simd.memory import halves_added, load, store
from heads.raster.simd.vector import WIDTH

CHANNELS = 4  # of the body's texture: red, green, blue, alpha


@inline
def _field_row(field, grid, y, height, line):
    """Control displacements ``line [2, columns]`` of picture row ``y``, from ``field [2, rows, columns]``."""
    rows, columns = grid
    place = y * (rows - 1) / max(height - 1, 1)
    upper = min(int(place), rows - 2)
    part = place - upper
    for axis in range(2):
        for column in range(columns):
            at = (axis * rows + upper) * columns + column
            line[axis * columns + column] = field[at] + np.float32(part) * (field[at + columns] - field[at])


@inline
def _places(line, columns, y, width, height, layer, at, fx, fy):
    """Where each pixel of row ``y`` samples the body: ``at``, the index of the upper left one of four pixels, and the
    weights ``fx, fy`` of the right and lower ones; edges are repeated."""
    (layer_width, layer_height), scale, first_place = layer
    step = np.float32((columns - 1) / max(width - 1, 1))
    wide, high = np.float32(width), np.float32(height)
    most_x, most_y, here = np.float32(layer_width - 1), np.float32(layer_height - 1), np.float32(y)
    scale_x, scale_y = np.float32(scale[0]), np.float32(scale[1])
    first_x, first_y = np.float32(first_place[0]), np.float32(first_place[1])
    for cell in range(columns - 1):
        first = np.uintp(math.ceil(cell / step))
        end = np.uintp(width) if cell == columns - 2 else np.uintp(math.ceil((cell + 1) / step))
        left_x, left_y = line[cell], line[columns + cell]
        slope_x, slope_y = line[cell + 1] - left_x, line[columns + cell + 1] - left_y
        for x in range(first, end):
            column = np.float32(np.int32(x))
            part = column * step - np.float32(cell)
            place_x = first_x + scale_x * (column + (left_x + part * slope_x) * wide)
            place_y = first_y + scale_y * (here + (left_y + part * slope_y) * high)
            place_x = np.float32(0) if place_x < np.float32(0) else (most_x if place_x > most_x else place_x)
            place_y = np.float32(0) if place_y < np.float32(0) else (most_y if place_y > most_y else place_y)
            column, row = np.int32(place_x), np.int32(place_y)
            column, row = min(column, np.int32(layer_width - 2)), min(row, np.int32(layer_height - 2))
            fx[x], fy[x] = place_x - np.float32(column), place_y - np.float32(row)
            at[x] = (row * np.int32(layer_width) + column) * np.int32(CHANNELS)


@inline
def _body_row(texture, at, fx, fy, width, stride, left, right, out):
    """Body ``out [width, 4]`` at the places of a row, bilinear; ``stride`` is the texture's width."""
    for x in range(np.uintp(width)):
        # Two neighbouring pixels of four channels are one vector.
        above = load(texture, at[x])
        both = fma(load(texture, at[x] + np.int32(stride * CHANNELS)) - above, splat(texture, fy[x]), above)
        store(out, x * np.uintp(CHANNELS), halves_added(both * fma(right, splat(texture, fx[x]), left)))


@inline
def _layered(front, through, body, cover, ground, zero, one):
    """One channel: ``front`` over the body, with ``cover``, over the ``ground``; kept in [0, 1]."""
    value = fma(fma(body - ground, cover, ground), through, front)
    value = select(value > zero, value, zero)
    return select(value < one, value, one)


@kernel
def layer(head, alphas, texture, layer, behind, field, grid, weights, size, first, last, body, out):
    """Rows ``first ... last - 1`` of the head over the body over the background, ``out [H, W, 3]`` in [0, 1]; all flat.

    Args:
        head: ``[H, W, 3]`` premultiplied; alphas ``[H, W]``.
        texture: the body ``[h, w, 4]``, padded by a row and a vector; behind ``[3, H, W]``.
        layer: (w, h), and the factors and offsets (x, y) that turn the frame's pixels into the body's.
        field: displacements ``[2, rows, columns]`` (x, then y) in fractions of the picture; grid: (rows, columns).
        weights: (1, 1, 1, 1, 0, 0, 0, 0) and (-1, -1, -1, -1, 1, 1, 1, 1).
        body: scratch ``[W + 2, 4]``.
    """
    width, height = size
    line, at_pixel = np.empty(2 * grid[1], np.float32), np.empty(width, np.int32)
    fx, fy = np.empty(width, np.float32), np.empty(width, np.float32)
    left, right = load(weights, 0), load(weights, WIDTH)
    zero, one, plane = splat(head, 0.0), splat(head, 1.0), width * height
    for y in range(first, last):
        _field_row(field, grid, y, height, line)
        _places(line, grid[1], y, width, height, layer, at_pixel, fx, fy)
        _body_row(texture, at_pixel, fx, fy, width, layer[0][0], left, right, body)
        row = y * width
        for start in range(0, width, WIDTH):
            # The last vector of a row overlaps the one before it, which is harmless.
            start = min(start, width - WIDTH)
            pixel = row + start
            red, green, blue, cover = load_pixels(body, start * CHANNELS, (0, 0, 0, 0))
            front, through = load_pixels(head, 3 * pixel, (0, 0, 0)), one - load(alphas, pixel)
            red = _layered(front[0], through, red, cover, load(behind, pixel), zero, one)
            green = _layered(front[1], through, green, cover, load(behind, plane + pixel), zero, one)
            blue = _layered(front[2], through, blue, cover, load(behind, 2 * plane + pixel), zero, one)
            store_pixels(out, 3 * pixel, (red, green, blue))


@exact
def to_floats(picture, width, channels, top, left, rows, columns, factor, out):
    """A window of a picture's bytes as numbers ``out [rows, columns, channels]`` in [0, 1]; all flat.

    Args:
        picture: ``[H, width, channels]`` bytes; the window begins at row ``top`` and column ``left``.
        factor: each number is the mean over a square of ``factor`` px.
    """
    most = np.float32(255 * factor * factor)
    for y in range(rows):
        to, start = y * columns * channels, ((top + y * factor) * width + left) * channels
        if factor == 1:
            for i in range(columns * channels):
                out[to + i] = np.float32(picture[start + i]) / most
            continue
        for x in range(columns):
            for channel in range(channels):
                total = np.int32(0)
                for down in range(factor):
                    at = start + (down * width + x * factor) * channels + channel
                    for _ in range(factor):
                        total += np.int32(picture[at])
                        at += channels
                out[to + x * channels + channel] = np.float32(total) / most


@exact
def to_bytes(values, out):
    """Numbers in [0, 1] to ``round(255 x)``, clamped; NaN becomes 0."""
    for i in range(len(values)):
        value = min(max(values[i], np.float32(0)), np.float32(1))
        out[i] = np.uint8(np.int32(value * np.float32(255) + np.float32(0.5)))
