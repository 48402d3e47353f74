"""Losses of composed pictures: composition over a backdrop, weighted L1 and D-SSIM, each one kernel on the CPU.

In plain PyTorch they take some forty passes over the pictures. The kernels are in
:mod:`heads.raster.kernels.comparing`. :mod:`heads.photometric` is for heads over plain colours.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from heads.losses import d_ssim, weighted_mean
from heads.raster.arrays import flat, plain
from heads.raster.kernels import comparing
from heads.ssim_kernel import RADIUS, similarity, similarity_backward


def over(color: Tensor, alpha: Tensor, behind: Tensor) -> Tensor:
    """Premultiplied heads ``color [B, H, W, 3]`` with ``alpha [B, H, W, 1]`` over pictures ``[B, H, W, 3]``."""
    if plain(color, alpha, behind) and color.shape == behind.shape:
        return _Over.apply(color, alpha, behind)
    return color + (1 - alpha) * behind


class _OverCtx(FunctionCtx):
    alpha: np.ndarray
    behind: np.ndarray
    shape: torch.Size
    needs_input_grad: tuple[bool, ...]


class _Over(torch.autograd.Function):
    @staticmethod
    def forward(ctx: _OverCtx, color: Tensor, alpha: Tensor, behind: Tensor) -> Tensor:
        out = torch.empty(color.shape)
        ctx.alpha, ctx.behind, ctx.shape = flat(alpha), flat(behind), alpha.shape
        comparing.over(flat(color), ctx.alpha, ctx.behind, alpha.numel(), flat(out))
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: _OverCtx, upstream: Tensor) -> tuple[Tensor | None, ...]:
        v_alpha = torch.empty(ctx.shape)
        v_behind = torch.empty(upstream.shape if ctx.needs_input_grad[2] else 0)
        comparing.over_backward(flat(upstream), ctx.alpha, ctx.behind, v_alpha.numel(), flat(v_alpha), flat(v_behind))
        return upstream, v_alpha, v_behind if ctx.needs_input_grad[2] else None


def picture_loss(image: Tensor, target: Tensor, weight: Tensor, share: float) -> Tensor:
    """``(1 - share) L1 + share D-SSIM`` under pixel weights, a scalar (after Kerbl et al. 2023, eq. 7).

    Args:
        image, target: ``[B, H, W, 3]`` in [0, 1]; the loss is differentiable in the image.
        weight: ``[B, H, W, 1]``, not negative.
    """
    if plain(image, target, weight) and min(image.shape[1:3]) > 2 * RADIUS and not target.requires_grad:
        return _PictureLoss.apply(image, target, weight, share)
    return picture_loss_reference(image, target, weight, share)


def picture_loss_reference(image: Tensor, target: Tensor, weight: Tensor, share: float) -> Tensor:
    """:func:`picture_loss` in plain PyTorch: for other devices, and what the kernels are tested against."""
    value = weighted_mean((image - target).abs(), weight)
    return torch.lerp(value, d_ssim(image, target, weight), share) if share else value


class _PictureCtx(FunctionCtx):
    arrays: list[np.ndarray]  # image, target and weight, flat, by picture
    planes: list[np.ndarray]  # SSIM and its slopes, by picture
    factors: tuple[float, float]  # of the weighted difference and dissimilarity
    inner: tuple[int, int, int, int]
    shape: torch.Size


class _PictureLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: _PictureCtx, image: Tensor, target: Tensor, weight: Tensor, share: float) -> Tensor:
        batch, height, width = image.shape[:3]
        arrays = [flat(t).reshape(batch, -1) for t in (image, target, weight)]
        inner = (RADIUS, RADIUS, height - 2 * RADIUS, width - 2 * RADIUS)
        sums, planes = np.zeros((batch, 4)), []
        for row, ours, real, weights in zip(sums, *arrays, strict=True):
            comparing.differences(ours, real, weights, width, RADIUS, height, row)
            if share:
                planes.append(similarity(ours, real, height, width, 3, spread=True))
                row[3] = comparing.dissimilarity(planes[-1][0], weights, width, *inner)
        off, total, inside, unlike = sums.sum(0)
        ctx.factors = (1 - share) / max(3 * total, 1e-8), share / max(3 * inside, 1e-8)
        ctx.arrays, ctx.planes, ctx.inner, ctx.shape = arrays, planes, inner, image.shape
        return image.new_tensor(off * ctx.factors[0] + unlike * ctx.factors[1])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: _PictureCtx, upstream: Tensor) -> tuple[Tensor | None, ...]:
        batch, height, width = ctx.shape[:3]
        of_colour, of_unlike = (float(upstream) * factor for factor in ctx.factors)
        result = np.zeros((batch, height * width * 3), np.float32)
        for b, (ours, real, weights) in enumerate(zip(*ctx.arrays, strict=True)):
            if ctx.planes:
                up = np.empty(ctx.inner[2] * ctx.inner[3] * 3, np.float32)
                comparing.upstream(weights, width, *ctx.inner, -0.5 * of_unlike, up)
                result[b] = similarity_backward(ours, real, height, width, 3, ctx.planes[b], up, spread=True)
            comparing.add_signs(ours, real, weights, height * width, of_colour, result[b])
        return torch.from_numpy(result.reshape(ctx.shape)), None, None, None
