"""Front-to-back alpha compositing of sorted Gaussians over pixel tiles, and its gradient.

Within a tile the outer loop is over Gaussians and the inner one over pixels, without branches: the rows of a Gaussian's box
in vectors of eight pixels. The tile's planes (transmittance, channels) lie in one scratch array per thread that stays in
the L1 cache; its rows are padded so that the last vector may extend past the tile.

The rules are gsplat's: alpha = min(clamp, opacity exp(-q/2)) is drawn where it is at least 1/255; a pixel is finished
*before* the Gaussian that would bring its transmittance to 1e-4 or below. A finished pixel has a negative transmittance.
"""

# mypy: disable-error-code="no-untyped-def,misc"
# Numba gives kernels their types.
from __future__ import annotations

import math

import numpy as np

from heads.raster.kernels.binning import HEADER, TILE_HEIGHT, TILE_WIDTH
from heads.raster.simd.channels import (
    add_to_planes,
    dot_tuples,
    fma_tuples,
    joined,
    load_pixels,
    load_planes,
    splats,
    store_pixels,
    store_planes,
    store_totals,
    zeros_like,
)
from heads.raster.simd.jit import inline, kernel
from heads.raster.simd.maths import absolute, all_lanes, exp_negative, fma, ramp, select, splat
from heads.raster.simd.memory import load, prefetch, store
from heads.raster.simd.vector import WIDTH

_PITCH = TILE_WIDTH + WIDTH
PLANE = _PITCH * TILE_HEIGHT
_FINISHED = 1e-4  # transmittance at which a pixel is finished · paper (3DGS, its CUDA code)
_CHECK_EVERY = 64  # Gaussians between two checks whether the whole tile is finished · guess
_AHEAD = 6  # Gaussians prefetched · guess
_AHEAD_PAIRS = 24  # pairs prefetched · guess
_LOG_255 = math.log(255.0)
MOMENTS = 6  # gradient numbers per Gaussian before the channels: s, sx, sy, sxx, sxy, syy


