"""Which Gaussians touch which tile, nearest first.

Per image: a record per Gaussian with all that the compositor reads, its box in pixels, one radix sort by depth and a
counting sort by tile. Boxes lose nothing: outside of them alpha is below 1/255, the compositor's threshold.
"""

# mypy: disable-error-code="no-untyped-def,misc"
# Numba gives kernels their types.
from __future__ import annotations

import math

import numpy as np

from heads.raster.simd.jit import inline, kernel
from heads.raster.simd.maths import ceil, floor, log, select, splat, sqrt
from heads.raster.simd.memory import gather, gather_as, lanes, prefetch, scatter
from heads.raster.simd.vector import WIDTH

TILE_WIDTH, TILE_HEIGHT = 64, 32  # px · guess
HEADER = 11  # x, y, a, b, c, ln opacity, first and end column, first and end row, opacity; then the channels
_LOG_255 = math.log(255.0)
_AHEAD = 12  # Gaussians prefetched · guess
_DIGIT = 11  # bits of a radix-sort digit: three passes over 32-bit depths


def record_size(channels: int) -> int:
    """Numbers in one record: header and channels, padded so that three or four float32 channels fill a cache line."""
    return (HEADER + channels + 7) // 8 * 8


@inline
def _span(centre, reach, end):
    """First and one-past-last pixel of [0, end) whose centre lies within ``reach`` of ``centre``."""
    first, last = ceil(centre - reach - 0.5), floor(centre + reach - 0.5) + 1.0
    first, last = select(first > 0.0, first, 0.0), select(last < end, last, end)
    return first, select(last > first, last, first)


