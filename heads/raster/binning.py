"""Which Gaussians touch which tile, nearest first.

Per image: a record per Gaussian with all that the compositor reads, its box in pixels, one radix sort by depth and a
counting sort by tile. A box is lossless: outside of it alpha is below 1/255, the threshold of the compositor.
"""

from __future__ import annotations

import math

import numpy as np

from heads.raster.jit import inline, kernel

TILE_WIDTH, TILE_HEIGHT = 32, 32
HEADER = 7  # x, y, a, b, c, opacity, limit; then the channels
_LOG_255 = math.log(255.0)
_DIGIT = 11


def record_size(channels: int) -> int:
    """Numbers in one record: header and channels, rounded up so that records stay aligned to 16 bytes."""
    return (HEADER + channels + 3) // 4 * 4


@inline
def _span(centre, reach, end):
    """First and one-past-last pixel of [0, end) whose centre lies within `reach` of `centre`."""
    first = min(max(math.ceil(centre - reach - 0.5), 0.0), float(end))
    last = min(max(math.floor(centre + reach - 0.5) + 1.0, 0.0), float(end))
    return int(first), int(last)


@kernel
def prepare(
    means2d, conics, depths, opacities, colors, image, opacity_set, color_set, number, first, last, size, channels,
    with_depth, record_stride, records, boxes, histogram,
):  # fmt: skip
    """Write records and boxes of Gaussians `first ... last - 1` of an image, and count the pairs of each tile."""
    width, height = size
    tiles_x = (width + TILE_WIDTH - 1) // TILE_WIDTH
    of, opacity_of, color_of = image * number, opacity_set * number, color_set * number
    for n in range(first, last):
        i = of + n
        box = i * 4
        A, B, C = conics[i * 3], conics[i * 3 + 1], conics[i * 3 + 2]
        opacity = opacities[opacity_of + n]
        boxes[box], boxes[box + 1], boxes[box + 2], boxes[box + 3] = 0, 0, 0, 0
        if not (A > 0.0 and opacity * 255.0 >= 1.0):
            continue
        # exp(-s) is only needed (and only accurate) down to 1/255, so an opacity above 1 counts as 1 here.
        limit = min(math.log(opacity * 255.0), _LOG_255)
        x, y = means2d[i * 2], means2d[i * 2 + 1]
        scale = 2.0 * limit / (A * C - B * B)
        c0, c1 = _span(x, math.sqrt(scale * C), width)
        r0, r1 = _span(y, math.sqrt(scale * A), height)
        if c0 >= c1 or r0 >= r1:
            continue
        boxes[box], boxes[box + 1], boxes[box + 2], boxes[box + 3] = c0, c1, r0, r1
        at = i * record_stride
        records[at], records[at + 1], records[at + 5], records[at + 6] = x, y, opacity, limit
        records[at + 2], records[at + 3], records[at + 4] = 0.5 * A, B, 0.5 * C
        plain = channels - 1 if with_depth else channels
        for k in range(plain):
            records[at + HEADER + k] = colors[(color_of + n) * plain + k]
        if with_depth:
            records[at + HEADER + plain] = depths[i]
        for ty in range(r0 // TILE_HEIGHT, (r1 - 1) // TILE_HEIGHT + 1):
            for tx in range(c0 // TILE_WIDTH, (c1 - 1) // TILE_WIDTH + 1):
                histogram[ty * tiles_x + tx] += 1


@kernel
def sort_by_depth(depth_bits, boxes, image, number, order, scratch, keys, keys_scratch):
    """Write the Gaussians of `image` that have a box, nearest first (ties: lower index first), return their count.

    `depth_bits`: positive float32 depths seen as uint32, whose order is the same. The buffers hold N items each.
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
    return count


@kernel
def fill(boxes, order, counts, offsets, number, tiles_x, tiles, first, last, ids):
    """Write the Gaussians of tiles `first ... last - 1` (over all images), each tile's nearest first, to `ids`."""
    cursor = offsets[first:last].copy()
    for image in range(first // tiles, (last - 1) // tiles + 1):
        low, high = max(first - image * tiles, 0), min(last - image * tiles, tiles)
        base = image * tiles - first
        for k in range(counts[image]):
            n = order[image * number + k]
            box = (image * number + n) * 4
            x0, x1 = boxes[box] // TILE_WIDTH, (boxes[box + 1] - 1) // TILE_WIDTH
            y0, y1 = boxes[box + 2] // TILE_HEIGHT, (boxes[box + 3] - 1) // TILE_HEIGHT
            if y0 * tiles_x + x0 >= high or y1 * tiles_x + x1 < low:
                continue
            for y in range(y0, y1 + 1):
                for x in range(x0, x1 + 1):
                    tile = y * tiles_x + x
                    if low <= tile < high:
                        at = cursor[base + tile]
                        ids[at] = n
                        cursor[base + tile] = at + 1
