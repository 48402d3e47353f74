"""Kernels that align a face's surface to a texture, frame by frame, in one pass over its points per linearisation.

The mathematics is that of :mod:`shards.tracking.refinement.photometric`; a plain PyTorch version of the linearised system is in
``tests/support/alignment.py``. Arrays are flat and float32. Points are padded to whole blocks of ``BLOCK``, with weight 0.
"""

# mypy: disable-error-code="no-untyped-def,misc"
# Numba gives kernels their types.
from __future__ import annotations

import math

import numpy as np

from heads.raster.simd.jit import inline, kernel
from heads.raster.simd.maths import fma, splat, total
from heads.raster.simd.memory import load, store
from shards.tracking.refinement.picture_kernels import CHANNELS, PLANES

F32, F64, POSITION = np.float32, np.float64, np.uintp
BLOCK = 128  # points whose slopes are held at once: 48 rows of them take 25 kB, in an L1 cache of at least 32
POSE = 6
LIGHTS = 4  # columns that explain light: offset, gradient over the normal's x and y, gain
TILE = 4  # rows of the normal matrix are padded to a multiple of it
# Rows of what is known of the points in one frame: turned points, camera points, normals along x and y, facing, picture.
TURNED, CAMERA, NORMALS, FACING, SHOWN = 0, 3, 6, 8, 9
SEEN = SHOWN + PLANES


@inline
def _turn(vector, rotation, turned):
    """``turned [9]``: the matrix ``rotation [9]`` turned by a rotation vector (Rodrigues' formula)."""
    x, y, z = F64(vector[0]), F64(vector[1]), F64(vector[2])
    square = x * x + y * y + z * z
    angle = math.sqrt(square + 1e-12)
    a, b = math.sin(angle) / angle, (0.5 - square / 24 if square < 1e-6 else (1 - math.cos(angle)) / square)
    for column in range(3):
        u, v, w = rotation[column], rotation[3 + column], rotation[6 + column]
        # v + a k x v + b k x (k x v)
        cx, cy, cz = y * w - z * v, z * u - x * w, x * v - y * u
        turned[column] = F32(u + a * cx + b * (y * cz - z * cy))
        turned[3 + column] = F32(v + a * cy + b * (z * cx - x * cz))
        turned[6 + column] = F32(w + a * cz + b * (x * cy - y * cx))


@inline
def _correct(frame, moved, rotations, translations, coefficients, moves, turned, shift, now):
    """Pose ``turned [9], shift [3]`` and coefficients ``now [moves]`` of a frame, corrected by ``moved [6 + moves]``."""
    _turn(moved, rotations[9 * frame : 9 * frame + 9], turned)
    for k in range(3):
        shift[k] = translations[3 * frame + k] + moved[3 + k]
    for k in range(moves):
        now[k] = coefficients[moves * frame + k] + moved[POSE + k]


@inline
def _moved(base, motion, coefficients, moves, block, local):
    """``local [3, BLOCK]``: points of a block at expression and eyelids ``coefficients [K]``."""
    for axis in range(POSITION(3)):
        start = (block * POSITION(3) + axis) * POSITION(BLOCK)
        for j in range(POSITION(0), POSITION(BLOCK), POSITION(32)):
            a, b = load(base, start + j), load(base, start + j + POSITION(8))
            c, d = load(base, start + j + POSITION(16)), load(base, start + j + POSITION(24))
            for k in range(POSITION(moves)):
                at = ((block * POSITION(3) + axis) * POSITION(moves) + k) * POSITION(BLOCK) + j
                by = splat(base, coefficients[k])
                a, b = fma(load(motion, at), by, a), fma(load(motion, at + POSITION(8)), by, b)
                c, d = fma(load(motion, at + POSITION(16)), by, c), fma(load(motion, at + POSITION(24)), by, d)
            to = axis * POSITION(BLOCK) + j
            store(local, to, a)
            store(local, to + POSITION(8), b)
            store(local, to + POSITION(16), c)
            store(local, to + POSITION(24), d)


