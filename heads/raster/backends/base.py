"""What a rendering backend is: a name, a probe, and the two halves of rendering.

A backend is a file of this folder that defines ``BACKEND``, or an entry point ``NAME = "package.module:BACKEND"`` of
the group ``headstart.backends`` of any installed package.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from heads.raster.camera import Camera
from heads.raster.probes import Probe


class Project(Protocol):
    """Project Gaussians to the image plane.

    Args:
        means: ``[B, N, 3]``; quats ``[B, N, 4]`` wxyz; scales ``[B, N, 3]``; opacities ``[B, N]``.
        viewmats: ``[B, C, 4, 4]``; Ks ``[B, C, 3, 3]`` px.
        camera: size and constants.
        compensate: whether to return compensations (antialiasing).

    Returns:
        means2d ``[B, C, N, 2]`` px, conics ``[B, C, N, 3]``, depths ``[B, C, N]``, radii ``[B, C, N, 2]`` px, int32 (0: not
        drawn) and compensations ``[B, C, N]`` (empty unless ``compensate``). Differentiable in means, quats, scales and
        viewmats.
    """

    def __call__(
        self, means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, viewmats: Tensor, Ks: Tensor,
        camera: Camera, compensate: bool = False,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]: ...  # fmt: skip


class Rasterize(Protocol):
    """Composite projected Gaussians to pictures.

    Args:
        means2d, conics, depths, radii: as ``project`` returns them; ``means2d`` may have more leading dimensions.
        opacities: ``[B, (C,) N]``; colors ``[B, (C,) N, D]`` with D + with_depth at most 32.
        backgrounds: ``[B, C, D + with_depth]``.
        with_depth: append a channel of accumulated depth.
        absgrad: the backward pass sets ``means2d.absgrad``, shaped like ``means2d``.

    Returns:
        render ``[B, C, H, W, D + with_depth]`` and alphas ``[B, C, H, W, 1]``, differentiable in all floating-point inputs.
    """

    def __call__(
        self, means2d: Tensor, conics: Tensor, depths: Tensor, radii: Tensor, opacities: Tensor, colors: Tensor,
        backgrounds: Tensor | None, camera: Camera, with_depth: bool = False, absgrad: bool = False,
    ) -> tuple[Tensor, Tensor]: ...  # fmt: skip


@dataclass(frozen=True)
class Binding:
    """Kernels that bind a map of Gaussians to the triangles of a rig (:meth:`heads.gaussians.uv.UVGaussians.bind`)."""

    forward: Callable[..., tuple[list[Tensor], Tensor]]
    backward: Callable[..., tuple[Tensor | None, Tensor]]


@dataclass(frozen=True, kw_only=True)
class Backend:
    """One rendering backend.

    Attributes:
        name: what ``rasterization(backend=...)`` calls it.
        probe: whether it can be used on this machine; never raises.
        project, rasterize: the two halves of rendering.
        devices: device types whose tensors it takes; empty: any.
        place: rank among the usable backends for a device; the lowest is the default.
        dtypes: dtypes that it takes.
        absgrad: whether it supports ``absgrad``.
        alpha_clamp: the only ``alpha_clamp`` that it supports; ``None``: any.
        binding: kernels for :meth:`heads.gaussians.uv.UVGaussians.bind`; ``None``: plain PyTorch binds.
    """

    name: str
    probe: Callable[[], Probe]
    project: Project
    rasterize: Rasterize
    devices: tuple[str, ...] = ()
    place: int = 100
    dtypes: tuple[object, ...] = (torch.float32, torch.float64)
    absgrad: bool = True
    alpha_clamp: float | None = None
    binding: Binding | None = None

    def takes(self, device: str) -> bool:
        """Whether it takes tensors on a type of device."""
        return not self.devices or device in self.devices
