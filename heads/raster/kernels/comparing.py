"""Kernels of the photometric losses: head over background against picture over background, under pixel weights.

They work on one picture, and on its rectangle with weight only. The references in plain PyTorch are in
:mod:`heads.photometric` and :mod:`heads.pictures`; tests compare them. Arrays are flat and float32.
"""

# mypy: disable-error-code="no-untyped-def,misc"
# Numba gives kernels their types.
from __future__ import annotations

import numpy as np

from heads.raster.simd.jit import kernel

F32 = np.float32


@kernel
def extent(weight, height, width, edge, box, sums):
    """Write ``box``, the first and end row and column with weight; zeros without any.

    ``sums``: the sum of the weights, that of those at least ``edge`` px inside the picture, and the number of pixels with one.
    """
    top, bottom, left, right = height, 0, width, 0
    total, inner, near = 0.0, 0.0, 0
    for y in range(height):
        row, inside = 0.0, 0.0
        for x in range(width):
            w = weight[y * width + x]
            if w > 0:
                near += 1
                left, right = min(left, x), max(right, x + 1)
                row += w
                if x >= edge and x < width - edge:
                    inside += w
        if row > 0:
            top, bottom = min(top, y), max(bottom, y + 1)
            total += row
            if y >= edge and y < height - edge:
                inner += inside
    if near == 0:
        top = left = 0
    box[0], box[1], box[2], box[3] = top, bottom, left, right
    sums[0], sums[1], sums[2] = total, inner, near


@kernel
def compose(head, alpha, behind, picture, matte, weight, width, box, ours, real, sums):
    """Compose both pictures over the same background within ``box``, and sum |ours - real| and |alpha - matte| there."""
    top, bottom, left, right = box[0], box[1], box[2], box[3]
    columns = np.uintp(right - left)
    colour, outline = 0.0, 0.0
    for y in range(top, bottom):
        source, target = np.uintp(y * width + left), np.uintp((y - top) * (right - left))
        row, edge = F32(0), F32(0)
        for x in range(columns):
            a, m, w = alpha[source + x], matte[source + x], weight[source + x]
            off = F32(0)
            for c in range(np.uintp(3)):
                at, to = np.uintp(3) * (source + x) + c, np.uintp(3) * (target + x) + c
                one = head[at] + (F32(1) - a) * behind[c]
                two = picture[at] * m + behind[c] * (F32(1) - m)
                ours[to], real[to] = one, two
                off += abs(one - two)
            row += w * off
            edge += abs(a - m) if w > 0 else F32(0)
        colour += row
        outline += edge
    sums[0], sums[1] = colour, outline


@kernel
def dissimilarity(similarity, weight, width, top, left, rows, columns):
    """Sum of weight * (1 - SSIM) / 2 over ``rows`` x ``columns`` pixels of three channels, the first at (top, left)."""
    total = 0.0
    for y in range(rows):
        row, source, base = F32(0), np.uintp((top + y) * width + left), np.uintp(y * columns)
        for x in range(np.uintp(columns)):
            at = np.uintp(3) * (base + x)
            unlike = F32(3) - similarity[at] - similarity[at + np.uintp(1)] - similarity[at + np.uintp(2)]
            row += weight[source + x] * unlike
        total += row
    return 0.5 * total


@kernel
def upstream(weight, width, top, left, rows, columns, factor, out):
    """Gradient of :func:`dissimilarity` times ``-2 * factor`` in the SSIM of every channel."""
    for y in range(rows):
        source, base = np.uintp((top + y) * width + left), np.uintp(y * columns)
        for x in range(np.uintp(columns)):
            value = F32(factor) * weight[source + x]
            for c in range(np.uintp(3)):
                out[np.uintp(3) * (base + x) + c] = value


