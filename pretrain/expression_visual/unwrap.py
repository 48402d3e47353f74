"""Pixels onto texels: where each texel of a tracked head lies in a frame, what colour is there, and whether it is seen."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from heads.gaussians.uv import UVGaussians
from heads.geometry.camera import project
from heads.rig import Rig, facemesh

TOLERANCE = 0.16  # rig units: nearer than this in front counts as the same surface
INNER_TOLERANCE = 0.1  # the same behind lips and lids, where only what lies inside can hide it
MARGIN = 1.0  # px above and below that must lie in the opening too: nearer, pixels are mixed with lips and lids
# Eyeballs, teeth and the inside of the mouth are seen through an opening: the loop of landmarks round it.
OPENINGS = {
    "eyeball_left": facemesh.EYE_LEFT,
    "eyeball_right": facemesh.EYE_RIGHT,
    "mouth_inside": facemesh.LIPS_INNER,
    "teeth_upper": facemesh.LIPS_INNER,
    "teeth_lower": facemesh.LIPS_INNER,
}


class TexelSurface:
    """The texels of a UV map as points on the rig's surface.

    Args:
        rig: see ``heads.rig``; binding: a ``heads.UVGaussians`` of it, which says which texel lies on which triangle.
    """

    def __init__(self, rig: Rig, binding: UVGaussians) -> None:
        self.rig = rig
        self.corners = rig.faces[binding.triangles]  # (N, 3)
        self.barycentric = binding.barycentric.float()
        self.regions, self.binding = binding.regions, binding
        loops: dict[tuple[int, ...], list[int]] = {}
        for name, loop in OPENINGS.items():
            loops.setdefault(tuple(loop), []).append(rig.regions.get(name, -1))
        self.openings = [
            (torch.tensor(loop), torch.where(torch.isin(self.regions, torch.tensor(labels)))[0])
            for loop, labels in loops.items()
        ]
        self.inner = torch.cat([texels for _, texels in self.openings])
        self.outer = torch.where(~torch.isin(torch.arange(len(self.regions)), self.inner))[0]

    def to(self, device: torch.device) -> TexelSurface:
        """Move the tables; returns itself."""
        for name in ("corners", "barycentric", "regions", "inner", "outer"):
            setattr(self, name, getattr(self, name).to(device))
        self.openings = [(loop.to(device), texels.to(device)) for loop, texels in self.openings]
        return self

    def points(self, vertices: Tensor) -> tuple[Tensor, Tensor]:
        """``vertices [B, V, 3]`` to texel centres and unit normals ``[B, N, 3]``, head space; normals point outwards."""
        corners = vertices[:, self.corners]
        centres = (corners * self.barycentric[None, :, :, None]).sum(2)
        normals = torch.linalg.cross(corners[:, :, 1] - corners[:, :, 0], corners[:, :, 2] - corners[:, :, 0])
        return centres, F.normalize(normals, dim=-1, eps=1e-8)

    def without_specks(self, seen: Tensor) -> Tensor:
        """Weights ``[B, N]`` of ``seen [B, N]`` without specks among hidden texels: a morphological opening of the map."""
        # Beyond a chart's edge everything counts as seen, so that charts do not shrink.
        image = self.binding.scatter(seen[..., None], fill=1.0)
        eroded = -F.max_pool2d(-image, 3, stride=1, padding=1)
        opened = F.max_pool2d(eroded, 3, stride=1, padding=1)
        return torch.minimum(self.binding.gather(opened)[..., 0], seen)


def mirror_index(points: Tensor) -> Tensor:
    """Of ``points [N, 3]`` of a symmetric head: the texel ``[N]`` nearest to each one's mirror image."""
    from scipy.spatial import cKDTree

    mirrored = points.numpy() * [-1.0, 1.0, 1.0]
    return torch.from_numpy(cKDTree(points.numpy()).query(mirrored)[1])


def facing(points: Tensor, normals: Tensor, rotation: Tensor, translation: Tensor) -> Tensor:
    """Cosine ``[B, N]`` between normals and the direction to the camera: 1 faces it, below 0 faces away."""
    camera = -(translation[:, None] @ rotation)  # the camera's place in head space
    return (normals * F.normalize(camera - points, dim=-1)).sum(-1)


