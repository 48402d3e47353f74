"""Penalties on UV maps: offsets beyond a triangle's size, and Gaussians larger than at the start; fused on the CPU.

In plain PyTorch the two and their gradients take some twenty passes over all maps, 7 ms of a step of ``tiny``.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from heads.losses import offset_penalty
from heads.raster import threads
from heads.raster.arrays import flat, plain
from pretrain.expression_visual.fused import restraining

SCALES = slice(restraining.SCALE, restraining.SCALE + 3)
FREE = 1.0  # triangle sizes of an offset without penalty, as in :func:`heads.losses.offset_penalty`


def penalties(maps: Tensor, largest: Tensor) -> dict[str, Tensor]:
    """The scalars ``offset``, see :func:`heads.losses.offset_penalty`, and ``scale``: mean squared excess of log-scales.

    Args:
        maps: ``[B, N, 14]``.
        largest: ``[N, 3]`` log-scales without penalty.
    """
    if plain(maps, largest):
        return dict(zip(("offset", "scale"), _Restrained.apply(maps, largest)))
    return penalties_reference(maps, largest)


def penalties_reference(maps: Tensor, largest: Tensor) -> dict[str, Tensor]:
    """:func:`penalties` in plain PyTorch: for other devices, and what the kernels are tested against."""
    scale = (maps[..., SCALES] - largest).clamp_min(0).square().mean()
    return {"offset": offset_penalty(maps[..., :3], FREE), "scale": scale}


class _Ctx(FunctionCtx):
    maps: np.ndarray
    largest: np.ndarray
    shape: torch.Size


class _Restrained(torch.autograd.Function):
    @staticmethod
    def forward(ctx: _Ctx, maps: Tensor, largest: Tensor) -> tuple[Tensor, Tensor]:
        batch, count, _ = maps.shape
        given, most = flat(maps).reshape(batch, -1), flat(largest)
        sums, free = np.zeros((batch, 2)), given.dtype.type(FREE)
        jobs = [(given[b], most, free, count, sums[b]) for b in range(batch)]
        threads.run(restraining.restrain, jobs, threads.get_num_threads())
        ctx.maps, ctx.largest, ctx.shape = given, most, maps.shape
        offset, scale = sums.sum(0) / (batch * count, 3 * batch * count)
        return maps.new_tensor(offset), maps.new_tensor(scale)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: _Ctx, of_offset: Tensor, of_scale: Tensor) -> tuple[Tensor, None]:
        given, batch, count = ctx.maps, *ctx.shape[:2]
        free = given.dtype.type(FREE)
        factors = [given.dtype.type(2 * float(v) / (n * batch * count)) for v, n in ((of_offset, 1), (of_scale, 3))]
        result = torch.empty(ctx.shape, dtype=of_offset.dtype)
        out = flat(result).reshape(batch, -1)
        jobs = [(given[b], ctx.largest, free, count, *factors, out[b]) for b in range(batch)]
        threads.run(restraining.restrain_backward, jobs, threads.get_num_threads())
        return result, None
