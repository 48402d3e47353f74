"""Scenes and a brute-force renderer for the tests of the rasteriser."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def scene(n: int = 40, size: tuple[int, int] = (24, 20), dtype=torch.float64, seed: int = 0, lead=(), cameras: int = 1):
    """Arguments of `rasterization` up to height: a blob of Gaussians about 5 units in front of the cameras."""
    g = torch.Generator().manual_seed(seed)

    def uniform(*shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return (torch.rand(*shape, generator=g, dtype=torch.float64) * (high - low) + low).to(dtype)

    means = uniform(*lead, n, 3, low=-1, high=1)
    quats = uniform(*lead, n, 4, low=-1, high=1)
    scales = uniform(*lead, n, 3, low=0.05, high=0.35)
    opacities = uniform(*lead, n, low=0.2, high=0.95)
    colors = uniform(*lead, n, 3)
    viewmats = torch.eye(4, dtype=dtype).repeat(*lead, cameras, 1, 1)
    viewmats[..., :3, :3] = small_rotations(uniform(*lead, cameras, 3, low=-0.4, high=0.4))
    viewmats[..., :3, 3] = uniform(*lead, cameras, 3, low=-0.2, high=0.2) + torch.tensor([0, 0, 5], dtype=dtype)
    width, height = size
    K = torch.tensor([[1.6 * width, 0, width / 2], [0, 1.5 * width, height / 2], [0, 0, 1]], dtype=dtype)
    Ks = K.repeat(*lead, cameras, 1, 1)
    return means, quats, scales, opacities, colors, viewmats, Ks, width, height


def small_rotations(vectors: Tensor) -> Tensor:
    """Rotation matrices [..., 3, 3] of rotation vectors [..., 3]."""
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
    return torch.matrix_exp(skew)


def brute_force(means, quats, scales, opacities, colors, viewmat, K, width, height, eps2d=0.3, clamp=0.999):
    """One picture [H, W, D + 1] (depth last) and alpha [H, W] of one scene in float64, straight from the formulas.

    Written for reading, not for speed, and on purpose unlike the reference: full 3x3 covariances, explicit loops over
    Gaussians, no tiles, no boxes.
    """
    order = sorted(range(len(means)), key=lambda n: float((viewmat[:3, :3] @ means[n] + viewmat[:3, 3])[2]))
    rows, columns = (torch.arange(n, dtype=means.dtype) + 0.5 for n in (height, width))
    ys, xs = torch.meshgrid(rows, columns, indexing="ij")
    picture = torch.zeros(height, width, colors.shape[1] + 1, dtype=means.dtype)
    through = torch.ones(height, width, dtype=means.dtype)
    open_pixels = torch.ones(height, width, dtype=torch.bool)
    for n in order:
        x, y, z = (viewmat[:3, :3] @ means[n] + viewmat[:3, 3]).tolist()
        if z < 0.01:
            continue
        w, i, j, k = (quats[n] / quats[n].norm()).tolist()
        turn = torch.tensor([[0, -k, j], [k, 0, -i], [-j, i, 0]], dtype=means.dtype)
        rotation = torch.eye(3, dtype=means.dtype) + 2 * w * turn + 2 * turn @ turn
        sigma = rotation @ torch.diag(scales[n] ** 2) @ rotation.T
        fx, fy, cx, cy = K[0, 0].item(), K[1, 1].item(), K[0, 2].item(), K[1, 2].item()
        J = torch.tensor([[fx / z, 0, -fx * x / z**2], [0, fy / z, -fy * y / z**2]], dtype=means.dtype)
        T = J @ viewmat[:3, :3]
        conic = torch.linalg.inv(T @ sigma @ T.T + eps2d * torch.eye(2, dtype=means.dtype))
        d = torch.stack([xs - (fx * x / z + cx), ys - (fy * y / z + cy)], -1)
        power = torch.einsum("hwi,ij,hwj->hw", d, conic, d) / 2
        alpha = (opacities[n] * torch.exp(-power)).clamp_max(clamp)
        alpha = torch.where(opacities[n] * torch.exp(-power) >= 1 / 255, alpha, torch.zeros_like(alpha))
        open_pixels = open_pixels & (through * (1 - alpha) > 1e-4)
        alpha = torch.where(open_pixels, alpha, torch.zeros_like(alpha))
        weight = alpha * through
        picture += weight[..., None] * torch.cat([colors[n], torch.tensor([z], dtype=means.dtype)])
        through = through * (1 - alpha)
    return picture, 1 - through


def head_scene(n: int, size: int, dtype=torch.float32):
    """N Gaussians over an ellipsoid of head size, as dense on the picture as a fitted head's (3-sigma 3 to 7 px)."""
    g = torch.Generator().manual_seed(1)
    direction = torch.randn(n, 3, generator=g, dtype=torch.float64)
    direction = direction / direction.norm(dim=-1, keepdim=True)
    means = direction * torch.tensor([0.8, 1.1, 0.9]) * (1 + 0.03 * torch.randn(n, 1, generator=g))
    quats = torch.randn(n, 4, generator=g, dtype=torch.float64)
    scales = 1.9 / math.sqrt(n) * torch.exp(0.4 * torch.randn(n, 3, generator=g)) * torch.tensor([1, 1, 0.4])
    opacities = torch.rand(n, generator=g) * 0.7 + 0.2
    colors = torch.rand(n, 3, generator=g)
    viewmats = torch.eye(4)[None].clone()
    viewmats[0, 2, 3] = 10
    Ks = torch.tensor([[[4.0 * size, 0, size / 2], [0, 4.0 * size, size / 2], [0, 0, 1]]])
    return [t.to(dtype) for t in (means, quats, scales, opacities, colors, viewmats, Ks)] + [size, size]
