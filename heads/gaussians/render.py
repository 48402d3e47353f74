"""One call that renders a batch of heads."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from configs import InputError
from configs.devices import constant
from heads.gaussians.cloud import Gaussians
from heads.raster.api import rasterization


def render_head(
    gaussians: Gaussians,
    rotation: Tensor,
    translation: Tensor,
    intrinsics: Tensor,
    width: int,
    height: int,
    background: Tensor | None = None,
    **options: Any,
) -> tuple[Tensor, Tensor, dict[str, object]]:
    """Render B heads, each with its own pose and camera, in one call.

    Args:
        gaussians: in head space, ``[B, N, ...]``; a batch of 1 is shown in every pose.
        rotation: ``[B, 3, 3]`` head to camera: x_cam = rotation @ x_head + translation.
        translation: ``[B, 3]`` rig units.
        intrinsics: ``[B, 3, 3]`` pixels.
        width, height: pixels.
        background: none, a colour ``[D]`` or ``[B, D]``, or pictures ``[H, W, D]`` or ``[B, H, W, D]``.
        options: further arguments of ``heads.rasterization`` (``render_mode``, ``absgrad``, ``backend``, ...).

    Returns:
        image ``[B, H, W, D]``, alpha ``[B, H, W, 1]`` and the meta dictionary of ``rasterization``. Without a background the
        image is the premultiplied head over black.

    Raises:
        InputError: shapes that do not fit, as in ``heads.rasterization``.
    """
    batch = rotation.shape[0]
    if rotation.shape != (batch, 3, 3) or translation.shape != (batch, 3) or intrinsics.shape != (batch, 3, 3):
        shapes = f"{list(rotation.shape)}, {list(translation.shape)}, {list(intrinsics.shape)}"
        raise InputError(
            f"render_head: expected rotation [B, 3, 3], translation [B, 3], intrinsics [B, 3, 3], got {shapes}"
        )
    bottom = constant((0.0, 0.0, 0.0, 1.0), rotation).expand(batch, 1, 4)
    viewmats = torch.cat([torch.cat([rotation, translation[..., None]], -1), bottom], 1)
    g = gaussians
    shared = g.means.shape[0] == 1 and batch > 1
    # One scene under many cameras is cheaper than many equal scenes.
    scenes = (g.means, g.quats, g.scales, g.opacities, g.colors)
    means, quats, scales, opacities, colors = (t.squeeze(0) for t in scenes) if shared else scenes
    views, cameras = (viewmats, intrinsics) if shared else (viewmats[:, None], intrinsics[:, None])
    image, alpha, meta = rasterization(
        means, quats, scales, opacities, colors, views, cameras, width, height, **options
    )
    if not shared:
        image, alpha = image.squeeze(1), alpha.squeeze(1)  # a view back: an index would fill a picture of zeros first
    if background is not None:
        if background.dim() <= 2:
            background = background.reshape(-1, 1, 1, background.shape[-1])
        image = image + (1 - alpha) * background
    return image, alpha, meta
