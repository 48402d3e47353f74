"""Neutral Gaussians beyond the face, spread so that they cover the head without gaps."""

from __future__ import annotations

import torch
from scipy.spatial import cKDTree
from torch import Tensor

from heads.gaussians.uv import UVGaussians, triangle_frames
from heads.geometry.rotation import quaternions
from heads.rig import Rig

# Regions whose Gaussians cover the nearest surface; the face's texels are dense enough as they are.
SPREAD_OVER = ("cranium", "ear", "neck", "eyeball_left", "eyeball_right", "mouth_inside", "teeth_upper", "teeth_lower")
SPREAD = 0.6  # standard deviation over the width of the surface nearest to a texel · guess
DEPTH = 0.3  # least thickness of such a Gaussian over its width · guess
SAMPLES = 6  # points along an edge of a triangle · guess


def covering(binding: UVGaussians, rig: Rig, color: Tensor | None = None) -> Tensor:
    """The neutral map ``[N, 14]`` with each Gaussian beyond the face spread over the surface that is nearest to its texel.

    ``color [3]`` is as :meth:`UVGaussians.neutral` takes it.

    At low resolution some triangles of the neck, the cranium and the eyeballs have no texel, and some texels are limited to
    a triangle smaller than they are, which leaves gaps. Here every point of a region of the mean head is assigned to the
    region's nearest texel, and a Gaussian gets the mean and spread of the points assigned to it.
    """
    mean, faces = rig.mean.cpu(), rig.faces.cpu().long()
    frames, units = (x[0] for x in triangle_frames(mean[None], faces))
    texels, neutral = binding.points(mean[None])[0], binding.neutral(color)
    grown = neutral.clone()
    for name in SPREAD_OVER:
        of = torch.where(binding.regions == rig.regions.get(name, -1))[0]
        surface = torch.where(rig.face_regions.cpu() == rig.regions.get(name, -1))[0]
        if len(of) < 4 or not len(surface):
            continue
        centre, spread, axes, owns = _cells(texels[of], *_sampled(mean[faces[surface]]))
        to, k = frames[binding.triangles[of]], units[binding.triangles[of]][:, None]
        least = (neutral[of, 7:9].mean(-1, keepdim=True).exp() * k).clamp_min(1e-6)
        spread = torch.maximum(spread * SPREAD, least * torch.tensor([0.8, 0.8, DEPTH]))
        cells = grown[of]
        cells[:, :3] = (to.transpose(1, 2) @ (centre - texels[of])[..., None])[..., 0] / k
        cells[:, 3:7] = quaternions(to.transpose(1, 2) @ axes)
        cells[:, 7:10] = (spread / k).log()
        grown[of] = torch.where(owns[:, None], cells, grown[of])
    return grown


def _sampled(corners: Tensor) -> tuple[Tensor, Tensor]:
    """Sample points ``[P, 3]`` of triangles ``[F, 3, 3]``, and the area ``[P, 1]`` that each represents, up to a factor."""
    steps = range(SAMPLES)
    grid = [((i + 1 / 3) / SAMPLES, (j + 1 / 3) / SAMPLES) for i in steps for j in steps if i + j < SAMPLES]
    weights = torch.tensor([[1 - u - v, u, v] for u, v in grid])
    area = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).norm(dim=-1)
    return (weights @ corners).flatten(0, 1), area.repeat_interleave(len(weights))[:, None]


def _cells(texels: Tensor, points: Tensor, mass: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Statistics of the weighted points ``[P, 3]``, ``[P, 1]`` nearest to each texel ``[N, 3]``.

    Returns:
        centres ``[N, 3]``, widths ``[N, 3]`` along the axes from broad to flat, axes ``[N, 3, 3]`` as columns of a rotation, and
        whether a texel has enough points ``[N]``.
    """
    count = len(texels)
    owner = torch.from_numpy(cKDTree(texels.numpy()).query(points.numpy())[1])
    total = torch.zeros(count, 1).index_add(0, owner, mass).clamp_min(1e-12)
    centre = torch.zeros(count, 3).index_add(0, owner, mass * points) / total
    off = points - centre[owner]
    square = torch.zeros(count, 3, 3).index_add(0, owner, mass[..., None] * off[:, :, None] * off[:, None])
    variance, axes = torch.linalg.eigh(square / total[..., None])
    variance, axes = variance.flip(-1).clamp_min(0), axes.flip(-1)
    axes = axes * torch.linalg.det(axes).sign()[:, None, None]
    # A square of width w has the variance w^2 / 12 along each side.
    return centre, (12 * variance).sqrt(), axes, torch.bincount(owner, minlength=count) >= 3
