"""From a frame's vertices to the compositor's records in one pass, for heads that are no longer trained.

Training stores Gaussians, then their projections, then records. Here they exist a block at a time, in the L1 cache.
What is the same in every frame (rotated and scaled axes in the triangle's frame, logarithms of opacities) is computed
once, and triangles are in camera space from the start. The mathematics is that of :mod:`binding`, :mod:`projection` and
:mod:`binning`, so the pictures are equal up to rounding.
"""

# mypy: disable-error-code="no-untyped-def,misc"
# Numba gives kernels their types.
from __future__ import annotations

import math

import numpy as np

from heads.raster.kernels.binning import HEADER, TILE_HEIGHT, TILE_WIDTH, _radix_sort, _span
from heads.raster.kernels.projection import _camera_limits, _clip, _dot3
from heads.raster.simd.jit import inline, kernel
from heads.raster.simd.maths import ceil, fma, select, splat, sqrt
from heads.raster.simd.memory import gather, lanes, load, scatter, store
from heads.raster.simd.vector import WIDTH

# Planes of what is the same in every frame: axes in the triangle's frame times scales (9, by rows), weights of the second
# and third corner, ln opacity (negative infinity: not drawn), and the radius in standard deviations.
FIXED = 13
# A triangle's record: corner, two edges, axes times size (9, by rows).
TRIANGLE = 18
# Planes of a block's scratch: position in camera space (3), axes times size (9).
SCRATCH = 12
BLOCK = 512  # Gaussians per block · guess
UNSEEN = np.uint32(0xFFFFFFFF)  # marks a Gaussian that touches no tile
_DEGENERATE = 1e-12  # squared sine between the edges below which a triangle has no frame of its own · guess
_LOG_255 = math.log(255.0)


@kernel
def change(held, rows, number, stride, offsets, colors):
    """Add each Gaussian's row of ``held [R, 6]`` (offset 3, colour 3) to planes ``offsets [3, stride]`` and ``colors [N, 3]``.

    ``rows [N]``; those from R on stand for no change. All flat.
    """
    known = len(held) // 6
    for n in range(number):
        row = rows[n]
        if row < known:
            for k in range(3):
                offsets[k * stride + n] += held[6 * row + k]
                colors[3 * n + k] += held[6 * row + 3 + k]


@kernel
def triangles(vertices, corners, view, first, last, out):
    """Records of triangles ``first ... last - 1`` of ``vertices [V, 3]`` in camera space; ``view``: the head's axes there."""
    for f in range(first, last):
        a, b, c = 3 * corners[3 * f], 3 * corners[3 * f + 1], 3 * corners[3 * f + 2]
        at = f * TRIANGLE
        for k in range(3):
            out[at + k] = vertices[a + k]
            out[at + 3 + k] = vertices[b + k] - vertices[a + k]
            out[at + 6 + k] = vertices[c + k] - vertices[a + k]
        e0, e1, e2, g0, g1, g2 = out[at + 3], out[at + 4], out[at + 5], out[at + 6], out[at + 7], out[at + 8]
        n0, n1, n2 = e1 * g2 - e2 * g1, e2 * g0 - e0 * g2, e0 * g1 - e1 * g0
        ee, gg, eg = e0 * e0 + e1 * e1 + e2 * e2, g0 * g0 + g1 * g1 + g2 * g2, e0 * g0 + e1 * g1 + e2 * g2
        nn = n0 * n0 + n1 * n1 + n2 * n2
        size = math.sqrt(max((ee + gg - eg) * np.float32(2 / 3), np.float32(0)))
        if nn > np.float32(_DEGENERATE) * ee * max(gg, ee):
            x, z = size / math.sqrt(ee), size / math.sqrt(nn)
            x0, x1, x2, z0, z1, z2 = e0 * x, e1 * x, e2 * x, n0 * z, n1 * z, n2 * z
            over = np.float32(1) / size
            out[at + 9], out[at + 12], out[at + 15] = x0, x1, x2
            out[at + 10] = (z1 * x2 - z2 * x1) * over
            out[at + 13] = (z2 * x0 - z0 * x2) * over
            out[at + 16] = (z0 * x1 - z1 * x0) * over
            out[at + 11], out[at + 14], out[at + 17] = z0, z1, z2
        else:
            for k in range(9):
                out[at + 9 + k] = view[k] * size


