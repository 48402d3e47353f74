"""Front-to-back alpha compositing of sorted Gaussians over pixel tiles, and its gradient.

Per tile Gaussians outside, pixels inside, without branches: a Gaussian walks over the rows of its box in the tile in
columns of eight pixels. The tile's planes (transmittance, channels) lie in one scratch array per thread that stays in
the first-level cache; its rows are padded so that the last column of eight may hang over.

Rules are gsplat's: alpha = min(clamp, opacity exp(-s)) is drawn where s <= ln(255 opacity), that is alpha >= 1/255;
a pixel is finished *before* the Gaussian that would bring its transmittance to 1e-4 or below. A finished pixel
is marked by a negative sign of its transmittance.
"""

from __future__ import annotations

import numpy as np

from heads.raster.binning import HEADER, TILE_HEIGHT, TILE_WIDTH
from heads.raster.jit import inline, kernel
from heads.raster.simd import (
    WIDTH,
    absolute,
    add_planes,
    add_to_planes,
    add_totals,
    all_lanes,
    dot_planes,
    exp_negative,
    fma,
    load,
    ramp,
    select,
    splat,
    splats,
    store,
    zeros_like,
)

_PITCH = TILE_WIDTH + WIDTH
PLANE = _PITCH * TILE_HEIGHT
_FINISHED = 1e-4
_CHECK_EVERY = 64  # Gaussians between two looks whether all pixels of the tile are finished
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
def _all_finished(planes):
    most = splat(planes, -1.0)
    for at in range(0, PLANE, WIDTH):
        T = load(planes, at)
        most = select(most < T, T, most)
    none = most <= splat(planes, 0.0)
    return all_lanes(none)


@inline
def _clip_box(boxes, at, left, top):
    """A box relative to its tile: first column, number of columns of eight, first and last row."""
    c0, c1 = max(boxes[at] - left, 0), min(boxes[at + 1] - left, TILE_WIDTH)
    r0, r1 = max(boxes[at + 2] - top, 0), min(boxes[at + 3] - top, TILE_HEIGHT)
    return c0, (c1 - c0 + WIDTH - 1) // WIDTH, r0, r1


@kernel
def composite(
    records, stride, boxes, ids, offsets, number, size, tiles_x, tiles, first, last, clamp, backgrounds, like, planes,
    render, alphas, ends,
):  # fmt: skip
    """Render tiles `first ... last - 1` (over all images) to `render` [I, H, W, D] and `alphas` [I, H, W], flat.

    `like`: a tuple with D entries, which makes D known to the compiler. `planes`: scratch of (1 + D) PLANE numbers.
    `ends` [tiles]: where the tile's list ends for the backward pass. `backgrounds` [I, D] or empty.
    """
    width, height = size
    channels = len(like)
    for job in range(first, last):
        image, tile = job // tiles, job % tiles
        left, top, inside_width, inside_height = _tile_rectangle(tile, tiles_x, width, height)
        _reset(planes, 1 + channels, inside_width, inside_height)
        end = offsets[job + 1]
        for k in range(offsets[job], end):
            if (k - offsets[job]) % _CHECK_EVERY == _CHECK_EVERY - 1 and _all_finished(planes):
                end = k
                break
            n = image * number + ids[k]
            _blend(records, n * stride, boxes, n * 4, left, top, clamp, like, planes)
        ends[job] = end
        _write(
            planes, image, left, top, inside_width, inside_height, width, height, backgrounds, channels, render, alphas
        )


@inline
def _blend(records, at, boxes, box, left, top, clamp, like, planes):
    """Add one Gaussian to the tile."""
    c0, columns, r0, r1 = _clip_box(boxes, box, left, top)
    a, b, c = splat(planes, records[at + 2]), splat(planes, records[at + 3]), splat(planes, records[at + 4])
    opacity, limit = splat(planes, records[at + 5]), splat(planes, records[at + 6])
    most, one, finished = splat(planes, clamp), splat(planes, 1.0), splat(planes, _FINISHED)
    colors = splats(records, at + HEADER, like)
    y0 = splat(planes, top + r0 + 0.5 - records[at + 1])
    for column in range(c0, c0 + columns * WIDTH, WIDTH):
        dx = ramp(planes) + splat(planes, left + column + 0.5 - records[at])
        axx, bx, dy = a * dx * dx, b * dx, y0
        for p in range(r0 * _PITCH + column, r1 * _PITCH + column, _PITCH):
            s = fma(dy, fma(c, dy, bx), axx)
            alpha = opacity * exp_negative(s)
            alpha = select(s <= limit, select(alpha < most, alpha, most), 0.0)
            T = load(planes, p)
            weight = T * alpha
            after = T - weight
            alive = after > finished
            store(planes, p, select(alive, after, -absolute(T)))
            add_to_planes(planes, p + PLANE, PLANE, select(alive, weight, 0.0), colors)
            dy = dy + one


