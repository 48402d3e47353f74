"""Kernels that carry UV Gaussians from the frames of their triangles to head space, and back for gradients.

A frame is computed once per triangle. Gaussians are sorted by triangle, so a triangle's gradients are sums over a
contiguous run: no atomics, and the same bits in every run. All arrays are flat.

Gradients of the rotation are kept as a torque tau (dL = tau . dtheta for a turn dtheta of the whole frame), which
combines the parts of means and quaternions: with d = R offset k, tau = d x v_mean + the quaternion's part.
"""

# mypy: disable-error-code="no-untyped-def,misc"
# Numba gives kernels their types.
from __future__ import annotations

import math

import numpy as np

from heads.raster.simd.jit import inline, kernel
from heads.raster.simd.maths import exp_fast, ramp, select, splat, total
from heads.raster.simd.memory import gather, lanes, scatter
from heads.raster.simd.vector import WIDTH

# A triangle's record: corner, its two edges from there, axes x y z by rows of R, quaternion, size, |edge|, |normal|
FRAME = 26
SUMS = 13
_DEGENERATE = 1e-12  # squared sine between the edges below which a triangle has no frame of its own · guess


@inline
def _matrix_to_quaternion(R, out, at):
    """Unit quaternion wxyz of a rotation (nine entries by rows), from the largest of the four components."""
    trace = R[0] + R[4] + R[8]
    if trace > 0:
        w = math.sqrt(1 + trace) / 2
        x, y, z = (R[7] - R[5]) / (4 * w), (R[2] - R[6]) / (4 * w), (R[3] - R[1]) / (4 * w)
    elif R[0] >= R[4] and R[0] >= R[8]:
        x = math.sqrt(1 + R[0] - R[4] - R[8]) / 2
        w, y, z = (R[7] - R[5]) / (4 * x), (R[1] + R[3]) / (4 * x), (R[2] + R[6]) / (4 * x)
    elif R[4] >= R[8]:
        y = math.sqrt(1 + R[4] - R[0] - R[8]) / 2
        w, x, z = (R[2] - R[6]) / (4 * y), (R[1] + R[3]) / (4 * y), (R[5] + R[7]) / (4 * y)
    else:
        z = math.sqrt(1 + R[8] - R[0] - R[4]) / 2
        w, x, y = (R[3] - R[1]) / (4 * z), (R[2] + R[6]) / (4 * z), (R[5] + R[7]) / (4 * z)
    out[at], out[at + 1], out[at + 2], out[at + 3] = w, x, y, z


@kernel
def frames(vertices, corners, first, last, base, out):
    """Write records ``[F, FRAME]`` of triangles ``first ... last - 1``; ``base`` is the head's first vertex in ``vertices``."""
    R = np.empty(9, vertices.dtype)
    for f in range(first, last):
        a, b, c = 3 * (base + corners[3 * f]), 3 * (base + corners[3 * f + 1]), 3 * (base + corners[3 * f + 2])
        at = f * FRAME
        for k in range(3):
            out[at + k] = vertices[a + k]
            out[at + 3 + k] = vertices[b + k] - vertices[a + k]
            out[at + 6 + k] = vertices[c + k] - vertices[a + k]
        e0, e1, e2, g0, g1, g2 = out[at + 3], out[at + 4], out[at + 5], out[at + 6], out[at + 7], out[at + 8]
        n0, n1, n2 = e1 * g2 - e2 * g1, e2 * g0 - e0 * g2, e0 * g1 - e1 * g0
        ee, gg, eg = e0 * e0 + e1 * e1 + e2 * e2, g0 * g0 + g1 * g1 + g2 * g2, e0 * g0 + e1 * g1 + e2 * g2
        nn = n0 * n0 + n1 * n1 + n2 * n2
        out[at + 22] = math.sqrt(max((ee + gg - eg) * 2 / 3, 0.0))
        if nn > _DEGENERATE * ee * max(gg, ee):
            length, normal = math.sqrt(ee), math.sqrt(nn)
            x0, x1, x2, z0, z1, z2 = e0 / length, e1 / length, e2 / length, n0 / normal, n1 / normal, n2 / normal
            R[0], R[3], R[6] = x0, x1, x2
            R[1], R[4], R[7] = z1 * x2 - z2 * x1, z2 * x0 - z0 * x2, z0 * x1 - z1 * x0
            R[2], R[5], R[8] = z0, z1, z2
            out[at + 23], out[at + 24] = length, normal
        else:
            # No direction: the axes of head space, and no gradient through them.
            R[:] = 0
            R[0], R[4], R[8] = 1, 1, 1
            out[at + 23], out[at + 24] = 0, 0
        out[at + 9 : at + 18] = R
        _matrix_to_quaternion(R, out, at + 18)
        out[at + 25] = 0


