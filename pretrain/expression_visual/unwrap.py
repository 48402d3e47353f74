"""Unwrapping: where each texel of a tracked head lies in a frame, whether it is visible, and its colour."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from configs.devices import constant
from heads.gaussians.uv import UVGaussians
from heads.geometry.camera import NEAREST, project
from heads.raster import threads
from heads.raster.arrays import flat
from heads.raster.kernels import unwrapping
from heads.rig import Rig, facemesh

TOLERANCE = 0.16  # rig units: a surface at most this far in front does not occlude · guess
INNER_TOLERANCE = 0.1  # the same behind lips and lids, where only other inner texels can occlude · guess
CELLS = 48  # cells along a side of the depth buffer · guess
# Px above and below a texel that must lie in the opening too: nearer to its edge, pixels mix with lips and lids · guess
MARGIN = 1.0
# Eyeballs, teeth and the inside of the mouth are seen through an opening: the loop of landmarks around it.
OPENINGS = {
    "eyeball_left": facemesh.EYE_LEFT,
    "eyeball_right": facemesh.EYE_RIGHT,
    "mouth_inside": facemesh.LIPS_INNER,
    "teeth_upper": facemesh.LIPS_INNER,
    "teeth_lower": facemesh.LIPS_INNER,
}


class TexelSurface:
    """The texels of a UV map as points on the rig's surface.

    Args:
        rig: see ``heads.rig``; binding: a ``heads.UVGaussians`` of it, which says which texel lies on which triangle.
    """

    def __init__(self, rig: Rig, binding: UVGaussians) -> None:
        self.rig = rig
        self.corners = rig.faces[binding.triangles]  # ``[N, 3]``
        self.barycentric = binding.barycentric.float()
        self.regions, self.binding = binding.regions, binding
        loops: dict[tuple[int, ...], list[int]] = {}
        for name, loop in OPENINGS.items():
            loops.setdefault(tuple(loop), []).append(rig.regions.get(name, -1))
        self.openings = [
            (torch.tensor(loop), torch.where(torch.isin(self.regions, torch.tensor(labels)))[0])
            for loop, labels in loops.items()
        ]
        self.inner = torch.cat([texels for _, texels in self.openings])
        self.outer = torch.where(~torch.isin(torch.arange(len(self.regions)), self.inner))[0]
        self.tables = self._tables()

    def _tables(self) -> dict[str, np.ndarray]:
        """Flat arrays for :func:`heads.raster.kernels.unwrapping.see`."""
        part = np.full(len(self.regions), -1, np.int8)
        for number, (_, texels) in enumerate(self.openings):
            part[texels.numpy()] = number
        return {
            "corners": self.corners.int().numpy().ravel(),
            "weights": self.barycentric.numpy().ravel(),
            "part": part,
            "loops": np.concatenate([loop.numpy() for loop, _ in self.openings]).astype(np.int64),
            "starts": np.cumsum([0, *(len(loop) for loop, _ in self.openings)], dtype=np.int64),
            "cells": (self.binding.texels[:, 0] * self.binding.resolution + self.binding.texels[:, 1]).int().numpy(),
        }

    def to(self, device: torch.device) -> TexelSurface:
        """Move the tables; returns itself."""
        for name in ("corners", "barycentric", "regions", "inner", "outer"):
            setattr(self, name, getattr(self, name).to(device))
        self.openings = [(loop.to(device), texels.to(device)) for loop, texels in self.openings]
        return self

    def points(self, vertices: Tensor) -> tuple[Tensor, Tensor]:
        """``vertices [B, V, 3]`` to texel centres and unit normals ``[B, N, 3]``, head space; normals point outwards."""
        corners = vertices[:, self.corners]
        centres = (corners * self.barycentric[None, :, :, None]).sum(2)
        normals = torch.linalg.cross(corners[:, :, 1] - corners[:, :, 0], corners[:, :, 2] - corners[:, :, 0])
        return centres, F.normalize(normals, dim=-1, eps=1e-8)

    def without_specks(self, seen: Tensor) -> Tensor:
        """Weights ``[B, N]`` of ``seen [B, N]`` without isolated visible texels: a morphological opening of the map."""
        # Outside the charts everything counts as visible, so that charts do not shrink.
        image = self.binding.scatter(seen[..., None], fill=1.0)
        eroded = -F.max_pool2d(-image, 3, stride=1, padding=1)
        opened = F.max_pool2d(eroded, 3, stride=1, padding=1)
        return torch.minimum(self.binding.gather(opened)[..., 0], seen)


def mirror_index(points: Tensor) -> Tensor:
    """Of ``points [N, 3]`` of a symmetric head: the texel ``[N]`` nearest to each one's mirror image."""
    from scipy.spatial import cKDTree

    mirrored = points.numpy() * [-1.0, 1.0, 1.0]
    return torch.from_numpy(cKDTree(points.numpy()).query(mirrored)[1])


