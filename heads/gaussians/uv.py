"""Gaussians of heads: maps over the rig's UV atlas, bound to its triangles, and one call that renders a batch.

A texel's Gaussian lives in the frame of the triangle under it: origin T at the texel's point on the triangle, axes R
(first edge, in-plane normal to it, outward normal), unit k (root mean square edge length, which does not vanish with
the area when lids or lips close):  mean = k R offset + T,  scale = k exp(log-scale),  quaternion = q(R) * q.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from configs import InputError
from heads.gaussians.layout import lay_out
from heads.geometry.rotation import quaternion_product, quaternions
from heads.raster.api import rasterization

# Columns of a map: offset 3 (triangle units), quaternion 4 (wxyz, any length), log-scale 3 (triangle units),
# colour 3 (linear, as it is), opacity 1 (logit).
MAP_CHANNELS = 14
MAP_SPLIT = (3, 4, 3, 3, 1)
_DEGENERATE = 1e-12
_NEUTRAL_OPACITY = 2.2  # logit of 0.9
_NEUTRAL_SPREAD = 0.6  # standard deviation in texel spacings
_NEUTRAL_DEPTH = 0.3  # thickness over width
_NEUTRAL_COLOR = (0.62, 0.5, 0.44)


@dataclass(frozen=True)
class Gaussians:
    """A batch of B scenes of N Gaussians, ready to render (activations applied).

    means [B, N, 3] rig units, quats [B, N, 4] wxyz of any length, scales [B, N, 3] positive, opacities [B, N] in
    [0, 1], colors [B, N, D].
    """

    means: Tensor
    quats: Tensor
    scales: Tensor
    opacities: Tensor
    colors: Tensor

    @property
    def n(self) -> int:
        """Gaussians per scene."""
        return self.means.shape[-2]

    def replace(self, **parts: Tensor) -> Gaussians:
        """A copy with some parts exchanged."""
        return replace(self, **parts)

    def to(self, device: torch.device | str) -> Gaussians:
        """A copy on a device."""
        return Gaussians(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    @staticmethod
    def join(*groups: Gaussians) -> Gaussians:
        """All groups in one scene; a group of batch 1 is shared by the scenes of the others."""
        batch = max(group.means.shape[0] for group in groups)
        parts = {}
        for field in fields(Gaussians):
            tensors = [getattr(group, field.name) for group in groups]
            parts[field.name] = torch.cat([t.expand(batch, *t.shape[1:]) for t in tensors], 1)
        return Gaussians(**parts)


def triangle_frames(vertices: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    """Axes R [B, F, 3, 3] (columns x, y, z) and units k [B, F] of triangles `faces` [F, 3] of vertices [B, V, 3].

    A triangle without area keeps the axes of head space and passes no gradient through them.
    """
    a, b, c = vertices[:, faces].unbind(2)
    e, g = b - a, c - a
    normal = torch.linalg.cross(e, g)
    ee, gg, eg = (e * e).sum(-1, True), (g * g).sum(-1, True), (e * g).sum(-1, True)
    proper = (normal * normal).sum(-1, True) > _DEGENERATE * ee * torch.maximum(ee, gg)
    size2 = ((ee + gg - eg) * (2 / 3))[..., 0]
    positive = size2 > 0
    k = torch.where(positive, torch.where(positive, size2, 1.0).sqrt(), 0.0)
    axes = torch.eye(3, dtype=vertices.dtype, device=vertices.device)
    x = F.normalize(torch.where(proper, e, axes[0]), dim=-1)
    z = F.normalize(torch.where(proper, normal, axes[2]), dim=-1)
    return torch.stack([x, torch.linalg.cross(z, x), z], -1), k


class UVGaussians(nn.Module):
    """Binds a map over the UV atlas to the triangles of a rig: the same N Gaussians for every identity.

    Attributes (buffers, in one order, sorted by triangle):
        n: number of Gaussians N.
        texels: [N, 2] row and column in the map.
        triangles: [N] index of the triangle under the texel.
        barycentric: [N, 3] weights of its corners.
        regions: [N] region label of the triangle.

    Args:
        rig: needs `faces` [F, 3], `face_uvs` [F, 3, 2], `face_regions` [F] and `mean` [V, 3] (for `neutral`).
        resolution: side of the map in texels.
    """

    texels: Tensor
    triangles: Tensor
    barycentric: Tensor
    regions: Tensor

    def __init__(self, rig: Any, resolution: int) -> None:
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

    def gather(self, map_image: Tensor) -> Tensor:
        """Values [B, N, C] of a map image [B, C, H_uv, W_uv] at the texels."""
        size = self.resolution
        if map_image.dim() != 4 or tuple(map_image.shape[-2:]) != (size, size):
            raise InputError(f"UV map: expected [B, C, {size}, {size}], got {list(map_image.shape)}")
        cell = self.texels[:, 0] * size + self.texels[:, 1]
        return map_image.flatten(2).index_select(2, cell).transpose(1, 2)

    def scatter(self, values: Tensor, fill: float = 0.0) -> Tensor:
        """The map image [B, C, H_uv, W_uv] of values [B, N, C]; `fill` where no triangle is."""
        size = self.resolution
        image = values.new_full((values.shape[0], values.shape[2], size * size), fill)
        cell = self.texels[:, 0] * size + self.texels[:, 1]
        return image.index_copy(2, cell, values.transpose(1, 2)).unflatten(2, (size, size))

    def bind(self, vertices: Tensor, maps: Tensor) -> Gaussians:
        """Gaussians in head space of maps [B, N, 14] on vertices [B, V, 3]; a batch of 1 is shared.

        Exact under rigid motion and scaling of the vertices; differentiable in both.
        """
        self._check(vertices, maps)
        if vertices.device.type == "cpu" and vertices.dtype == maps.dtype:
            return Gaussians(*_Bind.apply(vertices, maps, self._faces, self._runs, self._weights.to(maps.dtype)))
        return self.bind_torch(vertices, maps)

    def bind_torch(self, vertices: Tensor, maps: Tensor) -> Gaussians:
        """`bind` in plain PyTorch: for other devices, and the twin that the kernels are tested against."""
        R, k = triangle_frames(vertices, self._faces)
        corners = vertices[:, self._faces[self.triangles]]
        origins = (corners * self.barycentric.to(maps.dtype)[..., None]).sum(2)
        R, k, q = R[:, self.triangles], k[:, self.triangles, None], quaternions(R)[:, self.triangles]
        offsets, quats, log_scales, colors, opacities = maps.split(MAP_SPLIT, -1)
        means = k * (R @ offsets[..., None])[..., 0] + origins
        quats = quaternion_product(q, quats)
        colors = colors.expand(means.shape[0], -1, -1)
        opacities = opacities[..., 0].sigmoid().expand(means.shape[0], -1)
        return Gaussians(means, quats, k * log_scales.exp(), opacities, colors)

    def neutral(self, mean_color: Tensor | None = None) -> Tensor:
        """A map [N, 14] of flat Gaussians that cover the mean head without gaps, in one colour [3] (skin, if None)."""
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
        """Ellipse that a texel covers on the mean head: angle [N] in the triangle's plane, axes [N, 2] in its units."""
        R, k = triangle_frames(self._mean[None].double(), self._faces)
        corners = self._mean.double()[self._faces]
        local = (corners[:, 1:] - corners[:, :1]) @ R[0]  # [F, 2, 3], rows are edges
        uv = (self._face_uvs[:, 1:] - self._face_uvs[:, :1]).double() * self.resolution
        flat = torch.linalg.det(uv).abs() < 1e-12
        uv = torch.where(flat[:, None, None], torch.eye(2, dtype=uv.dtype, device=uv.device), uv)
        jacobian = torch.linalg.solve(uv, local[..., :2]).transpose(1, 2)  # triangle plane per texel
        axes, spread, _ = torch.linalg.svd(jacobian / k[0].clamp_min(1e-9)[:, None, None])
        # A triangle smaller than a texel must not throw a beam across its neighbours.
        spread = spread.clamp(1e-3, 0.5)
        angle = torch.atan2(axes[:, 1, 0], axes[:, 0, 0])
        return angle[self.triangles].float(), spread[self.triangles].float()

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
    def forward(ctx, vertices, maps, faces, runs, weights):
        from heads.raster.bind import bind_forward

        vertices, maps = vertices.contiguous(), maps.contiguous()
        outputs, records = bind_forward(vertices, maps, faces, runs, weights)
        _, quats, scales, opacities, _ = outputs
        ctx.save_for_backward(vertices, maps, faces, runs, weights, quats, scales, opacities, records)
        return tuple(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx, *upstream):
        from heads.raster.bind import bind_backward

        return (*bind_backward(*ctx.saved_tensors, *upstream), None, None, None)