@kernel
def compose_backward(
    ours, real, v_ours, alpha, behind, matte, weight, width, box, of_colour, of_outline, v_head, v_alpha
):
    """Gradients in head and alpha from that in ``ours`` (by SSIM) and the factors of the two sums of :func:`compose`."""
    top, bottom, left, right = box[0], box[1], box[2], box[3]
    columns = np.uintp(right - left)
    for y in range(top, bottom):
        source, target = np.uintp(y * width + left), np.uintp((y - top) * (right - left))
        for x in range(columns):
            w = weight[source + x]
            difference = alpha[source + x] - matte[source + x]
            sign = F32(difference > 0) - F32(difference < 0)
            through = F32(of_outline) * sign if w > 0 else F32(0)
            for c in range(np.uintp(3)):
                at, to = np.uintp(3) * (source + x) + c, np.uintp(3) * (target + x) + c
                off = ours[to] - real[to]
                value = v_ours[to] + F32(of_colour) * w * (F32(off > 0) - F32(off < 0))
                v_head[at] = value
                through -= value * behind[c]
            v_alpha[source + x] = through


@kernel
def tone(values, tables, pixels, out):
    """Look up 8-bit ``values [P, 3]`` in a table of 256 entries per channel: ``out [P, 3]``."""
    for p in range(np.uintp(pixels)):
        at = np.uintp(3) * p
        out[at] = tables[values[at]]
        out[at + np.uintp(1)] = tables[np.uintp(256) + values[at + np.uintp(1)]]
        out[at + np.uintp(2)] = tables[np.uintp(512) + values[at + np.uintp(2)]]


@kernel
def over(color, alpha, behind, pixels, out):
    """A premultiplied head over a picture: ``out [P, 3]`` of ``color [P, 3]``, ``alpha [P]`` and ``behind [P, 3]``."""
    for p in range(np.uintp(pixels)):
        through = F32(1) - alpha[p]
        for c in range(np.uintp(3)):
            at = np.uintp(3) * p + c
            out[at] = color[at] + through * behind[at]


@kernel
def over_backward(upstream, alpha, behind, pixels, v_alpha, v_behind):
    """Gradients of :func:`over` in alpha and, unless ``v_behind`` is empty, in the picture behind."""
    wanted = len(v_behind) > 0
    for p in range(np.uintp(pixels)):
        first = np.uintp(3) * p
        second, third = first + np.uintp(1), first + np.uintp(2)
        hidden = upstream[first] * behind[first] + upstream[second] * behind[second] + upstream[third] * behind[third]
        v_alpha[p] = -hidden
        if wanted:
            through = F32(1) - alpha[p]
            v_behind[first] = through * upstream[first]
            v_behind[second] = through * upstream[second]
            v_behind[third] = through * upstream[third]


@kernel
def differences(image, target, weight, width, edge, height, sums):
    """``sums``: weight * |image - target| over all pixels and channels, the weights, and those ``edge`` px inside."""
    off, total, inner = 0.0, 0.0, 0.0
    for y in range(height):
        row, weights, inside = F32(0), F32(0), F32(0)
        first = np.uintp(y * width)
        for x in range(np.uintp(width)):
            w, at = weight[first + x], np.uintp(3) * (first + x)
            second, third = at + np.uintp(1), at + np.uintp(2)
            unlike = abs(image[at] - target[at]) + abs(image[second] - target[second])
            row += w * (unlike + abs(image[third] - target[third]))
            weights += w
        if y >= edge and y < height - edge:
            for x in range(np.uintp(edge), np.uintp(width - edge)):
                inside += weight[first + x]
        off += row
        total += weights
        inner += inside
    sums[0], sums[1], sums[2] = off, total, inner


@kernel
def add_signs(image, target, weight, pixels, factor, out):
    """Add the gradient of ``factor`` times the first sum of :func:`differences` to ``out [P, 3]``."""
    for p in range(np.uintp(pixels)):
        scaled = F32(factor) * weight[p]
        for c in range(np.uintp(3)):
            at = np.uintp(3) * p + c
            off = image[at] - target[at]
            out[at] += scaled * (F32(off > 0) - F32(off < 0))