def facing(points: Tensor, normals: Tensor, rotation: Tensor, translation: Tensor) -> Tensor:
    """Cosine ``[B, N]`` between normals and the direction to the camera: 1 faces it, below 0 faces away."""
    camera = -(translation[:, None] @ rotation)  # the camera's position in head space
    return (normals * F.normalize(camera - points, dim=-1)).sum(-1)


def unhidden(pixels: Tensor, depth: Tensor, size: int, tolerance: float = TOLERANCE, cells: int = CELLS) -> Tensor:
    """1 where nothing lies more than ``tolerance`` in front of a texel, else 0 ``[B, N]``; depth buffer of ``cells``² cells."""
    cell = (pixels / size * cells).floor().clamp(0, cells - 1).long()
    index = cell[..., 1] * cells + cell[..., 0]
    nearest = torch.full((len(pixels), cells * cells), float("inf"), device=pixels.device)
    nearest.scatter_reduce_(1, index, depth, "amin")
    return (depth <= nearest.gather(1, index) + tolerance).float()


def within(pixels: Tensor, loop: Tensor) -> Tensor:
    """1 for ``pixels [B, N, 2]`` inside the closed polygon ``loop [B, L, 2]``, else 0 ``[B, N]``: even-odd rule."""
    x, y = pixels[..., None, 0], pixels[..., None, 1]
    ax, ay = loop[:, None, :, 0], loop[:, None, :, 1]
    bx, by = ax.roll(-1, -1), ay.roll(-1, -1)
    rise = torch.where(by == ay, 1.0, by - ay)
    crosses = ((ay <= y) != (by <= y)) & (ax + (y - ay) / rise * (bx - ax) > x)
    return (crosses.sum(-1) % 2).float()


def sample_pixels(image: Tensor, pixels: Tensor) -> Tensor:
    """Bilinear values ``[B, N, C]`` of ``image [B, H, W, C]`` at ``pixels [B, N, 2]``; outside: the border's."""
    size = constant((image.shape[2], image.shape[1]), image)
    grid = (pixels / size * 2 - 1)[:, :, None]
    values = F.grid_sample(image.permute(0, 3, 1, 2), grid, padding_mode="border", align_corners=False)
    return values[..., 0].transpose(1, 2)


def inside(pixels: Tensor, size: int) -> Tensor:
    """1 for pixels ``[B, N, 2]`` at least one px inside the frame, else 0."""
    return ((pixels > 1) & (pixels < size - 1)).all(-1).float()


def visibility(
    surface: TexelSurface, vertices: Tensor, pose: dict[str, Tensor], matte: Tensor
) -> tuple[Tensor, Tensor]:
    """Pixels ``[B, N, 2]`` of the texels and their visibility ``[B, N]`` in 0..1.

    A texel is visible if it faces the camera, is not occluded, is in the frame and inside the matte. Eyeballs, teeth and
    the inside of the mouth must lie within the eye's or the mouth's opening.

    Args:
        pose: ``rotation`` ``[B, 3, 3]``, ``translation`` ``[B, 3]``, ``intrinsics`` ``[B, 3, 3]`` px; matte: ``[B, S, S]``.
    """
    if vertices.device.type == "cpu" and vertices.dtype == matte.dtype == torch.float32:
        return _visibility_kernel(surface, vertices, pose, matte)
    return visibility_reference(surface, vertices, pose, matte)


def _visibility_kernel(
    surface: TexelSurface, vertices: Tensor, pose: dict[str, Tensor], matte: Tensor
) -> tuple[Tensor, Tensor]:
    batch, count, size = len(vertices), len(surface.regions), matte.shape[1]
    pixels, seen = vertices.new_empty(batch, count, 2), vertices.new_empty(batch, count)
    camera = torch.cat([pose[name].flatten(1).float() for name in ("rotation", "translation", "intrinsics")], 1)
    points, cameras, mattes, out, weights = (
        flat(t).reshape(batch, -1) for t in (vertices, camera, matte, pixels, seen)
    )
    tables, side = surface.tables, surface.binding.resolution
    settings = np.array([TOLERANCE, INNER_TOLERANCE, MARGIN, NEAREST, CELLS], np.float32)
    names = ("part", "loops", "starts", "cells")

    def job(b: int) -> None:
        unwrapping.see(
            points[b], tables["corners"], tables["weights"], cameras[b], mattes[b], size,
            *(tables[name] for name in names), side, settings, out[b], weights[b],
        )  # fmt: skip

    threads.run(job, [(b,) for b in range(batch)], threads.get_num_threads())
    return pixels, seen


