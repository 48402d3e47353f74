"""The alignment of :mod:`shards.tracking.refinement.alignment_kernels` in plain PyTorch, in float64."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from heads.geometry.rotation import rotation_matrix

LIGHTS = 4


def align(
    picture: Tensor, rotation: Tensor, translation: Tensor, coefficients: Tensor, base: Tensor, normals: Tensor,
    motion: Tensor, values: Tensor, weights: Tensor, camera: Tensor, limits: tuple[float, float], robust: float,
    prior: Tensor, rounds: int,
) -> Tensor:  # fmt: skip
    """Corrections ``[P]`` of one frame.

    Args:
        picture: ``[6, S, S]``; rotation ``[3, 3]``, translation ``[3]``, coefficients ``[K]`` where the frame starts.
        base, normals: ``[N, 3]``; motion ``[K, N, 3]``; values ``[2, N]``, weights ``[N]`` of the texture.
        camera: focal length and principal point, px; limits: cosines of no and of full weight; prior: ``[P, P]``.
    """
    moved = torch.zeros(len(prior), dtype=torch.float64)
    costs = []
    for step in range(rounds + 1):
        turn = rotation_matrix(moved[:3]) @ rotation
        local = base + torch.einsum("k,knc->nc", coefficients + moved[6:], motion)
        turned = local @ turn.T
        at = turned + translation + moved[3:6]
        normal = normals @ turn.T
        cosine = -(normal * at).sum(-1) / at.norm(dim=-1)
        base_weight = ((cosine - limits[0]) / (limits[1] - limits[0])).clamp(0, 1) * weights
        pixels = at[:, :2] * camera[0] / at[:, 2:] + camera[1:]
        grid = pixels[None, None] * (2 / picture.shape[-1]) - 1
        seen = F.grid_sample(picture[None], grid, padding_mode="border", align_corners=False)[0, :, 0]
        matrix, right, cost = prior.clone(), prior @ moved, torch.zeros((), dtype=torch.float64)
        for channel in range(2):
            lights = torch.cat([torch.ones_like(at[:, :1]), normal[:, :2], values[channel, :, None]], -1)
            difference = seen[channel] - values[channel]
            regular = 1e-3 * torch.eye(LIGHTS, dtype=torch.float64)
            weighted = lights.T * base_weight
            light = torch.linalg.solve(weighted @ lights + regular, weighted @ difference)
            square = ((difference - lights @ light) / robust).square()
            cost = cost + (base_weight * square / (1 + square)).sum() / base_weight.sum().clamp_min(1e-6)
            slope = torch.stack([seen[2 + channel], seen[4 + channel]], -1)
            pull = (
                torch.cat([slope, -(slope * at[:, :2]).sum(-1, keepdim=True) / at[:, 2:]], -1) * camera[0] / at[:, 2:]
            )
            parts = [torch.linalg.cross(turned, pull), pull, torch.einsum("nc,knc->nk", pull @ turn, motion), lights]
            rows = torch.cat(parts, -1)
            weighted = rows.T * (base_weight / (1 + square).square())
            normal_matrix, projected = weighted @ rows, weighted @ difference
            across = normal_matrix[:-LIGHTS, -LIGHTS:]
            own = torch.linalg.inv(normal_matrix[-LIGHTS:, -LIGHTS:] + regular)
            matrix = matrix + normal_matrix[:-LIGHTS, :-LIGHTS] - across @ own @ across.T
            right = right + projected[:-LIGHTS] - across @ own @ projected[-LIGHTS:]
        costs.append(cost)
        if step < rounds:
            moved = moved - torch.linalg.solve(matrix, right)
    return moved if costs[-1] < costs[0] else torch.zeros_like(moved)
