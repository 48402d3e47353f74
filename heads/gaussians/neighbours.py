"""Neighbouring texels of a UV map, whose Gaussians should move together where no pixel tells how they lie.

Skin that a clip shows edge-on leaves its Gaussians free to move along the line of sight. Each drifts by itself, and gaps
open that show as dark specks once the head turns further.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from heads.gaussians.uv import UVGaussians, triangle_frames
from heads.rig import Rig


@dataclass(frozen=True)
class Neighbours:
    """Texels of a map that are next to each other.

    Attributes:
        links: ``[N, 4]`` int64, the neighbours of each texel in the map; its own number where there is none.
        axes: ``[N, 3, 3]`` from offsets in the texels' triangles to head space, in mean triangle sizes.
        pairs: number of pairs, each counted once.
    """

    links: Tensor
    axes: Tensor
    pairs: int

    @cached_property
    def around(self) -> Tensor:
        """``[5 N]`` each texel's number and those of its links."""
        own = torch.arange(len(self.links), device=self.links.device)
        return torch.cat([own[:, None], self.links], 1).flatten()

    @cached_property
    def laplacian(self) -> Tensor:
        """``[N, 3, 15]``: times the offsets ``around`` a texel, half the gradient of :func:`roughness` times ``pairs``."""
        others = self.axes[self.links]
        own = (self.links != torch.arange(len(self.links), device=self.links.device)[:, None]).to(self.axes)
        back = self.axes.transpose(1, 2)
        parts = [own.sum(1)[:, None, None] * (back @ self.axes)]
        parts += [-own[:, i, None, None] * (back @ others[:, i]) for i in range(self.links.shape[1])]
        return torch.cat(parts, 2)


def neighbours(uv: UVGaussians, rig: Rig, regions: Sequence[str]) -> Neighbours:
    """The neighbours within regions of a rig, on its mean head; regions that it lacks are left out."""
    labels = torch.tensor([rig.regions[name] for name in regions if name in rig.regions])
    frames, units = (part[0] for part in triangle_frames(rig.mean[None], uv._faces))
    inside = torch.isin(uv.regions.cpu(), labels).nonzero()[:, 0]
    row, column = uv.texels.cpu()[inside].T + 1
    grid = torch.full((uv.resolution + 2, uv.resolution + 2), -1)
    grid[row, column] = inside
    own = torch.arange(uv.n)[:, None].expand(-1, 4).clone()
    around = torch.stack(
        [grid[row - 1, column], grid[row + 1, column], grid[row, column - 1], grid[row, column + 1]], 1
    )
    own[inside] = torch.where(around < 0, inside[:, None], around)
    axes = (frames * (units / units[uv.triangles].mean())[:, None, None])[uv.triangles]
    return Neighbours(own.to(axes.device), axes, max(1, int((around >= 0).sum()) // 2))


def roughness(offsets: Tensor, by: Neighbours) -> Tensor:
    """Mean squared difference of neighbours' offsets ``[N, 3]``, in mean triangle sizes; a scalar."""
    moved = (by.axes @ offsets[..., None])[..., 0]
    return (moved[:, None] - moved[by.links]).square().sum() / (2 * by.pairs)
