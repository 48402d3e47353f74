"""gsplat and tinycudann on the stand-in device: their signatures and argument checks, with the values of our CPU kernels.

``played()`` substitutes them for the real ones, so that the code that a GPU would run (``heads.raster.backends.gsplat`` and
the tinycudann branch of ``heads.motion.encoding``) runs here. ``signatures.json`` holds the names and defaults of the real
functions and their source; a call that the real function would not accept is refused.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import json
import math
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from benchmarks.standin.device import NAME
from heads.motion import encoding
from heads.raster import registry
from heads.raster.backends import cpu
from heads.raster.camera import Camera
from heads.raster.probes import Probe

FACTS = json.loads((Path(__file__).parent / "signatures.json").read_text())


def signature(package: str, function: str) -> inspect.Signature:
    """The recorded signature of a function of a package."""
    rows = [row if isinstance(row, list) else [row] for row in FACTS[package]["functions"][function]]
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    empty = inspect.Parameter.empty
    return inspect.Signature(
        [inspect.Parameter(row[0], kind, default=row[1] if len(row) > 1 else empty) for row in rows]
    )


def _checked(package: str, name: str, play: Callable[..., Any]) -> Callable[..., Any]:
    """``play`` behind the recorded signature: it gets every argument by name, defaults filled in."""
    declared = signature(package, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        bound = declared.bind(*args, **kwargs)
        bound.apply_defaults()
        for argument, value in bound.arguments.items():
            if isinstance(value, Tensor) and value.device.type != NAME:
                raise RuntimeError(f"{package}.{name}: {argument} must be a CUDA tensor, got one on {value.device}")
        torch.ops.standin.note("launch", f"{package}::{name}")
        return play(**bound.arguments)

    return call


class _OnHost(torch.autograd.Function):
    """Runs a differentiable function of the CPU on the memory of device tensors."""

    @staticmethod
    def forward(ctx: Any, run: Callable[..., tuple[Tensor, ...]], name: str, *tensors: Tensor) -> tuple[Tensor, ...]:
        inputs = [torch.ops.standin.host_alias(tensor.detach()) for tensor in tensors]
        wanted = [need and tensor.is_floating_point() for need, tensor in zip(ctx.needs_input_grad[2:], tensors)]
        for tensor, want in zip(inputs, wanted):
            tensor.requires_grad_(want)
        with torch.enable_grad():
            outputs = run(*inputs)
        ctx.inputs, ctx.outputs, ctx.first, ctx.wanted, ctx.name = inputs, outputs, tensors[0], wanted, name
        made = tuple(torch.ops.standin.device_alias(output.detach()) for output in outputs)
        ctx.mark_non_differentiable(*[tensor for tensor in made if not tensor.is_floating_point()])
        return made

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        torch.ops.standin.note("launch", f"{ctx.name}_backward")
        pairs = [
            (output, torch.ops.standin.host_alias(gradient.contiguous()))
            for output, gradient in zip(ctx.outputs, upstream)
            if output.requires_grad
        ]
        inputs = [tensor for tensor, want in zip(ctx.inputs, ctx.wanted) if want]
        outputs, gradients = zip(*pairs)
        found = iter(torch.autograd.grad(outputs, inputs, gradients, allow_unused=True))
        if (absgrad := getattr(ctx.inputs[0], "absgrad", None)) is not None:
            ctx.first.absgrad = torch.ops.standin.device_alias(absgrad)
        result = [next(found) if want else None for want in ctx.wanted]
        return (None, None, *[None if g is None else torch.ops.standin.device_alias(g) for g in result])


# ---------------------------------------------------------------------------------------------------------- gsplat


def _project(
    means: Tensor, quats: Tensor, scales: Tensor, viewmats: Tensor, Ks: Tensor, width: int, height: int, eps2d: float,
    near_plane: float, far_plane: float, radius_clip: float, packed: bool, calc_compensations: bool,
    opacities: Tensor | None, covars: None, sparse_grad: bool, camera_model: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:  # fmt: skip
    batch, number = means.shape[:-2], means.shape[-2]
    cameras = viewmats.shape[-3]
    _shape("means", means, (*batch, number, 3))
    _shape("quats", quats, (*batch, number, 4))
    _shape("scales", scales, (*batch, number, 3))
    _shape("viewmats", viewmats, (*batch, cameras, 4, 4))
    _shape("Ks", Ks, (*batch, cameras, 3, 3))
    if opacities is None:
        raise NotImplementedError("played without opacities, which ours always gives")
    _shape("opacities", opacities, (*batch, number))
    camera = Camera(width, height, near_plane, far_plane, eps2d, radius_clip, 0.999)

    def run(*tensors: Tensor) -> tuple[Tensor, ...]:
        return cpu.project(*tensors, camera, calc_compensations)

    made = _OnHost.apply(run, "gsplat::fully_fused_projection", means, quats, scales, opacities, viewmats, Ks)
    means2d, conics, depths, radii, compensations = made
    return radii, means2d, depths, conics, compensations if calc_compensations else None


def _isect_tiles(
    means2d: Tensor, radii: Tensor, depths: Tensor, tile_size: int, tile_width: int, tile_height: int, **rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    dims, number = means2d.shape[:-2], means2d.shape[-2]
    _shape("radii", radii, (*dims, number, 2))
    _shape("depths", depths, (*dims, number))
    torch.ops.standin.note("wait", "gsplat::isect_tiles")  # it reads the number of intersections
    ids = torch.empty(number, dtype=torch.int32, device=means2d.device)
    ids.scene = (radii, depths)  # type: ignore[attr-defined]  # what the real ids encode
    keys = torch.empty(number, dtype=torch.int64, device=means2d.device)
    return torch.empty((*dims, number), dtype=torch.int32, device=means2d.device), keys, ids


def _offsets(isect_ids: Tensor, n_images: int, tile_width: int, tile_height: int) -> Tensor:
    return torch.empty(n_images, tile_height, tile_width, dtype=torch.int32, device=isect_ids.device)


def _rasterize(
    means2d: Tensor, conics: Tensor, colors: Tensor, opacities: Tensor, image_width: int, image_height: int,
    tile_size: int, isect_offsets: Tensor, flatten_ids: Tensor, backgrounds: Tensor | None, absgrad: bool, **rest: Any,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    dims, number, channels = means2d.shape[:-2], means2d.shape[-2], colors.shape[-1]
    _shape("conics", conics, (*dims, number, 3))
    _shape("colors", colors, (*dims, number, channels))
    _shape("opacities", opacities, (*dims, number))
    _shape("isect_offsets", isect_offsets, (*dims, -(-image_height // tile_size), -(-image_width // tile_size)))
    if backgrounds is not None:
        _shape("backgrounds", backgrounds, (*dims, channels))
    if not 0 < channels <= 513:
        raise ValueError(f"Unsupported number of color channels: {channels}")
    radii, depths = flatten_ids.scene  # type: ignore[attr-defined]
    images = math.prod(dims)
    camera = Camera(image_width, image_height, 0.01, 1e10, 0.3, 0.0, 0.999)

    def run(means2d: Tensor, conics: Tensor, opacities: Tensor, colors: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        depths, radii, *behind = rest
        return cpu.rasterize(
            means2d, conics.reshape(images, 1, number, 3), depths.reshape(images, 1, number),
            radii.reshape(images, 1, number, 2), opacities.reshape(images, 1, number),
            colors.reshape(images, 1, number, channels), behind[0].reshape(images, 1, channels) if behind else None,
            camera, with_depth=False, absgrad=absgrad,
        )  # fmt: skip

    tensors = [means2d, conics, opacities, colors, depths.detach(), radii]
    tensors += [] if backgrounds is None else [backgrounds]
    render, alphas = _OnHost.apply(run, "gsplat::rasterize_to_pixels", *tensors)
    return render.reshape(*dims, image_height, image_width, channels), alphas.reshape(
        *dims, image_height, image_width, 1
    )


def _shape(name: str, tensor: Tensor, wanted: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != wanted:
        raise AssertionError(f"{name}: {tuple(tensor.shape)}, expected {wanted}")


# ------------------------------------------------------------------------------------------------------ tinycudann


class Encoding(nn.Module):
    """``tinycudann.Encoding`` for a two-dimensional hash grid."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        bound = signature("tinycudann", "Encoding").bind(*args, **kwargs)
        bound.apply_defaults()
        settings = bound.arguments["encoding_config"]
        if bound.arguments["dtype"] not in (None, torch.float32, torch.float16):
            raise ValueError("Encoding only supports fp32 or fp16 precision")
        if settings["otype"] != "HashGrid" or bound.arguments["n_input_dims"] != 2:
            raise NotImplementedError("only a hash grid of two dimensions is played")
        finest = settings["base_resolution"] * settings["per_level_scale"] ** (settings["n_levels"] - 1)
        self.grid = encoding.HashGrid2D(
            settings["n_levels"],
            settings["n_features_per_level"],
            settings["log2_hashmap_size"],
            settings["base_resolution"],
            round(finest),
        )
        self.params = nn.Parameter(torch.zeros(self.grid.n_params, device=NAME))
        self.n_output_dims = settings["n_levels"] * settings["n_features_per_level"]

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Features ``[M, n_output_dims]`` of positions ``[M, 2]``."""
        x = signature("tinycudann", "Encoding.forward").bind(*args, **kwargs).arguments["x"]
        if x.device.type != NAME or self.params.device.type != NAME:
            raise RuntimeError(f"tinycudann: input on {x.device}, parameters on {self.params.device}")
        torch.ops.standin.note("launch", "tinycudann::Encoding")

        def run(positions: Tensor, table: Tensor) -> tuple[Tensor, ...]:
            return (self.grid(positions, table),)

        table = self.params.to(torch.float32).contiguous()
        return _OnHost.apply(run, "tinycudann::Encoding", x.to(torch.float32).contiguous(), table)[0]


# --------------------------------------------------------------------------------------------------------- playing

_PLAYED = {
    "fully_fused_projection": _project,
    "isect_tiles": _isect_tiles,
    "isect_offset_encode": _offsets,
    "rasterize_to_pixels": _rasterize,
}


@contextlib.contextmanager
def played() -> Iterator[None]:
    """The stand-in device with gsplat and tinycudann, as if it were a GPU that has them."""
    found = dict(registry._imported())
    real, _ = found["gsplat"]
    if real is None:
        raise RuntimeError(f"heads.raster.backends.gsplat cannot be imported: {found['gsplat'][1].detail}")
    ok = Probe("gsplat", True, "played on the host")
    found["gsplat"] = dataclasses.replace(real, devices=(*real.devices, NAME), probe=lambda: ok), ok
    gsplat = sys.modules.get("gsplat") or _gsplat()
    tinycudann = types.ModuleType("tinycudann")
    tinycudann.Encoding = Encoding  # type: ignore[attr-defined]
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.dict(sys.modules, {"gsplat": gsplat, "tinycudann": tinycudann}))
        for name, play in _PLAYED.items():
            stack.enter_context(mock.patch.object(gsplat, name, _checked("gsplat", name, play), create=True))
        stack.enter_context(mock.patch.object(encoding, "tinycudann_available", return_value=True))
        stack.enter_context(mock.patch.object(registry, "_imported", return_value=found))
        _forget()
        try:
            yield
        finally:
            stack.close()
            _forget()


def _gsplat() -> types.ModuleType:
    """The installed package (its Python parts are used as they are), else an empty one."""
    with contextlib.suppress(ImportError):
        import gsplat

        return gsplat
    return types.ModuleType("gsplat")


def _forget() -> None:
    for cached in (registry.backends, registry.default_backend, registry.find_backend):
        cached.cache_clear()
