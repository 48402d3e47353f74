"""Rendering of UV Gaussians that are no longer trained: one picture at a time, on the CPU, without gradients.

The pictures equal those of :func:`heads.rasterization` up to rounding (see :mod:`heads.raster.kernels.placing`) and to
:data:`ENOUGH` of what shines through.
"""

from __future__ import annotations

import threading
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from heads.geometry.rotation import quaternion_matrices
from heads.raster import threads
from heads.raster.arrays import chunks, flat, worthwhile_threads
from heads.raster.kernels import compositing, placing
from heads.raster.kernels.binning import TILE_HEIGHT, TILE_WIDTH, record_size
from heads.raster.kernels.projection import EXTEND
from heads.raster.simd.vector import WIDTH

CHANNELS = 3
RECORD = record_size(CHANNELS)
PLANES = (0.01, 1e10)  # near and far, as of heads.rasterization
EPS2D = 0.3  # px², as of heads.rasterization
ALPHA_CLAMP = 0.999
ENOUGH = 1 / 512  # transmittance from which on nothing further behind is drawn: half a step of eight bits
_MIN_PAIRS = 5000  # pairs below which a second thread costs more than it saves · guess
LARGEST = 255 * TILE_HEIGHT  # px of a side: numbers of tiles are kept in a byte


