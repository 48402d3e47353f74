"""Pixel measures shared by fitting, priors, evaluation and benchmarks; images are RGB ``[..., H, W, C]`` in [0, 1]."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

PSNR_OF_EQUAL = 100.0  # dB · choice: finite for equal images, so that means over frames are finite


def mean_square_error(image: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean square error ``[...]`` of each of ``[..., H, W, C]``; under a soft ``mask [..., H, W]`` where one is given.

    NaN where the mask is empty.

    Raises:
        ValueError: images that differ in shape.
    """
    if image.shape != target.shape:
        raise ValueError(f"images differ in shape: got {tuple(image.shape)}, expected {tuple(target.shape)}")
    error = (image.float() - target.float()).square().mean(dim=-1)
    if mask is None:
        return error.mean(dim=(-2, -1))
    weight = mask.expand_as(error).float()
    total = weight.sum(dim=(-2, -1))
    return (error * weight).sum(dim=(-2, -1)) / torch.where(total > 0, total, torch.full_like(total, torch.nan))


def decibels(mean_square: Tensor) -> Tensor:
    """PSNR in dB of mean square errors at peak 1, at most :data:`PSNR_OF_EQUAL`; NaN stays NaN."""
    return -10.0 * torch.log10(mean_square.clamp_min(10.0 ** (-PSNR_OF_EQUAL / 10)))


def psnr_per_image(images: Tensor, targets: Tensor, masks: Tensor | None = None) -> Tensor:
    """Peak signal-to-noise ratio ``[...]`` in dB of each of ``[..., H, W, C]``, see :func:`psnr`."""
    return decibels(mean_square_error(images, targets, masks))


def psnr(image: Tensor | np.ndarray, target: Tensor | np.ndarray, mask: Tensor | np.ndarray | None = None) -> float:
    """Peak signal-to-noise ratio in dB over all pixels of ``[..., H, W, C]``, or under a soft ``mask [..., H, W]``.

    At most :data:`PSNR_OF_EQUAL`, so that means stay finite; NaN where the mask is empty.

    Raises:
        ValueError: images that differ in shape.
    """
    image, target = torch.as_tensor(image), torch.as_tensor(target)
    if image.shape != target.shape:
        raise ValueError(f"images differ in shape: got {tuple(image.shape)}, expected {tuple(target.shape)}")
    if mask is not None:
        mask = torch.as_tensor(mask).expand(image.shape[:-1]).flatten(0, -2)
    # One image as tall as all of them together: every pixel counts once.
    error = mean_square_error(image.flatten(0, -3), target.flatten(0, -3), mask)
    return float(decibels(error.cpu().double()))
