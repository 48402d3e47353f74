"""What stands behind the head: a body layer that follows the head's pose, over a still background.

The body (torso, shoulders, hair that falls on them) is one RGBA picture, bent by a smooth displacement field that is
linear in the pose: near the neck it learns to follow the head, at the shoulders a little, elsewhere not at all. That
costs one bilinear lookup per pixel, and stays as sharp as the clip.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Backdrop(nn.Module):
    """Body layer and background of one camera view.

    Args:
        height, width: px of the pictures kept.
        conditions: size of the pose condition.
        grid: (rows, columns) of the displacement field's control points.
        reach: the condition's limit in standard deviations, so that no pose bends the body beyond what was seen.
    """

    def __init__(
        self, height: int, width: int, conditions: int, grid: tuple[int, int] = (9, 9), reach: float = 2.5
    ) -> None:
        super().__init__()
        self.grid, self.reach = grid, reach
        self.background = nn.Parameter(torch.full((1, 3, height, width), 0.5))
        self.body = nn.Parameter(torch.zeros(1, 3, height, width))
        self.body_alpha = nn.Parameter(torch.full((1, 1, height, width), -4.0))
        self.register_buffer("center", torch.zeros(conditions))
        self.register_buffer("scale", torch.ones(conditions))
        self.bend = nn.Linear(conditions, 2 * grid[0] * grid[1], bias=False)
        nn.init.zeros_(self.bend.weight)

    @property
    def size(self) -> tuple[int, int]:
        return self.background.shape[-2], self.background.shape[-1]

    def calibrate(self, conditions: Tensor) -> None:
        """Set centre and scale from the training frames' pose conditions ``[T, C]``."""
        self.center.copy_(conditions.mean(dim=0))
        self.scale.copy_(conditions.std(dim=0, unbiased=False).clamp_min(1e-3))

    def displacement(self, condition: Tensor) -> Tensor:
        """Control displacements ``[1, 2, gh, gw]`` in fractions of the picture (x, y) for one condition ``[C]``."""
        x = torch.nan_to_num((condition - self.center) / self.scale).clamp(-self.reach, self.reach)
        return self.bend(x).view(1, 2, *self.grid)

    def forward(
        self,
        condition: Tensor,
        height: int | None = None,
        width: int | None = None,
        window: tuple[int, int, int, int] | None = None,
    ) -> Tensor:
        """The picture behind the head ``[H, W, 3]`` for one pose condition ``[C]``, at any size up to its own.

        With a ``window`` (top, left, rows, columns) only that part: ``[rows, columns, 3]``.
        """
        height, width = height or self.size[0], width or self.size[1]
        top, left, rows, columns = window or (0, 0, height, width)
        part = (..., slice(top, top + rows), slice(left, left + columns))
        body = _resized(torch.cat([self.body, torch.sigmoid(self.body_alpha)], dim=1), height, width)
        background = _resized(self.background, height, width)[part]
        flow = F.interpolate(self.displacement(condition), (height, width), mode="bilinear", align_corners=True)
        grid = (_identity_grid(height, width, flow) + 2 * flow)[part].permute(0, 2, 3, 1)
        body = F.grid_sample(body, grid, padding_mode="border", align_corners=False)
        alpha = body[:, 3:]
        return (body[:, :3] * alpha + background * (1 - alpha))[0].permute(1, 2, 0)

    @torch.no_grad()
    def initialise(self, frames: Sequence, mattes: Sequence, head_masks: Tensor, indices: Sequence[int]) -> None:
        """Start from the clip: background and body are the mean colours seen where nothing stands before them.

        Args:
            frames, mattes: per frame uint8 ``(H, W, 3)`` and ``(H, W)`` of the pictures' size or larger.
            head_masks: ``[len(indices), H, W]`` where the head's own Gaussians will draw.
            indices: the frames to use.
        """
        height, width = self.size
        sums = torch.zeros(2, 3, height, width)
        weights = torch.zeros(2, 1, height, width)
        for row, index in enumerate(indices):
            frame = _picture(frames[index], height, width)
            matte = _picture(np.asarray(mattes[index])[..., None], height, width)
            head = _resized(head_masks[row][None, None].float(), height, width)[0]
            for layer, share in enumerate(((1 - matte) ** 4, matte * (1 - head))):
                sums[layer] += share * frame
                weights[layer] += share
        fill = sums.sum(dim=(0, 2, 3)) / weights.sum().clamp_min(1e-6)
        for layer, target in enumerate((self.background, self.body)):
            known = weights[layer] / len(indices)
            mean = sums[layer] / weights[layer].clamp_min(1e-6)
            target[0] = _completed(mean, known, fill)
        self.body_alpha[0] = torch.logit((weights[1] / max(len(indices), 1)).clamp(0.02, 0.98))


def _completed(mean: Tensor, known: Tensor, fill: Tensor) -> Tensor:
    """Colours ``[3, H, W]`` where they are known, elsewhere the smooth continuation of what is around."""
    from heads.inpaint import fill_hole

    if known.max() < 0.02:
        return fill[:, None, None].expand_as(mean)
    hole = (known < 0.02).float()[None]
    return fill_hole(torch.where(hole > 0, torch.zeros_like(mean), mean[None]), hole)[0]


def _picture(array, height: int, width: int) -> Tensor:
    return _resized(torch.as_tensor(np.asarray(array)).permute(2, 0, 1)[None].float() / 255, height, width)[0]


def _resized(image: Tensor, height: int, width: int) -> Tensor:
    if image.shape[-2:] == (height, width):
        return image
    return F.interpolate(image, (height, width), mode="bilinear", align_corners=False, antialias=True)


def _identity_grid(height: int, width: int, like: Tensor) -> Tensor:
    """Sampling coordinates ``[1, 2, H, W]`` that give the picture back."""
    y = (torch.arange(height, device=like.device, dtype=like.dtype) + 0.5) / height * 2 - 1
    x = (torch.arange(width, device=like.device, dtype=like.dtype) + 0.5) / width * 2 - 1
    return torch.stack(torch.meshgrid(x, y, indexing="xy"))[None]