def unhidden(pixels: Tensor, depth: Tensor, size: int, tolerance: float = TOLERANCE, cells: int = 48) -> Tensor:
    """1 where nothing lies more than ``tolerance`` before a texel, else 0 ``[B, N]``: a depth buffer of ``cells``² cells."""
    cell = (pixels / size * cells).floor().clamp(0, cells - 1).long()
    index = cell[..., 1] * cells + cell[..., 0]
    nearest = torch.full((len(pixels), cells * cells), float("inf"), device=pixels.device)
    nearest.scatter_reduce_(1, index, depth, "amin")
    return (depth <= nearest.gather(1, index) + tolerance).float()


def within(pixels: Tensor, loop: Tensor) -> Tensor:
    """1 for ``pixels [B, N, 2]`` inside the closed polygon ``loop [B, L, 2]``, else 0 ``[B, N]``: even-odd rule."""
    x, y = pixels[..., None, 0], pixels[..., None, 1]
    ax, ay = loop[:, None, :, 0], loop[:, None, :, 1]
    bx, by = ax.roll(-1, -1), ay.roll(-1, -1)
    rise = torch.where(by == ay, 1.0, by - ay)
    crosses = ((ay <= y) != (by <= y)) & (ax + (y - ay) / rise * (bx - ax) > x)
    return (crosses.sum(-1) % 2).float()


def sample_pixels(image: Tensor, pixels: Tensor) -> Tensor:
    """Bilinear values ``[B, N, C]`` of ``image [B, H, W, C]`` at ``pixels [B, N, 2]``; outside: the border's."""
    size = torch.tensor([image.shape[2], image.shape[1]], dtype=image.dtype, device=image.device)
    grid = (pixels / size * 2 - 1)[:, :, None]
    values = F.grid_sample(image.permute(0, 3, 1, 2), grid, padding_mode="border", align_corners=False)
    return values[..., 0].transpose(1, 2)


def inside(pixels: Tensor, size: int) -> Tensor:
    """1 for pixels ``[B, N, 2]`` at least one px inside the frame, else 0."""
    return ((pixels > 1) & (pixels < size - 1)).all(-1).float()


def visibility(
    surface: TexelSurface, vertices: Tensor, pose: dict[str, Tensor], matte: Tensor
) -> tuple[Tensor, Tensor]:
    """Pixels ``[B, N, 2]`` of the texels and how well each is seen ``[B, N]`` in 0..1.

    A texel counts where it faces the camera, nothing lies before it, it is in the frame, and the matte says person;
    eyeballs, teeth and the inside of the mouth where they lie within the eye's or the mouth's opening.

    Args:
        pose: ``rotation`` ``[B, 3, 3]``, ``translation`` ``[B, 3]``, ``intrinsics`` ``[B, 3, 3]`` px; matte: ``[B, S, S]``.
    """
    points, normals = surface.points(vertices)
    camera = (pose["rotation"], pose["translation"], pose["intrinsics"])
    pixels, depth = project(points, *camera)
    size = matte.shape[1]
    cosine = facing(points, normals, pose["rotation"], pose["translation"])
    towards = ((cosine - 0.1) / 0.4).clamp(0, 1)
    # A shrunken matte: at its edge pixels are a mixture with the background.
    person = -F.max_pool2d(-matte[:, None], 3, stride=1, padding=1)
    there = ((sample_pixels(person.permute(0, 2, 3, 1), pixels)[..., 0] - 0.5) * 2).clamp(0, 1)
    free = torch.empty_like(depth)
    for part, tolerance in ((surface.outer, TOLERANCE), (surface.inner, INNER_TOLERANCE)):
        free[:, part] = unhidden(pixels[:, part], depth[:, part], size, tolerance)
    for loop, texels in surface.openings:
        outline = project(vertices[:, loop], *camera)[0]
        for shift in (-MARGIN, MARGIN):
            free[:, texels] *= within(pixels[:, texels] + pixels.new_tensor([0.0, shift]), outline)
    seen = towards * free * inside(pixels, size) * there
    clean = surface.without_specks(seen)
    clean[:, surface.inner] = seen[:, surface.inner]  # an opening is narrow, and its outline is exact
    return pixels, clean
