"""Pictures that move behind a head: displacement fields, where pixels are moved to, and means of moved pictures."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from configs.devices import constant
from heads.person.inpaint import fill_hole

Window = tuple[int, int, int, int]
"""Part of a frame: top, left, height, width in px."""
EDGE = 1 / 128  # of the picture's side, by which the background keeps away from the person's matte · guess


class Mean:
    """A weighted mean of pictures that are added one by one: all at once they would not fit a cache.

    Attributes:
        sum: of weights times colours ``[1, 3, H, W]``.
        seen: sum of the weights ``[1, 1, H, W]``.
    """

    def __init__(self, like: Tensor) -> None:
        self.sum, self.seen = torch.zeros_like(like.expand(-1, 3, -1, -1)).contiguous(), torch.zeros_like(like)

    def add(self, picture: Tensor, weight: Tensor, top: int = 0) -> None:
        """Colours ``[1, 3, h, W]`` of the rows from ``top`` on, each pixel by its weight ``[1, 1, h, W]``."""
        self.sum[..., top:, :].addcmul_(picture, weight)
        self.seen[..., top:, :].add_(weight)

    def total(self) -> tuple[Tensor, Tensor]:
        """Sums over the picture: ``[3]`` of weights times colours, ``[]`` of weights."""
        return self.sum.sum((0, 2, 3)), self.seen.sum()


def grown(alpha: Tensor) -> Tensor:
    """A matte ``[1, 1, H, W]`` grown by ``EDGE`` of the picture's side: hair reaches beyond it."""
    reach = max(1, round(EDGE * max(alpha.shape[-2:])))
    return F.max_pool2d(F.max_pool2d(alpha, (2 * reach + 1, 1), 1, (reach, 0)), (1, 2 * reach + 1), 1, (0, reach))


def completed(mean: Tensor, known: Tensor, fill: Tensor) -> Tensor:
    """Colours ``[3, H, W]`` where they are known, filled smoothly from their surroundings elsewhere."""
    if known.max() < 0.02:
        return fill[:, None, None].expand_as(mean)
    hole = (known < 0.02).float()[None]
    return fill_hole(torch.where(hole > 0, torch.zeros_like(mean), mean[None]), hole)[0]


def continued_upwards(colors: Tensor, alpha: Tensor, known: Tensor, reach: int) -> tuple[Tensor, Tensor]:
    """Colours ``[3, H, W]`` and alpha ``[1, H, W]`` whose unknown pixels are what the nearest known ones below them are.

    Args:
        known: ``[1, H, W]`` bool.
        reach: rows within which their alpha falls to zero; pixels further up stay as they are.
    """
    height = alpha.shape[-2]
    rows = torch.arange(height, device=alpha.device)[:, None].expand_as(known)
    below = torch.where(known, rows, height).flip(-2).cummin(-2).values.flip(-2)
    filled = ~known & (below < height) & (below - rows <= reach)
    # A little below the edge, where what hides the place has left no trace.
    source = torch.where(filled, below + round(EDGE * height), rows).clamp_max(height - 1)
    share = torch.where(filled, 1 - ((below - rows) / max(reach, 1)).square(), 1)
    return colors.gather(-2, source.expand_as(colors)), alpha.gather(-2, source) * share


def picture(array: np.ndarray | Tensor, height: int, width: int) -> Tensor:
    """A uint8 picture ``[H, W, C]`` as ``[C, height, width]`` in [0, 1]."""
    return resized(torch.as_tensor(np.asarray(array)).permute(2, 0, 1)[None].float() / 255, height, width)[0]


def resized(image: Tensor, height: int, width: int) -> Tensor:
    """Pictures ``[B, C, H, W]`` at another size, bilinear with antialiasing."""
    if image.shape[-2:] == (height, width):
        return image
    return F.interpolate(image, (height, width), mode="bilinear", align_corners=False, antialias=True)