@inline
def _see(
    base, normals, motion, coefficients, moves, rotation, translation, camera, limits, side, planes, n, local, seen
):
    """Where a frame shows the points and what it shows there: ``seen [15, N]``.

    Args:
        base, normals: ``[N / BLOCK, 3, BLOCK]`` points without expression, and normals, in head space.
        motion: ``[N / BLOCK, 3, K, BLOCK]`` of the points with each coefficient.
        coefficients: ``[K]``; rotation ``[9]``, translation ``[3]``: head to camera.
        camera: focal length and principal point, px of the picture; limits: cosines of no and of full weight.
        planes: the picture ``[6, side, side]``.
        local: scratch ``[3, BLOCK]``.
    """
    n, area, most = POSITION(n), POSITION(side * side), F32(side - 1)
    r = rotation
    focal, middle_x, middle_y = camera[0], camera[1] - F32(0.5), camera[2] - F32(0.5)
    grazing, rise = limits[0], F32(1) / (limits[1] - limits[0])
    for block in range(n // POSITION(BLOCK)):
        _moved(base, motion, coefficients, moves, block, local)
        first, source = block * POSITION(BLOCK), block * POSITION(3 * BLOCK)
        for j in range(POSITION(BLOCK)):
            x, y, z = local[j], local[POSITION(BLOCK) + j], local[POSITION(2 * BLOCK) + j]
            tx, ty, tz = r[0] * x + r[1] * y + r[2] * z, r[3] * x + r[4] * y + r[5] * z, r[6] * x + r[7] * y + r[8] * z
            cx, cy, cz = tx + translation[0], ty + translation[1], tz + translation[2]
            x, y, z = (
                normals[source + j],
                normals[source + POSITION(BLOCK) + j],
                normals[source + POSITION(2 * BLOCK) + j],
            )
            nx, ny, nz = r[0] * x + r[1] * y + r[2] * z, r[3] * x + r[4] * y + r[5] * z, r[6] * x + r[7] * y + r[8] * z
            cosine = -(nx * cx + ny * cy + nz * cz) / F32(math.sqrt(cx * cx + cy * cy + cz * cz))
            at = first + j
            seen[at], seen[n + at], seen[POSITION(2) * n + at] = tx, ty, tz
            seen[POSITION(3) * n + at], seen[POSITION(4) * n + at], seen[POSITION(5) * n + at] = cx, cy, cz
            seen[POSITION(6) * n + at], seen[POSITION(7) * n + at] = nx, ny
            seen[POSITION(8) * n + at] = min(max((cosine - grazing) * rise, F32(0)), F32(1))
        for at in range(first, first + POSITION(BLOCK)):
            scale = focal / seen[POSITION(5) * n + at]
            x, y = seen[POSITION(3) * n + at] * scale + middle_x, seen[POSITION(4) * n + at] * scale + middle_y
            x = x if x > F32(0) else F32(0)  # also what is no number
            y = y if y > F32(0) else F32(0)
            x, y = min(x, most), min(y, most)
            column, row = min(np.int32(x), np.int32(side - 2)), min(np.int32(y), np.int32(side - 2))
            fx, fy = x - F32(column), y - F32(row)
            upper = POSITION(row * np.int32(side) + column)
            lower = upper + POSITION(side)
            for plane in range(POSITION(PLANES)):
                k = plane * area
                above = planes[k + upper] + fx * (planes[k + upper + POSITION(1)] - planes[k + upper])
                below = planes[k + lower] + fx * (planes[k + lower + POSITION(1)] - planes[k + lower])
                seen[(POSITION(SHOWN) + plane) * n + at] = above + fy * (below - above)


@inline
def _solve(matrix, right, size):
    """Solves a positive definite system in place, by Cholesky; ``matrix [size, size]`` and ``right [size]`` float64."""
    for i in range(size):
        for j in range(i + 1):
            value = matrix[i, j]
            for k in range(j):
                value -= matrix[i, k] * matrix[j, k]
            if i == j:
                matrix[i, i] = math.sqrt(max(value, 1e-30))
            else:
                matrix[i, j] = value / matrix[j, j]
    for i in range(size):
        value = right[i]
        for k in range(i):
            value -= matrix[i, k] * right[k]
        right[i] = value / matrix[i, i]
    for i in range(size - 1, -1, -1):
        value = right[i]
        for k in range(i + 1, size):
            value -= matrix[k, i] * right[k]
        right[i] = value / matrix[i, i]


@inline
def _lights(seen, values, weights, channel, n, lights):
    """Coefficients ``lights [4]`` float64 of the light that explains most of a frame's difference from the texture."""
    n = POSITION(n)
    shown = (POSITION(SHOWN) + POSITION(channel)) * n
    nx, ny, facing, value = POSITION(6) * n, POSITION(7) * n, POSITION(8) * n, POSITION(channel) * n
    s0 = sx = sy = sv = xx = xy = xv = yy = yv = vv = d0 = dx = dy = dv = splat(seen, F32(0))
    for j in range(POSITION(0), n, POSITION(8)):
        w, v = load(seen, facing + j) * load(weights, j), load(values, value + j)
        x, y, d = load(seen, nx + j), load(seen, ny + j), load(seen, shown + j) - v
        wx, wy, wv = w * x, w * y, w * v
        s0, sx, sy, sv = s0 + w, sx + wx, sy + wy, sv + wv
        xx, xy, xv = fma(wx, x, xx), fma(wx, y, xy), fma(wx, v, xv)
        yy, yv, vv = fma(wy, y, yy), fma(wy, v, yv), fma(wv, v, vv)
        d0, dx, dy, dv = fma(w, d, d0), fma(wx, d, dx), fma(wy, d, dy), fma(wv, d, dv)
    matrix = np.empty((LIGHTS, LIGHTS), F64)
    matrix[0, 0], matrix[1, 1], matrix[2, 2], matrix[3, 3] = total(s0), total(xx), total(yy), total(vv)
    matrix[1, 0], matrix[2, 0], matrix[3, 0] = total(sx), total(sy), total(sv)
    matrix[2, 1], matrix[3, 1], matrix[3, 2] = total(xy), total(xv), total(yv)
    for k in range(LIGHTS):
        matrix[k, k] += 1e-3
    lights[0], lights[1], lights[2], lights[3] = total(d0), total(dx), total(dy), total(dv)
    _solve(matrix, lights, LIGHTS)
    return total(s0)


@inline
def _robust(seen, values, weights, channel, n, lights, robust, roots):
    """The cost of a channel, and ``roots [N]`` of its points' weights in the normal equations."""
    n = POSITION(n)
    shown = (POSITION(SHOWN) + POSITION(channel)) * n
    nx, ny, facing, value = POSITION(6) * n, POSITION(7) * n, POSITION(8) * n, POSITION(channel) * n
    a, b, c, gain, by = F32(lights[0]), F32(lights[1]), F32(lights[2]), F32(lights[3]), F32(1) / robust
    cost = F32(0)
    for j in range(n):
        v, w = values[value + j], seen[facing + j] * weights[j]
        plain = seen[shown + j] - v - (a + b * seen[nx + j] + c * seen[ny + j] + gain * v)
        square = (plain * by) * (plain * by)
        share = F32(1) / (F32(1) + square)
        cost += w * square * share
        roots[j] = F32(math.sqrt(w)) * share
    return cost


@inline
def _block_slopes(seen, values, roots, channel, n, block, rotation, focal, motion, moves, slopes, pull):
    """Weighted rows ``slopes [P + 5, BLOCK]`` of a block: each correction, the lights, the difference.

    ``pull [3, BLOCK]`` is scratch.
    """
    n, width, r = POSITION(n), POSITION(BLOCK), rotation
    shown, value = (POSITION(SHOWN) + POSITION(channel)) * n, POSITION(channel) * n
    across, down = shown + POSITION(CHANNELS) * n, shown + POSITION(2 * CHANNELS) * n
    first, light = block * width, POSITION(POSE + moves) * width
    by = splat(seen, focal)
    r00, r01, r02 = splat(seen, r[0]), splat(seen, r[1]), splat(seen, r[2])
    r10, r11, r12 = splat(seen, r[3]), splat(seen, r[4]), splat(seen, r[5])
    r20, r21, r22 = splat(seen, r[6]), splat(seen, r[7]), splat(seen, r[8])
    for j in range(POSITION(0), width, POSITION(8)):
        at = first + j
        cx, cy, cz = (
            load(seen, POSITION(3) * n + at),
            load(seen, POSITION(4) * n + at),
            load(seen, POSITION(5) * n + at),
        )
        tx, ty, tz = load(seen, at), load(seen, n + at), load(seen, POSITION(2) * n + at)
        root = load(roots, at)
        near = F32(1) / cz
        scale = root * by * near
        px, py = load(seen, across + at) * scale, load(seen, down + at) * scale
        pz = -(fma(px, cx, py * cy) * near)
        store(slopes, j, fma(ty, pz, -(tz * py)))
        store(slopes, width + j, fma(tz, px, -(tx * pz)))
        store(slopes, POSITION(2) * width + j, fma(tx, py, -(ty * px)))
        store(slopes, POSITION(3) * width + j, px)
        store(slopes, POSITION(4) * width + j, py)
        store(slopes, POSITION(5) * width + j, pz)
        store(pull, j, fma(px, r00, fma(py, r10, pz * r20)))
        store(pull, width + j, fma(px, r01, fma(py, r11, pz * r21)))
        store(pull, POSITION(2) * width + j, fma(px, r02, fma(py, r12, pz * r22)))
        v = load(values, value + at)
        store(slopes, light + j, root)
        store(slopes, light + width + j, root * load(seen, POSITION(6) * n + at))
        store(slopes, light + POSITION(2) * width + j, root * load(seen, POSITION(7) * n + at))
        store(slopes, light + POSITION(3) * width + j, root * v)
        store(slopes, light + POSITION(4) * width + j, root * (load(seen, shown + at) - v))
    part = POSITION(moves) * width
    for k in range(POSITION(moves)):
        source = block * POSITION(3) * part + k * width
        to = (POSITION(POSE) + k) * width
        for j in range(POSITION(0), width, POSITION(8)):
            value_ = load(pull, j) * load(motion, source + j)
            value_ = fma(load(pull, width + j), load(motion, source + part + j), value_)
            store(slopes, to + j, fma(load(pull, width + width + j), load(motion, source + part + part + j), value_))


@inline
def _add_products(slopes, rows, normal):
    """Adds the products of all pairs of rows of a block, ``slopes [rows, BLOCK]``, to ``normal [rows, rows]``, upper part."""
    width, rows = POSITION(BLOCK), POSITION(rows)
    for i in range(POSITION(0), rows, POSITION(2)):
        for k in range(i // POSITION(TILE) * POSITION(TILE), rows, POSITION(TILE)):
            zero = splat(slopes, F32(0))
            a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = zero
            p, q = i * width, k * width
            for j in range(POSITION(0), width, POSITION(8)):
                a, b = load(slopes, p + j), load(slopes, p + width + j)
                c, d = load(slopes, q + j), load(slopes, q + width + j)
                a0, b0, a1, b1 = fma(a, c, a0), fma(b, c, b0), fma(a, d, a1), fma(b, d, b1)
                c, d = load(slopes, q + width + width + j), load(slopes, q + width + width + width + j)
                a2, b2, a3, b3 = fma(a, c, a2), fma(b, c, b2), fma(a, d, a3), fma(b, d, b3)
            at = i * rows + k
            normal[at] += total(a0)
            normal[at + POSITION(1)] += total(a1)
            normal[at + POSITION(2)] += total(a2)
            normal[at + POSITION(3)] += total(a3)
            at += rows
            normal[at] += total(b0)
            normal[at + POSITION(1)] += total(b1)
            normal[at + POSITION(2)] += total(b2)
            normal[at + POSITION(3)] += total(b3)


@inline
def _add_system(normal, rows, size, matrix, right):
    """Adds a channel's normal equations, whose lights are eliminated (a Schur complement), to ``matrix`` and ``right``."""
    own, solved = np.empty((LIGHTS, LIGHTS), F64), np.empty(LIGHTS, F64)
    last = size + LIGHTS
    for column in range(size + 1):
        to = column if column < size else last
        for i in range(LIGHTS):
            for k in range(LIGHTS):
                low, high = min(size + i, size + k), max(size + i, size + k)
                own[i, k] = F64(normal[low * rows + high]) + (1e-3 if i == k else 0.0)
            low, high = min(to, size + i), max(to, size + i)
            solved[i] = F64(normal[low * rows + high])
        _solve(own, solved, LIGHTS)
        for i in range(column + 1 if column < size else size):
            value = F64(normal[i * rows + to])
            for k in range(LIGHTS):
                value -= F64(normal[i * rows + size + k]) * solved[k]
            if column < size:
                matrix[column, i] += value  # the lower part is what is solved
            else:
                right[i] += value


@kernel
def align(
    pictures, side, rotations, translations, coefficients, moves, base, normals, motion, n, values, weights,
    camera, limits, robust, prior, rounds, corrections,
):  # fmt: skip
    """Corrections ``[T, P]`` of rotation vector, translation, expression and eyelids that align frames to a texture.

    Zero for frames whose pixels agree no better afterwards.

    Args:
        pictures: ``[T, 6, side, side]`` of :func:`prepare`.
        rotations, translations, coefficients: ``[T, 9], [T, 3], [T, K]`` where the frames start; moves: K.
        base, normals, motion: of the surface, as :func:`_see` takes them; n: number of points, padded.
        values, weights: of the texture, ``[2, N]`` and ``[N]``.
        camera: focal length, principal point x and y, px of the pictures; limits: cosines of no and of full weight.
        robust: difference at which a point's weight falls to a quarter.
        prior: ``[P, P]`` float64, the precision that draws corrections towards zero; rounds: linearisations.
    """
    size = POSE + moves
    rows = (size + LIGHTS + 1 + TILE - 1) // TILE * TILE
    seen, roots, local = np.empty(SEEN * n, F32), np.empty(n, F32), np.empty(3 * BLOCK, F32)
    slopes, normal = np.zeros(rows * BLOCK, F32), np.empty(rows * rows, F32)
    now, turned, shift, lights = np.empty(moves, F32), np.empty(9, F32), np.empty(3, F32), np.empty(LIGHTS, F64)
    matrix, right, moved = np.empty((size, size), F64), np.empty(size, F64), np.empty(size, F32)
    for frame in range(len(rotations) // 9):
        planes = pictures[frame * PLANES * side * side : (frame + 1) * PLANES * side * side]
        for k in range(size):
            moved[k] = F32(0)
        before = after = F32(0)
        for step in range(rounds + 1):
            _correct(frame, moved, rotations, translations, coefficients, moves, turned, shift, now)
            _see(base, normals, motion, now, moves, turned, shift, camera, limits, side, planes, n, local, seen)
            if step < rounds:
                for i in range(size):
                    right[i] = 0.0
                    for k in range(size):
                        matrix[i, k] = prior[i, k]
                        right[i] += prior[i, k] * F64(moved[k])
            after = F32(0)
            for channel in range(CHANNELS):
                weight = _lights(seen, values, weights, channel, n, lights)
                after += _robust(seen, values, weights, channel, n, lights, robust, roots) / max(weight, F32(1e-6))
                if step < rounds:
                    for k in range(rows * rows):
                        normal[k] = F32(0)
                    for block in range(POSITION(n // BLOCK)):
                        _block_slopes(
                            seen, values, roots, channel, n, block, turned, camera[0], motion, moves, slopes, local
                        )  # fmt: skip
                        _add_products(slopes, rows, normal)
                    _add_system(normal, rows, size, matrix, right)
            if step == 0:
                before = after
            if step < rounds:
                _solve(matrix, right, size)
                for k in range(size):
                    moved[k] -= F32(right[k])
        better = after < before
        for k in range(size):
            corrections[frame * size + k] = moved[k] if better else F32(0)


@kernel
def look(
    pictures, side, rotations, translations, coefficients, moves, base, normals, motion, n, camera, limits,
    corrections, shown, facing,
):  # fmt: skip
    """What frames show of the surface where corrected tracks put it: ``shown [T, 2, N]`` and weights ``facing [T, N]``.

    Arguments as :func:`align` takes them; corrections are given.
    """
    seen, local = np.empty(SEEN * n, F32), np.empty(3 * BLOCK, F32)
    now, turned, shift = np.empty(moves, F32), np.empty(9, F32), np.empty(3, F32)
    size = POSE + moves
    for frame in range(len(rotations) // 9):
        planes = pictures[frame * PLANES * side * side : (frame + 1) * PLANES * side * side]
        moved = corrections[frame * size : (frame + 1) * size]
        _correct(frame, moved, rotations, translations, coefficients, moves, turned, shift, now)
        _see(base, normals, motion, now, moves, turned, shift, camera, limits, side, planes, n, local, seen)
        for k in range(CHANNELS * n):
            shown[frame * CHANNELS * n + k] = seen[SHOWN * n + k]
        for k in range(n):
            facing[frame * n + k] = seen[FACING * n + k]
