"""Which texels of a rig's UV atlas hold a Gaussian, and where on which triangle each of them lies."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from configs import InputError


@dataclass(frozen=True)
class UVLayout:
    """N texels, sorted by triangle.

    Attributes:
        texels: ``[N, 2]`` row and column.
        triangles: ``[N]`` triangle under each texel's centre.
        barycentric: ``[N, 3]`` weights of its corners there.
        runs: ``[F + 1]``; triangle f has the texels ``runs[f]`` to ``runs[f + 1] - 1``.
    """

    texels: Tensor
    triangles: Tensor
    barycentric: Tensor
    runs: Tensor


def lay_out(face_uvs: Tensor, resolution: int) -> UVLayout:
    """Assign each texel of a ``resolution`` x ``resolution`` map to the triangle that its centre lies in.

    ``face_uvs [F, 3, 2]`` in [0, 1], u right, v down. A centre on a shared edge goes to the first triangle; texels outside
    all triangles are left out.

    Raises:
        InputError: ``resolution`` below 1.
    """
    if resolution < 1:
        raise InputError(f"UV Gaussians: resolution {resolution}: expected at least 1")
    corners = face_uvs.cpu().double() * resolution - 0.5  # texel (row, column) has its centre at integers
    triangle, column, row = _candidates(corners, resolution)
    weights = _barycentric(corners[triangle], torch.stack([column, row], -1).double())
    inside = (weights >= -1e-9).all(-1)
    triangle, column, row, weights = triangle[inside], column[inside], row[inside], weights[inside]
    cell = row * resolution + column
    # Stable sort by texel keeps triangles in order, so the first of each run is the first triangle.
    order = torch.argsort(cell, stable=True)
    first = torch.ones(len(order), dtype=torch.bool)
    first[1:] = cell[order][1:] != cell[order][:-1]
    keep = order[first]
    keep = keep[torch.argsort(triangle[keep], stable=True)]
    counts = torch.bincount(triangle[keep], minlength=len(corners))
    runs = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return UVLayout(torch.stack([row, column], -1)[keep], triangle[keep], weights[keep].float(), runs)


def _candidates(corners: Tensor, resolution: int) -> tuple[Tensor, Tensor, Tensor]:
    """(triangle, column, row) of all texels in the bounding boxes of the triangles."""
    low = corners.amin(1).sub(1e-9).ceil().clamp(0, resolution).long()
    high = corners.amax(1).add(1e-9).floor().add(1).clamp(0, resolution).long()
    extent = (high - low).clamp_min(0)
    counts = extent.prod(-1)
    triangle = torch.repeat_interleave(torch.arange(len(corners)), counts)
    within = torch.arange(len(triangle)) - (counts.cumsum(0) - counts)[triangle]
    width = extent[triangle, 0]
    return triangle, low[triangle, 0] + within % width, low[triangle, 1] + within // width


def _barycentric(corners: Tensor, points: Tensor) -> Tensor:
    """Weights ``[P, 3]`` of points ``[P, 2]`` in triangles ``[P, 3, 2]``; -1 throughout where a triangle has no area."""
    a, b, c = corners.unbind(1)
    e, g, p = b - a, c - a, points - a
    area = e[:, 0] * g[:, 1] - e[:, 1] * g[:, 0]
    flat = area.abs() < 1e-12
    area = torch.where(flat, torch.ones_like(area), area)
    u = (p[:, 0] * g[:, 1] - p[:, 1] * g[:, 0]) / area
    v = (e[:, 0] * p[:, 1] - e[:, 1] * p[:, 0]) / area
    weights = torch.stack([1 - u - v, u, v], -1)
    return torch.where(flat[:, None], torch.full_like(weights, -1.0), weights)
