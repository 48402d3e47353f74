"""Layers of the networks: on a CPU, convolutions by tiles with a quarter of the products, and normalisation in one pass.

Pictures ``[B, C, H, W]`` have their channels last in memory. What the kernels do not take (another device or type, odd sizes)
goes through PyTorch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from heads.raster import threads
from heads.raster.arrays import flat, plain
from heads.raster.simd.vector import WIDTH
from pretrain.expression_visual.fused import convolving, normalising

PARTS = convolving.PATCH**2
# Numbers below which PyTorch's two operators are faster, measured on maps of 16 x 16 with 64 channels in batches of three.
FEW = 1 << 16


def convolved(x: Tensor, convolution: nn.Conv2d) -> Tensor:
    """A 3 x 3 convolution with a border of one zero, of ``[B, C, H, W]`` with C last in memory."""
    weight, bias = convolution.weight, convolution.bias
    if bias is not None and plain(x, weight) and by_tiles(x.shape, weight.shape):
        return _Tiled.apply(x.permute(0, 2, 3, 1), weight, bias).permute(0, 3, 1, 2)
    return F.conv2d(x, weight, bias, padding=1)


def by_tiles(shape: torch.Size, weight: torch.Size) -> bool:
    """Whether tiles pay off: whole ones, and more of them than channels, since every tile's products use all weights."""
    batch, before, height, width = shape
    whole = not (height % convolving.TILE or width % convolving.TILE or before % WIDTH or weight[0] % WIDTH)
    return whole and batch * height * width >= max(before, weight[0]) * convolving.TILE**2 // 2


class _TiledCtx(FunctionCtx):
    shape: torch.Size
    kernel: torch.Size
    needs_input_grad: tuple[bool, ...]
    saved_tensors: tuple[Tensor, ...]


class _Tiled(torch.autograd.Function):
    """See :mod:`pretrain.expression_visual.fused.convolving`; ``x [B, H, W, C]``, ``weight [C', C, 3, 3]``, ``bias [C']``."""

    @staticmethod
    def forward(ctx: _TiledCtx, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        x = x.contiguous()
        batch, height, width, before = x.shape
        patches = _each(convolving.patches_in, x, x.shape, _parts(x, before))
        filters = (_filter(x.dtype) @ weight.reshape(-1, 9).T).unflatten(1, weight.shape[:2])
        products = patches @ filters.transpose(1, 2)
        result = x.new_empty(batch, height, width, len(weight))
        _each(convolving.results_out, products, result.shape, result, bias)
        ctx.save_for_backward(patches, filters)
        ctx.shape, ctx.kernel = x.shape, weight.shape
        return result

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: _TiledCtx, upstream: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        patches, filters = ctx.saved_tensors
        upstream = upstream.contiguous()
        v_products = _each(convolving.results_in, upstream, upstream.shape, _parts(upstream, upstream.shape[-1]))
        v_filters = v_products.transpose(1, 2) @ patches
        v_weight = (v_filters.flatten(1).T @ _filter(upstream.dtype)).reshape(ctx.kernel)
        v_x = None
        if ctx.needs_input_grad[0]:
            v_x = _each(convolving.patches_out, v_products @ filters, ctx.shape, upstream.new_zeros(ctx.shape))
        return v_x, v_weight, upstream.flatten(0, 2).sum(0)


def normalised(x: Tensor, norm: nn.GroupNorm, skip: Tensor | None = None) -> Tensor:
    """``silu(norm(x))``, plus ``skip`` if given, of ``[B, C, H, W]`` with C last in memory."""
    if x.numel() >= FEW and x.shape[1] % WIDTH == 0 and plain(x, norm.weight, x if skip is None else skip):
        last = None if skip is None else skip.permute(0, 2, 3, 1)
        result = _Normalised.apply(x.permute(0, 2, 3, 1), last, norm.weight, norm.bias, norm.num_groups, norm.eps)
        return result.permute(0, 3, 1, 2)
    value = F.silu(norm(x))
    return value if skip is None else skip + value


class _NormalisedCtx(FunctionCtx):
    size: int
    needs_input_grad: tuple[bool, ...]
    saved_tensors: tuple[Tensor, ...]


class _Normalised(torch.autograd.Function):
    """See :mod:`pretrain.expression_visual.fused.normalising`; ``x`` and ``skip [B, H, W, C]``, ``weight`` and ``bias [C]``."""

    @staticmethod
    def forward(
        ctx: _NormalisedCtx, x: Tensor, skip: Tensor | None, weight: Tensor, bias: Tensor, groups: int, epsilon: float
    ) -> Tensor:
        x = x.contiguous()
        batch, height, width, channels = x.shape
        size, out, moments = channels // groups, torch.empty_like(x), x.new_empty(2, batch, channels)
        given = [flat(t) for t in (x, x.new_empty(0) if skip is None else skip, weight, bias)]
        means, rates, result = flat(moments[0]), flat(moments[1]), flat(out)

        def job(first: int, last: int) -> None:
            scratch = np.empty(channels), np.empty(normalising.TABLE * channels, result.dtype)
            normalising.normalise(
                *given, first, last, height * width, channels, size, epsilon, *scratch, means, rates, result
            )

        _shared_out(job, batch)
        ctx.save_for_backward(x, weight, bias, moments)
        ctx.size = size
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: _NormalisedCtx, upstream: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, moments = ctx.saved_tensors
        batch, height, width, channels = x.shape
        given = [flat(t) for t in (upstream, x, weight, bias, *moments)]
        v_x, v_both = torch.empty_like(x), x.new_empty(2, batch, channels)
        v_weight, v_bias, result = flat(v_both[0]), flat(v_both[1]), flat(v_x)

        def job(first: int, last: int) -> None:
            scratch = np.empty(2 * channels), np.empty(normalising.TABLE * channels, result.dtype)
            normalising.normalise_backward(
                *given, first, last, height * width, channels, ctx.size, *scratch, v_weight, v_bias, result
            )

        _shared_out(job, batch)
        v_skip = upstream if ctx.needs_input_grad[1] else None
        return v_x, v_skip, *v_both.sum(1), None, None


@functools.cache
def _filter(dtype: torch.dtype) -> Tensor:
    """``[36, 9]``: the transform of a filter of 3 x 3."""
    return torch.from_numpy(np.kron(convolving.FILTER, convolving.FILTER)).to(dtype)


def _parts(x: Tensor, channels: int) -> Tensor:
    batch, height, width, _ = x.shape
    return x.new_empty(PARTS, batch * height * width // convolving.TILE**2, channels)


def _each(kernel: Callable[..., None], source: Tensor, shape: torch.Size, out: Tensor, *more: Tensor) -> Tensor:
    """Run a kernel on all images; ``shape [B, H, W, C]`` of the pictures among source and result."""
    batch, height, width, channels = shape
    plane = batch * height * width // convolving.TILE**2 * channels
    given, result, further = flat(source), flat(out), [flat(t) for t in more]

    def job(first: int, last: int) -> None:
        scratch = np.empty(PARTS * WIDTH, given.dtype)
        kernel(given, first, last, height, width, channels, plane, *further, scratch, result)

    _shared_out(job, batch)
    return out


def _shared_out(job: Callable[[int, int], None], images: int) -> None:
    """Call ``job(first, last)`` with runs of images, one for each of the rasteriser's threads."""
    parts = min(threads.get_num_threads(), images)
    cuts = [images * k // parts for k in range(parts + 1)] if parts else []
    threads.run(job, list(pairwise(cuts)), parts)