class FrozenGaussians:
    """Gaussians on the triangles of a mesh, fixed but for offsets and colours.

    Args:
        maps: ``[N, 14]`` float32, see :mod:`heads.gaussians.uv`; offsets and colours may differ in each frame.
        faces: ``[F, 3]``.
        runs: ``[F + 1]`` where each triangle's Gaussians start.
        weights: ``[N, 2]`` barycentric weights of the second and third corner.
    """

    def __init__(self, maps: Tensor, faces: Tensor, runs: Tensor, weights: Tensor) -> None:
        self.number = len(maps)
        self.stride = -(-self.number // WIDTH) * WIDTH + WIDTH
        self.faces, self.runs = flat(faces.long()), flat(runs.long())
        offsets, quats, log_scales, _, opacities = maps.detach().float().cpu().split((3, 4, 3, 3, 1), -1)
        axes = quaternion_matrices(quats) * log_scales.exp()[:, None]
        opacity = opacities[:, 0].sigmoid()
        drawn = opacity * 255 >= 1
        reach = torch.where(drawn, (2 * (opacity * 255).log().clamp_min(0)).sqrt().clamp_max(EXTEND), 0)
        log_opacity = torch.where(drawn, opacity.log(), 0)
        rows = [*axes.flatten(1).T, *weights.detach().float().cpu().T, log_opacity, reach]
        self.fixed, self.offsets = self._planes(rows), self._planes(list(offsets.T))
        # Several sessions may render one head; they share the buffers below, so pictures are made one after the other.
        self._lock = threading.Lock()
        self._records = np.zeros(len(self.faces) // 3 * placing.TRIANGLE, np.float32)
        self._placed = np.zeros((self.number + WIDTH) * RECORD, np.float32)
        self._depths, self._spans = (np.zeros(self.number + WIDTH, kind) for kind in (np.float32, np.uint32))
        self._order = np.zeros((2, self.number), np.int32)
        self._keys = np.zeros((2, self.number), np.uint32)

    def _planes(self, rows: list[Tensor]) -> np.ndarray:
        """Rows ``[N]`` as flat planes of ``stride`` numbers."""
        planes = np.zeros((len(rows), self.stride), np.float32)
        for plane, row in zip(planes, rows, strict=True):
            plane[: self.number] = row.numpy()
        return planes.reshape(-1)

    def changed(self, held: np.ndarray, rows: np.ndarray, colors: np.ndarray) -> np.ndarray:
        """Offsets of one frame in the layout that :meth:`render` takes; ``colors [N * 3]`` are changed in place.

        Args:
            held: ``[R * 6]`` changes of offset (triangle units) and colour; rows: ``[N]`` int32, which of them is each
                Gaussian's, R for none.
        """
        planes = self.offsets.copy()
        placing.change(held, rows, self.number, self.stride, planes, colors)
        return planes

    def render(
        self,
        vertices: np.ndarray,
        view: np.ndarray,
        colors: np.ndarray,
        intrinsics: np.ndarray,
        size: tuple[int, int],
        offsets: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Premultiplied colour ``[H, W, 3]`` and alpha ``[H, W, 1]`` of one frame; threads may call it at the same time.

        Args:
            vertices: ``[V, 3]`` in camera space.
            view: ``[3, 3]`` head to camera rotation, for degenerate triangles.
            colors: ``[N, 3]``; intrinsics: ``[3, 3]`` px; size: (width, height) px.
            offsets: of this frame, from :meth:`changed`; the map's by default.
        """
        points, axes = (np.ascontiguousarray(x, np.float32).reshape(-1) for x in (vertices, view))
        shades, camera = (np.ascontiguousarray(x, np.float32).reshape(-1) for x in (colors, intrinsics))
        with self._lock:
            placing.triangles(points, self.faces, axes, 0, len(self.faces) // 3, self._records)
            counts = self._place(shades, camera, size, self.offsets if offsets is None else offsets)
            return self._composite(counts, size)

    def _place(
        self, colors: np.ndarray, intrinsics: np.ndarray, size: tuple[int, int], offsets: np.ndarray
    ) -> np.ndarray:
        """Write the records; return how many Gaussians touch each tile."""
        tiles_x, tiles = _tiles(size)
        limit = worthwhile_threads(self.number)
        pieces = [(first, last) for _, first, last in chunks(1, self.number, limit)]
        histograms = np.zeros((len(pieces), tiles), np.int32)

        def job(index: int, first: int, last: int) -> None:
            scratch = np.zeros(placing.SCRATCH * (placing.BLOCK + WIDTH) + WIDTH, np.float32)
            boxes = np.zeros(4 * (placing.BLOCK + WIDTH), np.int32)
            triangle = int(np.searchsorted(self.runs, first, "right"))
            placing.place(
                self._records, self.runs, triangle, self.fixed, self.stride, offsets, colors, intrinsics, self.number,
                first, last, size, PLANES, EPS2D, scratch, boxes, self._placed, self._depths, self._spans, tiles_x,
                histograms[index], RECORD,
            )  # fmt: skip

        threads.run(job, [(index, *piece) for index, piece in enumerate(pieces)], limit)
        return histograms.sum(0)

    def _composite(self, counts: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        (width, height), (tiles_x, tiles) = size, _tiles(size)
        order, keys = self._order, self._keys
        drawn = placing.sort_seen(
            self._depths.view(np.uint32), self._spans, self.number, order[0], order[1], keys[0], keys[1]
        )
        offsets = np.zeros(tiles + 1, np.int64)
        np.cumsum(counts, out=offsets[1:])
        ids, ends = np.empty(int(offsets[-1]), np.int32), np.empty(tiles, np.int64)
        color, alpha = np.empty((height, width, CHANNELS), np.float32), np.empty((height, width, 1), np.float32)
        nothing, like = np.zeros(CHANNELS, np.float32), (0,) * CHANNELS

        def job(first: int, last: int) -> None:
            placing.list_tiles(self._spans, order[0], drawn, offsets, tiles_x, first, last, ids)
            planes = np.empty((1 + CHANNELS) * compositing.PLANE, np.float32)
            compositing.composite(
                self._placed, RECORD, ids, offsets, self.number, size, tiles_x, tiles, first, last, ALPHA_CLAMP,
                ENOUGH, nothing, like, planes, color.reshape(-1), alpha.reshape(-1), ends,
            )  # fmt: skip

        bands = _bands(offsets)
        threads.run(job, bands, len(bands))
        return color, alpha


def _tiles(size: tuple[int, int]) -> tuple[int, int]:
    """(columns of tiles, number of tiles) of a picture of (width, height) px."""
    across = -(-size[0] // TILE_WIDTH)
    return across, across * -(-size[1] // TILE_HEIGHT)


def _bands(offsets: np.ndarray) -> list[tuple[int, int]]:
    """Contiguous tile ranges of about equal work: their pairs, plus a constant per tile."""
    work, tiles = offsets + 4 * np.arange(len(offsets)), len(offsets) - 1
    parts = threads.get_num_threads() if offsets[-1] >= _MIN_PAIRS else 1
    cuts = np.searchsorted(work, np.linspace(0, work[-1], parts + 1))
    cuts[0], cuts[-1] = 0, tiles
    return [(int(a), int(b)) for a, b in pairwise(cuts) if b > a]
