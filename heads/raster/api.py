"""One rendering function for every device, with the name, arguments, shapes and meta of `gsplat.rasterization`.

Backends: `gsplat` (its CUDA kernels), `cpu` (our numba kernels) and `torch` (the plain twin, any device, slow). They
agree to float32 rounding; the tests hold them against each other.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from configs import InputError
from heads.raster.camera import Camera
from heads.raster.probes import default_backend, probe_gsplat

RENDER_MODES = ("RGB", "D", "ED", "RGB+D", "RGB+ED")
BACKENDS = ("gsplat", "cpu", "torch")
_GSPLAT_ALPHA_CLAMP = 0.999  # of gsplat 1.5


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
        means: centres [..., N, 3] in world units.
        quats: rotations wxyz [..., N, 4], of any length; zero means no rotation.
        scales: standard deviations [..., N, 3] in world units, not their logarithm.
        opacities: [..., N] in [0, 1]. At most 1/255: not drawn, without gradient.
        colors: [..., N, D] or per camera [..., C, N, D]; with `sh_degree` coefficients [..., (C,) N, K, 3].
        viewmats: world to camera [..., C, 4, 4], OpenCV axes (x right, y down, z forward). Differentiable.
        Ks: intrinsics [..., C, 3, 3] in pixels, without skew. Not differentiable.
        width, height: size of the pictures in pixels.
        near_plane, far_plane: Gaussians nearer or farther are not drawn.
        radius_clip: Gaussians of at most this radius (pixels) are not drawn.
        eps2d: added to the variances on the image plane (px^2), so that no Gaussian falls between pixels.
        sh_degree: evaluate `colors` as spherical harmonics up to this degree.
        packed: as in gsplat, on its backend only; the others return the unpacked meta.
        backgrounds: [..., C, D], seen where alpha is below 1; the depth channel has none.
        render_mode: RGB, D (accumulated depth), ED (expected depth, D over alpha), RGB+D or RGB+ED (depth last).
        absgrad: the backward pass sets `meta["means2d"].absgrad`, for densification (AbsGS).
        rasterize_mode: "classic" or "antialiased" (opacity compensated for `eps2d`, Mip-Splatting).
        channel_chunk: channels rendered in one pass, at most 32.
        backend: "gsplat", "cpu" or "torch"; None: by device (see `heads.raster.probes`).
        alpha_clamp: largest alpha of one Gaussian at a pixel (gsplat 1.5: 0.999, later 0.99).

    Returns:
        render_colors [..., C, height, width, X], render_alphas [..., C, height, width, 1] and meta: means2d
        [..., C, N, 2] (its gradient may be retained), radii (int32, 0: not drawn), depths, conics, opacities,
        gaussian_ids, width, height, n_cameras, n_batches, backend.

    A Gaussian whose geometry is not finite is not drawn and gets zero gradients.

    Raises:
        InputError: wrong shapes, dtypes or devices, an unknown mode, or a backend that this machine does not have.
    """
    _check(means, quats, scales, opacities, colors, viewmats, Ks, backgrounds, sh_degree, width, height)
    _check_modes(render_mode, rasterize_mode, backend, channel_chunk)
    backend = backend or default_backend(means.device.type)
    if backend == "gsplat":
        return _with_gsplat(
            means, quats, scales, opacities, colors, viewmats, Ks, width, height, alpha_clamp,
            near_plane=near_plane, far_plane=far_plane, radius_clip=radius_clip, eps2d=eps2d, sh_degree=sh_degree,
            packed=packed, backgrounds=backgrounds, render_mode=render_mode, absgrad=absgrad,
            rasterize_mode=rasterize_mode, channel_chunk=channel_chunk,
        )  # fmt: skip
    engine = _engine(backend, means, absgrad)
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
        "backend": backend,
    }
    return render.reshape(*lead, *render.shape[1:]), alphas.reshape(*lead, *alphas.shape[1:]), meta


def _merged(tensor: Tensor, keep: int) -> Tensor:
    """Leading batch dimensions merged into one, the last `keep` dimensions kept."""
    lead = tensor.shape[: tensor.dim() - keep]
    return tensor.reshape(lead.numel(), *tensor.shape[tensor.dim() - keep :])


def _engine(backend: str, means: Tensor, absgrad: bool) -> ModuleType:
    """The module with `project` and `rasterize` for a backend."""
    if backend == "torch":
        if absgrad:
            raise InputError("rasterization: absgrad is not offered by backend 'torch'; use 'cpu' or 'gsplat'")
        from heads.raster.backends import reference as twin

        return twin
    if means.device.type != "cpu":
        raise InputError(
            f"rasterization: backend 'cpu' got tensors on {means.device}; move them to the CPU or use backend 'gsplat'"
        )
    from heads.raster.backends import cpu as functions

    return functions


def _render_channels(engine, projected, colors, backgrounds, camera, mode, absgrad, chunk) -> tuple[Tensor, Tensor]:
    """Composite colours and depth in passes of at most `chunk` channels."""
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


def sh_colors(coefficients: Tensor, means: Tensor, viewmats: Tensor, degree: int) -> Tensor:
    """Colours [..., C, N, 3] of spherical-harmonic coefficients [..., (C,) N, K, 3] seen from each camera.

    gsplat's convention: the real basis in its order and sign, 0.5 added, negative values cut off.
    """
    positions = -(viewmats[..., :3, :3].transpose(-1, -2) @ viewmats[..., :3, 3:])[..., 0]
    directions = torch.nn.functional.normalize(means[..., None, :, :] - positions[..., None, :], dim=-1)
    if coefficients.dim() == means.dim() + 1:
        coefficients = coefficients.unsqueeze(-4)
    basis = _sh_basis(degree, directions)
    return (basis[..., None] * coefficients[..., : basis.shape[-1], :]).sum(-2).add(0.5).clamp_min(0)