@inline
def _write(planes, image, left, top, inside_width, inside_height, width, height, backgrounds, channels, render, alphas):
    with_background = backgrounds.size > 0
    for row in range(inside_height):
        to = (image * height + top + row) * width + left
        p = row * _PITCH
        for column in range(inside_width):
            alphas[to + column] = 1 - abs(planes[p + column])
        for k in range(channels):
            q = p + (1 + k) * PLANE
            for column in range(inside_width):
                render[(to + column) * channels + k] = planes[q + column]
            if with_background:
                background = backgrounds[image * channels + k]
                for column in range(inside_width):
                    render[(to + column) * channels + k] += abs(planes[p + column]) * background


@kernel
def composite_backward(
    records, stride, boxes, ids, offsets, ends, number, size, tiles_x, tiles, first, last, clamp, like, planes,
    render, alphas, v_render, v_alphas, base, absolute_too, gradients,
):  # fmt: skip
    """Gradient sums of tiles `first ... last - 1` into `gradients` [images, N, G], flat, image i at `base + i`.

    G = six moments of dL/ds (1, dx, dy, dx^2, dx dy, dy^2), D channels, and |dL/dmean2d| (2) where `absolute_too` is a
    non-empty tuple. Runs front to back: what lies behind a Gaussian is the rest of one number per pixel,
    render . v_render - T_end v_alpha, once all that lies before has been subtracted.
    """
    width, height = size
    channels = len(like)
    size_of = MOMENTS + channels + 2 * len(absolute_too)
    for job in range(first, last):
        image, tile = job // tiles, job % tiles
        if ends[job] == offsets[job]:
            continue
        left, top, inside_width, inside_height = _tile_rectangle(tile, tiles_x, width, height)
        _reset(planes, 2 + channels, inside_width, inside_height)
        _read(
            planes,
            image,
            left,
            top,
            inside_width,
            inside_height,
            width,
            height,
            channels,
            render,
            alphas,
            v_render,
            v_alphas,
        )
        for k in range(offsets[job], ends[job]):
            n = image * number + ids[k]
            to = ((base + image) * number + ids[k]) * size_of
            _blend_backward(
                records, n * stride, boxes, n * 4, left, top, clamp, like, absolute_too, planes, gradients, to
            )


@inline
def _read(
    planes, image, left, top, inside_width, inside_height, width, height, channels, render, alphas, v_render, v_alphas
):
    """Plane 1: the rest; planes 2...: the gradients of the channels."""
    for row in range(inside_height):
        of = (image * height + top + row) * width + left
        p = row * _PITCH + PLANE
        for column in range(inside_width):
            planes[p + column] = (alphas[of + column] - 1) * v_alphas[of + column]
        for k in range(channels):
            q = p + (1 + k) * PLANE
            for column in range(inside_width):
                v = v_render[(of + column) * channels + k]
                planes[q + column] = v
                planes[p + column] += v * render[(of + column) * channels + k]


