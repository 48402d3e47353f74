"""Kernels that unwrap pictures onto the texels of a UV map: which texels are visible, and the pixels under them.

The references in plain PyTorch are in :mod:`pretrain.expression_visual.unwrap`; tests compare the two. All arrays are flat.
A call works on one picture (``see``) or on the pictures of one person (``gather_*``), so that threads share nothing.
"""

# mypy: disable-error-code="no-untyped-def,misc"
# Numba gives kernels their types.
from __future__ import annotations

import math

import numpy as np

from heads.raster.simd.jit import inline, kernel

F32 = np.float32


@inline
def _within(x, y, outline, first, last):
    """Whether a point lies in the polygon of points ``first ... last - 1`` of ``outline``: even-odd rule."""
    inside = False
    for i in range(first, last):
        j = i + 1 if i + 1 < last else first
        ax, ay, bx, by = outline[2 * i], outline[2 * i + 1], outline[2 * j], outline[2 * j + 1]
        if (ay <= y) != (by <= y) and ax + (y - ay) / (by - ay) * (bx - ax) > x:
            inside = not inside
    return inside


@inline
def _extremes(image, width, height, greatest, between):
    """The minimum, or maximum, of the 3 x 3 values around each of a map's, without those outside it, in place.

    Rows first, then columns, both by loops that the compiler vectorises; ``between``: scratch of the map's size.
    """
    for row in range(height):
        base = row * width
        for x in range(base + 1, base + width - 1):
            low = min(image[x - 1], image[x], image[x + 1])
            between[x] = max(image[x - 1], image[x], image[x + 1]) if greatest else low
        for x, other in ((base, base + 1), (base + width - 1, base + width - 2)):
            between[x] = max(image[x], image[other]) if greatest else min(image[x], image[other])
    for row in range(height):
        base, above, below = row * width, max(row - 1, 0) * width, min(row + 1, height - 1) * width
        for x in range(width):
            a, b, c = between[base + x], between[above + x], between[below + x]
            image[base + x] = max(a, b, c) if greatest else min(a, b, c)


@inline
def _within_person(eroded, x, y, size):
    """The eroded matte at (x, y) px: bilinear, with the border's value outside."""
    x, y = min(max(x - F32(0.5), F32(0)), F32(size - 1)), min(max(y - F32(0.5), F32(0)), F32(size - 1))
    column, row = int(x), int(y)
    right, below = min(column + 1, size - 1), min(row + 1, size - 1)
    u, v = x - F32(column), y - F32(row)
    top = eroded[row * size + column] * (1 - u) + eroded[row * size + right] * u
    bottom = eroded[below * size + column] * (1 - u) + eroded[below * size + right] * u
    return top * (1 - v) + bottom * v


