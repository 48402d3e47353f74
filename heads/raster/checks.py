"""Argument checks of the rendering call."""

from __future__ import annotations

import torch
from torch import Tensor

from configs import InputError

RENDER_MODES = ("RGB", "D", "ED", "RGB+D", "RGB+ED")


def check_tensors(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    backgrounds: Tensor | None,
    sh_degree: int | None,
    width: int,
    height: int,
) -> None:
    """Raise ``InputError`` for the first argument whose shape, dtype or device does not fit the others."""
    if not (isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0):
        raise InputError(f"rasterization: width and height are pixels, at least 1, got width={width}, height={height}")
    if means.dim() < 2 or means.shape[-1] != 3:
        raise InputError(f"rasterization: means: expected [..., N, 3], got {list(means.shape)}")
    if viewmats.dim() < 3:
        raise InputError(f"rasterization: viewmats: expected [..., C, 4, 4], got {list(viewmats.shape)}")
    lead, number, cameras = tuple(means.shape[:-2]), means.shape[-2], viewmats.shape[-3]
    tail = colors.shape[-1:] if sh_degree is None else colors.shape[-2:]
    tensors: dict[str, tuple[Tensor, list[tuple[int, ...]]]] = {
        "quats": (quats, [(*lead, number, 4)]),
        "scales": (scales, [(*lead, number, 3)]),
        "opacities": (opacities, [(*lead, number)]),
        "viewmats": (viewmats, [(*lead, cameras, 4, 4)]),
        "Ks": (Ks, [(*lead, cameras, 3, 3)]),
        "colors": (colors, [(*lead, number, *tail), (*lead, cameras, number, *tail)]),
    }
    if backgrounds is not None:
        channels = colors.shape[-1]
        tensors["backgrounds"] = (backgrounds, [(*lead, cameras, channels)])
    for name, (tensor, shapes) in tensors.items():
        if tuple(tensor.shape) not in shapes:
            expected = " or ".join(str(list(shape)) for shape in shapes)
            raise InputError(
                f"rasterization: {name}: expected {expected} (means are {list(means.shape)}), got {list(tensor.shape)}"
            )
        if tensor.dtype != means.dtype or tensor.device != means.device:
            raise InputError(
                f"rasterization: {name}: expected {means.dtype} on {means.device} like the means, "
                f"got {tensor.dtype} on {tensor.device}"
            )
    if means.dtype not in (torch.float32, torch.float64):
        raise InputError(f"rasterization: means: expected float32 or float64, got {means.dtype}")
    if sh_degree is not None:
        _check_harmonics(sh_degree, tail)


def _check_harmonics(sh_degree: int, tail: torch.Size) -> None:
    if not 0 <= sh_degree <= 3:
        raise InputError(f"rasterization: sh_degree: expected 0, 1, 2 or 3, got {sh_degree}")
    if tail[-1] != 3 or (sh_degree + 1) ** 2 > tail[-2]:
        raise InputError(
            f"rasterization: colors: expected [..., N, K, 3] with K at least {(sh_degree + 1) ** 2} "
            f"for sh_degree={sh_degree}, got K, channels = {list(tail)}"
        )


def check_modes(render_mode: str, rasterize_mode: str, channel_chunk: int) -> None:
    for name, value, allowed in (
        ("render_mode", render_mode, RENDER_MODES),
        ("rasterize_mode", rasterize_mode, ("classic", "antialiased")),
    ):
        if value not in allowed:
            raise InputError(f"rasterization: {name}: expected one of {', '.join(map(str, allowed))}, got {value!r}")
    if not 1 <= channel_chunk <= 32:
        raise InputError(f"rasterization: channel_chunk: expected 1 to 32, got {channel_chunk}")
