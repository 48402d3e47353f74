"""gsplat's CUDA kernels, the backend of NVIDIA GPUs."""

from __future__ import annotations

import importlib.util
import os
import shutil
from functools import cache

import torch
from torch import Tensor

from heads.raster.backends.base import Backend
from heads.raster.camera import Camera
from heads.raster.probes import Probe, installed, probe_cuda, version

TILE = 16  # px, side of a tile · gsplat's default
ALPHA_CLAMP = 0.999  # compiled into gsplat 1.5


@cache
def probe() -> Probe:
    """gsplat with a device for its kernels, and either built kernels or a compiler to build them at first use."""
    if not installed("gsplat"):
        return Probe("gsplat", False, "gsplat is not installed", "pip install 'headstart[gpu]'")
    found = f"gsplat {version('gsplat')}"
    if not probe_cuda().ok:
        return Probe("gsplat", False, f"{found}, but {probe_cuda().detail}", probe_cuda().fix)
    spec = importlib.util.find_spec("gsplat")
    folder = (spec.submodule_search_locations or [""])[0] if spec else ""
    built = bool(folder) and any(name.startswith("csrc") and name.endswith(".so") for name in os.listdir(folder))
    if not built and shutil.which("nvcc") is None and "CUDA_HOME" not in os.environ:
        fix = "install the CUDA toolkit (nvcc), or a prebuilt wheel from https://docs.gsplat.studio/whl"
        return Probe("gsplat", False, f"{found} without built kernels, and there is no nvcc to build them", fix)
    return Probe("gsplat", True, found if built else f"{found}, kernels are built by nvcc at first use")


def project(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    camera: Camera,
    compensate: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """See :class:`heads.raster.backends.base.Project`."""
    batches, number, cameras = *means.shape[:2], viewmats.shape[1]
    if number == 0:  # gsplat's kernels do not accept an empty scene
        shape = (batches, cameras, 0)
        means2d = means.new_zeros(*shape, 2) + 0 * means.sum()
        radii = torch.zeros(*shape, 2, dtype=torch.int32, device=means.device)
        return means2d, means.new_zeros(*shape, 3), means.new_zeros(shape), radii, means.new_zeros(shape)
    from gsplat import fully_fused_projection

    radii, means2d, depths, conics, compensations = fully_fused_projection(
        means, None, quats, scales, viewmats, Ks, camera.width, camera.height,
        eps2d=camera.eps2d, near_plane=camera.near_plane, far_plane=camera.far_plane, radius_clip=camera.radius_clip,
        packed=False, calc_compensations=compensate, opacities=opacities.detach(),
    )  # fmt: skip
    return means2d, conics, depths, radii, means.new_empty(0) if compensations is None else compensations


def rasterize(
    means2d: Tensor,
    conics: Tensor,
    depths: Tensor,
    radii: Tensor,
    opacities: Tensor,
    colors: Tensor,
    backgrounds: Tensor | None,
    camera: Camera,
    with_depth: bool = False,
    absgrad: bool = False,
) -> tuple[Tensor, Tensor]:
    """See :class:`heads.raster.backends.base.Rasterize`."""
    batches, cameras, number = depths.shape
    channels = _channels(colors, depths, with_depth)
    if number == 0:
        return _empty(means2d, channels.shape[-1], backgrounds, depths, camera)
    from gsplat import isect_offset_encode, isect_tiles, rasterize_to_pixels

    # Everything takes the leading dimensions of means2d, which must remain the node whose gradient is retained.
    lead = means2d.shape[:-2]
    columns, rows = -(-camera.width // TILE), -(-camera.height // TILE)
    opacities = opacities if opacities.dim() == 3 else opacities[:, None].expand(batches, cameras, number)
    _, ids, gaussians = isect_tiles(
        means2d, radii.reshape(*lead, number, 2), depths.reshape(*lead, number), TILE, columns, rows, packed=False
    )
    offsets = isect_offset_encode(ids, batches * cameras, columns, rows).reshape(*lead, rows, columns)
    render, alphas = rasterize_to_pixels(
        means2d, conics.reshape(*lead, number, 3), channels.reshape(*lead, number, -1),
        opacities.reshape(*lead, number), camera.width, camera.height, TILE, offsets, gaussians,
        backgrounds=None if backgrounds is None else backgrounds.reshape(*lead, -1), packed=False, absgrad=absgrad,
    )  # fmt: skip
    size = (batches, cameras, camera.height, camera.width)
    return render.reshape(*size, -1), alphas.reshape(*size, 1)


def _channels(colors: Tensor, depths: Tensor, with_depth: bool) -> Tensor:
    """Colours ``[B, C, N, D + with_depth]`` of each image, depth last."""
    colors = colors if colors.dim() == 4 else colors[:, None].expand(-1, depths.shape[1], -1, -1)
    return torch.cat([colors, depths[..., None]], -1) if with_depth else colors


def _empty(
    means2d: Tensor, channels: int, backgrounds: Tensor | None, depths: Tensor, camera: Camera
) -> tuple[Tensor, Tensor]:
    """The background of a scene without Gaussians."""
    size = (*depths.shape[:2], camera.height, camera.width)
    render = means2d.new_zeros(*size, channels) + 0 * means2d.sum()
    if backgrounds is not None:
        render = render + backgrounds[..., None, None, :]
    return render, means2d.new_zeros(*size, 1)


BACKEND = Backend(
    name="gsplat",
    probe=probe,
    project=project,
    rasterize=rasterize,
    devices=("cuda",),
    place=10,
    dtypes=(torch.float32,),
    alpha_clamp=ALPHA_CLAMP,
)