@inline
def _blend_backward(records, at, boxes, box, left, top, clamp, like, absolute_too, planes, gradients, to):
    """Add the gradient of one Gaussian in one tile.

    Sums over pixels are kept per lane as (1, dy, dy^2) only: dx is the same in a whole column, so the moments in dx
    follow at the end of it.
    """
    c0, columns, r0, r1 = _clip_box(boxes, box, left, top)
    a, b, c = splat(planes, records[at + 2]), splat(planes, records[at + 3]), splat(planes, records[at + 4])
    opacity, limit = splat(planes, records[at + 5]), splat(planes, records[at + 6])
    most, one, finished, zero = splat(planes, clamp), splat(planes, 1.0), splat(planes, _FINISHED), splat(planes, 0.0)
    colors = splats(records, at + HEADER, like)
    y0 = splat(planes, top + r0 + 0.5 - records[at + 1])
    sums = zeros_like(colors)
    m0, mx, my, mxx, mxy, myy = zero, zero, zero, zero, zero, zero
    abs_x, abs_y = zero, zero
    for column in range(c0, c0 + columns * WIDTH, WIDTH):
        dx = ramp(planes) + splat(planes, left + column + 0.5 - records[at])
        axx, bx, dy = a * dx * dx, b * dx, y0
        n0, n1, n2 = zero, zero, zero
        for p in range(r0 * _PITCH + column, r1 * _PITCH + column, _PITCH):
            s = fma(dy, fma(c, dy, bx), axx)
            raw = opacity * exp_negative(s)
            alpha = select(s <= limit, select(raw < most, raw, most), zero)
            T = load(planes, p)
            weight = T * alpha
            after = T - weight
            alive = after > finished
            weight = select(alive, weight, zero)
            store(planes, p, select(alive, after, -absolute(T)))
            value = dot_planes(planes, p + 2 * PLANE, PLANE, colors)
            rest = load(planes, p + PLANE) - weight * value
            store(planes, p + PLANE, rest)
            sums = add_planes(planes, p + 2 * PLANE, PLANE, weight, sums)
            # -dL/ds = alpha dL/dalpha = weight value - alpha rest / (1 - alpha); a clamped alpha does not move
            g = alpha * rest / (one - alpha) - weight * value
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
    add_totals(gradients, to, (m0, mx, my, mxx, mxy, myy))
    add_totals(gradients, to + MOMENTS, sums)
    if len(absolute_too) > 0:
        add_totals(gradients, to + MOMENTS + len(like), (abs_x, abs_y))


@kernel
def reduce_gradients(
    records, stride, boxes, buffers, spans, gradient_size, batch, cameras, number, first, last, opacity_shared,
    color_shared, channels, with_depth, want_absolute, v_means2d, v_conics, v_depths, v_opacities, v_colors, v_absolute,
):  # fmt: skip
    """Sum the bands' buffers for Gaussians `first ... last - 1` of scene `batch`, and turn moments into gradients.

    `spans` [bands, 3]: first and last image of each band, and the `base` of its part of `buffers`.
    """
    plain = channels - 1 if with_depth else channels
    sums = np.zeros(gradient_size + 1, records.dtype)
    zero = sums[gradient_size]
    half, two = records.dtype.type(0.5), records.dtype.type(2.0)
    for n in range(first, last):
        for camera in range(cameras):
            image = batch * cameras + camera
            i = image * number + n
            sums[:] = zero
            drawn = boxes[i * 4 + 1] > boxes[i * 4]
            if drawn:
                for band in range(len(spans)):
                    if spans[band, 0] <= image <= spans[band, 1]:
                        of = ((spans[band, 2] + image) * number + n) * gradient_size
                        for k in range(gradient_size):
                            sums[k] += buffers[of + k]
            # The record of a Gaussian that was not drawn was never written.
            at = i * stride
            a, b, c = (records[at + 2], records[at + 3], records[at + 4]) if drawn else (zero, zero, zero)
            v_means2d[i * 2] = -(two * a * sums[1] + b * sums[2])
            v_means2d[i * 2 + 1] = -(b * sums[1] + two * c * sums[2])
            v_conics[i * 3] = half * sums[3]
            v_conics[i * 3 + 1] = sums[4]
            v_conics[i * 3 + 2] = half * sums[5]
            v_opacity = -sums[0] / records[at + 5] if drawn else zero
            o = batch * number + n if opacity_shared else i
            if opacity_shared and camera > 0:
                v_opacities[o] += v_opacity
            else:
                v_opacities[o] = v_opacity
            o = (batch * number + n if color_shared else i) * plain
            for k in range(plain):
                if color_shared and camera > 0:
                    v_colors[o + k] += sums[MOMENTS + k]
                else:
                    v_colors[o + k] = sums[MOMENTS + k]
            v_depths[i] = sums[MOMENTS + plain] if with_depth else 0.0
            if want_absolute:
                v_absolute[i * 2] = sums[MOMENTS + channels]
                v_absolute[i * 2 + 1] = sums[MOMENTS + channels + 1]
