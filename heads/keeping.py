"""Penalties that keep a UV map near its initial values, its offsets near their triangles and similar among neighbours, and its
scales in bounds.

In plain PyTorch they take some thirty passes over the map forward and as many backward. For float32 tensors on the CPU,
one kernel computes value and gradient (:mod:`heads.raster.kernels.keeping`). On accelerators, where every operator is a launch,
both take some thirty operators together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from configs.devices import constant, is_accelerator
from heads.gaussians.neighbours import Neighbours, roughness
from heads.losses import NEEDLE, offset_penalty, scale_penalty
from heads.raster.arrays import flat, plain
from heads.raster.kernels import keeping


class Tie(NamedTuple):
    """Texels that hold each other: the weight of the :func:`roughness` of how far their offsets have moved."""

    neighbours: Neighbours
    weight: float


def map_penalty(
    parts: Sequence[Tensor],
    start: Tensor,
    shares: Tensor,
    weight: float,
    free: float,
    tie: Tie | None = None,
) -> Tensor:
    """Squared distance of a map from its start plus penalties of offsets and scales; a scalar.

    The penalties are :func:`offset_penalty`, :func:`scale_penalty`, and :func:`roughness` of the offsets' change from the start.

    Args:
        parts: offsets ``[N, 3]``, quaternions ``[N, 4]``, log-scales ``[N, 3]``, colours ``[N, 3]``, opacities ``[N, 1]``.
        start: ``[N, 14]`` the initial map, its columns in this order.
        shares: ``[14]`` weight of each column's squared distance, which is summed over the texels.
        weight: weight of the penalties of single texels.
        free: length of offsets, and size of scales, in triangle sizes up to which they cost nothing.
        tie: which texels hold each other, and how strongly; by default none do.
    """
    if plain(*parts, start):
        return _Keep.apply(start, shares, weight, free, tie, *parts)
    if is_accelerator(start.device):
        return _KeepOnDevice.apply(start, shares, weight, free, tie, *parts)
    return map_penalty_reference(parts, start, shares, weight, free, tie)


def map_penalty_reference(
    parts: Sequence[Tensor],
    start: Tensor,
    shares: Tensor,
    weight: float,
    free: float,
    tie: Tie | None = None,
) -> Tensor:
    """:func:`map_penalty` in plain PyTorch: for other devices, and what the kernel is tested against."""
    distance = ((torch.cat(list(parts), -1) - start).square() * shares).sum()
    value = distance + weight * (offset_penalty(parts[0], free) + scale_penalty(parts[2], free))
    return value if tie is None else value + tie.weight * roughness(parts[0] - start[:, :3], tie.neighbours)


class _KeepCtx(FunctionCtx):
    gradients: list[Tensor]  # of the parts, for an upstream of one


class _Keep(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: _KeepCtx, start: Tensor, shares: Tensor, weight: float, free: float, tie: Tie | None, *parts: Tensor
    ) -> Tensor:
        gradients = [torch.empty_like(part, memory_format=torch.contiguous_format) for part in parts]
        f32 = np.float32
        value = keeping.keep(
            *(flat(part) for part in parts), flat(start), flat(shares), len(start), f32(weight), f32(free),
            f32(math.log(NEEDLE)), *(flat(gradient) for gradient in gradients),
        )  # fmt: skip
        if tie is not None:
            by = tie.neighbours
            value += keeping.smooth(
                flat(parts[0]), flat(start), flat(by.links), flat(by.axes), len(start), f32(tie.weight / by.pairs),
                np.empty(3 * len(start), f32), flat(gradients[0]),
            )  # fmt: skip
        ctx.gradients = gradients
        return start.new_tensor(value)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: _KeepCtx, upstream: Tensor) -> tuple[Tensor | None, ...]:
        gradients = ctx.gradients
        if float(upstream) != 1.0:  # the term of a sum of losses: nothing to multiply
            gradients = [upstream * gradient for gradient in gradients]
        return *(None,) * 5, *gradients


class _KeepOnDevice(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: _KeepCtx, start: Tensor, shares: Tensor, weight: float, free: float, tie: Tie | None, *parts: Tensor
    ) -> Tensor:
        maps, share = torch.cat(parts, -1), weight / len(start)
        away = maps - start
        pull = away * shares
        if tie is not None:
            by = tie.neighbours
            around = away[:, :3].index_select(0, by.around).view(len(start), -1, 1)
            pull[:, :3].add_((by.laplacian @ around)[..., 0], alpha=tie.weight / by.pairs)
        offsets, log_scales = maps[:, :3], maps[:, 7:10]
        length = (offsets.square().sum(-1, keepdim=True) + 1e-12).sqrt()
        loose = (length - free).clamp_min(0)
        scales = log_scales.clamp(-20, 20).exp()
        excess = (scales - free).clamp_min(0)
        ordered, order = log_scales.sort(dim=-1)
        needle = (ordered[:, 2:] - ordered[:, 1:2] - math.log(NEEDLE)).clamp_min(0)
        gradient = 2 * pull
        gradient[:, :3].addcmul_(loose / length, offsets, value=2 * share)
        gradient[:, 7:10].addcmul_(excess * (log_scales <= 20), scales, value=2 / 3 * share)
        gradient[:, 7:10].scatter_add_(1, order, needle * constant((0.0, -2 * share, 2 * share), start))
        ctx.gradients = list(gradient.split([part.shape[-1] for part in parts], -1))
        value = _dot(away, pull).add(_dot(loose, loose) + _dot(needle, needle), alpha=share)
        return value.add(_dot(excess, excess), alpha=share / 3)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: _KeepCtx, upstream: Tensor) -> tuple[Tensor | None, ...]:
        return *(None,) * 5, *torch._foreach_mul(ctx.gradients, upstream)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return torch.dot(a.flatten(), b.flatten())
