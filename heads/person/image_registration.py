"""Affine registration of a region over frames, and the regression of its motion on other inputs.

Gauss-Newton on brightness differences with robust weights, at low resolution and batched over frames. Sources: Lucas &
Kanade (1981) for the step, Geman & McClure (1987) for the weights.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from heads.ridge import ridge_weights

ROBUST = 0.1  # brightness difference, of 1, at which a pixel's weight falls to a quarter · guess
LONGEST = 0.05  # largest step per coefficient, in half pictures · guess


def planes(height: int, width: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Sampling coordinates ``[H, W, 2]`` (x, y in [-1, 1]) and the affine basis ``[H, W, 3]`` (1, x, y)."""
    y = (torch.arange(height, device=like.device, dtype=like.dtype) + 0.5) / height * 2 - 1
    x = (torch.arange(width, device=like.device, dtype=like.dtype) + 0.5) / width * 2 - 1
    y, x = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([x, y], -1), torch.stack([torch.ones_like(x), x, y], -1)


def register(frames: Tensor, weights: Tensor, first: int, rounds: int = 2, steps: int = 8) -> Tensor:
    """Affine displacements ``[T, 2, 3]`` that map a common reference picture to each frame.

    Args:
        frames: ``[T, H, W]`` brightness; weights: ``[T, H, W]`` of the region that moves together.
        first: the frame that is the reference in the first round; later it is the weighted mean of the aligned frames.
        rounds: how often the reference is renewed; steps: Gauss-Newton steps in each round.

    Returns:
        coefficients of (1, x, y) per direction (x, y), in half pictures: ``frame(p + u(p))`` shows the reference's ``p``.
    """
    grid, basis = planes(frames.shape[1], frames.shape[2], frames)
    motion = frames.new_zeros(len(frames), 2, 3)
    both = torch.stack([frames, weights], 1)
    common = frames[first]
    for turn in range(rounds):
        if turn:
            aligned = _warped(both, motion, grid, basis)
            common = (aligned[:, 0] * aligned[:, 1]).sum(0) / aligned[:, 1].sum(0).clamp_min(1e-3)
        for _ in range(steps):
            motion = motion + _step(_warped(both, motion, grid, basis), common, basis)
    return motion


def _warped(both: Tensor, motion: Tensor, grid: Tensor, basis: Tensor) -> Tensor:
    moved = grid + torch.einsum("hwk,tck->thwc", basis, motion)
    return F.grid_sample(both, moved, padding_mode="border", align_corners=False)


def _step(warped: Tensor, common: Tensor, basis: Tensor) -> Tensor:
    """One Gauss-Newton step ``[T, 2, 3]``; zero where a frame has no texture in the region."""
    height, width = common.shape
    shown, weight = warped[:, 0], warped[:, 1].clone()
    across = (shown[:, 1:-1, 2:] - shown[:, 1:-1, :-2]) * (width / 4)
    down = (shown[:, 2:, 1:-1] - shown[:, :-2, 1:-1]) * (height / 4)
    difference = (common - shown)[:, 1:-1, 1:-1]
    weight = weight[:, 1:-1, 1:-1] / (1 + (difference / ROBUST) ** 2) ** 2
    inner = basis[1:-1, 1:-1]
    slopes = torch.cat([across[..., None] * inner, down[..., None] * inner], -1).flatten(1, 2)
    weighted = (slopes * weight.flatten(1)[..., None]).transpose(1, 2)
    normal, right = weighted @ slopes, weighted @ difference.flatten(1)[..., None]
    ridge = 1e-3 * normal.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-6)
    normal = normal + ridge[:, None, None] * torch.eye(6, device=normal.device, dtype=normal.dtype)
    return torch.linalg.solve(normal, right).view(-1, 2, 3).clamp(-LONGEST, LONGEST)


def predicted_by(inputs: Tensor, motion: Tensor, ridge: float) -> Tensor:
    """Weights ``[2, 3, C]`` of a ridge regression from centred inputs to centred motions.

    Args:
        inputs: ``[T, C]``, of about unit variance; motion: ``[T, 2, 3]``.
        ridge: penalty, relative to the variance of an input of one.
    """
    x, y = inputs.cpu().double(), motion.flatten(1).cpu().double()
    x, y = x - x.mean(0), y - y.mean(0)
    return ridge_weights(x.T @ x / len(x), x.T @ y / len(x), ridge).T.reshape(2, 3, -1).to(motion)