@inline
def _turn(records, at, x, y, z):
    """R (x, y, z) with R of the record at ``at``."""
    r = at + 9
    return (
        x * records[r] + y * records[r + 1] + z * records[r + 2],
        x * records[r + 3] + y * records[r + 4] + z * records[r + 5],
        x * records[r + 6] + y * records[r + 7] + z * records[r + 8],
    )


@inline
def _rows(array, at, width, offset):
    return (
        gather(array, at, width, offset),
        gather(array, at, width, offset + 1),
        gather(array, at, width, offset + 2),
    )


@kernel
def bind(records, runs, weights, maps, map_base, base, first, last, means, quats, scales, opacities, colors):
    """Write the Gaussians of triangles ``first ... last - 1`` of one head.

    ``runs [F + 1]``: where each triangle's Gaussians start; ``weights [N, 2]``: barycentric weights of the second and third
    corner; ``maps [., 14]`` from row ``map_base``; outputs from row ``base``.
    """
    for f in range(first, last):
        r = f * FRAME
        size = records[r + 22]
        w, x, y, z = records[r + 18], records[r + 19], records[r + 20], records[r + 21]
        for start in range(runs[f], runs[f + 1], WIDTH):
            at = lanes(start, runs[f + 1] - 1)
            m = map_base * 14
            ox, oy, oz = _rows(maps, at, 14, m)
            dx, dy, dz = _turn(records, r, ox * size, oy * size, oz * size)
            u, v = gather(weights, at, 2, 0), gather(weights, at, 2, 1)
            to = base * 3
            scatter(means, at, 3, to, dx + (records[r] + u * records[r + 3] + v * records[r + 6]))
            scatter(means, at, 3, to + 1, dy + (records[r + 1] + u * records[r + 4] + v * records[r + 7]))
            scatter(means, at, 3, to + 2, dz + (records[r + 2] + u * records[r + 5] + v * records[r + 8]))
            a, (b, c, d) = gather(maps, at, 14, m + 3), _rows(maps, at, 14, m + 4)
            scatter(quats, at, 4, base * 4, w * a - x * b - y * c - z * d)
            scatter(quats, at, 4, base * 4 + 1, w * b + x * a + y * d - z * c)
            scatter(quats, at, 4, base * 4 + 2, w * c - x * d + y * a + z * b)
            scatter(quats, at, 4, base * 4 + 3, w * d + x * c - y * b + z * a)
            for k in range(3):
                scatter(scales, at, 3, to + k, exp_fast(gather(maps, at, 14, m + 7 + k)) * size)
                scatter(colors, at, 3, to + k, gather(maps, at, 14, m + 10 + k))
            scatter(opacities, at, 1, base, 1.0 / (1.0 + exp_fast(-gather(maps, at, 14, m + 13))))


