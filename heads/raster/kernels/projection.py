"""Projection of 3D Gaussians to the image plane and its gradient, eight Gaussians at a time.

Mathematics of gsplat's ``fully_fused_projection`` (EWA splatting, Zwicker et al. 2001; pinhole camera, OpenCV axes):
t = R mu + T, W = R Rq diag(s), rows of J W, covariance = (J W)(J W)^T + eps2d I, conic = its inverse.
The determinant is taken as |row0 x row1|^2 + eps2d (a + c) + eps2d^2, which cannot cancel to a negative number.
"""

# mypy: disable-error-code="no-untyped-def,misc"
# Numba gives kernels their types.
from __future__ import annotations

from heads.raster.simd.jit import inline, kernel
from heads.raster.simd.maths import any_lane, ceil, fma, log, ramp, select, splat, sqrt
from heads.raster.simd.memory import gather, lanes, load, scatter, store
from heads.raster.simd.vector import WIDTH

_ALPHA_MIN = 255.0  # reciprocal of the least alpha that is drawn: opacity * exp(-s) >= 1/255 · gsplat
EXTEND = 3.33  # standard deviations, gsplat's largest radius; sqrt(2 ln 255) = 3.329, so nothing visible is cut off


@inline
def _dot3(a0, a1, a2, b0, b1, b2):
    return fma(a0, b0, fma(a1, b1, a2 * b2))


@inline
def _rotation(w, x, y, z):
    """Rotation matrix of a unit quaternion, nine entries by rows."""
    return (
        1 - 2 * (y * y + z * z),
        2 * (x * y - w * z),
        2 * (x * z + w * y),
        2 * (x * y + w * z),
        1 - 2 * (x * x + z * z),
        2 * (y * z - w * x),
        2 * (x * z - w * y),
        2 * (y * z + w * x),
        1 - 2 * (x * x + y * y),
    )


@inline
def _camera_limits(K, width, height):
    """Bounds of x/z and y/z inside which the projection is linearised (gsplat: 15 % beyond the image)."""
    fx, fy, cx, cy = K[0], K[4], K[2], K[5]
    margin_x, margin_y = 0.15 * width / fx, 0.15 * height / fy
    return -cx / fx - margin_x, (width - cx) / fx + margin_x, -cy / fy - margin_y, (height - cy) / fy + margin_y


@inline
def _clip(value, low, high):
    value = select(value < low, low, value)
    return select(value > high, high, value)


@inline
def _triple(array, at, base):
    """Three numbers each of the items ``base + at`` of a flat ``[..., 3]`` array."""
    return gather(array, at, 3, base * 3), gather(array, at, 3, base * 3 + 1), gather(array, at, 3, base * 3 + 2)


@inline
def _view_rows(V, u, v, jx, jy):
    """Rows of J R_view: fx/z (V0 - u V2) and fy/z (V1 - v V2)."""
    a = (V[0] - u * V[8]) * jx, (V[1] - u * V[9]) * jx, (V[2] - u * V[10]) * jx
    b = (V[4] - v * V[8]) * jy, (V[5] - v * V[9]) * jy, (V[6] - v * V[10]) * jy
    return a, b


@inline
def _times_rotation(a, R):
    """a^T R for a row vector a and nine entries R by rows."""
    return (
        _dot3(a[0], a[1], a[2], R[0], R[3], R[6]),
        _dot3(a[0], a[1], a[2], R[1], R[4], R[7]),
        _dot3(a[0], a[1], a[2], R[2], R[5], R[8]),
    )


@inline
def _unit_rotation(quats, at, of, tiny):
    """Rotation matrices of eight quaternions (wxyz, any length; zero means no rotation), and (unit quat, 1/length)."""
    w, x = gather(quats, at, 4, of * 4), gather(quats, at, 4, of * 4 + 1)
    y, z = gather(quats, at, 4, of * 4 + 2), gather(quats, at, 4, of * 4 + 3)
    norm2 = fma(w, w, _dot3(x, y, z, x, y, z))
    inverse = 1.0 / sqrt(select(norm2 > tiny, norm2, tiny))
    w, x, y, z = w * inverse, x * inverse, y * inverse, z * inverse
    return _rotation(w, x, y, z), (w, x, y, z, inverse)


