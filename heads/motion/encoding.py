"""Tri-plane hash encoding of positions: three 2D multi-resolution hash grids, one per coordinate plane.

There are two backends: ``tinycudann`` (used when it is installed and the tensors are on a GPU) and ``torch``, with the same
level sizes, hash and interpolation, so that weights of one work in the other unchanged. ``torch`` is a PyTorch reference on
any device and, for float32 on a CPU, numba kernels (:mod:`heads.motion.kernels`), three times as fast. Source: Müller et
al., *Instant Neural Graphics Primitives* (2022), section 3; the three-plane layout is that of ER-NeRF (2023) and
TalkingGaussian (2024).
"""

from __future__ import annotations

import functools
import importlib.util
import math
import warnings

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from configs import InputError
from configs.devices import is_accelerator
from heads.motion.kernels import encode, encode_backward
from heads.raster import threads
from heads.raster.arrays import flat, plain

# The second prime of the hash of Müller et al. (2022), eq. 4; the first factor is one, which keeps x-runs coherent.
PRIME = 2_654_435_761
BACKENDS = ("auto", "tinycudann", "torch")
PLANES = ((0, 1), (1, 2), (0, 2))


@functools.cache
def tinycudann_available() -> bool:
    """Whether the optional package ``tinycudann`` is installed and a CUDA device is present."""
    return torch.cuda.is_available() and importlib.util.find_spec("tinycudann") is not None


@functools.cache
def _warn_once(message: str) -> None:
    warnings.warn(message, stacklevel=3)


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


