"""From a coarse head to a fine one: the same person on a UV map of a higher resolution.

Most of a step's time is spent on Gaussians, so the fit of large frames begins with a quarter of them, on frames of half
the side, and the head is refined once it has learned what these show.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from adapt.fit.initial_maps import nearest_texels, set_maps
from adapt.models.rigged import RiggedHead
from heads.gaussians.uv import UVGaussians, triangle_frames
from heads.geometry.rotation import quaternion_matrices, quaternion_product, quaternions

BASIS = "talking.color.basis"  # [rank, N * 3]
OWN = "rest_means"  # of the finer map's texels
# By how many of its standard deviations the one to four parts of a Gaussian lie off its middle, along either of its two broad
# axes. Their own standard deviations are such that the sum has the variance of the whole.
APART = (0.0, 0.5, 0.5, 0.8)


@torch.no_grad()
def finer(model: RiggedHead, resolution: int) -> RiggedHead:
    """The same head on a map of ``resolution`` texels a side, for training; its refiner goes with it.

    Each Gaussian is split among the texels that it is the nearest one of, so that the picture stays nearly the same. What
    does not belong to a Gaussian stays as it is.
    """
    talking, device = model.talking, model.intrinsics.device
    fine = RiggedHead(
        model.size,
        model.intrinsics.cpu(),
        rig=model.rig.to("cpu"),
        identity=talking.identity.detach().cpu(),
        parts=replace(talking.config, resolution=resolution),
        residual=bool(len(model.motion)),
    )
    if talking.appearance_basis is not None:
        fine.talking.add_appearance_basis(talking.appearance_basis.rank, talking.appearance_basis.rows)
    parent = nearest_texels(talking.uv, fine)

    def inherited(name: str, value: Tensor) -> Tensor:
        if name == BASIS:
            return value.unflatten(1, (talking.n, -1))[:, parent].flatten(1)
        return value[parent] if value.dim() and len(value) == talking.n else value

    fine.load_state_dict({k: inherited(k, v.cpu()) for k, v in model.state_dict().items() if k != OWN}, strict=False)
    vertices = fine.rig.vertices(fine.talking.identity[None], torch.zeros(1, fine.rig.n_expression))
    maps = [talking.maps().cpu(), (talking.maps() if model.start is None else model.start).cpu()]
    now, start = (split_map(values, talking.uv, fine.talking.uv, vertices, parent) for values in maps)
    set_maps(fine, now)
    fine.start = start
    fine.to(device).train(model.training)
    fine.refine_with(model.refiner)
    return fine


def split_map(maps: Tensor, source: UVGaussians, target: UVGaussians, vertices: Tensor, parent: Tensor) -> Tensor:
    """A map ``[N, 14]`` whose Gaussians are split among the texels of another map: ``[M, 14]``.

    Args:
        vertices: ``[1, V, 3]`` on which parts lie where their whole lies.
        parent: ``[M]`` the texel of the source whose Gaussian a texel gets a part of.
    """
    whole = source.bind_reference(vertices, maps[None])
    means, quats, scales = (values[0][parent] for values in (whole.means, whole.quats, whole.scales))
    parts = torch.bincount(parent, minlength=source.n).clamp(1, len(APART))[parent]
    apart = torch.tensor(APART)[parts - 1, None]
    # The two largest of three axes, each once; which part goes to which side does not matter.
    broad = scales.argsort(dim=1, descending=True)[:, :2]
    sides = torch.where(_centres(target) >= _centres(source)[parent], 1.0, -1.0)
    shift = torch.zeros_like(scales).scatter(1, broad, apart * sides * scales.gather(1, broad))
    means = means + (quaternion_matrices(quats) @ shift[..., None])[..., 0]
    scales = scales * torch.ones_like(scales).scatter(1, broad, (1 - apart.square()).sqrt().expand(-1, 2))
    axes, units = (part[0][target.triangles] for part in triangle_frames(vertices, target._faces))
    units = units[:, None].clamp_min(1e-9)
    back = quaternions(axes) * quats.new_tensor([1.0, -1.0, -1.0, -1.0])
    offsets = (axes.transpose(1, 2) @ (means - target.points(vertices)[0])[..., None])[..., 0] / units
    return torch.cat([offsets, quaternion_product(back, quats), (scales / units).log(), maps[parent, 10:]], -1)


def _centres(uv: UVGaussians) -> Tensor:
    """Middles ``[N, 2]`` of the texels, the map's side being 1."""
    return (uv.texels.cpu() + 0.5) / uv.resolution