def _sh_basis(degree: int, directions: Tensor) -> Tensor:
    """Real spherical harmonics up to `degree` (0 to 3) of unit directions [..., 3]: [..., (degree + 1)^2]."""
    x, y, z = directions.unbind(-1)
    basis = [torch.full_like(x, 0.28209479177387814)]
    if degree >= 1:
        basis += [-0.4886025119029199 * y, 0.4886025119029199 * z, -0.4886025119029199 * x]
    if degree >= 2:
        basis += [
            1.0925484305920792 * x * y,
            -1.0925484305920792 * y * z,
            0.31539156525252005 * (3 * z * z - 1),
            -1.0925484305920792 * x * z,
            0.5462742152960396 * (x * x - y * y),
        ]
    if degree >= 3:
        basis += [
            -0.5900435899266435 * y * (3 * x * x - y * y),
            2.890611442640554 * x * y * z,
            -0.4570457994644658 * y * (5 * z * z - 1),
            0.3731763325901154 * z * (5 * z * z - 3),
            -0.4570457994644658 * x * (5 * z * z - 1),
            1.445305721320277 * z * (x * x - y * y),
            -0.5900435899266435 * x * (x * x - 3 * y * y),
        ]
    return torch.stack(basis, -1)


def _with_gsplat(means, quats, scales, opacities, colors, viewmats, Ks, width, height, alpha_clamp, **options):
    """gsplat's own function; spherical harmonics are evaluated here, as gsplat shares them over a batch."""
    if not probe_gsplat().ok:
        raise InputError(
            f"rasterization: backend 'gsplat' is not usable: {probe_gsplat().detail}; {probe_gsplat().fix}"
        )
    if means.dtype != torch.float32 or means.device.type != "cuda":
        found = f"{means.dtype} on {means.device}"
        raise InputError(f"rasterization: backend 'gsplat' renders float32 tensors on a CUDA device, got {found}")
    if alpha_clamp != _GSPLAT_ALPHA_CLAMP:
        raise InputError(f"rasterization: gsplat clamps alpha at {_GSPLAT_ALPHA_CLAMP}, got alpha_clamp={alpha_clamp}")
    import gsplat

    degree = options.pop("sh_degree")
    if degree is not None:
        colors = sh_colors(colors, means, viewmats, degree)
    if options["backgrounds"] is None or not options["render_mode"].startswith("RGB"):
        options["backgrounds"] = None
    if means.shape[-2] == 0:
        return _empty_with_gsplat(means, colors, viewmats, width, height, options)
    arguments = (means, quats, scales, opacities, colors, viewmats, Ks, width, height)
    render, alphas, meta = gsplat.rasterization(*arguments, **options)
    return render, alphas, meta | {"backend": "gsplat"}


def _empty_with_gsplat(means, colors, viewmats, width, height, options):
    """The background, for a scene without Gaussians: gsplat's kernels do not take one."""
    mode, backgrounds = options["render_mode"], options["backgrounds"]
    lead = viewmats.shape[:-2]
    channels = (colors.shape[-1] if mode.startswith("RGB") else 0) + int(mode != "RGB")
    render = means.new_zeros(*lead, height, width, channels) + 0 * means.sum()
    if backgrounds is not None:
        render[..., : backgrounds.shape[-1]] += backgrounds[..., None, None, :]
    nothing = {
        "means2d": means.new_zeros(*lead, 0, 2, requires_grad=True),
        "radii": torch.zeros(*lead, 0, 2, dtype=torch.int32, device=means.device),
        "depths": means.new_zeros(*lead, 0),
        "conics": means.new_zeros(*lead, 0, 3),
        "opacities": means.new_zeros(*lead, 0),
    }
    sizes = {"width": width, "height": height, "n_cameras": lead[-1], "n_batches": lead[:-1].numel()}
    ids = dict.fromkeys(("batch_ids", "camera_ids", "gaussian_ids"))
    return render, means.new_zeros(*lead, height, width, 1), nothing | sizes | ids | {"backend": "gsplat"}


def _check(means, quats, scales, opacities, colors, viewmats, Ks, backgrounds, sh_degree, width, height) -> None:
    """One sentence for the first argument whose shape, dtype or device does not fit the others."""
    if not (isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0):
        raise InputError(f"rasterization: width and height are pixels, at least 1, got width={width}, height={height}")
    if means.dim() < 2 or means.shape[-1] != 3:
        raise InputError(f"rasterization: means: expected [..., N, 3], got {list(means.shape)}")
    if viewmats.dim() < 3:
        raise InputError(f"rasterization: viewmats: expected [..., C, 4, 4], got {list(viewmats.shape)}")
    lead, number, cameras = tuple(means.shape[:-2]), means.shape[-2], viewmats.shape[-3]
    tail = colors.shape[-1:] if sh_degree is None else colors.shape[-2:]
    tensors = {
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


def _check_modes(render_mode: str, rasterize_mode: str, backend: str | None, channel_chunk: int) -> None:
    for name, value, allowed in (
        ("render_mode", render_mode, RENDER_MODES),
        ("rasterize_mode", rasterize_mode, ("classic", "antialiased")),
        ("backend", backend, (None, *BACKENDS)),
    ):
        if value not in allowed:
            raise InputError(f"rasterization: {name}: expected one of {', '.join(map(str, allowed))}, got {value!r}")
    if not 1 <= channel_chunk <= 32:
        raise InputError(f"rasterization: channel_chunk: expected 1 to 32, got {channel_chunk}")