class HashGrid2D(nn.Module):
    """Layout and interpolation of a multi-resolution hash grid over the unit square; the table is an argument.

    Level sizes, order of entries, hash and half-cell shift are those of tinycudann's ``HashGrid`` in two dimensions.

    Args:
        levels: number of resolutions ``L``.
        features: values per entry ``F``.
        log2_size: a level's table has at most ``2 ** log2_size`` entries; levels with more grid points are hashed.
        base, finest: cells per side at the first and the last level.
    """

    scales: Tensor
    sides: Tensor
    sizes: Tensor
    offsets: Tensor

    def __init__(self, levels: int, features: int, log2_size: int, base: int, finest: int) -> None:
        super().__init__()
        self.levels, self.features = levels, features
        self.growth = 2.0 ** (math.log2(finest / base) / max(levels - 1, 1))
        scales = [2.0 ** (level * math.log2(self.growth)) * base - 1.0 for level in range(levels)]
        sides = [math.ceil(scale) + 1 for scale in scales]
        sizes = [min(_round_up(side * side, 8), 2**log2_size) for side in sides]
        offsets = [sum(sizes[:level]) for level in range(levels)]
        self.n_params = sum(sizes) * features
        self.n_dense = sum(side * side <= size for side, size in zip(sides, sizes))
        self._host: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int, int] | None = None
        self.register_buffer("scales", torch.tensor(scales, dtype=torch.float32), persistent=False)
        for name, values in (("sides", sides), ("sizes", sizes), ("offsets", offsets)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.int64), persistent=False)

    def forward(self, positions: Tensor, table: Tensor) -> Tensor:
        """Features ``[M, L * F]`` of positions ``[M, 2]`` in [0, 1] from the flat ``table [n_params]``."""
        index, weight = self.corners(positions)
        values = table.view(-1, self.features)[index.reshape(-1)].view(*index.shape, self.features)  # [M, L, 4, F]
        return (values * weight[..., None]).sum(dim=2).flatten(1)

    def corners(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Table rows (int64) and bilinear weights ``[M, L, 4]`` of the four corners of each position's cells."""
        scaled = positions[:, None, :] * self.scales.to(positions.dtype)[:, None] + 0.5  # [M, L, 2]
        cell = scaled.floor()
        x1, y1 = (scaled - cell).unbind(-1)
        x, y = cell.long().unbind(-1)
        index = torch.stack([self._index(x + dx, y + dy) for dy in (0, 1) for dx in (0, 1)], dim=-1)
        x0, y0 = 1 - x1, 1 - y1
        return index, torch.stack([x0 * y0, x1 * y0, x0 * y1, x1 * y1], dim=-1)

    def host(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int, int]:
        """Scales, sides, sizes and offsets of the levels, features of an entry, first hashed level: what the kernels take."""
        if self._host is None:
            scales, sides, sizes, offsets = (
                x.cpu().numpy() for x in (self.scales, self.sides, self.sizes, self.offsets)
            )
            self._host = scales, sides, sizes, offsets, self.features, self.n_dense
        return self._host

    def _index(self, x: Tensor, y: Tensor) -> Tensor:
        """Table rows of grid points ``[M, L]``: row-major where a level's table holds all of them, else hashed."""
        index = x + y * self.sides
        if self.n_dense < self.levels:
            hashed = slice(self.n_dense, None)
            # The CUDA code's uint32 arithmetic, in int64.
            index[:, hashed] = x[:, hashed] ^ ((y[:, hashed] * PRIME) & 0xFFFFFFFF)
        return index.remainder_(self.sizes).add_(self.offsets)


class TriPlaneHash(nn.Module):
    """Position ``[M, 3]`` → feature ``[M, 3 * levels * features]`` from hash grids over the planes xy, yz, xz.

    The three tables are stored as ``[3, P]``, the same for both backends, so a checkpoint of one loads in the other.

    Args:
        bound: positions inside ``[-bound, bound]³`` (head-space units) fill the grids; outside ones are clamped.
        levels: resolutions per plane (12 in the papers).
        features: values per level and plane.
        base, finest: cells per side at the coarsest and the finest level (face 16 → 256, mouth 64 → 384).
        log2_size: table size limit per level.
        backend: ``auto`` (tinycudann on a GPU where installed, else torch), ``tinycudann`` or ``torch``.

    Raises:
        InputError: unknown backend, ``tinycudann`` asked for but absent, or a size that is not positive.
    """

    def __init__(
        self,
        bound: float = 2.5,
        levels: int = 12,
        features: int = 1,
        base: int = 16,
        finest: int = 256,
        log2_size: int = 17,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        if backend not in BACKENDS:
            raise InputError(f"encoding backend '{backend}': expected one of {', '.join(BACKENDS)}")
        if min(levels, features, base) < 1 or finest < base or bound <= 0:
            raise InputError(
                f"tri-plane encoding: levels {levels}, features {features}, base {base}, finest {finest}, "
                f"bound {bound}: expected positive sizes with finest >= base"
            )
        if backend == "tinycudann" and not tinycudann_available():
            raise InputError(
                "encoding backend 'tinycudann': not installed or no CUDA device; build it with "
                "'pip install git+https://github.com/NVlabs/tiny-cuda-nn/#subdirectory=bindings/torch' or use 'torch'"
            )
        self.bound, self.backend = float(bound), backend
        self.grid = HashGrid2D(levels, features, log2_size, base, finest)
        # tinycudann's initialisation: uniform in ±1e-4.
        self.params = nn.Parameter((torch.rand(3, self.grid.n_params) * 2 - 1) * 1e-4)
        self.out_features = 3 * levels * features
        self._settings = {
            "otype": "HashGrid",
            "n_levels": levels,
            "n_features_per_level": features,
            "log2_hashmap_size": log2_size,
            "base_resolution": base,
            "per_level_scale": self.grid.growth,
            "interpolation": "Linear",
        }
        self._native: list | None = None

    def active_backend(self, device: torch.device) -> str:
        """The backend that a call on ``device`` uses."""
        if self.backend == "torch" or not is_accelerator(device):
            return "torch"
        if tinycudann_available():
            return "tinycudann"
        _warn_once("tinycudann is not installed: tri-plane hash encoding uses the slower PyTorch reference")
        return "torch"

    def forward(self, positions: Tensor) -> Tensor:
        """Features ``[..., out_features]`` of head-space positions ``[..., 3]``; non-finite positions count as 0."""
        if positions.shape[-1] != 3:
            raise ValueError(f"positions: expected shape [..., 3], got {tuple(positions.shape)}")
        rows = torch.nan_to_num(positions.reshape(-1, 3), nan=0.0, posinf=0.0, neginf=0.0)
        unit = (rows / (2 * self.bound) + 0.5).clamp(0.0, 1.0)
        if plain(unit, self.params):
            out = _FastTriPlane.apply(unit, self.params, self.grid)
        else:
            run = self._tinycudann if self.active_backend(positions.device) == "tinycudann" else self.grid
            out = torch.cat([run(unit[:, plane], table) for plane, table in zip(PLANES, self.params)], dim=-1)
        return out.reshape(*positions.shape[:-1], self.out_features)

    def _tinycudann(self, positions: Tensor, table: Tensor) -> Tensor:
        import tinycudann  # an optional CUDA build, absent on most machines

        if self._native is None:
            self._native = [tinycudann.Encoding(2, self._settings, dtype=torch.float32)]
        # Our table keeps the values; of the native module only the kernels are used.
        return torch.func.functional_call(self._native[0], {"params": table}, (positions,))


class _TriPlaneCtx(FunctionCtx):
    points: np.ndarray
    tables: list[np.ndarray]
    grid: HashGrid2D


class _FastTriPlane(torch.autograd.Function):
    """The numba route of three planes: positions ``[N, 3]`` in [0, 1] and tables ``[3, P]`` to ``[N, 3 * L * F]``."""

    @staticmethod
    def forward(ctx: _TriPlaneCtx, unit: Tensor, params: Tensor, grid: HashGrid2D) -> Tensor:
        each = grid.levels * grid.features
        out = torch.empty(len(unit), 3 * each)
        points, tables, levels = flat(unit), [flat(table) for table in params], grid.host()
        calls = [
            (points, table, np.array(axes), *levels, flat(out), plane * each, 3 * each)
            for plane, (table, axes) in enumerate(zip(tables, PLANES))
        ]
        threads.run(encode, calls, threads.get_num_threads())
        ctx.points, ctx.tables, ctx.grid = points, tables, grid
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: _TriPlaneCtx, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        points, tables, levels = ctx.points, ctx.tables, ctx.grid.host()
        each, upstream, count = ctx.grid.levels * ctx.grid.features, flat(gradient), len(points) // 3
        of_tables, of_planes = torch.zeros(3, len(tables[0])), torch.zeros(3, count, 2)
        calls = [
            (points, tables[i], np.array(PLANES[i]), *levels, upstream, i * each, 3 * each, *map(flat, sums))
            for i, sums in enumerate(zip(of_tables, of_planes))
        ]
        threads.run(encode_backward, calls, threads.get_num_threads())
        xy, yz, xz = of_planes
        of_points = torch.stack([xy[:, 0] + xz[:, 0], xy[:, 1] + yz[:, 0], yz[:, 1] + xz[:, 1]], 1)
        return of_points, of_tables, None