def margin_of(layer: Tensor, size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns that a layer ``[..., h, w]`` has on either side of frames of ``size`` (height, width)."""
    return (layer.shape[-2] - size[0]) // 2, (layer.shape[-1] - size[1]) // 2


def for_frames(layer: Tensor, size: tuple[int, int], height: int, width: int) -> Tensor:
    """A layer ``[1, C, h, w]`` around frames of ``size``, for frames of ``height`` and ``width`` px."""
    return resized(layer, round(height * layer.shape[-2] / size[0]), round(width * layer.shape[-1] / size[1]))


def middle(layer: Tensor, height: int, width: int) -> Tensor:
    """The part of a layer ``[..., h, w]`` that frames of ``height`` and ``width`` px show when nothing moves, a view."""
    down, across = margin_of(layer, (height, width))
    return layer[..., down : down + height, across : across + width]


def framed(layer: Tensor, size: tuple[int, int]) -> tuple[float, float]:
    """Shares (vertical, horizontal) of a layer's sides that frames of ``size`` take, in their middle."""
    return size[0] / layer.shape[-2], size[1] / layer.shape[-1]


def sampled(layer: Tensor, grid: Tensor, shares: tuple[float, float]) -> Tensor:
    """A layer ``[1, C, h, w]`` at places ``[B, H, W, 2]`` of the frame, which takes :func:`framed` shares of it.

    The layer's edges are repeated.
    """
    grid = grid * constant(shares[::-1], grid)
    return F.grid_sample(layer.expand(len(grid), -1, -1, -1), grid, padding_mode="border", align_corners=False)


def first_row(weight: Tensor, points: Tensor, margin: tuple[int, int]) -> int:
    """A row, ``margin[0]`` before the frame's first counted as 0, above which pixels that control displacements
    ``[1, 2, gh, gw]`` move have no weight ``[1, 1, H, W]``."""
    rows, height = weight[0, 0].amax(1).nonzero(), weight.shape[-2]
    reach = float(points[:, 1].abs().max()) * (height + 2 * margin[0])
    return margin[0] + (max(-margin[0], int(rows[0]) - int(reach) - 2) if len(rows) else height - 1)


def places(
    points: Tensor,
    height: int,
    width: int,
    window: Window | None = None,
    margin: tuple[int, int] = (0, 0),
) -> Tensor:
    """Places ``[B, rows, columns, 2]`` (x, y) that pixels are moved to; the frame's edges are at -1 and 1.

    Args:
        points: control displacements ``[B, 2, gh, gw]`` in fractions of the frame, corners on its corner pixels; bilinear
            between them, and continued beyond them.
        height, width: px of the frame.
        window: (top, left, rows, columns) px, by default all; counted from the margin's corner.
        margin: rows and columns around the frame.
    """
    top, left, rows, columns = window or (0, 0, height + 2 * margin[0], width + 2 * margin[1])
    down = _shares(points.shape[-2], height, margin[0], points.device, points.dtype)[top : top + rows]
    across = _shares(points.shape[-1], width, margin[1], points.device, points.dtype)[left : left + columns]
    still = _identity_grid(height, width, margin, points.device, points.dtype)
    still = still[..., top : top + rows, left : left + columns]
    return (still + 2 * (down @ points @ across.T)).permute(0, 2, 3, 1)


@functools.lru_cache(maxsize=16)
def _shares(points: int, pixels: int, margin: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Linear interpolation weights ``[pixels + 2 * margin, points]`` of control points at the pixels of a line."""
    # On the CPU: not every device has float64.
    place = torch.arange(-margin, pixels + margin, dtype=torch.float64) * (points - 1) / max(pixels - 1, 1)
    cell = place.floor().clamp(0, points - 2).long()[:, None]
    part = place[:, None] - cell
    shares = torch.zeros(len(place), points, dtype=torch.float64)
    return shares.scatter(1, cell, 1 - part).scatter(1, cell + 1, part).to(device, dtype)


@functools.lru_cache(maxsize=16)
def control_basis(grid: tuple[int, int], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Affine basis ``[rows, columns, 3]`` (1, x, y) at the control points."""
    y, x = (torch.linspace(-1, 1, points, device=device, dtype=dtype) for points in grid)
    y, x = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([torch.ones_like(x), x, y], -1)


@functools.lru_cache(maxsize=16)
def _identity_grid(
    height: int, width: int, margin: tuple[int, int], device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Places ``[1, 2, height + 2 * margin[0], width + 2 * margin[1]]`` of pixels that do not move."""
    y = (torch.arange(-margin[0], height + margin[0], device=device, dtype=dtype) + 0.5) / height * 2 - 1
    x = (torch.arange(-margin[1], width + margin[1], device=device, dtype=dtype) + 0.5) / width * 2 - 1
    return torch.stack(torch.meshgrid(x, y, indexing="xy"))[None]