@kernel
def bind_backward(
    records, runs, weights, maps, map_base, base, first, last, quats, scales, opacities,
    v_means, v_quats, v_scales, v_opacities, v_colors, v_map_base, v_maps, triangles_too, sums,
):  # fmt: skip
    """Gradients of the maps, and with ``triangles_too`` per triangle 13 sums: v_mean, v_mean times each weight, torque, size."""
    one, zero = splat(maps, 1.0), splat(maps, 0.0)
    for f in range(first, last):
        r = f * FRAME
        size = records[r + 22]
        w, x, y, z = records[r + 18], records[r + 19], records[r + 20], records[r + 21]
        s0, s1, s2, su0, su1, su2, sv0, sv1, sv2 = zero, zero, zero, zero, zero, zero, zero, zero, zero
        t0, t1, t2, sk = zero, zero, zero, zero
        for start in range(runs[f], runs[f + 1], WIDTH):
            at = lanes(start, runs[f + 1] - 1)
            counted = ramp(maps) < splat(maps, runs[f + 1] - start)
            m, to, vm = map_base * 14, base * 3, v_map_base * 14
            ox, oy, oz = _rows(maps, at, 14, m)
            dx, dy, dz = _turn(records, r, ox, oy, oz)
            gx, gy, gz = _rows(v_means, at, 3, to)
            for k in range(3):
                local = gx * records[r + 9 + k] + gy * records[r + 12 + k] + gz * records[r + 15 + k]
                scatter(v_maps, at, 14, vm + k, local * size)
                g = gather(v_scales, at, 3, to + k) * gather(scales, at, 3, to + k)
                scatter(v_maps, at, 14, vm + 7 + k, g)
                sk += select(counted, g / size, zero) if size > 0 else zero
                scatter(v_maps, at, 14, vm + 10 + k, gather(v_colors, at, 3, to + k))
            opacity = gather(opacities, at, 1, base)
            scatter(v_maps, at, 14, vm + 13, gather(v_opacities, at, 1, base) * opacity * (one - opacity))
            a, (b, c, d) = gather(v_quats, at, 4, base * 4), _rows(v_quats, at, 4, base * 4 + 1)
            scatter(v_maps, at, 14, vm + 3, w * a + x * b + y * c + z * d)
            scatter(v_maps, at, 14, vm + 4, w * b - x * a - y * d + z * c)
            scatter(v_maps, at, 14, vm + 5, w * c + x * d - y * a - z * b)
            scatter(v_maps, at, 14, vm + 6, w * d - x * c + y * b - z * a)
            if not triangles_too:
                continue
            qw, (qx, qy, qz) = gather(quats, at, 4, base * 4), _rows(quats, at, 4, base * 4 + 1)
            tx = (dy * gz - dz * gy) * size + 0.5 * (qw * b - a * qx + qy * d - qz * c)
            ty = (dz * gx - dx * gz) * size + 0.5 * (qw * c - a * qy + qz * b - qx * d)
            tz = (dx * gy - dy * gx) * size + 0.5 * (qw * d - a * qz + qx * c - qy * b)
            t0, t1, t2 = t0 + select(counted, tx, zero), t1 + select(counted, ty, zero), t2 + select(counted, tz, zero)
            gx, gy, gz = select(counted, gx, zero), select(counted, gy, zero), select(counted, gz, zero)
            u, v = gather(weights, at, 2, 0), gather(weights, at, 2, 1)
            s0, s1, s2 = s0 + gx, s1 + gy, s2 + gz
            su0, su1, su2, sv0, sv1, sv2 = (
                su0 + u * gx,
                su1 + u * gy,
                su2 + u * gz,
                sv0 + v * gx,
                sv1 + v * gy,
                sv2 + v * gz,
            )
            sk += gx * dx + gy * dy + gz * dz
        o = f * SUMS
        sums[o], sums[o + 1], sums[o + 2] = total(s0), total(s1), total(s2)
        sums[o + 3], sums[o + 4], sums[o + 5] = total(su0), total(su1), total(su2)
        sums[o + 6], sums[o + 7], sums[o + 8] = total(sv0), total(sv1), total(sv2)
        sums[o + 9], sums[o + 10], sums[o + 11] = total(t0), total(t1), total(t2)
        sums[o + 12] = total(sk)


@kernel
def frames_backward(records, sums, corners, count, base, v_vertices):
    """Turn the sums of ``count`` triangles into gradients of the vertices, added to ``v_vertices``.

    A change of the edges e, g turns the frame: about z by y.de/|e|, about y by -z.de/|e|, about x by -y.dn/|n|, where
    n = e x g; and it changes the size by ((2e - g).de + (2g - e).dg) / (3 size).
    """
    ve, vg = np.empty(3, records.dtype), np.empty(3, records.dtype)
    for f in range(count):
        r, o = f * FRAME, f * SUMS
        size, length, normal = records[r + 22], records[r + 23], records[r + 24]
        for k in range(3):
            ve[k], vg[k] = sums[o + 3 + k], sums[o + 6 + k]
            if size > 0:
                e, g = records[r + 3 + k], records[r + 6 + k]
                ve[k] += sums[o + 12] * (2 * e - g) / (3 * size)
                vg[k] += sums[o + 12] * (2 * g - e) / (3 * size)
        if normal > 0:
            about_x = sums[o + 9] * records[r + 9] + sums[o + 10] * records[r + 12] + sums[o + 11] * records[r + 15]
            about_y = sums[o + 9] * records[r + 10] + sums[o + 10] * records[r + 13] + sums[o + 11] * records[r + 16]
            about_z = sums[o + 9] * records[r + 11] + sums[o + 10] * records[r + 14] + sums[o + 11] * records[r + 17]
            for k in range(3):
                i, j = (k + 1) % 3, (k + 2) % 3
                yi, yj = records[r + 10 + 3 * i], records[r + 10 + 3 * j]
                y, z = records[r + 10 + 3 * k], records[r + 11 + 3 * k]
                ve[k] += (about_z * y - about_y * z) / length
                ve[k] -= about_x * (records[r + 6 + i] * yj - records[r + 6 + j] * yi) / normal
                vg[k] -= about_x * (yi * records[r + 3 + j] - yj * records[r + 3 + i]) / normal
        a, b, c = 3 * (base + corners[3 * f]), 3 * (base + corners[3 * f + 1]), 3 * (base + corners[3 * f + 2])
        for k in range(3):
            v_vertices[a + k] += sums[o + k] - ve[k] - vg[k]
            v_vertices[b + k] += ve[k]
            v_vertices[c + k] += vg[k]
