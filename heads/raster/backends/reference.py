"""The rasteriser in plain PyTorch: the reference that our kernels are tested and timed against (``backend="reference"``).

Runs on any device in float32 and float64, with autograd's gradients. It follows the kernels' rules; tiles only group the
work, so the picture does not depend on their size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from heads.geometry.rotation import quaternion_matrices
from heads.raster.backends.base import Backend
from heads.raster.camera import Camera
from heads.raster.probes import Probe

_TILE = 16  # px, side of a tile
_CHUNK_ELEMENTS = 1 << 22  # (pixel, Gaussian) products evaluated at once · choice: some 100 MB
_FINISHED = 1e-4  # transmittance at which a pixel is finished · paper (3DGS, its CUDA code)


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
    rotation, translation = viewmats[:, :, None, :3, :3], viewmats[:, :, None, :3, 3]
    points = (rotation @ means[:, None, :, :, None])[..., 0] + translation
    depths = points[..., 2]
    seen = (depths >= camera.near_plane) & (depths <= camera.far_plane)
    # Gaussians that are not drawn get harmless numbers; otherwise autograd would turn 0 * inf into NaN.
    points = torch.where(seen[..., None], points, torch.ones_like(points))
    scales = torch.where(scales.isfinite().all(-1, keepdim=True), scales, torch.zeros_like(scales))
    x, y, z = points.unbind(-1)
    fx, fy, cx, cy = (Ks[..., i, j, None] for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
    margin_x, margin_y = 0.15 * camera.width / fx, 0.15 * camera.height / fy
    u = (x / z).clamp(-cx / fx - margin_x, (camera.width - cx) / fx + margin_x)
    v = (y / z).clamp(-cy / fy - margin_y, (camera.height - cy) / fy + margin_y)
    a = (rotation[..., 0, :] - u[..., None] * rotation[..., 2, :]) * (fx / z)[..., None]
    b = (rotation[..., 1, :] - v[..., None] * rotation[..., 2, :]) * (fy / z)[..., None]
    shape = (quaternion_matrices(quats) * scales[..., None, :])[:, None]
    row0, row1 = (a[..., None, :] @ shape)[..., 0, :], (b[..., None, :] @ shape)[..., 0, :]
    xx, xy, yy = (row0 * row0).sum(-1), (row0 * row1).sum(-1), (row1 * row1).sum(-1)
    sharp = torch.linalg.cross(row0, row1).square().sum(-1)
    det = sharp + camera.eps2d * (xx + yy) + camera.eps2d**2
    xx, yy = xx + camera.eps2d, yy + camera.eps2d
    seen = seen & (det > 0) & (det < 1e38)
    det = torch.where(seen, det, torch.ones_like(det))
    compensations = (
        torch.where(seen, (sharp / det).clamp_min(1e-12).sqrt(), 0 * det) if compensate else det.new_empty(0)
    )
    opacity = opacities[:, None] * (compensations if compensate else 1)
    seen = seen & (opacity * 255 >= 1)
    with torch.no_grad():
        reach = (2 * torch.log(torch.where(seen, opacity, 1.0) * 255)).sqrt().clamp_max(3.33)
        radii = torch.ceil(reach[..., None] * torch.stack([xx, yy], -1).sqrt())
    means2d = torch.stack([x / z * fx + cx, y / z * fy + cy], -1)
    size = means2d.new_tensor(camera.size)
    seen = seen & (radii > camera.radius_clip).any(-1)
    seen = seen & (means2d + radii > 0).all(-1) & (means2d - radii < size).all(-1)
    conics = torch.stack([yy / det, -xy / det, xx / det], -1)
    zero = torch.zeros((), dtype=means.dtype, device=means.device)
    radii = torch.where(seen[..., None], radii.clamp_max(1e6), zero).to(torch.int32)
    return (
        torch.where(seen[..., None], means2d, zero),
        torch.where(seen[..., None], conics, zero),
        torch.where(seen, depths, zero),
        radii,
        compensations,
    )


@torch.no_grad()
def _pairs(
    means2d: Tensor, conics: Tensor, depths: Tensor, radii: Tensor, opacities: Tensor, camera: Camera
) -> tuple[Tensor, Tensor, Tensor]:
    """(Gaussian ``[P]`` sorted by tile and depth, first pair and number of pairs per tile) over all images."""
    images, number = depths.shape
    tiles_x, tiles_y = -(-camera.width // _TILE), -(-camera.height // _TILE)
    seen = (conics[..., 0] > 0) & (opacities * 255 >= 1)
    reach = radii.to(means2d.dtype)
    low = torch.floor((means2d - reach - 0.5) / _TILE).clamp_min(0)
    grid = means2d.new_tensor([tiles_x, tiles_y])
    high = torch.minimum(torch.floor((means2d + reach + 0.5) / _TILE) + 1, grid)
    extent = torch.where(seen[..., None], (high - low).clamp_min(0), torch.zeros_like(low)).long().reshape(-1, 2)
    counts = extent.prod(-1)
    owner = torch.repeat_interleave(torch.arange(images * number, device=depths.device), counts)
    within = torch.arange(len(owner), device=depths.device) - (counts.cumsum(0) - counts)[owner]
    corner = low.long().reshape(-1, 2)[owner]
    tile_x, tile_y = corner[:, 0] + within % extent[owner, 0], corner[:, 1] + within // extent[owner, 0]
    tile = (owner // number * tiles_y + tile_y) * tiles_x + tile_x
    by_depth = torch.argsort(depths.reshape(-1)[owner], stable=True)
    order = by_depth[torch.argsort(tile[by_depth], stable=True)]
    per_tile = torch.bincount(tile, minlength=images * tiles_x * tiles_y)
    return owner[order], per_tile.cumsum(0) - per_tile, per_tile


def _composite_tiles(
    tiles: Tensor, starts: Tensor, counts: Tensor, owner: Tensor, flat: tuple[Tensor, ...], camera: Camera
) -> tuple[Tensor, Tensor]:
    """Colours ``[T, pixels, D]`` and alpha ``[T, pixels]`` of some tiles, whose lists are padded to the longest."""
    means2d, conics, opacities, colors = flat
    tiles_x, tiles_y = -(-camera.width // _TILE), -(-camera.height // _TILE)
    slot = torch.arange(int(counts[tiles].max()), device=tiles.device)
    valid = slot < counts[tiles][:, None]
    which = owner[torch.where(valid, starts[tiles][:, None] + slot, 0)]
    pixel = torch.arange(_TILE * _TILE, device=tiles.device)
    px = (tiles % tiles_x)[:, None] * _TILE + pixel % _TILE + 0.5
    py = (tiles // tiles_x % tiles_y)[:, None] * _TILE + pixel // _TILE + 0.5
    dx = px[:, None] - means2d[which][..., 0, None]
    dy = py[:, None] - means2d[which][..., 1, None]
    a, b, c = (conics[which][..., k, None] for k in range(3))
    s = 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy
    opacity = opacities[which][..., None]
    inside = valid[..., None] & (s <= torch.log(opacity.detach() * 255).clamp_max(5.541263545158426))
    alpha = torch.where(inside, (opacity * torch.exp(-s)).clamp_max(camera.alpha_clamp), torch.zeros_like(s))
    after = torch.cumprod(1 - alpha, 1)
    before = torch.cat([torch.ones_like(after[:, :1]), after[:, :-1]], 1)
    weights = torch.where(after > _FINISHED, alpha * before, torch.zeros_like(alpha))
    return weights.transpose(1, 2) @ colors[which], weights.sum(1)


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
    """See :class:`heads.raster.backends.base.Rasterize`; ``absgrad`` is not supported."""
    batches, cameras, number = depths.shape
    images, dim = batches * cameras, colors.shape[-1]
    opacities = opacities if opacities.dim() == 3 else opacities[:, None].expand(-1, cameras, -1)
    colors = colors if colors.dim() == 4 else colors[:, None].expand(-1, cameras, -1, -1)
    if with_depth:
        colors = torch.cat([colors, depths[..., None]], -1)
        dim += 1
    means2d, conics = means2d.reshape(images, number, 2), conics.reshape(images, number, 3)
    opacities, colors = opacities.reshape(images, number), colors.reshape(images, number, dim)
    owner, starts, counts = _pairs(
        means2d, conics, depths.reshape(images, number), radii.reshape(images, number, 2), opacities, camera
    )
    flat = (means2d.reshape(-1, 2), conics.reshape(-1, 3), opacities.reshape(-1), colors.reshape(-1, dim))
    tiles_x, tiles_y = -(-camera.width // _TILE), -(-camera.height // _TILE)
    busy = torch.argsort(counts, descending=True)[: int((counts > 0).sum())]
    picture = means2d.new_zeros(len(counts), _TILE * _TILE, dim + 1)
    first = 0
    while first < len(busy):
        size = max(1, _CHUNK_ELEMENTS // (_TILE * _TILE * int(counts[busy[first]])))
        tiles = busy[first : first + size]
        rendered, alpha = _composite_tiles(tiles, starts, counts, owner, flat, camera)
        picture = picture.index_put((tiles,), torch.cat([rendered, alpha[..., None]], -1))
        first += size
    picture = picture.reshape(images, tiles_y, tiles_x, _TILE, _TILE, dim + 1).transpose(2, 3)
    picture = picture.reshape(batches, cameras, tiles_y * _TILE, tiles_x * _TILE, dim + 1)
    picture = picture[:, :, : camera.height, : camera.width]
    render, alphas = picture[..., :dim], picture[..., dim:]
    if backgrounds is not None:
        render = render + (1 - alphas) * backgrounds[:, :, None, None]
    return render, alphas


def probe() -> Probe:
    """Usable wherever torch is."""
    return Probe("reference", True, "plain PyTorch on any device, slow")


BACKEND = Backend(name="reference", probe=probe, project=project, rasterize=rasterize, place=1000, absgrad=False)