@inline
def _bound(records, runs, triangle, fixed, stride, offsets, first, last, scratch):
    """Positions in camera space and axes of Gaussians ``first ... last - 1``, the first of which lies on ``triangle``."""
    f = triangle
    while runs[f] < last:
        r = f * TRIANGLE
        # A vector may run over into the next triangle's Gaussians, which are written after it.
        for i in range(max(runs[f], first), min(runs[f + 1], last), WIDTH):
            x, y, z = load(offsets, i), load(offsets, stride + i), load(offsets, 2 * stride + i)
            u, v = load(fixed, 9 * stride + i), load(fixed, 10 * stride + i)
            to = i - first
            for k in range(3):
                place = splat(records, records[r + k])
                place = fma(u, splat(records, records[r + 3 + k]), fma(v, splat(records, records[r + 6 + k]), place))
                a, b, c = records[r + 9 + 3 * k], records[r + 10 + 3 * k], records[r + 11 + 3 * k]
                place = fma(x, splat(records, a), fma(y, splat(records, b), fma(z, splat(records, c), place)))
                store(scratch, k * _PITCH + to, place)
                store(scratch, (3 + 3 * k) * _PITCH + to, splat(records, a))
                store(scratch, (4 + 3 * k) * _PITCH + to, splat(records, b))
                store(scratch, (5 + 3 * k) * _PITCH + to, splat(records, c))
        f += 1
    return f


_PITCH = BLOCK + WIDTH


@inline
def _row(a, c, u, j):
    """(a - u c) j for rows of three."""
    return (a[0] - u * c[0]) * j, (a[1] - u * c[1]) * j, (a[2] - u * c[2]) * j


@inline
def _three(array, stride, i):
    return load(array, i), load(array, stride + i), load(array, 2 * stride + i)


@kernel
def place(
    records, runs, triangle, fixed, stride, offsets, colors, K, number, first, last, size, planes, eps2d, scratch, boxes,
    out, depths, spans, tiles_x, histogram, record,
):  # fmt: skip
    """Records of Gaussians ``first ... last - 1`` of one picture; ``first`` is a multiple of the width.

    Args:
        records: of the triangles; runs ``[F + 1]``: where each triangle's Gaussians start; triangle: that of ``first``.
        fixed: ``FIXED`` planes of ``stride`` numbers; offsets: three planes, in triangle units; colors ``[N, 3]``.
        K: intrinsics ``[9]``; number: N; size: (width, height); planes: (near, far).
        scratch: ``SCRATCH`` planes of a block; boxes ``[4 * BLOCK + 32]``.
        out: ``[N + 8, record]``; depths, spans ``[N + 8]``: the tiles it touches, or ``UNSEEN``.
        histogram: pairs per tile, counted up.
    """
    width, height = size
    lim_x0, lim_x1, lim_y0, lim_y1 = _camera_limits(K, width, height)
    fx, fy, cx, cy = K[0], K[4], K[2], K[5]
    one, zero, huge = splat(scratch, 1.0), splat(scratch, 0.0), splat(scratch, 1e38)
    f = triangle
    for begin in range(first, last, BLOCK):
        end = min(begin + BLOCK, last)
        f = _bound(records, runs, max(f - 1, 0), fixed, stride, offsets, begin, end, scratch)
        for i in range(begin, end, WIDTH):
            s = i - begin
            tx, ty, tz = _three(scratch, _PITCH, s)
            seen = (tz >= planes[0]) & (tz <= planes[1])
            rz = one / select(seen, tz, one)
            u, v = _clip(tx * rz, lim_x0, lim_x1), _clip(ty * rz, lim_y0, lim_y1)
            R0, R1 = _three(scratch, _PITCH, 3 * _PITCH + s), _three(scratch, _PITCH, 6 * _PITCH + s)
            R2 = _three(scratch, _PITCH, 9 * _PITCH + s)
            a, b = _row(R0, R2, u, fx * rz), _row(R1, R2, v, fy * rz)
            L0, L1 = _three(fixed, stride, i), _three(fixed, stride, 3 * stride + i)
            L2 = _three(fixed, stride, 6 * stride + i)
            r00 = _dot3(a[0], a[1], a[2], L0[0], L1[0], L2[0])
            r01 = _dot3(a[0], a[1], a[2], L0[1], L1[1], L2[1])
            r02 = _dot3(a[0], a[1], a[2], L0[2], L1[2], L2[2])
            r10 = _dot3(b[0], b[1], b[2], L0[0], L1[0], L2[0])
            r11 = _dot3(b[0], b[1], b[2], L0[1], L1[1], L2[1])
            r12 = _dot3(b[0], b[1], b[2], L0[2], L1[2], L2[2])
            xx, xy = _dot3(r00, r01, r02, r00, r01, r02), _dot3(r00, r01, r02, r10, r11, r12)
            yy = _dot3(r10, r11, r12, r10, r11, r12)
            n0, n1, n2 = r01 * r12 - r02 * r11, r02 * r10 - r00 * r12, r00 * r11 - r01 * r10
            det = fma(xx + yy + eps2d, eps2d, _dot3(n0, n1, n2, n0, n1, n2))
            xx, yy = xx + eps2d, yy + eps2d
            log_opacity, reach = load(fixed, 11 * stride + i), load(fixed, 12 * stride + i)
            seen = seen & (det > zero) & (det < huge) & (reach > zero)
            over = one / select(seen, det, one)
            A, B, C = select(seen, yy * over, zero), select(seen, -xy * over, zero), select(seen, xx * over, zero)
            x, y = fma(tx * rz, fx, cx), fma(ty * rz, fy, cy)
            radius_x, radius_y = ceil(reach * sqrt(xx)), ceil(reach * sqrt(yy))
            inside = A * C - B * B
            sound = inside > 1e-4 * (A * C)
            scale = 2.002 * (log_opacity + _LOG_255) / select(sound, inside, one)
            c0, c1 = _span(x, select(sound, sqrt(scale * C), radius_x), width)
            r0, r1 = _span(y, select(sound, sqrt(scale * A), radius_y), height)
            seen = seen & (zero < A) & (c1 > c0) & (r1 > r0)
            at = lanes(i, i + WIDTH)
            header = (x, y, 0.5 * A, B, 0.5 * C, log_opacity)
            for k in range(6):
                scatter(out, at, record, k, header[k])
            box = select(seen, c0, zero), select(seen, c1, zero), select(seen, r0, zero), select(seen, r1, zero)
            for k in range(4):
                scatter(out, at, record, 6 + k, box[k])
                scatter(boxes, lanes(s, s + WIDTH), 4, k, box[k])
            valid = lanes(i, number - 1)
            for k in range(3):
                scatter(out, at, record, HEADER + k, gather(colors, valid, 3, k))
            store(depths, i, tz)
        _count_tiles(boxes, begin, end, spans, tiles_x, histogram)


