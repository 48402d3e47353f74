"""UV Gaussians carried from the frames of their triangles to head space, in few operators and with a gradient of its own.

For accelerators, where each operator is a launch and the gradients that autograd adds to those of
:meth:`heads.gaussians.uv.UVGaussians.bind_reference` were a third of a fitting step's. The formulas are those of the CPU's
kernels (:mod:`heads.raster.kernels.binding`): the gradient of a rotation is a torque ``tau``, dL = tau . dtheta for a turn
dtheta of the whole frame.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from configs.devices import constant

DEGENERATE = 1e-12  # squared sine between the edges below which a triangle has no frame of its own · guess
_IDENTITY = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
# Four times the outer product of a quaternion with itself is linear in the entries of its rotation matrix: one row for each
# entry of the product, to which _ONES is added.
_PRODUCTS = (
    (1, 0, 0, 0, 1, 0, 0, 0, 1), (0, 0, 0, 0, 0, -1, 0, 1, 0), (0, 0, 1, 0, 0, 0, -1, 0, 0), (0, -1, 0, 1, 0, 0, 0, 0, 0),
    (0, 0, 0, 0, 0, -1, 0, 1, 0), (1, 0, 0, 0, -1, 0, 0, 0, -1), (0, 1, 0, 1, 0, 0, 0, 0, 0), (0, 0, 1, 0, 0, 0, 1, 0, 0),
    (0, 0, 1, 0, 0, 0, -1, 0, 0), (0, 1, 0, 1, 0, 0, 0, 0, 0), (-1, 0, 0, 0, 1, 0, 0, 0, -1), (0, 0, 0, 0, 0, 1, 0, 1, 0),
    (0, -1, 0, 1, 0, 0, 0, 0, 0), (0, 0, 1, 0, 0, 0, 1, 0, 0), (0, 0, 0, 0, 0, 1, 0, 1, 0), (-1, 0, 0, 0, -1, 0, 0, 0, 1),
)  # fmt: skip
_ONES = (1.0, 0, 0, 0, 0, 1.0, 0, 0, 0, 0, 1.0, 0, 0, 0, 0, 1.0)
# The matrix by which a quaternion wxyz multiplies another from the left, of rows of four: entries by rows.
_LEFT = (
    (1, 0, 0, 0), (0, -1, 0, 0), (0, 0, -1, 0), (0, 0, 0, -1), (0, 1, 0, 0), (1, 0, 0, 0), (0, 0, 0, -1), (0, 0, 1, 0),
    (0, 0, 1, 0), (0, 0, 0, 1), (1, 0, 0, 0), (0, -1, 0, 0), (0, 0, 0, 1), (0, 0, -1, 0), (0, 1, 0, 0), (1, 0, 0, 0),
)  # fmt: skip
_SIZE = ((2.0, -1.0), (-1.0, 2.0))  # slope of |e|² + |g|² - e.g by the edges
_RECORD = (9, 16, 1, 3, 3, 3)  # of a triangle: R, the matrix of its quaternion, size k, corner, two edges
_SUMS = (3, 6, 3, 1)  # over a triangle: gradient of the means, the same times two weights, torque, gradient of k


def carry(
    vertices: Tensor, maps: Tensor, faces: Tensor, triangles: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Means, quaternions, scales, opacities and colours ``[B, N, ...]`` of Gaussians in head space.

    Args:
        vertices: ``[B, V, 3]``; maps: ``[B, N, 14]``; either may have a batch of 1, which is shared.
        faces: ``[F, 3]`` corners of the triangles.
        triangles: ``[N]`` the triangle of each Gaussian.
        weights: ``[N, 2]`` barycentric weights of its second and third corner.
    """
    return _Carry.apply(vertices, maps, faces, triangles, weights)


