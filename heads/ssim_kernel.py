"""Structural similarity, fast enough on a CPU to be part of every optimisation step.

On CPU tensors in float32 one numba kernel filters, compares and prepares the gradient in a single pass over the rows
(the usual 11 x 11 grouped convolution costs more than rendering the image); anywhere else a separable convolution in
PyTorch does the same. Values equal ``skimage.metrics.structural_similarity(gaussian_weights=True, sigma=1.5,
use_sample_covariance=False, data_range=1)``. Source: Wang et al., *Image quality assessment* (2004), eq. 13.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from configs.devices import constant, is_accelerator
from heads.raster import threads
from heads.raster.arrays import plain

C1, C2 = 0.01**2, 0.03**2  # for a data range of one · paper (eq. 13, K1 = 0.01, K2 = 0.03)
SIGMA, RADIUS = 1.5, 5  # px, of the window · paper (11 x 11, sigma 1.5)
TAPS = 2 * RADIUS + 1
F32 = np.float32
PLANE = 1040  # float32 values of one strip of a row: the ring of planes stays in the L2 cache · guess


def ssim_map(image: Tensor, target: Tensor) -> Tensor:
    """SSIM of every pixel whose window lies inside: ``[B, H - 10, W - 10, C]`` of images ``[B, H, W, C]`` in [0, 1].

    An image smaller than the 11 px window is compared with the largest odd window that fits, so the result is never
    empty. Differentiable in both arguments.

    Raises:
        ValueError: shapes that differ or are not ``[B, H, W, C]``, or an empty image.
    """
    if image.shape != target.shape or image.dim() != 4 or 0 in image.shape:
        raise ValueError(
            f"images: expected two equal shapes [B, H, W, C], got {tuple(image.shape)} and {tuple(target.shape)}"
        )
    radius = min(RADIUS, (min(image.shape[1:3]) - 1) // 2)
    if plain(image, target) and radius == RADIUS and not target.requires_grad:
        return _FastSSIM.apply(image, target)
    if is_accelerator(image.device) and not target.requires_grad:
        return _DeviceSSIM.apply(image, target, radius)
    return _ssim_torch(image, target, radius)


def window_radius(height: int, width: int) -> int:
    """Pixels that :func:`ssim_map` leaves out on every side of an image of this size."""
    return min(RADIUS, (min(height, width) - 1) // 2)


@functools.cache
def gaussian_window(radius: int) -> tuple[float, ...]:
    """The normalised 1D Gaussian of standard deviation 1.5 px, ``2 * radius + 1`` values."""
    x = np.arange(-radius, radius + 1)
    values = np.exp(-0.5 * (x / SIGMA) ** 2)
    return tuple((values / values.sum()).tolist())


def _blur(x: Tensor, radius: int) -> Tensor:
    """Valid separable Gaussian blur of ``[B, C, H, W]``."""
    batch, channels, height, width = x.shape
    window = constant(gaussian_window(radius), x)
    x = x.reshape(batch * channels, 1, height, width)
    x = torch.nn.functional.conv2d(x, window.view(1, 1, -1, 1))
    return torch.nn.functional.conv2d(x, window.view(1, 1, 1, -1)).unflatten(0, (batch, channels)).squeeze(2)


def _blur_back(x: Tensor, radius: int) -> Tensor:
    """The transpose of :func:`_blur`."""
    batch, channels, height, width = x.shape
    window = constant(gaussian_window(radius), x)
    x = x.reshape(batch * channels, 1, height, width)
    x = torch.nn.functional.conv_transpose2d(x, window.view(1, 1, 1, -1))
    return torch.nn.functional.conv_transpose2d(x, window.view(1, 1, -1, 1)).unflatten(0, (batch, channels)).squeeze(2)


def _ssim_torch(image: Tensor, target: Tensor, radius: int) -> Tensor:
    x, y = image.permute(0, 3, 1, 2), target.permute(0, 3, 1, 2)
    mean_x, mean_y, xx, yy, xy = _blur(torch.cat([x, y, x * x, y * y, x * y]), radius).chunk(5)
    var_x, var_y, cov = xx - mean_x**2, yy - mean_y**2, xy - mean_x * mean_y
    above = (2 * mean_x * mean_y + C1) * (2 * cov + C2)
    below = (mean_x**2 + mean_y**2 + C1) * (var_x + var_y + C2)
    return (above / below).permute(0, 2, 3, 1)


class _DeviceCtx(FunctionCtx):
    radius: int
    saved_tensors: tuple[Tensor, ...]


class _DeviceSSIM(torch.autograd.Function):
    """:func:`_ssim_torch` with its gradient in closed form: on accelerators, each of autograd's operators is a launch."""

    @staticmethod
    def forward(ctx: _DeviceCtx, image: Tensor, target: Tensor, radius: int) -> Tensor:
        x, y = image.permute(0, 3, 1, 2), target.permute(0, 3, 1, 2)
        blurred = _blur(torch.cat([x, y, torch.addcmul(x * x, y, y), x * y]), radius)
        mean_x, mean_y, both, product = blurred.chunk(4)
        squares, means = blurred[: 2 * len(x)].square(), mean_x * mean_y
        squares = squares[: len(x)] + squares[len(x) :]
        above = constant((C1,), x).add(means, alpha=2), constant((C2,), x).add(product - means, alpha=2)
        below = squares + C1, (both - squares).add_(C2)
        whole = below[0] * below[1]
        values = above[0] * above[1] / whole
        ctx.radius = radius
        ctx.save_for_backward(x, y, mean_x, mean_y, *above, *below, whole, values)
        return values.permute(0, 2, 3, 1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: _DeviceCtx, upstream: Tensor) -> tuple[Tensor, None, None]:
        x, y, mean_x, mean_y, above1, above2, below1, below2, whole, values = ctx.saved_tensors
        upstream = upstream.permute(0, 3, 1, 2)
        share, part = upstream / whole, upstream * values
        of_mean, of_covariance = share * above2, share * above1
        of_means, of_variance = part / below1, part / below2
        slope = torch.addcmul(mean_y * (of_mean - of_covariance), mean_x, of_means - of_variance, value=-1)
        spread = _blur_back(torch.cat([slope, of_variance, of_covariance]), ctx.radius).chunk(3)
        gradient = torch.addcmul(torch.addcmul(spread[0], x, spread[1], value=-1), y, spread[2])
        return (2 * gradient).permute(0, 2, 3, 1), None, None


