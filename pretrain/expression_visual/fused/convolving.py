"""Transforms of a 3 x 3 convolution by tiles of 4 x 4 pixels, F(4 x 4, 3 x 3): 36 products a tile instead of 144.

Source: Lavin and Gray, *Fast algorithms for convolutional neural networks* (2016), after Winograd; interpolation at 0, 1,
-1, 2, -2 and infinity. With d a patch of 6 x 6 pixels, g a filter and Y a tile of 4 x 4 results,
Y = A^T [(G g G^T) * (B^T d B)] A, where * multiplies element by element and sums over channels: 36 matrix products.
Pictures are flat ``[B, H, W, C]``, with H and W multiples of 4 and C of 8; transformed tiles ``[36, B * H/4 * W/4, C]``.
``scratch`` has 36 * 8 numbers. A call works on images ``first ... last - 1``.
"""

# mypy: disable-error-code="no-untyped-def,misc"
# Numba gives kernels their types.
from __future__ import annotations

import numpy as np

from heads.raster.simd.jit import inline, kernel
from heads.raster.simd.maths import fma, splat
from heads.raster.simd.memory import load, store
from heads.raster.simd.vector import WIDTH

TILE = 4
PATCH = TILE + 2
# The filter's transform · paper (section 4.3)
FILTER = np.array(
    [[1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6], [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6], [0, 0, 1]]
)  # fmt: skip


@inline
def _patch(a, b, c, d, e, f):
    """B^T times a column of a patch."""
    even, odd = fma(c, -4.0, e), fma(b, -4.0, d)
    wide, far = e - c, 2.0 * (d - b)
    return fma(a, 4.0, fma(c, -5.0, e)), even + odd, even - odd, wide + far, wide - far, fma(b, 4.0, fma(d, -5.0, f))


@inline
def _patch_gradient(a, b, c, d, e, f):
    """B times a column: the transpose of :func:`_patch`."""
    near, far = b + c, d + e
    turned, wide = c - b, e - d
    return (
        4.0 * a,
        fma(turned, 4.0, fma(wide, 2.0, 4.0 * f)),
        fma(a, -5.0, fma(near, -4.0, -far)),
        fma(wide, -2.0, fma(f, -5.0, -turned)),
        a + near + far,
        f,
    )


@inline
def _result(a, b, c, d, e, f):
    """A^T times a column of products."""
    near, turned, far, wide = b + c, b - c, d + e, d - e
    return a + near + far, fma(wide, 2.0, turned), fma(far, 4.0, near), fma(wide, 8.0, turned + f)


@inline
def _result_gradient(a, b, c, d):
    """A times a column of results: the transpose of :func:`_result`."""
    even, odd = a + c, b + d
    wide, far = fma(c, 4.0, a), fma(d, 8.0, 2.0 * b)
    return a, even + odd, even - odd, wide + far, wide - far, d


@inline
def _column(array, at, step):
    """Six vectors from ``at`` on, ``step`` numbers apart."""
    return (
        load(array, at),
        load(array, at + step),
        load(array, at + 2 * step),
        load(array, at + 3 * step),
        load(array, at + 4 * step),
        load(array, at + 5 * step),
    )


@inline
def _four(array, at, step):
    """Four vectors from ``at`` on, ``step`` numbers apart."""
    return load(array, at), load(array, at + step), load(array, at + 2 * step), load(array, at + 3 * step)


@inline
def _store_column(array, at, step, values):
    for k in range(6):
        store(array, at + k * step, values[k])


@inline
def _pixels(x, at, step, zero, above, below):
    """A column of six pixels, the first zero unless there is one ``above`` the tile, the last unless one ``below``."""
    return (
        load(x, at) if above else zero,
        load(x, at + step),
        load(x, at + 2 * step),
        load(x, at + 3 * step),
        load(x, at + 4 * step),
        load(x, at + 5 * step) if below else zero,
    )


