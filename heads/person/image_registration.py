"""How far a region of each frame lies from where it is in the others: affine registration, and what a pose says of it.

Gauss-Newton on brightness differences with robust weights, coarse and batched over frames; sources: Lucas & Kanade
(1981) for the step, Geman & McClure (1987) for the weights.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from heads.ridge import ridge_weights

ROBUST = 0.1  # brightness difference from which a pixel counts as something else · guess
LONGEST = 0.05  # half pictures, of one step · guess


def planes(height: int, width: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Sampling coordinates ``[H, W, 2]`` (x, y in [-1, 1]) and the affine basis ``[H, W, 3]`` (1, x, y)."""
    y = (torch.arange(height, device=like.device, dtype=like.dtype) + 0.5) / height * 2 - 1
    x = (torch.arange(width, device=like.device, dtype=like.dtype) + 0.5) / width * 2 - 1
    y, x = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([x, y], -1), torch.stack([torch.ones_like(x), x, y], -1)


def register(frames: Tensor, weights: Tensor, first: int, rounds: int = 2, steps: int = 8) -> Tensor:
    """Affine displacements ``[T, 2, 3]`` that take a common picture to each frame.

    Args:
        frames: ``[T, H, W]`` brightness; weights: ``[T, H, W]`` of the region that moves together.
        first: the frame that the others are compared with in the first round; then it is the mean of the aligned.

    Returns:
        coefficients of (1, x, y) per direction (x, y), in half pictures: ``frame(p + u(p))`` shows the common ``p``.
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
    """What inputs say of motions: weights ``[2, 3, C]`` of a ridge regression around both means.

    Args:
        inputs: ``[T, C]`` of about unit size; motion: ``[T, 2, 3]``; ridge: penalty beside the mean square of one.
    """
    x, y = inputs.cpu().double(), motion.flatten(1).cpu().double()
    x, y = x - x.mean(0), y - y.mean(0)
    return ridge_weights(x.T @ x / len(x), x.T @ y / len(x), ridge).T.reshape(2, 3, -1).to(motion)