@kernel
def prepare(
    means2d, conics, depths, radii, opacities, colors, image, opacity_set, color_set, number, first, last, size, plain,
    with_depth, stride, records, boxes, spread, histogram,
):  # fmt: skip
    """Write records, boxes and tile counts of Gaussians ``first ... last - 1`` of an image; count the pairs of each tile.

    Records of ``stride`` numbers hold the header, ``plain`` colours and the depth where ``with_depth``.
    """
    width, height = size
    of, opacity_of, color_of = image * number, opacity_set * number, color_set * number
    zero, one = splat(means2d, 0.0), splat(means2d, 1.0)
    for start in range(first, last, WIDTH):
        at = lanes(start, last - 1)
        A, B, C = (
            gather(conics, at, 3, of * 3),
            gather(conics, at, 3, of * 3 + 1),
            gather(conics, at, 3, of * 3 + 2),
        )
        opacity = gather(opacities, at, 1, opacity_of)
        seen = (opacity * 255.0 >= one) & (zero < A)
        log_opacity = log(select(seen, opacity, one))
        x, y = gather(means2d, at, 2, of * 2), gather(means2d, at, 2, of * 2 + 1)
        det = A * C - B * B
        # A needle's determinant is lost in rounding; its (slightly larger) radius is not.
        sound = det > 1e-4 * (A * C)
        scale = 2.002 * (log_opacity + _LOG_255) / select(sound, det, one)
        c0, c1 = _span(x, select(sound, sqrt(scale * C), gather_as(radii, at, 2, of * 2, means2d)), width)
        r0, r1 = _span(y, select(sound, sqrt(scale * A), gather_as(radii, at, 2, of * 2 + 1, means2d)), height)
        seen = seen & (c1 > c0) & (r1 > r0)
        to = of * stride
        header = (x, y, 0.5 * A, B, 0.5 * C, log_opacity, c0, c1, r0, r1, opacity)
        for k in range(6):
            scatter(records, at, stride, to + k, header[k])
        for k in range(6, 10):
            edge = select(seen, header[k], zero)
            scatter(records, at, stride, to + k, edge)
            scatter(boxes, at, 4, of * 4 + k - 6, edge)
        scatter(records, at, stride, to + 10, opacity)
        for k in range(plain):
            scatter(records, at, stride, to + HEADER + k, gather(colors, at, plain, color_of * plain + k))
        if with_depth:
            scatter(records, at, stride, to + HEADER + plain, gather(depths, at, 1, of))
    _count(boxes, spread, of, first, last, (width + TILE_WIDTH - 1) // TILE_WIDTH, histogram)


@inline
def _count(boxes, spread, of, first, last, tiles_x, histogram):
    for i in range(of + first, of + last):
        x0, x1, y0, y1 = _tile_range(boxes, i * 4)
        spread[i] = (x1 - x0) * (y1 - y0)
        for y in range(y0, y1):
            for x in range(x0, x1):
                histogram[y * tiles_x + x] += 1


@inline
def _tile_range(boxes, box):
    """First and one-past-last tile column and row of a box; none for an empty box."""
    if boxes[box + 1] <= boxes[box]:
        return 0, 0, 0, 0
    x0, x1 = boxes[box] // TILE_WIDTH, (boxes[box + 1] - 1) // TILE_WIDTH + 1
    y0, y1 = boxes[box + 2] // TILE_HEIGHT, (boxes[box + 3] - 1) // TILE_HEIGHT + 1
    return np.int64(x0), np.int64(x1), np.int64(y0), np.int64(y1)


@kernel
def sort_by_depth(depth_bits, boxes, image, number, order, scratch, keys, keys_scratch):
    """Write the Gaussians of ``image`` that have a box, nearest first (ties: lower index first), return their count.

    ``depth_bits``: positive float32 depths seen as uint32, whose order is the same. The buffers hold N items each.
    """
    count = 0
    low, high = np.uint32(0xFFFFFFFF), np.uint32(0)
    of = image * number
    for n in range(number):
        if boxes[(of + n) * 4 + 1] > boxes[(of + n) * 4]:
            key = depth_bits[of + n]
            low, high = min(low, key), max(high, key)
            order[count], keys[count] = n, key
            count += 1
    _radix_sort(order, scratch, keys, keys_scratch, count, low, high)
    return count


@inline
def _radix_sort(order, scratch, keys, keys_scratch, count, low, high):
    """Sort the first ``count`` of ``order`` by ``keys``, which lie between ``low`` and ``high``; stable."""
    shift = np.uint32(0)
    spread = np.uint32(high - low) if count else np.uint32(0)
    starts = np.empty(1 << _DIGIT, np.int32)
    mask = np.uint32((1 << _DIGIT) - 1)
    flipped = False
    while shift < 32 and (spread >> shift) > 0:
        starts[:] = 0
        source, source_keys = (scratch, keys_scratch) if flipped else (order, keys)
        target, target_keys = (order, keys) if flipped else (scratch, keys_scratch)
        for k in range(count):
            starts[((source_keys[k] - low) >> shift) & mask] += 1
        total = np.int32(0)
        for digit in range(1 << _DIGIT):
            total, starts[digit] = total + starts[digit], total
        for k in range(count):
            digit = ((source_keys[k] - low) >> shift) & mask
            at = starts[digit]
            starts[digit] = at + 1
            target[at], target_keys[at] = source[k], source_keys[k]
        flipped = not flipped
        shift = np.uint32(shift + _DIGIT)
    if flipped:
        order[:count] = scratch[:count]


@kernel
def fill(boxes, order, counts, offsets, starts, number, tiles_x, tiles, first, last, ids, slots):
    """Write the Gaussians of tiles ``first ... last - 1`` (over all images), each tile's nearest first, to ``ids``.

    ``slots[starts[i] ...]`` receives where the pairs of Gaussian i (over all images) went, for its gradient.
    """
    cursor = offsets[first:last].copy()
    for image in range(first // tiles, (last - 1) // tiles + 1):
        low, high = max(first - image * tiles, 0), min(last - image * tiles, tiles)
        base = image * tiles - first
        for k in range(counts[image]):
            soon = image * number + order[image * number + min(k + _AHEAD, counts[image] - 1)]
            prefetch(boxes, soon * 4)
            prefetch(starts, soon)
            n = order[image * number + k]
            i = image * number + n
            x0, x1, y0, y1 = _tile_range(boxes, i * 4)
            if y0 * tiles_x + x0 >= high or (y1 - 1) * tiles_x + x1 <= low:
                continue
            slot = starts[i]
            for y in range(y0, y1):
                for x in range(x0, x1):
                    tile = y * tiles_x + x
                    if low <= tile < high:
                        at = cursor[base + tile]
                        ids[at] = n
                        slots[slot] = at
                        cursor[base + tile] = at + 1
                    slot += 1