def render_head(
    gaussians: Gaussians,
    rotation: Tensor,
    translation: Tensor,
    intrinsics: Tensor,
    width: int,
    height: int,
    background: Tensor | None = None,
    **options: Any,
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Render B heads, each with its own pose and camera, in one call.

    Args:
        gaussians: in head space, [B, N, ...]; a batch of 1 is shown in every pose.
        rotation, translation: head to camera, [B, 3, 3] and [B, 3]: x_cam = rotation @ x_head + translation.
        intrinsics: [B, 3, 3] pixels.
        width, height: pixels.
        background: none, a colour [D] or [B, D], or pictures [H, W, D] or [B, H, W, D].
        options: of `heads.rasterization` (`render_mode`, `absgrad`, `backend`, ...).

    Returns:
        image [B, H, W, D], alpha [B, H, W, 1] and the meta dictionary of `rasterization`. Without a background the
        image is the premultiplied head over black.
    """
    batch = rotation.shape[0]
    if rotation.shape != (batch, 3, 3) or translation.shape != (batch, 3) or intrinsics.shape != (batch, 3, 3):
        shapes = f"{list(rotation.shape)}, {list(translation.shape)}, {list(intrinsics.shape)}"
        raise InputError(
            f"render_head: expected rotation [B, 3, 3], translation [B, 3], intrinsics [B, 3, 3], got {shapes}"
        )
    bottom = rotation.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(batch, 1, 4)
    viewmats = torch.cat([torch.cat([rotation, translation[..., None]], -1), bottom], 1)
    g = gaussians
    shared = g.means.shape[0] == 1 and batch > 1
    # One scene under many cameras is cheaper than many equal scenes.
    lead = slice(None) if not shared else 0
    parts = [t[lead] for t in (g.means, g.quats, g.scales, g.opacities, g.colors)]
    views = (viewmats, intrinsics) if shared else (viewmats[:, None], intrinsics[:, None])
    image, alpha, meta = rasterization(*parts, *views, width, height, **options)
    if not shared:
        image, alpha = image[:, 0], alpha[:, 0]
    if background is not None:
        if background.dim() <= 2:
            background = background.reshape(-1, 1, 1, background.shape[-1])
        image = image + (1 - alpha) * background
    return image, alpha, meta


def __getattr__(name: str) -> Any:
    if name == "FreeGaussians":  # in a file of its own, imported only where it is used
        from heads.gaussians.free import FreeGaussians

        return FreeGaussians
    raise AttributeError(f"module 'heads.gaussians.uv' has no attribute {name!r}")