@inline
def _quat_gradient(unit, g):
    """Gradient of the unnormalised quaternion from that of its rotation matrix, nine entries by rows."""
    w, x, y, z, inverse = unit
    gw = 2.0 * (x * (g[7] - g[5]) + y * (g[2] - g[6]) + z * (g[3] - g[1]))
    gx = 2.0 * (w * (g[7] - g[5]) + y * (g[1] + g[3]) + z * (g[2] + g[6]) - 2.0 * x * (g[4] + g[8]))
    gy = 2.0 * (w * (g[2] - g[6]) + x * (g[1] + g[3]) + z * (g[5] + g[7]) - 2.0 * y * (g[0] + g[8]))
    gz = 2.0 * (w * (g[3] - g[1]) + x * (g[2] + g[6]) + y * (g[5] + g[7]) - 2.0 * z * (g[0] + g[4]))
    along = fma(w, gw, _dot3(x, y, z, gx, gy, gz))
    return (
        (gw - w * along) * inverse,
        (gx - x * along) * inverse,
        (gy - y * along) * inverse,
        (gz - z * along) * inverse,
    )


@inline
def _add(sums, base, entry, counted, value):
    """Add the valid lanes to one entry of the viewmat sums."""
    at = base + entry * WIDTH
    store(sums, at, load(sums, at) + select(counted, value, 0.0))


@kernel
def project(
    means, quats, scales, opacities, viewmats, Ks, image, batch, number, first, last, size, planes, eps2d, radius_clip,
    compensate, means2d, conics, depths, radii, compensations,
):  # fmt: skip
    """Project Gaussians ``first ... last - 1`` of one image. All arrays are flat.

    Inputs are those of scene ``batch`` (``[B, N, ...]``), outputs those of ``image`` (``[I, N, ...]``), N = ``number``;
    ``size`` = (width, height), ``planes`` = (near, far). A Gaussian that is not drawn gets zeros everywhere.
    """
    width, height = size
    V, K = viewmats[image * 16 : image * 16 + 16], Ks[image * 9 : image * 9 + 9]
    lim_x0, lim_x1, lim_y0, lim_y1 = _camera_limits(K, width, height)
    fx, fy, cx, cy = K[0], K[4], K[2], K[5]
    one, zero, tiny, huge = splat(means, 1.0), splat(means, 0.0), splat(means, 1e-24), splat(means, 1e38)
    of, to = batch * number, image * number
    for start in range(first, last, WIDTH):
        at = lanes(start, last - 1)
        mx, my, mz = _triple(means, at, of)
        tx = fma(V[0], mx, fma(V[1], my, fma(V[2], mz, V[3])))
        ty = fma(V[4], mx, fma(V[5], my, fma(V[6], mz, V[7])))
        tz = fma(V[8], mx, fma(V[9], my, fma(V[10], mz, V[11])))
        seen = (tz >= planes[0]) & (tz <= planes[1])
        rz = one / select(seen, tz, one)
        u, v = _clip(tx * rz, lim_x0, lim_x1), _clip(ty * rz, lim_y0, lim_y1)
        a, b = _view_rows(V, u, v, fx * rz, fy * rz)
        R, _ = _unit_rotation(quats, at, of, tiny)
        s = _triple(scales, at, of)
        p, q = _times_rotation(a, R), _times_rotation(b, R)
        r00, r01, r02, r10, r11, r12 = p[0] * s[0], p[1] * s[1], p[2] * s[2], q[0] * s[0], q[1] * s[1], q[2] * s[2]
        cov_xx, cov_xy, cov_yy = (
            _dot3(r00, r01, r02, r00, r01, r02),
            _dot3(r00, r01, r02, r10, r11, r12),
            _dot3(r10, r11, r12, r10, r11, r12),
        )
        n0, n1, n2 = r01 * r12 - r02 * r11, r02 * r10 - r00 * r12, r00 * r11 - r01 * r10
        sharp = _dot3(n0, n1, n2, n0, n1, n2)
        det = fma(cov_xx + cov_yy + eps2d, eps2d, sharp)
        cov_xx += eps2d
        cov_yy += eps2d
        seen = seen & (det > zero) & (det < huge)
        inverse_det = one / select(seen, det, one)

        opacity = gather(opacities, at, 1, of)
        if compensate:
            factor = sqrt(sharp * inverse_det)
            opacity = opacity * factor
            scatter(compensations, at, 1, to, select(seen, factor, zero))
        seen = seen & (opacity * _ALPHA_MIN >= one)
        reach = sqrt(2.0 * log(select(seen, opacity, one) * _ALPHA_MIN))
        reach = select(reach > EXTEND, EXTEND, reach)
        radius_x, radius_y = ceil(reach * sqrt(cov_xx)), ceil(reach * sqrt(cov_yy))
        x, y = fma(tx * rz, fx, cx), fma(ty * rz, fy, cy)
        seen = seen & ((radius_x > radius_clip) | (radius_y > radius_clip))
        seen = seen & (x + radius_x > zero) & (x - radius_x < width)
        seen = seen & (y + radius_y > zero) & (y - radius_y < height)

        scatter(means2d, at, 2, to * 2, select(seen, x, zero))
        scatter(means2d, at, 2, to * 2 + 1, select(seen, y, zero))
        scatter(conics, at, 3, to * 3, select(seen, cov_yy * inverse_det, zero))
        scatter(conics, at, 3, to * 3 + 1, select(seen, -cov_xy * inverse_det, zero))
        scatter(conics, at, 3, to * 3 + 2, select(seen, cov_xx * inverse_det, zero))
        scatter(depths, at, 1, to, select(seen, tz, zero))
        # Clamped to a radius far beyond the image, which fits an int32.
        scatter(radii, at, 2, to * 2, select(seen, select(radius_x > 1e6, 1e6, radius_x), zero))
        scatter(radii, at, 2, to * 2 + 1, select(seen, select(radius_y > 1e6, 1e6, radius_y), zero))