class _FastSSIM(torch.autograd.Function):
    """The numba route: the forward pass also writes dSSIM/d(E[x], E[x²], E[xy]), the backward pass blurs them back."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, target: Tensor) -> Tensor:
        x, y = image.detach().contiguous().numpy(), target.detach().contiguous().numpy()
        batch, height, width, channels = x.shape
        planes = [similarity(a.ravel(), b.ravel(), height, width, channels, spread=True) for a, b in zip(x, y)]
        ctx.arrays = (x, y, planes)
        values = np.stack([plane[0] for plane in planes])
        return torch.from_numpy(values.reshape(batch, height - 2 * RADIUS, width - 2 * RADIUS, channels))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        x, y, planes = ctx.arrays
        (height, width, channels), upstream = x.shape[1:], grad.contiguous().numpy()
        result = [
            similarity_backward(a.ravel(), b.ravel(), height, width, channels, plane, v.ravel(), spread=True)
            for a, b, plane, v in zip(x, y, planes, upstream)
        ]
        return torch.from_numpy(np.stack(result).reshape(x.shape)), None


@functools.cache
def _kernels() -> tuple[Callable[..., None], Callable[..., None]]:
    """Compiled (forward, backward) row kernels; from the disk cache after the first use."""
    import numba  # slow to import, and not needed on a GPU

    def compiled(function: Callable[..., None]) -> Any:
        options: dict[str, Any] = {"nogil": True, "fastmath": True, "error_model": "numpy"}
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError:  # no folder to keep a cache in: a read-only installation
            return numba.njit(**options)(function)

    return compiled(_forward_rows), compiled(_backward_rows)


def similarity(
    x: np.ndarray, y: np.ndarray, height: int, width: int, channels: int, spread: bool = False
) -> np.ndarray:
    """SSIM and its derivatives ``[4, rows * columns * C]`` of flat float32 pictures ``[H, W, C]``.

    Rows and columns are those whose 11 px window lies inside: ``H - 10`` and ``W - 10``.

    Args:
        spread: run on the rasteriser's threads instead of the caller's alone.
    """
    rows, columns = height - 2 * RADIUS, width - 2 * RADIUS
    planes = np.empty((4, rows * columns * channels), np.float32)
    window = np.asarray(gaussian_window(RADIUS), np.float32)
    _in_rows(_kernels()[0], rows, spread, x, y, window, channels, width * channels, planes)
    return planes


def similarity_backward(
    x: np.ndarray, y: np.ndarray, height: int, width: int, channels: int, planes: np.ndarray, upstream: np.ndarray,
    spread: bool = False,
) -> np.ndarray:  # fmt: skip
    """Gradient ``[H * W * C]`` with respect to ``x``, from :func:`similarity`'s planes and ``upstream``, that of the SSIM."""
    result = np.empty(height * width * channels, np.float32)
    window = np.asarray(gaussian_window(RADIUS), np.float32)
    shared = (x, y, window, channels, width * channels, planes, upstream)
    _in_rows(_kernels()[1], height, spread, *shared, height - 2 * RADIUS, result)
    return result


