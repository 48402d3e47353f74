"""Colours from spherical harmonics, in gsplat's order and sign."""

from __future__ import annotations

import torch
from torch import Tensor


def sh_colors(coefficients: Tensor, means: Tensor, viewmats: Tensor, degree: int) -> Tensor:
    """Colours ``[..., C, N, 3]`` of spherical-harmonic coefficients ``[..., (C,) N, K, 3]`` seen from each camera.

    gsplat's convention: its order and signs of the real basis, plus 0.5, negative values clamped to zero.
    """
    positions = -(viewmats[..., :3, :3].transpose(-1, -2) @ viewmats[..., :3, 3:])[..., 0]
    directions = torch.nn.functional.normalize(means[..., None, :, :] - positions[..., None, :], dim=-1)
    if coefficients.dim() == means.dim() + 1:
        coefficients = coefficients.unsqueeze(-4)
    basis = _sh_basis(degree, directions)
    return (basis[..., None] * coefficients[..., : basis.shape[-1], :]).sum(-2).add(0.5).clamp_min(0)


def _sh_basis(degree: int, directions: Tensor) -> Tensor:
    """Real spherical harmonics up to ``degree`` (0 to 3) of unit directions ``[..., 3]``: ``[..., (degree + 1)²]``."""
    x, y, z = directions.unbind(-1)
    basis = [torch.full_like(x, 0.28209479177387814)]
    if degree >= 1:
        basis += [-0.4886025119029199 * y, 0.4886025119029199 * z, -0.4886025119029199 * x]
    if degree >= 2:
        basis += [
            1.0925484305920792 * x * y,
            -1.0925484305920792 * y * z,
            0.31539156525252005 * (3 * z * z - 1),
            -1.0925484305920792 * x * z,
            0.5462742152960396 * (x * x - y * y),
        ]
    if degree >= 3:
        basis += [
            -0.5900435899266435 * y * (3 * x * x - y * y),
            2.890611442640554 * x * y * z,
            -0.4570457994644658 * y * (5 * z * z - 1),
            0.3731763325901154 * z * (5 * z * z - 3),
            -0.4570457994644658 * x * (5 * z * z - 1),
            1.445305721320277 * z * (x * x - y * y),
            -0.5900435899266435 * x * (x * x - 3 * y * y),
        ]
    return torch.stack(basis, -1)
