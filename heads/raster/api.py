"""One rendering function for every device, with the name, arguments, shapes and meta of ``gsplat.rasterization``.

Backends: ``gsplat`` (its CUDA kernels), ``cpu`` (our numba kernels), ``reference`` (plain PyTorch, any device, slow), and
those of other packages (:mod:`heads.raster.registry`). They agree to float32 rounding; tests compare them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from heads.raster.backends.base import Backend
from heads.raster.camera import Camera
from heads.raster.checks import check_modes, check_tensors
from heads.raster.harmonics import sh_colors
from heads.raster.registry import default_backend, find_backend, renders


def rasterization(
    means: Tensor,  # [..., N, 3]
    quats: Tensor,  # [..., N, 4]
    scales: Tensor,  # [..., N, 3]
    opacities: Tensor,  # [..., N]
    colors: Tensor,  # [..., (C,) N, D] or [..., (C,) N, K, 3]
    viewmats: Tensor,  # [..., C, 4, 4]
    Ks: Tensor,  # [..., C, 3, 3]
    width: int,
    height: int,
    near_plane: float = 0.01,
    far_plane: float = 1e10,
    radius_clip: float = 0.0,
    eps2d: float = 0.3,
    sh_degree: int | None = None,
    packed: bool = False,
    backgrounds: Tensor | None = None,  # [..., C, D]
    render_mode: str = "RGB",
    absgrad: bool = False,
    rasterize_mode: str = "classic",
    channel_chunk: int = 32,
    backend: str | None = None,
    alpha_clamp: float = 0.999,
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Render N Gaussians of each scene with C pinhole cameras.

    Args:
        means: centres ``[..., N, 3]`` in world units.
        quats: rotations wxyz ``[..., N, 4]``, of any length; zero means no rotation.
        scales: standard deviations ``[..., N, 3]`` in world units, not their logarithm.
        opacities: ``[..., N]`` in [0, 1]. Gaussians of at most 1/255 are not drawn and get no gradient.
        colors: ``[..., N, D]`` or per camera ``[..., C, N, D]``; with ``sh_degree``, coefficients ``[..., (C,) N, K, 3]``.
        viewmats: world to camera ``[..., C, 4, 4]``, OpenCV axes (x right, y down, z forward). Differentiable.
        Ks: intrinsics ``[..., C, 3, 3]`` in pixels, without skew. Not differentiable.
        width, height: size of the pictures in pixels.
        near_plane, far_plane: Gaussians nearer or farther are not drawn.
        radius_clip: Gaussians of at most this radius (pixels) are not drawn.
        eps2d: px², added to the variances on the image plane, so that no Gaussian falls between pixels.
        sh_degree: evaluate ``colors`` as spherical harmonics up to this degree.
        packed: ignored, accepted for gsplat's signature; the meta is never packed.
        backgrounds: ``[..., C, D]``, seen where alpha is below 1; the depth channel has none.
        render_mode: RGB, D (accumulated depth), ED (expected depth, D over alpha), RGB+D or RGB+ED (depth last).
        absgrad: the backward pass sets ``meta["means2d"].absgrad``, for densification (AbsGS).
        rasterize_mode: "classic" or "antialiased" (opacity is compensated for ``eps2d``, as in Mip-Splatting).
        channel_chunk: channels rendered in one pass, 1 to 32.
        backend: "gsplat", "cpu", "reference" (also "torch") or another package's; None: by device.
        alpha_clamp: largest alpha of one Gaussian at a pixel (gsplat 1.5: 0.999, later 0.99).

    Returns:
        render_colors ``[..., C, height, width, X]``, render_alphas ``[..., C, height, width, 1]`` and meta: means2d
        ``[..., C, N, 2]`` px (its gradient may be retained), radii (int32, px; 0: not drawn), depths, conics, opacities,
        gaussian_ids, width, height, n_cameras, n_batches, backend.

    A Gaussian whose geometry is not finite is not drawn and gets zero gradients.

    Raises:
        InputError: wrong shapes, dtypes or devices, an unknown mode, or a backend that this machine does not have.
    """
    check_tensors(means, quats, scales, opacities, colors, viewmats, Ks, backgrounds, sh_degree, width, height)
    check_modes(render_mode, rasterize_mode, channel_chunk)
    engine = default_backend(means.device.type) if backend is None else find_backend(backend)
    renders(engine, means, absgrad, alpha_clamp)
    camera = Camera(width, height, near_plane, far_plane, eps2d, radius_clip, alpha_clamp)
    lead, number, cameras = means.shape[:-2], means.shape[-2], viewmats.shape[-3]
    scenes = (_merged(means, 2), _merged(quats, 2), _merged(scales, 2), _merged(opacities, 1))
    views = (_merged(viewmats, 3), _merged(Ks, 3))
    compensate = rasterize_mode == "antialiased"
    means2d, conics, depths, radii, compensations = engine.project(*scenes, *views, camera, compensate)
    means2d = means2d.reshape(*lead, cameras, number, 2)  # the compositor reads this very node: see `absgrad`
    shown = scenes[3][:, None] * compensations if compensate else scenes[3]
    if sh_degree is not None:
        colors = sh_colors(colors, means, viewmats, sh_degree)
    colors = _merged(colors, colors.dim() - len(lead))
    if backgrounds is not None:
        backgrounds = _merged(backgrounds, 2)
    render, alphas = _render_channels(
        engine,
        (means2d, conics, depths, radii, shown),
        colors,
        backgrounds,
        camera,
        render_mode,
        absgrad,
        channel_chunk,
    )
    shown = shown if compensate else shown[:, None].expand(-1, cameras, -1)
    meta = {
        "means2d": means2d,
        "radii": radii.reshape(*lead, cameras, number, 2),
        "depths": depths.reshape(*lead, cameras, number),
        "conics": conics.reshape(*lead, cameras, number, 3),
        "opacities": shown.reshape(*lead, cameras, number),
        "batch_ids": None,
        "camera_ids": None,
        "gaussian_ids": None,
        "width": width,
        "height": height,
        "n_batches": lead.numel(),
        "n_cameras": cameras,
        "backend": engine.name,
    }
    return render.reshape(*lead, *render.shape[1:]), alphas.reshape(*lead, *alphas.shape[1:]), meta


