"""Gaussians of heads: maps over the rig's UV atlas, bound to its triangles.

A texel's Gaussian lives in the frame of the triangle under it: origin T at the texel's point on the triangle, axes R
(first edge, in-plane normal to it, outward normal), unit k (root mean square edge length, which does not vanish with
the area when lids or lips close):  mean = k R offset + T,  scale = k exp(log-scale),  quaternion = q(R) * q.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from configs import InputError
from configs.devices import is_accelerator
from heads.gaussians.carrying import DEGENERATE, carry
from heads.gaussians.cloud import Gaussians
from heads.gaussians.layout import lay_out
from heads.geometry.rotation import quaternion_product, quaternions
from heads.raster.backends.base import Binding
from heads.raster.registry import default_backend
from heads.rig import Rig

# Columns of a map: offset 3 (triangle units), quaternion 4 (wxyz, any length), log-scale 3 (triangle units),
# colour 3 (RGB as in the pictures, without activation), opacity 1 (logit).
MAP_CHANNELS = 14
MAP_SPLIT = (3, 4, 3, 3, 1)
_DEGENERATE_UV = 1e-12  # texels² · guess: a triangle of less area in the atlas counts as flat
_NEUTRAL_OPACITY = 2.2  # logit of 0.9 · guess
_NEUTRAL_SPREAD = 0.6  # standard deviation in texel spacings · guess: leaves no gaps (tests/heads/test_gaussians.py)
_NEUTRAL_DEPTH = 0.3  # thickness over width · guess
_NEUTRAL_COLOR = (0.62, 0.5, 0.44)  # RGB as in the pictures · guess: skin


def triangle_frames(vertices: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    """Axes R ``[B, F, 3, 3]`` (columns x, y, z) and units k ``[B, F]`` of triangles ``faces [F, 3]`` of vertices ``[B, V, 3]``.

    A triangle without area keeps the axes of head space and passes no gradient through them.
    """
    a, b, c = vertices[:, faces].unbind(2)
    e, g = b - a, c - a
    normal = torch.linalg.cross(e, g)
    ee, gg, eg = (e * e).sum(-1, True), (g * g).sum(-1, True), (e * g).sum(-1, True)
    proper = (normal * normal).sum(-1, True) > DEGENERATE * ee * torch.maximum(ee, gg)
    size2 = ((ee + gg - eg) * (2 / 3))[..., 0]
    positive = size2 > 0
    k = torch.where(positive, torch.where(positive, size2, 1.0).sqrt(), 0.0)
    axes = torch.eye(3, dtype=vertices.dtype, device=vertices.device)
    x = F.normalize(torch.where(proper, e, axes[0]), dim=-1)
    z = F.normalize(torch.where(proper, normal, axes[2]), dim=-1)
    return torch.stack([x, torch.linalg.cross(z, x), z], -1), k


class UVGaussians(nn.Module):
    """Binds a map over the UV atlas to the triangles of a rig: the same N Gaussians for every identity.

    Gaussians are sorted by triangle.

    Attributes:
        n: number of Gaussians N, one per texel whose centre lies in a triangle.
        texels: ``[N, 2]`` row and column in the map.
        triangles: ``[N]`` index of the triangle under the texel.
        barycentric: ``[N, 3]`` weights of its corners.
        regions: ``[N]`` region label of the triangle.

    Args:
        rig: needs ``faces [F, 3]``, ``face_uvs [F, 3, 2]``, ``face_regions [F]`` and ``mean [V, 3]`` (for ``neutral``).
        resolution: side of the map in texels.

    Raises:
        InputError: no texel of such a map lies in a triangle.
    """

    texels: Tensor
    triangles: Tensor
    barycentric: Tensor
    regions: Tensor
    _faces: Tensor
    _runs: Tensor
    _weights: Tensor
    _mean: Tensor
    _face_uvs: Tensor

    def __init__(self, rig: Rig, resolution: int) -> None:
        super().__init__()
        self.resolution = resolution
        layout = lay_out(rig.face_uvs, resolution)
        if len(layout.triangles) == 0:
            raise InputError(f"UV Gaussians: no texel of a {resolution}x{resolution} map lies in a triangle")
        buffers = {
            "texels": layout.texels,
            "triangles": layout.triangles,
            "barycentric": layout.barycentric,
            "regions": rig.face_regions.cpu()[layout.triangles],
            "_faces": rig.faces.cpu().long(),
            "_runs": layout.runs,
            "_weights": layout.barycentric[:, 1:].contiguous(),
            "_mean": rig.mean.detach().float().cpu(),
            "_face_uvs": rig.face_uvs.detach().float().cpu(),
        }
        for name, value in buffers.items():
            self.register_buffer(name, value, persistent=False)

    @property
    def n(self) -> int:
        """Number of Gaussians."""
        return len(self.triangles)

    def keep(self, shown: Tensor) -> None:
        """Go on with the texels ``shown [N]`` bool alone, in the same order."""
        for name in ("texels", "triangles", "barycentric", "regions", "_weights"):
            setattr(self, name, getattr(self, name)[shown].contiguous())
        counts = torch.bincount(self.triangles, minlength=len(self._faces))
        self._runs = torch.cat([counts.new_zeros(1), counts.cumsum(0)]).to(self._runs)

    def points(self, vertices: Tensor) -> Tensor:
        """The texels' points ``[B, N, 3]`` on the triangles of vertices ``[B, V, 3]``."""
        corners = vertices[:, self._faces[self.triangles]]
        return (corners * self.barycentric.to(vertices.dtype)[..., None]).sum(2)

    def gather(self, map_image: Tensor) -> Tensor:
        """Values ``[B, N, C]`` of a map image ``[B, C, H_uv, W_uv]`` at the texels."""
        size = self.resolution
        if map_image.dim() != 4 or tuple(map_image.shape[-2:]) != (size, size):
            raise InputError(f"UV map: expected [B, C, {size}, {size}], got {list(map_image.shape)}")
        cell = self.texels[:, 0] * size + self.texels[:, 1]
        return map_image.flatten(2).index_select(2, cell).transpose(1, 2)

    def scatter(self, values: Tensor, fill: float = 0.0) -> Tensor:
        """The map image ``[B, C, H_uv, W_uv]`` of values ``[B, N, C]``; ``fill`` outside all triangles."""
        size = self.resolution
        image = values.new_full((values.shape[0], values.shape[2], size * size), fill)
        cell = self.texels[:, 0] * size + self.texels[:, 1]
        return image.index_copy(2, cell, values.transpose(1, 2)).unflatten(2, (size, size))

    def bind(self, vertices: Tensor, maps: Tensor) -> Gaussians:
        """Gaussians in head space of maps ``[B, N, 14]`` on vertices ``[B, V, 3]``; a batch of 1 is shared.

        Equivariant to rigid motion and scaling of the vertices; differentiable in both arguments.

        Raises:
            InputError: shapes that do not fit.
        """
        self._check(vertices, maps)
        binding = default_backend(vertices.device.type).binding
        if vertices.dtype != maps.dtype or (binding is None and not is_accelerator(vertices.device)):
            return self.bind_reference(vertices, maps)
        if binding is None:
            return Gaussians(*carry(vertices, maps, self._faces, self.triangles, self._weights.to(maps.dtype)))
        weights = self._weights.to(maps.dtype)
        return Gaussians(*_Bind.apply(binding, vertices, maps, self._faces, self._runs, weights))

    def bind_reference(self, vertices: Tensor, maps: Tensor) -> Gaussians:
        """``bind`` in plain PyTorch: for mixed dtypes, and the reference that the others are tested against."""
        R, k = triangle_frames(vertices, self._faces)
        R, k, q = R[:, self.triangles], k[:, self.triangles, None], quaternions(R)[:, self.triangles]
        offsets, quats, log_scales, colors, opacities = maps.split(MAP_SPLIT, -1)
        means = k * (R @ offsets[..., None])[..., 0] + self.points(vertices)
        quats = quaternion_product(q, quats)
        colors = colors.expand(means.shape[0], -1, -1)
        opacities = opacities[..., 0].sigmoid().expand(means.shape[0], -1)
        return Gaussians(means, quats, k * log_scales.exp(), opacities, colors)

    def neutral(self, mean_color: Tensor | None = None) -> Tensor:
        """A map ``[N, 14]`` of flat Gaussians on the mean head, each as wide as its texel, in one colour ``[3]`` (skin, if None).

        They cover the face; beyond it triangles smaller than a texel leave gaps (:mod:`heads.gaussians.covering`).
        """
        device = self._mean.device
        angle, spread = self._texel_footprints()
        thickness = spread.mean(-1, keepdim=True) * _NEUTRAL_DEPTH
        maps = torch.zeros(self.n, MAP_CHANNELS, device=device)
        maps[:, 3], maps[:, 6] = (angle / 2).cos(), (angle / 2).sin()
        maps[:, 7:10] = (torch.cat([spread, thickness], -1) * _NEUTRAL_SPREAD).clamp_min(1e-6).log()
        color = torch.tensor(_NEUTRAL_COLOR) if mean_color is None else mean_color
        maps[:, 10:13] = color.to(maps)
        maps[:, 13] = _NEUTRAL_OPACITY
        return maps

    def _texel_footprints(self) -> tuple[Tensor, Tensor]:
        """Ellipse that a texel covers on the mean head: angle ``[N]`` in the triangle's plane, axes ``[N, 2]`` in its units."""
        # On the CPU: it runs once and in float64, which not every device supports.
        mean, faces, triangles = self._mean.cpu().double(), self._faces.cpu(), self.triangles.cpu()
        R, k = triangle_frames(mean[None], faces)
        corners = mean[faces]
        local = (corners[:, 1:] - corners[:, :1]) @ R[0]  # [F, 2, 3], rows are edges
        uv = (self._face_uvs[:, 1:] - self._face_uvs[:, :1]).cpu().double() * self.resolution
        flat = torch.linalg.det(uv).abs() < _DEGENERATE_UV
        uv = torch.where(flat[:, None, None], torch.eye(2, dtype=uv.dtype, device=uv.device), uv)
        jacobian = torch.linalg.solve(uv, local[..., :2]).transpose(1, 2)  # triangle plane per texel
        axes, spread, _ = torch.linalg.svd(jacobian / k[0].clamp_min(1e-9)[:, None, None])
        # A triangle smaller than a texel must not get a Gaussian that reaches across its neighbours.
        spread = spread.clamp(1e-3, 0.5)
        angle = torch.atan2(axes[:, 1, 0], axes[:, 0, 0])
        return angle[triangles].float().to(self._mean.device), spread[triangles].float().to(self._mean.device)

    def _check(self, vertices: Tensor, maps: Tensor) -> None:
        if vertices.dim() != 3 or tuple(vertices.shape[1:]) != tuple(self._mean.shape):
            raise InputError(f"bind: vertices: expected [B, {len(self._mean)}, 3], got {list(vertices.shape)}")
        if maps.dim() != 3 or tuple(maps.shape[1:]) != (self.n, MAP_CHANNELS):
            raise InputError(f"bind: maps: expected [B, {self.n}, {MAP_CHANNELS}], got {list(maps.shape)}")
        sizes = {vertices.shape[0], maps.shape[0]}
        if len(sizes - {1}) > 1:
            raise InputError(f"bind: {vertices.shape[0]} sets of vertices do not go with {maps.shape[0]} maps")


class _Bind(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, binding: Binding, vertices: Tensor, maps: Tensor, faces: Tensor, runs: Tensor, weights: Tensor
    ) -> tuple[Tensor, ...]:
        vertices, maps = vertices.contiguous(), maps.contiguous()
        outputs, records = binding.forward(vertices, maps, faces, runs, weights)
        _, quats, scales, opacities, _ = outputs
        ctx.binding = binding
        ctx.save_for_backward(vertices, maps, faces, runs, weights, quats, scales, opacities, records)
        return tuple(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        grads = ctx.binding.backward(*ctx.saved_tensors, *upstream, want_vertices=ctx.needs_input_grad[1])
        return (None, *grads, None, None, None)
