"""Photometric losses of rendered heads over plain backgrounds: L1, D-SSIM and alpha, fused on the CPU.

Composition, three losses and their gradients take some forty passes over the pictures in plain PyTorch. For float32 tensors
on the CPU there is one kernel each way, for the part of each picture that has weight (:mod:`heads.raster.kernels.comparing`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from heads.losses import d_ssim, l1
from heads.raster import threads
from heads.raster.arrays import flat, plain
from heads.raster.kernels import comparing
from heads.ssim_kernel import RADIUS, similarity, similarity_backward

PARTS = ("l1", "d_ssim", "alpha")


def composed(head: Tensor, alpha: Tensor, behind: Tensor) -> Tensor:
    """Premultiplied heads ``[B, H, W, 3]`` with ``alpha [B, H, W, 1]`` over colours ``[B, 3]``."""
    return head + (1 - alpha) * behind[:, None, None]


def photometric(
    head: Tensor, alpha: Tensor, behind: Tensor, picture: Tensor, matte: Tensor, weight: Tensor
) -> dict[str, Tensor]:
    """The scalar losses ``l1``, ``d_ssim`` and ``alpha``, differentiable in head and alpha.

    ``alpha`` is the mean absolute difference of alpha and matte over the pixels with weight.

    Args:
        head: ``[B, H, W, 3]`` premultiplied; alpha: ``[B, H, W, 1]``.
        behind: ``[B, 3]`` background colour, for the rendered and the real head.
        picture: ``[B, H, W, 3]`` in [0, 1]; matte: ``[B, H, W]`` in [0, 1].
        weight: ``[B, H, W]`` of the pixels, not negative.
    """
    if plain(head, alpha, picture, matte, weight) and min(head.shape[1:3]) > 2 * RADIUS:
        return dict(zip(PARTS, _Photometric.apply(head, alpha, behind, picture, matte, weight)))
    return photometric_reference(head, alpha, behind, picture, matte, weight)


def photometric_reference(
    head: Tensor, alpha: Tensor, behind: Tensor, picture: Tensor, matte: Tensor, weight: Tensor
) -> dict[str, Tensor]:
    """:func:`photometric` in plain PyTorch: for other devices, and what the kernels are tested against."""
    near, matte = (weight > 0).float()[..., None], matte[..., None]
    ours, real = composed(head, alpha, behind), composed(picture * matte, matte, behind)
    outline = ((alpha - matte).abs() * near).sum() / near.sum().clamp_min(1)
    return {"l1": l1(ours, real, weight), "d_ssim": d_ssim(ours, real, weight), "alpha": outline}


@dataclass
class _Kept:
    """One picture's rectangle with weight (first and end row, first and end column) and what its gradient needs."""

    box: np.ndarray
    ours: np.ndarray
    real: np.ndarray
    planes: np.ndarray
    # Of weights, of inner weights, pixels with weight; of |difference|, of |outline|, of dissimilarity.
    sums: np.ndarray


class _Photometric(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, head: Tensor, alpha: Tensor, behind: Tensor, picture: Tensor, matte: Tensor, weight: Tensor
    ) -> tuple[Tensor, ...]:
        batch, height, width = head.shape[:3]
        arrays = [flat(t).reshape(batch, -1) for t in (head, alpha, behind, picture, matte, weight)]
        kept: list[Any] = [None] * batch

        def job(b: int) -> None:
            kept[b] = _compare([array[b] for array in arrays], height, width)

        threads.run(job, [(b,) for b in range(batch)], threads.get_num_threads())
        total, inner, near, colour, outline, unlike = np.sum([one.sums for one in kept], axis=0)
        divisors = (max(3 * total, 1e-8), max(3 * inner, 1e-8), max(near, 1.0))
        ctx.arrays, ctx.kept, ctx.divisors, ctx.shape = arrays, kept, divisors, head.shape
        return tuple(head.new_tensor(v / d) for v, d in zip((colour, unlike, outline), divisors))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        batch, _, width = ctx.shape[:3]
        _, alpha, behind, _, matte, weight = ctx.arrays
        of_colour, of_unlike, of_outline = (float(v) / d for v, d in zip(upstream, ctx.divisors))
        v_head, v_alpha = torch.empty(ctx.shape), torch.empty(*ctx.shape[:3], 1)
        of_head, of_alpha = flat(v_head).reshape(batch, -1), flat(v_alpha).reshape(batch, -1)

        def job(b: int) -> None:
            one = ctx.kept[b]
            _clear_around(v_head[b], one.box)
            _clear_around(v_alpha[b], one.box)
            v_ours = _similarity_gradient(one, weight[b], width, -0.5 * of_unlike)
            comparing.compose_backward(
                one.ours, one.real, v_ours, alpha[b], behind[b], matte[b], weight[b], width, one.box,
                of_colour, of_outline, of_head[b], of_alpha[b],
            )  # fmt: skip

        threads.run(job, [(b,) for b in range(batch)], threads.get_num_threads())
        return v_head, v_alpha, None, None, None, None


def _compare(arrays: list[np.ndarray], height: int, width: int) -> _Kept:
    """The loss sums of one picture and what its gradient needs."""
    head, alpha, behind, picture, matte, weight = arrays
    box, sums = np.zeros(4, np.int64), np.zeros(6)
    comparing.extent(weight, height, width, RADIUS, box, sums)
    if box[1] > box[0]:
        # A window around every pixel with weight, as far as the picture goes, and room for one window at least.
        box[::2], box[1::2] = np.maximum(box[::2] - RADIUS, 0), np.minimum(box[1::2] + RADIUS, (height, width))
        size = 2 * RADIUS + 1
        box[::2] = np.minimum(box[::2], (height - size, width - size))
        box[1::2] = np.maximum(box[1::2], box[::2] + size)
    rows, columns = int(box[1] - box[0]), int(box[3] - box[2])
    ours, real = np.empty((2, rows * columns * 3), np.float32)
    if not rows:
        return _Kept(box, ours, real, np.empty((4, 0), np.float32), sums)
    comparing.compose(head, alpha, behind, picture, matte, weight, width, box, ours, real, sums[3:])
    planes = similarity(ours, real, rows, columns, 3)
    inner = (int(box[0]) + RADIUS, int(box[2]) + RADIUS, rows - 2 * RADIUS, columns - 2 * RADIUS)
    sums[5] = comparing.dissimilarity(planes[0], weight, width, *inner)
    return _Kept(box, ours, real, planes, sums)


def _clear_around(picture: Tensor, box: np.ndarray) -> None:
    """Set the pixels of ``picture [H, W, C]`` outside a rectangle to zero."""
    top, bottom, left, right = box.tolist()
    for part in (picture[:top], picture[bottom:], picture[top:bottom, :left], picture[top:bottom, right:]):
        part.zero_()


def _similarity_gradient(one: _Kept, weight: np.ndarray, width: int, factor: float) -> np.ndarray:
    """Gradient in ``ours`` of ``factor`` times the weighted sum of SSIM."""
    rows, columns = int(one.box[1] - one.box[0]), int(one.box[3] - one.box[2])
    if not rows:
        return one.ours
    inner = (int(one.box[0]) + RADIUS, int(one.box[2]) + RADIUS, rows - 2 * RADIUS, columns - 2 * RADIUS)
    up = np.empty(inner[2] * inner[3] * 3, np.float32)
    comparing.upstream(weight, width, *inner, factor, up)
    return similarity_backward(one.ours, one.real, rows, columns, 3, one.planes, up)