@kernel
def project_backward(
    means, quats, scales, viewmats, Ks, batch, cameras, number, first, last, size, eps2d, compensate,
    means2d, conics, depths, compensations, v_means2d, v_conics, v_depths, v_compensations,
    v_means, v_quats, v_scales, want_views, view_sums,
):  # fmt: skip
    """Gradients of Gaussians ``first ... last - 1`` of scene ``batch``, summed over its cameras. All arrays are flat.

    ``view_sums [cameras * 12 * 8]`` receives, lane by lane, this chunk's gradients of the viewmats' upper three rows
    (the caller sums lanes and chunks); written only where ``want_views``.
    """
    width, height = size
    one, zero, tiny = splat(means, 1.0), splat(means, 0.0), splat(means, 1e-24)
    of = batch * number
    for start in range(first, last, WIDTH):
        at = lanes(start, last - 1)
        alive = ramp(means) < splat(means, last - start)
        mx, my, mz = _triple(means, at, of)
        s0, s1, s2 = _triple(scales, at, of)
        R, unit = _unit_rotation(quats, at, of, tiny)
        gm0, gm1, gm2, gs0, gs1, gs2 = zero, zero, zero, zero, zero, zero
        g00, g01, g02, g10, g11, g12, g20, g21, g22 = zero, zero, zero, zero, zero, zero, zero, zero, zero
        drawn = zero > zero
        for camera in range(cameras):
            image = batch * cameras + camera
            to = image * number
            A, B, C = (
                gather(conics, at, 3, to * 3),
                gather(conics, at, 3, to * 3 + 1),
                gather(conics, at, 3, to * 3 + 2),
            )
            seen = A > 0.0
            if not any_lane(seen):
                continue
            drawn = drawn | seen
            V, K = viewmats[image * 16 : image * 16 + 16], Ks[image * 9 : image * 9 + 9]
            fx, fy = K[0], K[4]
            lim_x0, lim_x1, lim_y0, lim_y1 = _camera_limits(K, width, height)
            tx = fma(V[0], mx, fma(V[1], my, fma(V[2], mz, V[3])))
            ty = fma(V[4], mx, fma(V[5], my, fma(V[6], mz, V[7])))
            rz = one / select(seen, gather(depths, at, 1, to), one)
            xz, yz = tx * rz, ty * rz
            u, v = _clip(xz, lim_x0, lim_x1), _clip(yz, lim_y0, lim_y1)
            jx, jy = fx * rz, fy * rz
            a, b = _view_rows(V, u, v, jx, jy)
            p, q = _times_rotation(a, R), _times_rotation(b, R)
            r00, r01, r02, r10, r11, r12 = p[0] * s0, p[1] * s1, p[2] * s2, q[0] * s0, q[1] * s1, q[2] * s2

            # conic -> covariance: G = -conic V conic, with V symmetric from the three stored numbers
            va, vc = gather(v_conics, at, 3, to * 3), gather(v_conics, at, 3, to * 3 + 2)
            vb = 0.5 * gather(v_conics, at, 3, to * 3 + 1)
            h00, h01, h10, h11 = A * va + B * vb, A * vb + B * vc, B * va + C * vb, B * vb + C * vc
            gxx, gxy, gyy = -(h00 * A + h01 * B), -(h00 * B + h01 * C), -(h10 * B + h11 * C)
            if compensate:
                # comp^2 = sharp / det; with the conic, cov = conic^-1 and 1/det = det(conic)
                factor = gather(compensations, at, 1, to)
                half = 0.5 * gather(v_compensations, at, 1, to) / select(factor > 1e-6, factor, 1e-6)
                inverse_det = A * C - B * B
                rest = 1.0 - factor * factor
                gxx += half * (rest * A - eps2d * inverse_det)
                gxy += half * (rest * B)
                gyy += half * (rest * C - eps2d * inverse_det)
            gxx, gxy, gyy = 2.0 * gxx, 2.0 * gxy, 2.0 * gyy

            # covariance = rows . rows^T, rows = (a^T Rq diag s, b^T Rq diag s)
            vr00, vr01, vr02 = gxx * r00 + gxy * r10, gxx * r01 + gxy * r11, gxx * r02 + gxy * r12
            vr10, vr11, vr12 = gxy * r00 + gyy * r10, gxy * r01 + gyy * r11, gxy * r02 + gyy * r12
            gs0 += select(seen, fma(vr00, p[0], vr10 * q[0]), zero)
            gs1 += select(seen, fma(vr01, p[1], vr11 * q[1]), zero)
            gs2 += select(seen, fma(vr02, p[2], vr12 * q[2]), zero)
            e0, e1, e2, f0, f1, f2 = vr00 * s0, vr01 * s1, vr02 * s2, vr10 * s0, vr11 * s1, vr12 * s2
            g00 += select(seen, fma(a[0], e0, b[0] * f0), zero)
            g01 += select(seen, fma(a[0], e1, b[0] * f1), zero)
            g02 += select(seen, fma(a[0], e2, b[0] * f2), zero)
            g10 += select(seen, fma(a[1], e0, b[1] * f0), zero)
            g11 += select(seen, fma(a[1], e1, b[1] * f1), zero)
            g12 += select(seen, fma(a[1], e2, b[1] * f2), zero)
            g20 += select(seen, fma(a[2], e0, b[2] * f0), zero)
            g21 += select(seen, fma(a[2], e1, b[2] * f1), zero)
            g22 += select(seen, fma(a[2], e2, b[2] * f2), zero)
            va0, va1, va2 = (
                _dot3(R[0], R[1], R[2], e0, e1, e2),
                _dot3(R[3], R[4], R[5], e0, e1, e2),
                _dot3(R[6], R[7], R[8], e0, e1, e2),
            )
            vb0, vb1, vb2 = (
                _dot3(R[0], R[1], R[2], f0, f1, f2),
                _dot3(R[3], R[4], R[5], f0, f1, f2),
                _dot3(R[6], R[7], R[8], f0, f1, f2),
            )

            # a = jx (V0 - u V2), b = jy (V1 - v V2), jx = fx / z, u = clip(x / z)
            vu = select((xz >= lim_x0) & (xz <= lim_x1), -jx * _dot3(va0, va1, va2, V[8], V[9], V[10]), zero)
            vv = select((yz >= lim_y0) & (yz <= lim_y1), -jy * _dot3(vb0, vb1, vb2, V[8], V[9], V[10]), zero)
            v_rz = (_dot3(va0, va1, va2, a[0], a[1], a[2]) + _dot3(vb0, vb1, vb2, b[0], b[1], b[2])) / rz
            vmx, vmy = gather(v_means2d, at, 2, to * 2), gather(v_means2d, at, 2, to * 2 + 1)
            wx, wy = fma(fx, vmx, vu), fma(fy, vmy, vv)
            vtx, vty = wx * rz, wy * rz
            v_rz = fma(wx, tx, fma(wy, ty, v_rz))
            vtz = gather(v_depths, at, 1, to) - v_rz * rz * rz
            gm0 += select(seen, _dot3(V[0], V[4], V[8], vtx, vty, vtz), zero)
            gm1 += select(seen, _dot3(V[1], V[5], V[9], vtx, vty, vtz), zero)
            gm2 += select(seen, _dot3(V[2], V[6], V[10], vtx, vty, vtz), zero)
            if want_views:
                # t = V mu + V3, and a, b hold rows of V themselves; the tail's repeated lanes count nothing
                counted = seen & alive
                ja0, ja1, ja2, jb0, jb1, jb2 = jx * va0, jx * va1, jx * va2, jy * vb0, jy * vb1, jy * vb2
                base = camera * 12 * WIDTH
                _add(view_sums, base, 0, counted, fma(vtx, mx, ja0))
                _add(view_sums, base, 1, counted, fma(vtx, my, ja1))
                _add(view_sums, base, 2, counted, fma(vtx, mz, ja2))
                _add(view_sums, base, 3, counted, vtx)
                _add(view_sums, base, 4, counted, fma(vty, mx, jb0))
                _add(view_sums, base, 5, counted, fma(vty, my, jb1))
                _add(view_sums, base, 6, counted, fma(vty, mz, jb2))
                _add(view_sums, base, 7, counted, vty)
                _add(view_sums, base, 8, counted, vtz * mx - u * ja0 - v * jb0)
                _add(view_sums, base, 9, counted, vtz * my - u * ja1 - v * jb1)
                _add(view_sums, base, 10, counted, vtz * mz - u * ja2 - v * jb2)
                _add(view_sums, base, 11, counted, vtz)
        scatter(v_means, at, 3, of * 3, gm0)
        scatter(v_means, at, 3, of * 3 + 1, gm1)
        scatter(v_means, at, 3, of * 3 + 2, gm2)
        scatter(v_scales, at, 3, of * 3, gs0)
        scatter(v_scales, at, 3, of * 3 + 1, gs1)
        scatter(v_scales, at, 3, of * 3 + 2, gs2)
        gq = _quat_gradient(unit, (g00, g01, g02, g10, g11, g12, g20, g21, g22))
        scatter(v_quats, at, 4, of * 4, select(drawn, gq[0], zero))
        scatter(v_quats, at, 4, of * 4 + 1, select(drawn, gq[1], zero))
        scatter(v_quats, at, 4, of * 4 + 2, select(drawn, gq[2], zero))
        scatter(v_quats, at, 4, of * 4 + 3, select(drawn, gq[3], zero))
