"""The CPU rasteriser as two differentiable functions: ``project`` and ``rasterize``.

They are separate so that ``means2d`` is a node of the graph, as in gsplat: densification strategies retain its gradient.
Work is cut into chunks of Gaussians and bands of tiles. Gradients are written per (tile, Gaussian) pair and summed in
a fixed order, so pictures and gradients are bit-identical for any number of threads. The gradient of the viewmats, a
sum over chunks, is so only for the same number.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from heads.raster import bind, threads
from heads.raster.arrays import chunks, flat, worthwhile_threads
from heads.raster.backends.base import Backend, Binding
from heads.raster.camera import Camera
from heads.raster.kernels import binning, compositing, projection
from heads.raster.probes import Probe, version
from heads.raster.simd import caching
from heads.raster.simd.vector import WIDTH

_MIN_PAIRS = 5000  # (Gaussian, tile) pairs below which a second thread costs more than it saves · guess
_CHANNELS = (1, 3, 4, 8, 16, 32)  # numbers of channels with a compiled kernel; others are padded
MAX_CHANNELS = _CHANNELS[-1]


@cache
def probe() -> Probe:
    """Our CPU rasteriser: numba, threads, and where compiled kernels are kept."""
    folder = caching.cache_folder()
    detail = f"numba {version('numba')}, {threads.get_num_threads()} threads, compiled kernels in {folder}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK)
    except OSError:
        writable = False
    if not writable:
        return Probe("cpu", True, f"{detail} (not writable: every process compiles again)", "set HEADSTART_CACHE")
    return Probe("cpu", True, detail)


class _Project(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, viewmats: Tensor, Ks: Tensor,
        camera: Camera, compensate: bool,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        batches, number = means.shape[:2]
        cameras = viewmats.shape[1]
        shape = (batches, cameras, number)
        means2d, conics = means.new_empty(*shape, 2), means.new_empty(*shape, 3)
        depths, radii = means.new_empty(shape), torch.empty(*shape, 2, dtype=torch.int32)
        compensations = means.new_empty(shape if compensate else 0)
        inputs = [flat(t) for t in (means, quats, scales, opacities, viewmats, Ks)]
        outputs = [flat(t) for t in (means2d, conics, depths, radii, compensations)]
        limit = worthwhile_threads(batches * cameras * number)

        def job(image: int, first: int, last: int) -> None:
            planes = (camera.near_plane, camera.far_plane)
            projection.project(
                *inputs, image, image // cameras, number, first, last, camera.size, planes,
                camera.eps2d, camera.radius_clip, compensate, *outputs,
            )  # fmt: skip

        threads.run(job, chunks(batches * cameras, number, limit), limit)
        ctx.save_for_backward(means, quats, scales, viewmats, Ks, means2d, conics, depths, compensations)
        ctx.camera, ctx.compensate = camera, compensate
        ctx.mark_non_differentiable(radii)
        return means2d, conics, depths, radii, compensations

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, v_means2d: Tensor, v_conics: Tensor, v_depths: Tensor, _v_radii: Tensor, v_compensations: Tensor
    ) -> tuple[Tensor | None, ...]:
        means, quats, scales, viewmats, Ks, means2d, conics, depths, compensations = ctx.saved_tensors
        batches, number = means.shape[:2]
        cameras = viewmats.shape[1]
        grads = [torch.empty_like(t, memory_format=torch.contiguous_format) for t in (means, quats, scales)]
        want_views = ctx.needs_input_grad[4]
        limit = worthwhile_threads(batches * cameras * number)
        pieces = chunks(batches, number, limit)
        sums = means.new_zeros(len(pieces) if want_views else 0, cameras, 12, WIDTH)
        inputs = [flat(t) for t in (means, quats, scales, viewmats, Ks)]
        upstream = [flat(t) for t in (v_means2d, v_conics, v_depths, v_compensations)]
        saved = [flat(t) for t in (means2d, conics, depths, compensations)]
        outputs = [flat(t) for t in grads]
        sums_flat = flat(sums)
        step = cameras * 12 * WIDTH

        def job(index: int, batch: int, first: int, last: int) -> None:
            projection.project_backward(
                *inputs, batch, cameras, number, first, last, ctx.camera.size, ctx.camera.eps2d, ctx.compensate,
                *saved, *upstream, *outputs, want_views, sums_flat[index * step : (index + 1) * step],
            )  # fmt: skip

        threads.run(job, [(index, *chunk) for index, chunk in enumerate(pieces)], limit)
        v_viewmats = _view_gradient(sums, pieces, viewmats) if want_views else None
        return *grads, None, v_viewmats, None, None, None


def _view_gradient(sums: Tensor, pieces: list[tuple[int, int, int]], viewmats: Tensor) -> Tensor:
    """Sum lanes and chunks to the gradient of the viewmats ``[B, C, 4, 4]``, whose last row is constant."""
    result = torch.zeros_like(viewmats)
    owner = torch.tensor([batch for batch, _, _ in pieces], dtype=torch.long)
    rows = sums.sum(-1).reshape(len(pieces), viewmats.shape[1], 3, 4)
    result[:, :, :3] = torch.zeros_like(result[:, :, :3]).index_add_(0, owner, rows)
    return result


def project(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    camera: Camera,
    compensate: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """See :class:`heads.raster.backends.base.Project`; opacities only affect the radii."""
    return _Project.apply(means, quats, scales, opacities.detach(), viewmats, Ks.detach(), camera, compensate)


@dataclass
class _Tiling:
    """Sorted pairs of a call, kept for its backward pass."""

    records: np.ndarray
    stride: int
    ids: np.ndarray
    offsets: np.ndarray
    slots: np.ndarray
    starts: np.ndarray
    tiles_x: int
    tiles: int
    bands: list[tuple[int, int]]


def _bands(offsets: np.ndarray, jobs: int) -> list[tuple[int, int]]:
    """Contiguous tile ranges of about equal work: their pairs, plus a constant per tile."""
    work = offsets + 4 * np.arange(len(offsets))
    pairs = int(offsets[-1])
    parts = threads.get_num_threads() if pairs >= _MIN_PAIRS or jobs > 1024 else 1
    cuts = np.searchsorted(work, np.linspace(0, work[-1], parts + 1))
    cuts[0], cuts[-1] = 0, jobs
    return [(int(a), int(b)) for a, b in pairwise(cuts) if b > a]


def _tile(
    means2d: Tensor, conics: Tensor, depths: Tensor, radii: Tensor, opacities: Tensor, colors: Tensor,
    camera: Camera, channels: int, with_depth: bool,
) -> _Tiling:  # fmt: skip
    """Records, depth order and pair lists of all images."""
    batches, cameras, number = depths.shape
    images = batches * cameras
    tiles_x = -(-camera.width // binning.TILE_WIDTH)
    tiles = tiles_x * -(-camera.height // binning.TILE_HEIGHT)
    stride = binning.record_size(channels)
    depths_flat = flat(depths)
    inputs = [flat(means2d), flat(conics), depths_flat, flat(radii), flat(opacities), flat(colors)]
    records = flat(torch.empty(images * number * stride, dtype=depths.dtype))  # torch aligns to cache lines
    boxes = np.empty(images * number * 4, np.int32)
    starts = np.zeros(images * number + 1, np.int64)
    limit = worthwhile_threads(images * number)
    pieces = chunks(images, number, limit)
    histograms = np.zeros((len(pieces), tiles), np.int32)
    opacity_shared, color_shared = opacities.dim() == 2, colors.dim() == 3

    def job(index: int, image: int, first: int, last: int) -> None:
        opacity_set = image // cameras if opacity_shared else image
        color_set = image // cameras if color_shared else image
        binning.prepare(
            *inputs, image, opacity_set, color_set, number, first, last, camera.size, colors.shape[-1],
            with_depth, stride, records, boxes, starts[1:], histograms[index],
        )  # fmt: skip

    threads.run(job, [(index, *chunk) for index, chunk in enumerate(pieces)], limit)
    owner = np.array([image for image, _, _ in pieces], np.int64)
    counts = np.zeros((images, tiles), np.int64)
    np.add.at(counts, owner, histograms)
    np.cumsum(starts, out=starts)
    offsets = np.zeros(images * tiles + 1, np.int64)
    np.cumsum(counts.reshape(-1), out=offsets[1:])
    order, drawn = _depth_order(depths_flat, boxes, images, number, limit)
    ids, slots = np.empty((2, int(offsets[-1])), np.int32)
    bands = _bands(offsets, images * tiles)

    def fill(first: int, last: int) -> None:
        binning.fill(boxes, order, drawn, offsets, starts, number, tiles_x, tiles, first, last, ids, slots)

    threads.run(fill, bands, len(bands))
    return _Tiling(records, stride, ids, offsets, slots, starts, tiles_x, tiles, bands)


def _depth_order(
    depths: np.ndarray, boxes: np.ndarray, images: int, number: int, limit: int
) -> tuple[np.ndarray, np.ndarray]:
    """Drawn Gaussians of each image, nearest first ``[images * N]``, and their number ``[images]``."""
    order, drawn = np.empty(images * number, np.int32), np.zeros(images, np.int64)
    exact = depths.dtype == np.float64

    def job(image: int) -> None:
        of = slice(image * number, (image + 1) * number)
        if exact:
            box = boxes.reshape(-1, 4)[of]
            seen = np.flatnonzero(box[:, 1] > box[:, 0])
            drawn[image] = len(seen)
            order[of][: len(seen)] = seen[np.argsort(depths[of][seen], kind="stable")]
            return
        scratch, keys = np.empty(number, np.int32), np.empty((2, number), np.uint32)
        drawn[image] = binning.sort_by_depth(
            depths.view(np.uint32), boxes, image, number, order[of], scratch, keys[0], keys[1]
        )

    threads.run(job, [(image,) for image in range(images)], limit)
    return order, drawn


class _Rasterize(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, means2d: Tensor, conics: Tensor, depths: Tensor, radii: Tensor, opacities: Tensor, colors: Tensor,
        backgrounds: Tensor | None, camera: Camera, with_depth: bool, absgrad: bool,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        batches, cameras, number = depths.shape
        channels = colors.shape[-1] + int(with_depth)
        images = batches * cameras
        tiling = _tile(means2d, conics, depths, radii, opacities, colors, camera, channels, with_depth)
        render = means2d.new_empty(batches, cameras, camera.height, camera.width, channels)
        alphas = means2d.new_empty(batches, cameras, camera.height, camera.width, 1)
        render_flat, alphas_flat = flat(render), flat(alphas)
        background = np.zeros(images * channels, render_flat.dtype) if backgrounds is None else flat(backgrounds)
        ends = np.empty(images * tiling.tiles, np.int64)
        like = (0,) * channels

        def job(first: int, last: int) -> None:
            planes = np.empty((1 + channels) * compositing.PLANE, render_flat.dtype)
            compositing.composite(
                tiling.records, tiling.stride, tiling.ids, tiling.offsets, number, camera.size, tiling.tiles_x,
                tiling.tiles, first, last, camera.alpha_clamp, 0.0, background, like, planes,
                render_flat, alphas_flat, ends,
            )  # fmt: skip

        threads.run(job, tiling.bands, len(tiling.bands))
        ctx.save_for_backward(means2d, depths, render, alphas, backgrounds, opacities, colors)
        ctx.tiling, ctx.ends, ctx.settings = tiling, ends, (camera, with_depth, absgrad, like)
        return render, alphas

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v_render: Tensor, v_alphas: Tensor) -> tuple[Tensor | None, ...]:
        means2d, depths, render, alphas, backgrounds, opacities, colors = ctx.saved_tensors
        camera, with_depth, absgrad, like = ctx.settings
        tiling, ends = ctx.tiling, ctx.ends
        batches, cameras, number = depths.shape
        channels = len(like)
        arrays = [flat(t) for t in (render, alphas, v_render, v_alphas)]
        absolute = (0,) * int(absgrad)
        size = compositing.MOMENTS + channels + 2 * len(absolute)
        pairs = np.empty(len(tiling.ids) * size, arrays[0].dtype)

        def job(first: int, last: int) -> None:
            planes = np.empty((2 + channels) * compositing.PLANE, pairs.dtype)
            compositing.composite_backward(
                tiling.records, tiling.stride, tiling.ids, tiling.offsets, ends, number, camera.size, tiling.tiles_x,
                tiling.tiles, first, last, camera.alpha_clamp, like, planes, *arrays, absolute, pairs,
            )  # fmt: skip

        threads.run(job, tiling.bands, len(tiling.bands))
        shape = (batches, cameras, number)
        outputs = [torch.empty_like(means2d), means2d.new_empty(*shape, 3), means2d.new_empty(shape)]
        outputs += [torch.empty_like(t, memory_format=torch.contiguous_format) for t in (opacities, colors)]
        outputs.append(torch.empty_like(means2d) if absgrad else means2d.new_empty(0))
        arrays_out = [flat(t) for t in outputs]
        limit = worthwhile_threads(batches * cameras * number)

        def reduce(batch: int, first: int, last: int) -> None:
            compositing.reduce_gradients(
                tiling.records, tiling.stride, pairs, tiling.slots, tiling.starts, size, batch, cameras, number, first,
                last, opacities.dim() == 2, colors.dim() == 3, colors.shape[-1], with_depth,
                compositing.MOMENTS + channels if absgrad else 0, *arrays_out,
            )  # fmt: skip

        threads.run(reduce, chunks(batches, number, limit), limit)
        if absgrad:
            means2d.absgrad = outputs[5]
        v_backgrounds = None
        if backgrounds is not None and ctx.needs_input_grad[6]:
            v_backgrounds = ((1 - alphas) * v_render).sum((-3, -2))
        return *outputs[:3], None, *outputs[3:5], v_backgrounds, None, None, None


def rasterize(
    means2d: Tensor,
    conics: Tensor,
    depths: Tensor,
    radii: Tensor,
    opacities: Tensor,
    colors: Tensor,
    backgrounds: Tensor | None,
    camera: Camera,
    with_depth: bool = False,
    absgrad: bool = False,
) -> tuple[Tensor, Tensor]:
    """See :class:`heads.raster.backends.base.Rasterize`; at most ``MAX_CHANNELS`` channels."""
    channels = colors.shape[-1] + int(with_depth)
    padded = next(c for c in _CHANNELS if c >= channels)
    if padded > channels:
        # Zero channels before the depth: fewer kernels to compile, for a little idle arithmetic.
        missing = padded - channels
        colors = torch.nn.functional.pad(colors, (0, missing))
        if backgrounds is not None:
            keep = backgrounds.shape[-1] - int(with_depth)
            empty = backgrounds.new_zeros(*backgrounds.shape[:-1], missing)
            backgrounds = torch.cat([backgrounds[..., :keep], empty, backgrounds[..., keep:]], -1)
    render, alphas = _Rasterize.apply(
        means2d, conics, depths, radii, opacities, colors, backgrounds, camera, with_depth, absgrad
    )
    if padded > channels:
        plain = channels - int(with_depth)
        render = torch.cat([render[..., :plain], render[..., padded - 1 :]], -1) if with_depth else render[..., :plain]
    return render, alphas


BACKEND = Backend(
    name="cpu",
    probe=probe,
    project=project,
    rasterize=rasterize,
    devices=("cpu",),
    place=20,
    binding=Binding(bind.bind_forward, bind.bind_backward),
)