def _frames(corners: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Edges ``[B, F, 2, 3]``, axes R, size k ``[B, F, 1]``, lengths of first edge and normal ``[B, F, 2, 1]``, whether R counts."""
    edges = corners[:, :, 1:] - corners[:, :, :1]
    first, second = edges.unbind(2)
    both = torch.stack([first, torch.linalg.cross(first, second)], 2)
    (ee, eg), (_, gg) = ((row.unbind(-1)) for row in (edges @ edges.transpose(2, 3)).unbind(2))
    lengths = torch.linalg.vector_norm(both, dim=-1, keepdim=True)
    proper = (lengths[:, :, 1, 0].square() > DEGENERATE * ee * torch.maximum(ee, gg))[..., None, None]
    both = torch.where(proper, both, constant(_IDENTITY, corners)[::2])
    x, z = F.normalize(both, dim=-1).unbind(2)
    size = ((ee + gg - eg) * (2 / 3)).clamp_min(0).sqrt()
    return edges, torch.stack([x, torch.linalg.cross(z, x), z], -1), size[..., None], lengths, proper


def _quaternions(rotation: Tensor) -> Tensor:
    """:func:`heads.geometry.rotation.quaternions` in six operators and without a gradient."""
    products = constant(_PRODUCTS, rotation)
    flat = rotation.reshape(-1, 9)
    rows = torch.addmm(constant(_ONES, rotation), flat, products.T).view(*rotation.shape[:-2], 4, 4)
    best = rows.diagonal(dim1=-2, dim2=-1).argmax(-1)[..., None, None].expand(*rows.shape[:-2], 1, 4)
    return F.normalize(rows.gather(-2, best)[..., 0, :], dim=-1)


class _CarryCtx(FunctionCtx):
    saved_tensors: tuple[Tensor, ...]
    needs_input_grad: tuple[bool, ...]
    indices: tuple[Tensor, Tensor, Tensor]  # faces, triangles, weights
    shapes: tuple[torch.Size, torch.Size]  # of vertices and maps


class _Carry(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: _CarryCtx, vertices: Tensor, maps: Tensor, faces: Tensor, triangles: Tensor, weights: Tensor
    ) -> tuple[Tensor, ...]:
        corners = vertices[:, faces]
        edges, axes, size, lengths, proper = _frames(corners)
        turn = _quaternions(axes) @ constant(_LEFT, vertices).T
        triangle = torch.cat([axes.flatten(2), turn, size, corners[:, :, 0], edges.flatten(2)], -1)
        records = triangle.index_select(1, triangles)
        R, turn, k, corner, first, second = records.split(_RECORD, -1)
        R, turn = R.unflatten(-1, (3, 3)), turn.unflatten(-1, (4, 4))
        offsets, quats, log_scales, colors, opacities = maps.split((3, 4, 3, 3, 1), -1)
        arms = k * (R @ offsets[..., None])[..., 0]
        points = torch.addcmul(torch.addcmul(corner, weights[:, :1], first), weights[:, 1:], second)
        quats, spreads, opacities = (turn @ quats[..., None])[..., 0], log_scales.exp(), opacities[..., 0].sigmoid()
        count = max(len(vertices), len(maps))
        ctx.save_for_backward(edges, axes, size, lengths, proper, records, arms, quats, spreads, opacities, offsets)
        ctx.indices, ctx.shapes = (faces, triangles, weights), (vertices.shape, maps.shape)
        wide = [t.expand(count, *t.shape[1:]) for t in (opacities, colors)]
        return arms + points, quats, k * spreads, *wide

    @staticmethod
    @once_differentiable
    def backward(ctx: _CarryCtx, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        v_means, v_quats, v_scales, v_opacities, v_colors = upstream
        edges, axes, size, lengths, proper, records, arms, quats, spreads, opacities, offsets = ctx.saved_tensors
        R, turn, k, *_ = records.split(_RECORD, -1)
        local = (R.unflatten(-1, (3, 3)).transpose(2, 3) @ v_means[..., None])[..., 0]
        v_spreads = v_scales * spreads
        v_maps = torch.cat(
            [
                k * local,
                (turn.unflatten(-1, (4, 4)).transpose(2, 3) @ v_quats[..., None])[..., 0],
                k * v_spreads,
                v_colors,
                torch.ops.aten.sigmoid_backward(v_opacities, opacities.expand_as(v_opacities))[..., None],
            ],
            -1,
        )
        v_maps = v_maps.sum_to_size(ctx.shapes[1])
        if not ctx.needs_input_grad[0]:
            return None, v_maps, None, None, None
        faces, triangles, weights = ctx.indices
        torque = torch.linalg.cross(arms.expand_as(v_means), v_means).add(_torque(quats, v_quats), alpha=0.5)
        v_size = torch.addcmul(v_spreads, offsets.expand_as(local), local).sum(-1, keepdim=True)
        weighted = (v_means[:, :, None] * weights[..., None]).flatten(2)
        summands = torch.cat([v_means, weighted, torque, v_size], -1)
        sums = _sums_at(summands, triangles, edges.shape[1])
        v_corners = _corner_gradients(sums, edges, axes, size, lengths, proper)
        v_vertices = _sums_at(v_corners.flatten(1, 2), faces.flatten(), ctx.shapes[0][1])
        return v_vertices.sum_to_size(ctx.shapes[0]), v_maps, None, None, None


def _torque(quats: Tensor, v_quats: Tensor) -> Tensor:
    """Twice the torque ``[B, N, 3]`` of gradients of quaternions wxyz."""
    (w, v), (a, b) = (t.split((1, 3), -1) for t in (quats, v_quats))
    crossed = torch.linalg.cross(v.expand_as(b), b)
    return torch.addcmul(torch.addcmul(crossed, w, b), a, v, value=-1)


def _sums_at(values: Tensor, rows: Tensor, count: int) -> Tensor:
    """Sums ``[B, count, C]`` of values ``[B, N, C]`` by row; as autograd adds up the gradient of an index."""
    zeros = values.new_zeros(values.shape[0], count, values.shape[2])
    return torch.ops.aten.index_put_(zeros, [None, rows], values, True)


def _corner_gradients(
    sums: Tensor, edges: Tensor, axes: Tensor, size: Tensor, lengths: Tensor, proper: Tensor
) -> Tensor:
    """Gradients ``[B, F, 3, 3]`` of corners from the sums over their triangles' Gaussians."""
    v_points, v_edges, torque, v_size = sums.split(_SUMS, -1)
    # In the frame's own axes: a turn about x tilts the normal, about y and z it turns the first edge.
    about = ((axes.transpose(2, 3) @ torque[..., None]) * proper)[..., 0]
    along = (edges[:, :, 1] * axes[..., 0]).sum(-1, keepdim=True)  # the second edge along the first
    length, normal = lengths.clamp_min(torch.finfo(lengths.dtype).tiny).unbind(2)
    tilt, turn = about[..., :1] / normal, about[..., 1:] / length
    zero = torch.zeros_like(tilt)
    directions = torch.cat([turn[..., 1:], -torch.addcmul(turn[..., :1], tilt, along), zero, tilt * length], -1)
    v_size = (v_size / (3 * size)).masked_fill(size <= 0, 0.0)[..., None]
    v_edges = v_edges.unflatten(-1, (2, 3)) + directions.unflatten(-1, (2, 2)) @ axes[..., 1:].transpose(2, 3)
    v_edges = torch.addcmul(v_edges, v_size, constant(_SIZE, edges) @ edges)
    return torch.cat([(v_points - v_edges.sum(2))[:, :, None], v_edges], 2)
