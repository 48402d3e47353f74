"""Losses of images, Gaussians and motion. Images are float RGB ``[B, H, W, C]`` in [0, 1] (or without ``B``).

Functions return a scalar mean, differentiable in the first argument, and zero where all weights are zero.
"""

from __future__ import annotations

import torch
from torch import Tensor

from heads.lpips import LPIPS
from heads.ssim_kernel import ssim_map, window_radius

__all__ = [
    "LPIPS",
    "d_ssim",
    "l1",
    "offset_penalty",
    "scale_penalty",
    "ssim",
]


NEEDLE = 10.0  # ratio of the longest to the second axis above which a Gaussian counts as a needle · guess


def _batched(image: Tensor) -> Tensor:
    return image if image.dim() == 4 else image[None]


def _same_shape(image: Tensor, target: Tensor) -> None:
    if image.shape != target.shape:
        raise ValueError(f"images differ in shape: got {tuple(image.shape)}, expected {tuple(target.shape)}")


def weighted_mean(values: Tensor, weight: Tensor | None) -> Tensor:
    """Mean of ``values [..., C]`` under a pixel ``weight [...]`` or ``[..., 1]``; zero where they sum to zero."""
    if weight is None:
        return values.mean()
    weight = weight if weight.dim() == values.dim() else weight[..., None]
    total = weight.expand(*values.shape[:-1], 1).sum()
    total = total * values.shape[-1] if values.shape[-1] > 1 else total
    return (values * weight).sum() / total.clamp_min(1e-8)


def l1(image: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean absolute difference, optionally under a per-pixel weight ``[(B,) H, W]`` or ``[(B,) H, W, 1]``."""
    _same_shape(image, target)
    return weighted_mean((image - target).abs(), weight)


def ssim(image: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean structural similarity, 11 px Gaussian window, optionally under a per-pixel weight; 1 for equal images.

    Equals scikit-image's ``structural_similarity(gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
    data_range=1)``. Zero where the weights sum to zero.
    """
    _same_shape(image, target)
    values = ssim_map(_batched(image), _batched(target))
    return weighted_mean(values, None if weight is None else _inner(weight, image))


def d_ssim(image: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Structural dissimilarity ``(1 − SSIM) / 2``, half of what 3D Gaussian Splatting's code uses; zero for equal images."""
    _same_shape(image, target)
    values = ssim_map(_batched(image), _batched(target))
    return weighted_mean((1 - values) / 2, None if weight is None else _inner(weight, image))


def _inner(weight: Tensor, image: Tensor) -> Tensor:
    """The weight ``[B, h, w, 1]`` of the pixels that have a full SSIM window."""
    radius = window_radius(*image.shape[-3:-1])
    weight = weight.squeeze(-1) if weight.dim() == image.dim() else weight
    weight = weight[..., radius : weight.shape[-2] - radius, radius : weight.shape[-1] - radius]
    return (weight if weight.dim() == 3 else weight[None])[..., None]


def offset_penalty(offsets: Tensor, free: float = 1.0) -> Tensor:
    """Mean squared excess of local ``offsets [..., 3]`` over ``free`` triangle sizes (GaussianAvatars 2024)."""
    length = (offsets.square().sum(dim=-1) + 1e-12).sqrt()
    return (length - free).clamp_min(0).square().mean()


def scale_penalty(log_scales: Tensor, largest: float = 0.6, smallest: float = 0.0, ratio: float = NEEDLE) -> Tensor:
    """Mean squared excess of local scales ``exp(log_scales) [..., 3]`` over ``largest`` or under ``smallest`` (triangle sizes).

    Added to it is the mean squared excess, in log units, of axes longer than ``ratio`` times the second one (after
    GaussianAvatars 2024, eq. 5).
    """
    scales = log_scales.clamp(-20, 20).exp()
    excess = (scales - largest).clamp_min(0) + (smallest - scales).clamp_min(0)
    ordered = log_scales.sort(dim=-1).values
    needle = (ordered[..., 2] - ordered[..., 1] - torch.log(torch.tensor(ratio))).clamp_min(0)
    return excess.square().mean() + needle.square().mean()