def _merged(tensor: Tensor, keep: int) -> Tensor:
    """Leading batch dimensions merged into one, the last ``keep`` dimensions kept."""
    lead = tensor.shape[: tensor.dim() - keep]
    return tensor.reshape(lead.numel(), *tensor.shape[tensor.dim() - keep :])


def _render_channels(
    engine: Backend,
    projected: tuple[Tensor, Tensor, Tensor, Tensor, Tensor],
    colors: Tensor,
    backgrounds: Tensor | None,
    camera: Camera,
    mode: str,
    absgrad: bool,
    chunk: int,
) -> tuple[Tensor, Tensor]:
    """Composite colours and depth in passes of at most ``chunk`` channels."""
    with_depth = mode != "RGB"
    if mode in ("D", "ED"):
        colors = colors[..., :0]
        backgrounds = None
    if with_depth and backgrounds is not None:
        backgrounds = torch.nn.functional.pad(backgrounds, (0, 1))
    total = colors.shape[-1]
    starts = range(0, total + int(with_depth), chunk)
    pieces = []
    for start in starts:
        last = start + chunk >= total + int(with_depth)
        background = None if backgrounds is None else backgrounds[..., start : start + chunk]
        pieces.append(
            engine.rasterize(
                *projected, colors[..., start : min(start + chunk, total)], background, camera,
                with_depth=with_depth and last, absgrad=absgrad,
            )
        )  # fmt: skip
    render = pieces[0][0] if len(pieces) == 1 else torch.cat([piece for piece, _ in pieces], -1)
    alphas = pieces[0][1]
    if mode in ("ED", "RGB+ED"):
        render = torch.cat([render[..., :-1], render[..., -1:] / alphas.clamp_min(1e-10)], -1)
    return render, alphas