def visibility_reference(
    surface: TexelSurface, vertices: Tensor, pose: dict[str, Tensor], matte: Tensor
) -> tuple[Tensor, Tensor]:
    """:func:`visibility` in plain PyTorch: for other devices, and what the kernel is tested against."""
    points, normals = surface.points(vertices)
    camera = (pose["rotation"], pose["translation"], pose["intrinsics"])
    pixels, depth = project(points, *camera)
    size = matte.shape[1]
    cosine = facing(points, normals, pose["rotation"], pose["translation"])
    towards = ((cosine - 0.1) / 0.4).clamp(0, 1)
    # The matte is eroded, because pixels at its edge are mixed with the background.
    person = -F.max_pool2d(-matte[:, None], 3, stride=1, padding=1)
    there = ((sample_pixels(person.permute(0, 2, 3, 1), pixels)[..., 0] - 0.5) * 2).clamp(0, 1)
    free = torch.empty_like(depth)
    for part, tolerance in ((surface.outer, TOLERANCE), (surface.inner, INNER_TOLERANCE)):
        free[:, part] = unhidden(pixels[:, part], depth[:, part], size, tolerance)
    for loop, texels in surface.openings:
        outline = project(vertices[:, loop], *camera)[0]
        for shift in (-MARGIN, MARGIN):
            free[:, texels] *= within(pixels[:, texels] + constant((0.0, shift), pixels), outline)
    seen = towards * free * inside(pixels, size) * there
    clean = surface.without_specks(seen)
    clean[:, surface.inner] = seen[:, surface.inner]  # an opening is narrow, and its outline is exact
    return pixels, clean


def mean_under(pictures: Tensor, pixels: Tensor, seen: Tensor, owners: list[int], scale: float) -> Tensor:
    """Means ``[B, N, C]`` of the values under texels in several pictures of B people, weighted by the texels' visibility.

    Args:
        pictures: ``[M, H, H, C]``, differentiable; pixels: ``[M, N, 2]``, positions when multiplied by ``scale``.
        seen: ``[M, N]`` weights.
        owners: B + 1 numbers; person b has the pictures ``owners[b]`` to ``owners[b + 1] - 1``.
    """
    if pictures.device.type == "cpu":
        return _MeanUnder.apply(pictures.float(), pixels, seen, owners, scale)
    return mean_under_reference(pictures, pixels, seen, owners, scale)


def mean_under_reference(pictures: Tensor, pixels: Tensor, seen: Tensor, owners: list[int], scale: float) -> Tensor:
    """:func:`mean_under` in plain PyTorch: for other devices, and what the kernels are tested against."""
    values, means = sample_pixels(pictures, pixels * scale), []
    for first, last in pairwise(owners):
        share = seen[first:last] / seen[first:last].sum(0).clamp_min(1e-6)
        means.append((values[first:last] * share[..., None]).sum(0))
    return torch.stack(means)


class _MeanUnder(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pictures: Tensor, pixels: Tensor, seen: Tensor, owners: list[int], scale: float) -> Tensor:
        size, channels, count = pictures.shape[1], pictures.shape[3], seen.shape[1]
        out = pictures.new_empty(len(owners) - 1, count, channels)
        arrays = [flat(t) for t in (pictures, pixels, seen)]
        results = flat(out).reshape(len(out), -1)

        def job(b: int) -> None:
            unwrapping.gather_mean(
                arrays[0], size, channels, np.float32(scale), *arrays[1:], owners[b], owners[b + 1], count, results[b]
            )

        threads.run(job, [(b,) for b in range(len(out))], threads.get_num_threads())
        ctx.arrays, ctx.owners, ctx.scale, ctx.shape, ctx.count = arrays[1:], owners, scale, pictures.shape, count
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, v_out: Tensor) -> tuple[Tensor | None, ...]:
        v_pictures, owners = torch.zeros(ctx.shape), ctx.owners
        upstream, result = flat(v_out).reshape(len(v_out), -1), flat(v_pictures)

        def job(b: int) -> None:
            unwrapping.gather_mean_backward(
                ctx.shape[1], ctx.shape[3], np.float32(ctx.scale), *ctx.arrays, owners[b], owners[b + 1], ctx.count,
                upstream[b], result,
            )  # fmt: skip

        threads.run(job, [(b,) for b in range(len(owners) - 1)], threads.get_num_threads())
        return v_pictures, None, None, None, None