@kernel
def see(vertices, corners, weights, camera, matte, size, part, loops, starts, cells, side, settings, pixels, seen):
    """Pixels of one head's texels in its picture, and how visible each is, 0 to 1.

    Args:
        vertices: ``[V, 3]``; corners: ``[N, 3]`` vertex numbers; weights: ``[N, 3]`` barycentric.
        camera: rotation (9), translation (3), intrinsics (9); matte: ``[size, size]``.
        part: ``[N]`` opening through which a texel is seen, -1 for none; loops: vertex numbers of the openings'
            outlines, opening k from ``starts[k]`` to ``starts[k + 1]``.
        cells: ``[N]`` index of each texel in a map of ``side`` x ``side``.
        settings: depth tolerances of outer and inner texels (rig units), margin px, least depth, cells along a side of the
            depth buffer.
        pixels, seen: results ``[N, 2]`` and ``[N]``.
    """
    count, grid = len(part), int(settings[4])
    nearest, margin = settings[3], settings[2]
    R, t, K = camera[:9], camera[9:12], camera[12:]
    eye0 = -(t[0] * R[0] + t[1] * R[3] + t[2] * R[6])
    eye1 = -(t[0] * R[1] + t[1] * R[4] + t[2] * R[7])
    eye2 = -(t[0] * R[2] + t[1] * R[5] + t[2] * R[8])
    depth = np.empty(count, np.float32)
    front = np.full(2 * grid * grid, np.inf, np.float32)
    place = np.empty(count, np.int32)
    for i in range(count):
        a, b, c = 3 * corners[3 * i], 3 * corners[3 * i + 1], 3 * corners[3 * i + 2]
        wa, wb, wc = weights[3 * i], weights[3 * i + 1], weights[3 * i + 2]
        a0, a1, a2 = vertices[a], vertices[a + 1], vertices[a + 2]
        b0, b1, b2 = vertices[b], vertices[b + 1], vertices[b + 2]
        c0, c1, c2 = vertices[c], vertices[c + 1], vertices[c + 2]
        p0, p1, p2 = wa * a0 + wb * b0 + wc * c0, wa * a1 + wb * b1 + wc * c1, wa * a2 + wb * b2 + wc * c2
        e0, e1, e2, g0, g1, g2 = b0 - a0, b1 - a1, b2 - a2, c0 - a0, c1 - a1, c2 - a2
        n0, n1, n2 = e1 * g2 - e2 * g1, e2 * g0 - e0 * g2, e0 * g1 - e1 * g0
        d0, d1, d2 = eye0 - p0, eye1 - p1, eye2 - p2
        long = max(math.sqrt(n0 * n0 + n1 * n1 + n2 * n2), F32(1e-8))
        far = max(math.sqrt(d0 * d0 + d1 * d1 + d2 * d2), F32(1e-12))
        cosine = (n0 * d0 + n1 * d1 + n2 * d2) / (long * far)
        seen[i] = min(max((cosine - F32(0.1)) / F32(0.4), F32(0)), F32(1))
        x = R[0] * p0 + R[1] * p1 + R[2] * p2 + t[0]
        y = R[3] * p0 + R[4] * p1 + R[5] * p2 + t[1]
        z = R[6] * p0 + R[7] * p1 + R[8] * p2 + t[2]
        w = max(K[6] * x + K[7] * y + K[8] * z, nearest)
        px, py = (K[0] * x + K[1] * y + K[2] * z) / w, (K[3] * x + K[4] * y + K[5] * z) / w
        pixels[2 * i], pixels[2 * i + 1], depth[i] = px, py, max(z, nearest)
        column = int(min(max(math.floor(px / size * grid), F32(0)), F32(grid - 1)))
        row = int(min(max(math.floor(py / size * grid), F32(0)), F32(grid - 1)))
        place[i] = (grid * grid if part[i] >= 0 else 0) + row * grid + column
        front[place[i]] = min(front[place[i]], depth[i])
    outline = np.empty(2 * len(loops), np.float32)
    for i in range(len(loops)):
        v = 3 * loops[i]
        v0, v1, v2 = vertices[v], vertices[v + 1], vertices[v + 2]
        x = R[0] * v0 + R[1] * v1 + R[2] * v2 + t[0]
        y = R[3] * v0 + R[4] * v1 + R[5] * v2 + t[1]
        z = R[6] * v0 + R[7] * v1 + R[8] * v2 + t[2]
        w = max(K[6] * x + K[7] * y + K[8] * z, nearest)
        outline[2 * i], outline[2 * i + 1] = (K[0] * x + K[1] * y + K[2] * z) / w, (K[3] * x + K[4] * y + K[5] * z) / w
    image = np.ones(side * side, np.float32)
    eroded, between = matte.copy(), np.empty(max(size, side) ** 2, np.float32)
    _extremes(eroded, size, size, False, between)
    for i in range(count):
        px, py, value = pixels[2 * i], pixels[2 * i + 1], seen[i]
        inner = part[i] >= 0
        if not (depth[i] <= front[place[i]] + settings[1 if inner else 0]):
            value = F32(0)
        if not (px > 1 and px < size - 1 and py > 1 and py < size - 1):
            value = F32(0)
        if value > 0 and inner:
            first, last = starts[part[i]], starts[part[i] + 1]
            above = _within(px, py - margin, outline, first, last)
            if not (above and _within(px, py + margin, outline, first, last)):
                value = F32(0)
        if value > 0:
            value *= min(max((_within_person(eroded, px, py, size) - F32(0.5)) * F32(2), F32(0)), F32(1))
        seen[i] = value
        image[cells[i]] = value
    _extremes(image, side, side, False, between)  # a morphological opening; what lies beyond the map does not count
    _extremes(image, side, side, True, between)
    for i in range(count):
        if part[i] < 0:  # an opening is narrow, and its outline is exact
            seen[i] = min(seen[i], image[cells[i]])


@inline
def _taps(x, y, size, at, share):
    """The four pixels around (x, y) px of a square picture and their bilinear weights; the border's values outside."""
    x, y = min(max(x - F32(0.5), F32(0)), F32(size - 1)), min(max(y - F32(0.5), F32(0)), F32(size - 1))
    column, row = int(x), int(y)
    right, below = min(column + 1, size - 1), min(row + 1, size - 1)
    u, v = x - F32(column), y - F32(row)
    at[0], at[1], at[2], at[3] = row * size + column, row * size + right, below * size + column, below * size + right
    share[0], share[1], share[2], share[3] = (1 - u) * (1 - v), u * (1 - v), (1 - u) * v, u * v