@kernel
def patches_in(x, first, last, height, width, channels, plane, scratch, out):
    """Transformed patches B^T d B of images ``x`` to ``out``; ``plane``: numbers of one of its 36 parts."""
    zero = splat(x, 0.0)
    none = (zero, zero, zero, zero, zero, zero)
    rows, columns, step = height // TILE, width // TILE, width * channels
    for tile in range(first * rows * columns, last * rows * columns):
        image, place = tile // (rows * columns), tile % (rows * columns)
        top, left = place // columns * TILE - 1, place % columns * TILE - 1
        start, to = ((image * height + top) * width + left) * channels, tile * channels
        for channel in range(0, channels, WIDTH):
            for j in range(PATCH):
                inside = 0 <= left + j < width
                at = start + j * channels + channel
                pixels = _pixels(x, at, step, zero, top >= 0, top + PATCH <= height) if inside else none
                _store_column(scratch, j * WIDTH, PATCH * WIDTH, _patch(*pixels))
            for i in range(PATCH):
                line = _column(scratch, i * PATCH * WIDTH, WIDTH)
                _store_column(out, i * PATCH * plane + to + channel, plane, _patch(*line))


@kernel
def results_out(products, first, last, height, width, channels, plane, bias, scratch, out):
    """Results A^T m A of images plus ``bias [C]`` from products ``[36, tiles, C]``, to ``out [B, H, W, C]``."""
    rows, columns, step = height // TILE, width // TILE, width * channels
    for tile in range(first * rows * columns, last * rows * columns):
        image, place = tile // (rows * columns), tile % (rows * columns)
        top, left = place // columns * TILE, place % columns * TILE
        start, of = ((image * height + top) * width + left) * channels, tile * channels
        for channel in range(0, channels, WIDTH):
            constant = load(bias, channel)
            for j in range(PATCH):
                column = _result(*_column(products, j * plane + of + channel, PATCH * plane))
                for i in range(TILE):
                    store(scratch, (i * PATCH + j) * WIDTH, column[i])
            for i in range(TILE):
                line = _result(*_column(scratch, i * PATCH * WIDTH, WIDTH))
                for j in range(TILE):
                    store(out, start + i * step + j * channels + channel, line[j] + constant)


@kernel
def results_in(v_results, first, last, height, width, channels, plane, scratch, out):
    """Gradients A y A^T of the products from those of the results."""
    rows, columns, step = height // TILE, width // TILE, width * channels
    for tile in range(first * rows * columns, last * rows * columns):
        image, place = tile // (rows * columns), tile % (rows * columns)
        top, left = place // columns * TILE, place % columns * TILE
        start, to = ((image * height + top) * width + left) * channels, tile * channels
        for channel in range(0, channels, WIDTH):
            for j in range(TILE):
                at = start + j * channels + channel
                column = _result_gradient(*_four(v_results, at, step))
                _store_column(scratch, j * WIDTH, TILE * WIDTH, column)
            for i in range(PATCH):
                line = _result_gradient(*_four(scratch, i * TILE * WIDTH, WIDTH))
                _store_column(out, i * PATCH * plane + to + channel, plane, line)


@kernel
def patches_out(v_patches, first, last, height, width, channels, plane, scratch, out):
    """Add the gradients B v B^T of the pixels, from those of its transformed patches, to ``out [B, H, W, C]``."""
    rows, columns, step = height // TILE, width // TILE, width * channels
    for tile in range(first * rows * columns, last * rows * columns):
        image, place = tile // (rows * columns), tile % (rows * columns)
        top, left = place // columns * TILE - 1, place % columns * TILE - 1
        start, of = ((image * height + top) * width + left) * channels, tile * channels
        begin, end = max(-left, 0), min(width - left, PATCH)
        for channel in range(0, channels, WIDTH):
            for j in range(PATCH):
                column = _patch_gradient(*_column(v_patches, j * plane + of + channel, PATCH * plane))
                _store_column(scratch, j * WIDTH, PATCH * WIDTH, column)
            for i in range(max(-top, 0), min(height - top, PATCH)):
                line = _patch_gradient(*_column(scratch, i * PATCH * WIDTH, WIDTH))
                at = start + i * step + channel
                for j in range(PATCH):
                    if begin <= j < end:
                        store(out, at + j * channels, load(out, at + j * channels) + line[j])
