"""Sheets of one-shot heads for visual inspection: holes, background leaking in, teeth, hair."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from pretrain.expression_visual.clips import PictureClip, heads_of, render
from pretrain.expression_visual.inference import ExpressionVisualPrior

YAW = 30.0  # degrees of the side views
JAW = 1.5  # amount of the jaw control for the open mouth


def side_poses(prior: ExpressionVisualPrior, clip: PictureClip) -> dict[str, Tensor]:
    """The source's pose from the front, from both sides, from above, and with the jaw open: five poses."""
    source = {name: value[:1].clone() for name, value in clip.pose.items()}
    turns = [turn(0, 0), turn(-YAW, 0), turn(YAW, 0), turn(0, -15), turn(0, 0)]
    pose = {name: value.repeat(len(turns), *[1] * (value.ndim - 1)) for name, value in source.items()}
    pose["rotation"] = torch.stack(turns)
    jaw = prior.rig.control("jaw", JAW)
    pose["expression"][-1] += jaw["expression"].cpu()
    return pose


def turn(yaw: float, pitch: float) -> Tensor:
    """Rotation ``[3, 3]`` of a head by yaw about the vertical and pitch about the ear-to-ear axis, degrees."""
    a, b = math.radians(yaw), math.radians(pitch)
    across = torch.tensor([[math.cos(a), 0, math.sin(a)], [0, 1, 0], [-math.sin(a), 0, math.cos(a)]])
    nod = torch.tensor([[1, 0, 0], [0, math.cos(b), -math.sin(b)], [0, math.sin(b), math.cos(b)]])
    return across @ nod


def sheet(prior: ExpressionVisualPrior, clip: PictureClip) -> np.ndarray:
    """Sheet ``[H, W, 3]`` uint8: the given frame and views of the prior's head; the copy's; real frames and both heads there."""
    poses = side_poses(prior, clip)
    opened, turned = (int(np.flatnonzero(mask)[0]) + clip.sources for mask in (clip.opened, clip.turned))
    chosen = [opened, turned, len(clip.image) // 2]
    real = {name: value[chosen] for name, value in clip.pose.items()}
    poses = {name: torch.cat([value, real[name]]) for name, value in poses.items()}
    maps = heads_of(prior, clip, poses)
    rows = [[clip.image[0], *render(prior, maps[name], clip.person, poses)] for name in ("prior", "copy")]
    blank = torch.full_like(clip.image[0], 0.5)
    seen = clip.matte[0, ..., None]
    rows.append([clip.image[0] * seen + 0.5 * (1 - seen), *[blank] * 5, *clip.image[chosen]])
    picture = torch.cat([torch.cat(row, 1) for row in rows], 0)
    return (picture.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