def _in_rows(kernel: Callable[..., None], count: int, spread: bool, *arrays: Any) -> None:
    """Run ``kernel(first, last, *arrays)`` over ``count`` rows, on the rasteriser's threads with ``spread``."""
    if not spread:
        kernel(0, count, *arrays)
        return
    limit = threads.get_num_threads()
    pieces = min(limit, max(count // 32, 1))
    cuts = [count * i // pieces for i in range(pieces + 1)]
    threads.run(kernel, [(first, last, *arrays) for first, last in itertools.pairwise(cuts)], limit)


def _forward_rows(first, last, x, y, window, channels, width, out):  # type: ignore[no-untyped-def]
    """SSIM and its derivatives in E[x], E[x²], E[xy] into ``out [4, rows * columns]``, for output rows ``first:last``.

    ``x`` and ``y`` are flat images with ``width`` values a row; ``out`` has ``width - (TAPS - 1) * channels`` a row.
    Strips of at most PLANE values: each image row is filtered along the row into a ring of TAPS rows, and the ring is
    filtered down the columns. All planes lie at constant offsets in one array; otherwise alias checks stop the vectoriser.
    """
    products, ring, done = np.empty(4 * PLANE, F32), np.empty(4 * TAPS * PLANE, F32), np.empty(4 * PLANE, F32)
    turned = np.empty(TAPS, F32)
    taps, step, stride, plane = np.uintp(TAPS), np.uintp(channels), np.uintp(width), np.uintp(PLANE)
    edge = (taps - np.uintp(1)) * step
    columns, start = stride - edge, np.uintp(0)
    while start < columns:
        count = min(plane - edge, columns - start)
        for row in range(np.uintp(first), np.uintp(last) + taps - np.uintp(1)):
            base = row * stride + start
            for i in range(count + edge):
                p, q = x[base + i], y[base + i]
                products[i] = p
                products[i + plane] = q
                products[i + np.uintp(2) * plane] = p * p + q * q
                products[i + np.uintp(3) * plane] = p * q
            slot = (row % taps) * np.uintp(4) * plane
            for part in range(np.uintp(4)):
                source, target = part * plane, part * plane + slot
                for i in range(count):
                    total = F32(0.0)
                    for k in range(taps):
                        total += window[k] * products[source + i + k * step]
                    ring[target + i] = total
            if row < np.uintp(first) + taps - np.uintp(1):
                continue
            top = row - taps + np.uintp(1)
            for k in range(taps):
                turned[(top + k) % taps] = window[k]
            for i in range(count):
                mx = my = both = xy = F32(0.0)  # both: E[x² + y²], since SSIM has the sum of the variances only
                for k in range(taps):
                    g, j = turned[k], i + k * np.uintp(4) * plane
                    mx += g * ring[j]
                    my += g * ring[j + plane]
                    both += g * ring[j + np.uintp(2) * plane]
                    xy += g * ring[j + np.uintp(3) * plane]
                squares = mx * mx + my * my
                a1 = F32(2.0) * mx * my + F32(C1)
                a2 = F32(2.0) * (xy - mx * my) + F32(C2)
                b1 = F32(1.0) / (squares + F32(C1))
                b2 = F32(1.0) / (both - squares + F32(C2))
                value = a1 * a2 * b1 * b2
                d_xx = -value * b2
                d_xy = F32(2.0) * a1 * b1 * b2
                done[i] = value
                done[i + plane] = F32(2.0) * (my * a2 * b1 * b2 - value * mx * b1) - d_xy * my - F32(2.0) * d_xx * mx
                done[i + np.uintp(2) * plane] = d_xx
                done[i + np.uintp(3) * plane] = d_xy
            base = top * columns + start
            for part in range(np.uintp(4)):
                out[part, base : base + count] = done[part * plane : part * plane + count]
        start += count


def _backward_rows(  # type: ignore[no-untyped-def]
    first, last, x, y, window, channels, width, planes, upstream, rows, result
):
    """Gradient in ``x`` for image rows ``first:last`` from derivatives ``planes[1:]`` and ``upstream [rows * columns]``."""
    products, ring, turned = np.empty(3 * PLANE, F32), np.empty(3 * TAPS * PLANE, F32), np.empty(TAPS, F32)
    taps, step, stride, plane = np.uintp(TAPS), np.uintp(channels), np.uintp(width), np.uintp(PLANE)
    edge, rows = (taps - np.uintp(1)) * step, np.uintp(rows)
    columns, start = stride - edge, np.uintp(0)
    slope0, slope1, slope2 = planes[1], planes[2], planes[3]
    while start < stride:
        count = min(plane - edge, stride - start)
        # Product i is output column start + i - edge; outside the output there was no window: zero.
        low, high = max(edge, start) - start, min(columns + edge, start + count + edge) - start
        for row in range(np.uintp(first), np.uintp(last) + taps - np.uintp(1)):
            products[:] = F32(0.0)
            if row + np.uintp(1) >= taps and row + np.uintp(1) < rows + taps:
                base = (row + np.uintp(1) - taps) * columns + start - edge
                for i in range(low, high):
                    up = upstream[base + i]
                    products[i] = up * slope0[base + i]
                    products[i + plane] = up * slope1[base + i]
                    products[i + np.uintp(2) * plane] = up * slope2[base + i]
            slot = (row % taps) * np.uintp(3) * plane
            for part in range(np.uintp(3)):
                source, target = part * plane, part * plane + slot
                for i in range(count):
                    total = F32(0.0)
                    for k in range(taps):
                        total += window[k] * products[source + i + k * step]
                    ring[target + i] = total
            if row < np.uintp(first) + taps - np.uintp(1):
                continue
            top = row - taps + np.uintp(1)
            for k in range(taps):
                turned[(top + k) % taps] = window[k]
            base = top * stride + start
            for i in range(count):
                s0 = s1 = s2 = F32(0.0)
                for k in range(taps):
                    g, j = turned[k], i + k * np.uintp(3) * plane
                    s0 += g * ring[j]
                    s1 += g * ring[j + plane]
                    s2 += g * ring[j + np.uintp(2) * plane]
                result[base + i] = s0 + F32(2.0) * x[base + i] * s1 + y[base + i] * s2
        start += count