@inline
def _tile_rectangle(tile, tiles_x, width, height):
    """Left, top, width and height of a tile's part inside the image."""
    left, top = (tile % tiles_x) * TILE_WIDTH, (tile // tiles_x) * TILE_HEIGHT
    return left, top, min(TILE_WIDTH, width - left), min(TILE_HEIGHT, height - top)


@inline
def _reset(planes, count, inside_width, inside_height):
    """Zero all planes; transmittance (plane 0) is 1 inside the image and -1, finished, outside."""
    planes[: count * PLANE] = 0.0
    planes[:PLANE] = -1.0
    for row in range(inside_height):
        planes[row * _PITCH : row * _PITCH + inside_width] = 1.0


@inline
def _all_finished(planes, enough):
    most = splat(planes, -1.0)
    for at in range(0, PLANE, WIDTH):
        T = load(planes, at)
        most = select(most < T, T, most)
    none = most <= splat(planes, enough)
    return all_lanes(none)


@inline
def _clip_box(records, at, left, top):
    """A record's box relative to its tile: first column, number of columns of eight, first and last row."""
    c0, c1 = max(int(records[at + 6]) - left, 0), min(int(records[at + 7]) - left, TILE_WIDTH)
    r0, r1 = max(int(records[at + 8]) - top, 0), min(int(records[at + 9]) - top, TILE_HEIGHT)
    return c0, (c1 - c0 + WIDTH - 1) // WIDTH, r0, r1


@kernel
def composite(
    records, stride, ids, offsets, number, size, tiles_x, tiles, first, last, clamp, enough, backgrounds, like,
    planes, render, alphas, ends,
):  # fmt: skip
    """Render tiles ``first ... last - 1`` (over all images) to ``render [I, H, W, D]`` and ``alphas [I, H, W]``, flat.

    ``enough``: eight pixels side by side that let no more than this through take no further Gaussian; 0 where the gradient
    is wanted. ``like``: a tuple with D entries, which makes D known to the compiler. ``planes``: scratch of (1 + D) PLANE
    numbers. ``ends [tiles]``: where the tile's list ends for the backward pass. ``backgrounds [I, D]``.
    """
    width, height = size
    for job in range(first, last):
        image, tile = job // tiles, job % tiles
        left, top, inside_width, inside_height = _tile_rectangle(tile, tiles_x, width, height)
        _reset(planes, 1 + len(like), inside_width, inside_height)
        start, end, base = offsets[job], offsets[job + 1], image * number
        for k in range(start, end):
            if (k - start) % _CHECK_EVERY == _CHECK_EVERY - 1 and _all_finished(planes, enough):
                end = k
                break
            prefetch(records, (base + ids[min(k + _AHEAD, end - 1)]) * stride)
            _blend(records, (base + ids[k]) * stride, left, top, clamp, enough, like, planes)
        ends[job] = end
        to = (image * height + top) * width + left
        _write(planes, to, inside_width, inside_height, width, backgrounds, image * len(like), like, render, alphas)


@inline
def _blend(records, at, left, top, clamp, enough, like, planes):
    """Add one Gaussian to the tile. With s = -ln(opacity) + quadratic form, alpha = exp(-s), seen where s <= ln 255."""
    c0, columns, r0, r1 = _clip_box(records, at, left, top)
    a, b, c = splat(planes, records[at + 2]), splat(planes, records[at + 3]), splat(planes, records[at + 4])
    bias, limit = splat(planes, -records[at + 5]), splat(planes, _LOG_255)
    most, one, finished = splat(planes, clamp), splat(planes, 1.0), splat(planes, _FINISHED)
    least = splat(planes, enough)
    colors = splats(records, at + HEADER, like)
    y0 = splat(planes, top + r0 + 0.5 - records[at + 1])
    for column in range(c0, c0 + columns * WIDTH, WIDTH):
        dx = ramp(planes) + splat(planes, left + column + 0.5 - records[at])
        axx, bx, dy = fma(a * dx, dx, bias), b * dx, y0
        for p in range(r0 * _PITCH + column, r1 * _PITCH + column, _PITCH):
            T = load(planes, p)
            # A third of all vectors of a trained head are behind finished pixels: its back, mostly.
            if not all_lanes(least >= T):
                s = fma(dy, fma(c, dy, bx), axx)
                alpha = exp_negative(s)
                alpha = select(s <= limit, select(alpha < most, alpha, most), 0.0)
                weight = T * alpha
                after = T - weight
                alive = after > finished
                store(planes, p, select(alive, after, -absolute(T)))
                add_to_planes(planes, p + PLANE, PLANE, select(alive, weight, 0.0), colors)
            dy = dy + one


@inline
def _write(planes, to, inside_width, inside_height, width, backgrounds, background, like, render, alphas):
    """Copy a tile's planes to the pictures, from pixel ``to`` on, over the background."""
    channels = len(like)
    behind = splats(backgrounds, background, like)
    one = splat(planes, 1.0)
    for row in range(inside_height):
        p, pixel = row * _PITCH, to + row * width
        # The last columns of a narrow tile take their eight pixels from further left, which is harmless.
        for step in range(0, inside_width, WIDTH):
            column = min(step, inside_width - WIDTH)
            if column < 0:
                break
            T = absolute(load(planes, p + column))
            store(alphas, pixel + column, one - T)
            colors = load_planes(planes, p + column + PLANE, PLANE, like)
            store_pixels(render, (pixel + column) * channels, fma_tuples(behind, T, colors))
        if inside_width < WIDTH:
            for column in range(inside_width):
                T = abs(planes[p + column])
                alphas[pixel + column] = 1 - T
                for k in range(channels):
                    color = planes[p + column + (1 + k) * PLANE]
                    render[(pixel + column) * channels + k] = color + T * backgrounds[background + k]


@kernel
def composite_backward(
    records, stride, ids, offsets, ends, number, size, tiles_x, tiles, first, last, clamp, like, planes,
    render, alphas, v_render, v_alphas, absolute_too, gradients,
):  # fmt: skip
    """Gradient sums of the pairs of tiles ``first ... last - 1`` to ``gradients [pairs, G]``, flat.

    G = six moments of dL/ds (1, dx, dy, dx^2, dx dy, dy^2), D channels, and |dL/dmean2d| (2) where ``absolute_too`` is a
    non-empty tuple. Runs front to back: what lies behind a Gaussian is the rest of one number per pixel,
    render . v_render - T_end v_alpha, once all that lies before has been subtracted.
    """
    width, height = size
    size_of = MOMENTS + len(like) + 2 * len(absolute_too)
    for job in range(first, last):
        image, tile = job // tiles, job % tiles
        start, end, base = offsets[job], ends[job], image * number
        gradients[end * size_of : offsets[job + 1] * size_of] = 0.0
        if end == start:
            continue
        left, top, inside_width, inside_height = _tile_rectangle(tile, tiles_x, width, height)
        of = (image * height + top) * width + left
        if _without_gradient(of, inside_width, inside_height, width, len(like), v_render, v_alphas):
            gradients[start * size_of : end * size_of] = 0.0  # the loss does not depend on this tile
            continue
        _reset(planes, 2 + len(like), inside_width, inside_height)
        _read(planes, of, inside_width, inside_height, width, like, render, alphas, v_render, v_alphas)
        for k in range(start, end):
            prefetch(records, (base + ids[min(k + _AHEAD, end - 1)]) * stride)
            at = (base + ids[k]) * stride
            _blend_backward(records, at, left, top, clamp, like, absolute_too, planes, gradients, k * size_of)


@inline
def _without_gradient(of, inside_width, inside_height, width, channels, v_render, v_alphas):
    """Whether the loss does not depend on any pixel of a tile."""
    for row in range(inside_height):
        pixel = of + row * width
        for column in range(inside_width):
            if v_alphas[pixel + column] != 0:
                return False
        for value in range(pixel * channels, (pixel + inside_width) * channels):
            if v_render[value] != 0:
                return False
    return True


@inline
def _read(planes, of, inside_width, inside_height, width, like, render, alphas, v_render, v_alphas):
    """Plane 1: the rest; planes 2...: the gradients of the channels."""
    channels = len(like)
    one = splat(planes, 1.0)
    for row in range(inside_height):
        p, pixel = row * _PITCH + PLANE, of + row * width
        for step in range(0, inside_width, WIDTH):
            column = min(step, inside_width - WIDTH)
            if column < 0:
                break
            v = load_pixels(v_render, (pixel + column) * channels, like)
            colors = load_pixels(render, (pixel + column) * channels, like)
            rest = (load(alphas, pixel + column) - one) * load(v_alphas, pixel + column)
            store(planes, p + column, rest + dot_tuples(v, colors))
            store_planes(planes, p + column + PLANE, PLANE, v)
        if inside_width < WIDTH:
            for column in range(inside_width):
                planes[p + column] = (alphas[pixel + column] - 1) * v_alphas[pixel + column]
                for k in range(channels):
                    v = v_render[(pixel + column) * channels + k]
                    planes[p + column + (1 + k) * PLANE] = v
                    planes[p + column] += v * render[(pixel + column) * channels + k]


@inline
def _blend_backward(records, at, left, top, clamp, like, absolute_too, planes, gradients, to):
    """Write the gradient of one Gaussian in one tile.

    Sums over pixels are kept per lane as (1, dy, dy^2) only: dx is the same in a whole column, so the moments in dx
    follow at the end of it.
    """
    c0, columns, r0, r1 = _clip_box(records, at, left, top)
    a, b, c = splat(planes, records[at + 2]), splat(planes, records[at + 3]), splat(planes, records[at + 4])
    bias, limit = splat(planes, -records[at + 5]), splat(planes, _LOG_255)
    most, one, finished, zero = splat(planes, clamp), splat(planes, 1.0), splat(planes, _FINISHED), splat(planes, 0.0)
    colors = splats(records, at + HEADER, like)
    y0 = splat(planes, top + r0 + 0.5 - records[at + 1])
    sums = zeros_like(colors)
    m0, mx, my, mxx, mxy, myy = zero, zero, zero, zero, zero, zero
    abs_x, abs_y = zero, zero
    for column in range(c0, c0 + columns * WIDTH, WIDTH):
        dx = ramp(planes) + splat(planes, left + column + 0.5 - records[at])
        axx, bx, dy = fma(a * dx, dx, bias), b * dx, y0
        n0, n1, n2 = zero, zero, zero
        for p in range(r0 * _PITCH + column, r1 * _PITCH + column, _PITCH):
            s = fma(dy, fma(c, dy, bx), axx)
            raw = exp_negative(s)
            alpha = select(s <= limit, select(raw < most, raw, most), zero)
            v = load_planes(planes, p + 2 * PLANE, PLANE, like)
            T, rest = load(planes, p), load(planes, p + PLANE)
            weight = T * alpha
            after = T - weight
            alive = after > finished
            weight = select(alive, weight, zero)
            value = weight * dot_tuples(v, colors)
            rest = rest - value
            store(planes, p, select(alive, after, -absolute(T)))
            store(planes, p + PLANE, rest)
            sums = fma_tuples(v, weight, sums)
            # dL/ds = -alpha dL/dalpha = alpha rest / (1 - alpha) - weight (v . color); a clamped alpha does not move
            g = alpha * rest / (one - alpha) - value
            g = select(alive & (raw < most), g, zero)
            n0 = n0 + g
            gy = g * dy
            n1 = n1 + gy
            n2 = fma(gy, dy, n2)
            if len(absolute_too) > 0:
                abs_x = abs_x + absolute(g * fma(a + a, dx, b * dy))
                abs_y = abs_y + absolute(g * fma(c + c, dy, bx))
            dy = dy + one
        nx = n0 * dx
        m0, mx, my = m0 + n0, mx + nx, my + n1
        mxx, mxy, myy = fma(nx, dx, mxx), fma(n1, dx, mxy), myy + n2
    moments = joined((m0, mx, my, mxx, mxy, myy), sums)
    if len(absolute_too) > 0:
        store_totals(gradients, to, joined(moments, (abs_x, abs_y)))
    else:
        store_totals(gradients, to, moments)


@kernel
def reduce_gradients(
    records, stride, pairs, slots, starts, gradient_size, batch, cameras, number, first, last, opacity_shared,
    color_shared, plain, with_depth, absolute_at, v_means2d, v_conics, v_depths, v_opacities, v_colors, v_absolute,
):  # fmt: skip
    """Sum over the pairs of Gaussians ``first ... last - 1`` of scene ``batch``, and turn moments into gradients.

    ``absolute_at``: where |dL/dmean2d| lies among a pair's numbers, 0: nowhere.
    """
    sums = np.zeros(gradient_size + 1, records.dtype)
    zero = sums[gradient_size]
    half, two = records.dtype.type(0.5), records.dtype.type(2.0)
    for n in range(first, last):
        for camera in range(cameras):
            image = batch * cameras + camera
            i = image * number + n
            sums[:] = zero
            ahead = slots[min(starts[i] + _AHEAD_PAIRS, len(slots) - 1)] * gradient_size if len(slots) > 0 else 0
            prefetch(pairs, ahead)
            prefetch(pairs, ahead + gradient_size - 1)
            if gradient_size >= WIDTH:  # eight numbers at once, the rest one by one
                lanes = splat(pairs, zero)
                for slot in range(starts[i], starts[i + 1]):
                    of = slots[slot] * gradient_size
                    lanes = lanes + load(pairs, of)
                    for k in range(WIDTH, gradient_size):
                        sums[k] += pairs[of + k]
                store(sums, 0, lanes)
            else:
                for slot in range(starts[i], starts[i + 1]):
                    of = slots[slot] * gradient_size
                    for k in range(gradient_size):
                        sums[k] += pairs[of + k]
            at = i * stride
            drawn = starts[i + 1] > starts[i]
            # The header of a Gaussian that is not drawn may hold anything.
            a, b, c = (records[at + 2], records[at + 3], records[at + 4]) if drawn else (zero, zero, zero)
            v_means2d[i * 2] = -(two * a * sums[1] + b * sums[2])
            v_means2d[i * 2 + 1] = -(b * sums[1] + two * c * sums[2])
            v_conics[i * 3] = half * sums[3]
            v_conics[i * 3 + 1] = sums[4]
            v_conics[i * 3 + 2] = half * sums[5]
            v_opacity = -sums[0] / records[at + 10] if drawn else zero
            o = batch * number + n if opacity_shared else i
            v_opacities[o] = v_opacity + v_opacities[o] if opacity_shared and camera > 0 else v_opacity
            o = (batch * number + n if color_shared else i) * plain
            for k in range(plain):
                v = sums[MOMENTS + k]
                v_colors[o + k] = v + v_colors[o + k] if color_shared and camera > 0 else v
            v_depths[i] = sums[MOMENTS + plain] if with_depth else zero
            if absolute_at > 0:
                v_absolute[i * 2] = sums[absolute_at]
                v_absolute[i * 2 + 1] = sums[absolute_at + 1]
