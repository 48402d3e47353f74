"""Runs the kernels of ``heads.raster.kernels.binding`` on torch tensors, in chunks of triangles on the pool."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from heads.raster import threads
from heads.raster.arrays import flat, worthwhile_threads
from heads.raster.kernels import binding


def _pieces(runs: np.ndarray, batches: int, parts: int) -> list[tuple[int, int, int]]:
    """(head, first triangle, last triangle): about ``parts`` pieces with equal numbers of Gaussians."""
    per_head = max(1, -(-parts // batches))
    cuts = np.searchsorted(runs, np.linspace(0, runs[-1], per_head + 1))
    cuts[0], cuts[-1] = 0, len(runs) - 1
    return [(b, int(i), int(j)) for b in range(batches) for i, j in pairwise(cuts) if j > i]


def bind_forward(
    vertices: Tensor, maps: Tensor, faces: Tensor, runs: Tensor, weights: Tensor
) -> tuple[list[Tensor], Tensor]:
    """(means, quats, scales, opacities, colors), ``[B, N, ...]`` each, and the triangles' records for the backward pass."""
    batch, number = max(len(vertices), len(maps)), maps.shape[1]
    count = len(faces)
    records = vertices.new_empty(len(vertices), count * binding.FRAME)
    outputs = [maps.new_empty(batch, number, *tail) for tail in ((3,), (4,), (3,), (), (3,))]
    arrays = [flat(t) for t in outputs]
    corners, starts, shares, points, rows = (flat(t) for t in (faces, runs, weights, vertices, maps))
    frames = records.numpy()
    for head in range(len(vertices)):
        binding.frames(points, corners, 0, count, head * vertices.shape[1], frames[head])
    limit = worthwhile_threads(batch * number)

    def job(head: int, first: int, last: int) -> None:
        map_base = (head if len(maps) > 1 else 0) * number
        record = frames[head if len(vertices) > 1 else 0]
        binding.bind(record, starts, shares, rows, map_base, head * number, first, last, *arrays)

    threads.run(job, _pieces(starts, batch, limit), limit)
    return outputs, records


def bind_backward(
    vertices: Tensor, maps: Tensor, faces: Tensor, runs: Tensor, weights: Tensor,
    quats: Tensor, scales: Tensor, opacities: Tensor, records: Tensor,
    v_means: Tensor, v_quats: Tensor, v_scales: Tensor, v_opacities: Tensor, v_colors: Tensor,
    want_vertices: bool = True,
) -> tuple[Tensor | None, Tensor]:  # fmt: skip
    """Gradients of the vertices (``None`` unless ``want_vertices``) and of the maps."""
    batch, number, count = quats.shape[0], maps.shape[1], len(faces)
    v_maps = maps.new_empty(batch, number, maps.shape[2])
    sums = np.empty((batch, count * binding.SUMS), records.numpy().dtype)
    corners, starts, shares, rows = (flat(t) for t in (faces, runs, weights, maps))
    saved = [flat(t) for t in (quats, scales, opacities)]
    upstream = [flat(t) for t in (v_means, v_quats, v_scales, v_opacities, v_colors)]
    frames, v_rows = records.numpy(), flat(v_maps)
    limit = worthwhile_threads(batch * number)

    def job(head: int, first: int, last: int) -> None:
        map_base = (head if len(maps) > 1 else 0) * number
        record = frames[head if len(vertices) > 1 else 0]
        binding.bind_backward(
            record, starts, shares, rows, map_base, head * number, first, last, *saved, *upstream,
            head * number, v_rows, want_vertices, sums[head],
        )  # fmt: skip

    threads.run(job, _pieces(starts, batch, limit), limit)
    v_maps = v_maps if len(maps) == batch else v_maps.sum(0, keepdim=True)
    if not want_vertices:
        return None, v_maps
    v_vertices = torch.zeros_like(vertices)
    points = flat(v_vertices)
    for head in range(batch):
        which = head if len(vertices) > 1 else 0
        binding.frames_backward(frames[which], sums[head], corners, count, which * vertices.shape[1], points)
    return v_vertices, v_maps