@inline
def _count_tiles(boxes, begin, end, spans, tiles_x, histogram):
    """Pack the tiles of a block's boxes (first and end column, first and end row, a byte each) and count them."""
    for i in range(begin, end):
        at = 4 * (i - begin)
        if boxes[at + 1] <= boxes[at]:
            spans[i] = UNSEEN
            continue
        x0, x1 = boxes[at] // TILE_WIDTH, (boxes[at + 1] - 1) // TILE_WIDTH + 1
        y0, y1 = boxes[at + 2] // TILE_HEIGHT, (boxes[at + 3] - 1) // TILE_HEIGHT + 1
        spans[i] = np.uint32(x0 | x1 << 8 | y0 << 16 | y1 << 24)
        for y in range(y0, y1):
            for x in range(x0, x1):
                histogram[y * tiles_x + x] += 1


@kernel
def sort_seen(depth_bits, spans, number, order, scratch, keys, keys_scratch):
    """As :func:`binning.sort_by_depth`, for the Gaussians that touch a tile."""
    count = 0
    low, high = np.uint32(0xFFFFFFFF), np.uint32(0)
    for n in range(number):
        if spans[n] != UNSEEN:
            key = depth_bits[n]
            low, high = min(low, key), max(high, key)
            order[count], keys[count] = n, key
            count += 1
    _radix_sort(order, scratch, keys, keys_scratch, count, low, high)
    return count


@kernel
def list_tiles(spans, order, count, offsets, tiles_x, first, last, ids):
    """Write the Gaussians of tiles ``first ... last - 1``, each tile's nearest first, to ``ids``."""
    cursor = offsets[first:last].copy()
    for k in range(count):
        n = order[k]
        span = np.int64(spans[n])
        x0, x1, y0, y1 = span & 255, span >> 8 & 255, span >> 16 & 255, span >> 24
        for y in range(y0, y1):
            for x in range(x0, x1):
                tile = y * tiles_x + x
                if first <= tile < last:
                    at = cursor[tile - first]
                    ids[at] = n
                    cursor[tile - first] = at + 1