@kernel
def gather_mean(pictures, size, channels, scale, pixels, seen, first, last, count, out):
    """Mean ``out [N, C]`` over pictures ``first ... last - 1`` of the values under the texels, weighted by ``seen [M, N]``.

    Pictures are ``[M, size, size, C]``; ``pixels [M, N, 2]`` times ``scale`` are positions in them, px.
    """
    at, share = np.empty(4, np.intp), np.empty(4, np.float32)
    width = np.uintp(channels)
    for i in range(count):
        base = np.uintp(i) * width
        total = F32(0)
        for m in range(first, last):
            total += seen[m * count + i]
        for c in range(width):
            out[base + c] = F32(0)
        for m in range(first, last):
            weight = seen[m * count + i] / max(total, F32(1e-6))
            if weight == 0:
                continue
            where = 2 * (m * count + i)
            _taps(pixels[where] * scale, pixels[where + 1] * scale, size, at, share)
            for k in range(4):
                factor, source = weight * share[k], np.uintp((m * size * size + at[k]) * channels)
                for c in range(width):
                    out[base + c] += factor * pictures[source + c]


@kernel
def gather_mean_backward(size, channels, scale, pixels, seen, first, last, count, v_out, v_pictures):
    """Gradient of :func:`gather_mean` in the pictures, added to ``v_pictures``."""
    at, share = np.empty(4, np.intp), np.empty(4, np.float32)
    width = np.uintp(channels)
    for i in range(count):
        base = np.uintp(i) * width
        total = F32(0)
        for m in range(first, last):
            total += seen[m * count + i]
        for m in range(first, last):
            weight = seen[m * count + i] / max(total, F32(1e-6))
            if weight == 0:
                continue
            where = 2 * (m * count + i)
            _taps(pixels[where] * scale, pixels[where + 1] * scale, size, at, share)
            for k in range(4):
                factor, target = weight * share[k], np.uintp((m * size * size + at[k]) * channels)
                for c in range(width):
                    v_pictures[target + c] += factor * v_out[base + c]


@kernel
def patches(image, matte, size, patch, out):
    """A picture under its matte, with the matte as a fourth channel, as patches ``[size / patch squared, patch, patch, 4]``."""
    side = size // patch
    for y in range(size):
        for x in range(size):
            at = np.uintp(y * size + x)
            to = np.uintp(4 * (((y // patch * side + x // patch) * patch + y % patch) * patch + x % patch))
            m = matte[at]
            for c in range(np.uintp(3)):
                out[to + c] = image[np.uintp(3) * at + c] * m
            out[to + np.uintp(3)] = m


@kernel
def both_sides(texture, seen, mirror, mean, person, people, out):
    """Input of the anchors, ``out [N, people, 4]``: how a texel and its mirror image differ from the mean head.

    The last number is how visible they are.
    """
    count = len(seen)
    for i in range(count):
        j, to = mirror[i], 4 * (i * people + person)
        here, there = seen[i], F32(0.5) * seen[j]
        for c in range(3):
            out[to + c] = (texture[3 * i + c] - mean[3 * i + c]) * here + (texture[3 * j + c] - mean[3 * j + c]) * there
        out[to + 3] = here + there


@kernel
def filled(texture, seen, mirror, mean, fill, person, people, slot, out, base):
    """The U-Net's input ``out [cells, 11]`` (texture, mirror image, both weights, colour) and the colour ``base [N, 3]``.

    ``fill [N, people, 3]``: shift of the mean head's colour where neither side of a texel is visible.
    """
    for i in range(len(seen)):
        j, to = mirror[i], 11 * slot[i]
        here, there = seen[i], seen[j]
        for c in range(3):
            a, b = texture[3 * i + c], texture[3 * j + c]
            rest = mean[3 * i + c] + fill[3 * (i * people + person) + c]
            value = here * a + (1 - here) * (there * b + (1 - there) * rest)
            out[to + c], out[to + 4 + c], out[to + 8 + c], base[3 * i + c] = a * here, b * there, value, value
        out[to + 3], out[to + 7] = here, there


@kernel
def change(maps, held, texels, number, out):
    """A map ``[N, 14]`` with ``held [R, 6]``, offsets and colours, added at its R ``texels``."""
    out[:] = maps
    for r in range(number):
        at, of = 14 * texels[r], 6 * r
        for c in range(3):
            out[at + c] += held[of + c]
            out[at + 10 + c] += held[of + 3 + c]


@kernel
def change_backward(v_out, texels, number, shows, v_maps, v_held):
    """Gradients of :func:`change` for ``shows`` maps made from one: that of the map, summed, and that of ``held``."""
    size = np.uintp(len(v_maps))
    for i in range(size):
        v_maps[i] = v_out[i]
    for g in range(1, shows):
        base = np.uintp(g) * size
        for i in range(size):
            v_maps[i] += v_out[base + i]
    for g in range(shows):
        for r in range(number):
            at, of = g * int(size) + 14 * texels[r], 6 * (g * number + r)
            for c in range(3):
                v_held[of + c] = v_out[at + c]
                v_held[of + 3 + c] = v_out[at + 10 + c]
