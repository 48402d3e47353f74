"""Lip crops: aligned with the eyes, normalised in size, differentiable in the pixels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from configs.devices import constant
from heads.measures.face import distance
from heads.rig import facemesh

EYES, CORNERS = facemesh.OUTER_CORNERS, facemesh.LIP_CORNERS  # speech does not change the eyes' distance
MOUTH = (facemesh.INNER_MIDDLE, CORNERS, facemesh.OUTER_MIDDLE)  # landmark pairs of lip_shape
BREADTH = 0.95  # crop width over the distance of the outer eye corners
DROP = 0.04  # the crop's centre below the mouth corners, in the same unit: the jaw opens downwards


def lip_frame(landmarks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Centre ``[..., 2]`` px, unit x-axis ``[..., 2]`` and unit length ``[...]`` px of the mouth, from ``landmarks [..., 478, 3]``.

    It is the distance of the outer eye corners in three dimensions, so that the mouth keeps its size in the crop when the
    head turns.
    """
    axis = landmarks[..., EYES[1], :] - landmarks[..., EYES[0], :]
    length = axis.norm(dim=-1).clamp_min(1e-3)
    direction = F.normalize(axis[..., :2], dim=-1, eps=1e-6)
    down = torch.stack([-direction[..., 1], direction[..., 0]], -1)
    centre = (landmarks[..., CORNERS[0], :2] + landmarks[..., CORNERS[1], :2]) / 2 + DROP * length[..., None] * down
    return centre, direction, length


def crop_lips(frames: Tensor, landmarks: Tensor, height: int, breadth: int, jitter: Tensor | None = None) -> Tensor:
    """Crop the mouths, upright and normalised in size.

    Args:
        frames: ``[..., H, W, 3]`` RGB in [0, 1].
        landmarks: ``[..., 478, 3]`` px, z in px.
        height, breadth: px of the crops.
        jitter: ``[..., 4]`` shift x and y in crop widths, log scale, roll in radians.

    Returns:
        ``[..., height, breadth, 3]``, differentiable in ``frames`` (and in ``landmarks``).
    """
    lead = frames.shape[:-3]
    flat, points = frames.reshape(-1, *frames.shape[-3:]), landmarks.reshape(-1, *landmarks.shape[-2:])
    centre, direction, length = lip_frame(points.float())
    half = length * BREADTH / 2
    if jitter is not None:
        shift = jitter.reshape(-1, 4)
        cos, sin = shift[:, 3].cos(), shift[:, 3].sin()
        direction = torch.stack(
            [cos * direction[:, 0] - sin * direction[:, 1], sin * direction[:, 0] + cos * direction[:, 1]], -1
        )
        centre = centre + shift[:, :2] * (2 * half)[:, None]
        half = half * shift[:, 2].exp()
    across = direction * half[:, None]
    down = torch.stack([-direction[:, 1], direction[:, 0]], -1) * (half * height / breadth)[:, None]
    size = constant((flat.shape[2], flat.shape[1]), across)
    # grid_sample's coordinates: -1 and 1 are the image's edges.
    affine = torch.stack([across * 2 / size, down * 2 / size, centre * 2 / size - 1], dim=-1)
    grid = F.affine_grid(affine, [len(flat), 3, height, breadth], align_corners=False)
    cut = F.grid_sample(flat.float().permute(0, 3, 1, 2), grid, padding_mode="border", align_corners=False)
    return cut.permute(0, 2, 3, 1).reshape(*lead, height, breadth, 3)


def lip_shape(landmarks: Tensor) -> Tensor:
    """Geometry ``[..., 3]`` of the mouth in ``landmarks [..., 478, 3]``: inner opening, width, outer height.

    In units of the distance between the outer eye corners.
    """
    length = distance(landmarks, *EYES).clamp_min(1e-3)
    return torch.stack([distance(landmarks, upper, lower) / length for upper, lower in MOUTH], -1)
