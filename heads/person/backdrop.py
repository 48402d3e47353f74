"""What stands behind the head: a body layer with a motion of its own, over a still background.

The body (torso, shoulders, hair that falls on them) is one RGBA picture, warped by a smooth displacement field. It reaches
beyond the frame by a margin, since a body that moves shows in one frame what others cut off. Where the torso is tracked
(:mod:`shards.tracking.body`), the field is the track's affine map. Elsewhere it is linear in the head's pose, by a regression
of the torso's motion on the poses of the clip; optimising that afterwards only overfits the training frames. Either costs one
bilinear lookup per pixel and is as sharp as the clip.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from configs.devices import constant
from heads.person.image_registration import Reference, composed, inverse, predicted_by, register
from heads.person.inpaint import fill_hole

REGISTERED = 64  # px, longer side of the frames that are registered · guess
# Penalty of the regression of the body's motion on poses, in variances of a pose entry · guess: a body also moves by itself.
RIDGE = 0.2
# Of the frame's side, by which the body layer reaches beyond it: 95 % of 178 real clips move the frame's left and right edges
# by less in 95 % of their frames.
MARGIN = 1 / 8
EDGE = 1 / 128  # of the picture's side, by which the background keeps away from the person's matte · guess


class Backdrop(nn.Module):
    """Body layer and background of one camera view.

    Args:
        height, width: px of the stored pictures.
        inputs: entries of the pose vector.
        grid: (rows, columns) of the displacement field's control points.
        reach: limit of the pose vector in standard deviations, so that no pose warps the body beyond what was seen.
        margin: of the frame's side, by which the body layer reaches beyond the frame on every side.

    Attributes:
        background: ``[1, 3, H, W]``.
        body, body_alpha: ``[1, 3, h, w]`` and ``[1, 1, h, w]``, the margin included.
    """

    center: Tensor
    scale: Tensor
    rest: Tensor
    body: Tensor
    body_alpha: Tensor

    def __init__(
        self,
        height: int,
        width: int,
        inputs: int,
        grid: tuple[int, int] = (9, 9),
        reach: float = 2.5,
        margin: float = MARGIN,
    ) -> None:
        super().__init__()
        self.grid, self.reach = grid, reach
        self.background = nn.Parameter(torch.full((1, 3, height, width), 0.5))
        self._start_body(*(side + 2 * round(margin * side) for side in (height, width)))
        self.register_buffer("center", torch.zeros(inputs))
        self.register_buffer("scale", torch.ones(inputs))
        # The torso's displacement ``[6]`` in which the body layer is drawn: its mean over the clip.
        self.register_buffer("rest", torch.zeros(6))
        self.bend = nn.Linear(inputs, 2 * grid[0] * grid[1], bias=False)
        nn.init.zeros_(self.bend.weight)
        # Found by registration: steps would overfit it, and its gradient is half the cost of the lookup's backward pass.
        self.bend.requires_grad_(False)

    def _start_body(self, height: int, width: int) -> None:
        self.body = nn.Parameter(torch.zeros(1, 3, height, width, device=self.background.device))
        self.body_alpha = nn.Parameter(torch.full_like(self.body[:, :1], -4.0))

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *arguments: object) -> None:
        # Avatars of versions whose bodies had no track were drawn at the mean already, and bodies without a margin stay so.
        state_dict.setdefault(f"{prefix}rest", torch.zeros_like(self.rest))
        saved = state_dict.get(f"{prefix}body", self.body).shape[-2:]
        if saved != self.body.shape[-2:] and all(a <= b <= 2 * a for a, b in zip(self.size, saved, strict=True)):
            self._start_body(*saved)
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the frame, px."""
        return self.background.shape[-2], self.background.shape[-1]

    @property
    def margin(self) -> tuple[int, int]:
        """Rows and columns of the body layer on either side of the frame."""
        return (self.body.shape[-2] - self.size[0]) // 2, (self.body.shape[-1] - self.size[1]) // 2

    @property
    def framed(self) -> tuple[float, float]:
        """Shares (vertical, horizontal) of the body layer's sides that the frame takes, in their middle."""
        return self.size[0] / self.body.shape[-2], self.size[1] / self.body.shape[-1]

    def layer(self, height: int, width: int) -> Tensor:
        """The body layer ``[1, 4, h, w]``, colours and alpha, for frames of a size."""
        down, across = self.framed
        layer = torch.cat([self.body, torch.sigmoid(self.body_alpha)], dim=1)
        return resized(layer, round(height / down), round(width / across))

    @property
    def adam_eps(self) -> float:
        """Adam's epsilon for the pictures: 0.03 of the gradient that a visible pixel gets from a mean over the frame (guess).

        With the usual epsilon a pixel behind the head, which no frame shows, would move as far on a tiny gradient as a
        visible one does on a full one, and become a coloured speck when the head turns away.
        """
        return 0.03 / (self.size[0] * self.size[1])

    def calibrate(self, poses: Tensor) -> None:
        """Set centre and scale from the training frames' pose vectors ``[T, C]``."""
        self.center.copy_(poses.mean(dim=0))
        self.scale.copy_(poses.std(dim=0, unbiased=False).clamp_min(1e-3))

    def shield(self, heads: Tensor, rows: float) -> None:
        """Take away the background's gradient where the heads of the frames that it comes from are.

        What a head's Gaussians leave of its hair would be learned as background, and be seen as an outline where the head was
        once it turns away.

        Args:
            heads: ``[B, H, W, 1]`` coverage of these frames, in [0, 1], of any size.
            rows: share of the height, from the top, to which this is limited: below it background, neck and collar join.
        """
        height = int(min(rows, 1.0) * self.size[0])
        if self.background.grad is None or height < 1:
            return
        cells = [min(side, round(1 / EDGE)) for side in heads.shape[1:3]]  # a pixel's cell and those around it: quick
        near = F.max_pool2d(F.adaptive_max_pool2d(heads.permute(0, 3, 1, 2), cells), 3, 1, 1)
        shown = (1 - near if len(near) == 1 else 1 - near.amax(0, keepdim=True)).pow(4)
        self.background.grad[:, :, :height].mul_(F.interpolate(shown, self.size)[:, :, :height])

    def displacement(self, pose: Tensor, body: Tensor | None = None) -> Tensor:
        """Control displacements ``[B or 1, 2, gh, gw]`` in fractions of the picture (x, y).

        Args:
            pose: pose vectors ``[(B,) C]``.
            body: ``[(B,) 6]`` where the torso was tracked, see :class:`heads.person.inputs.HeadInputs`; by default the body
                follows the pose.
        """
        if body is None:
            return self.bend(self._normalised(pose)).view(-1, 2, *self.grid)
        # A pixel of the frame shows the body where it was before it moved.
        return self._field(composed(inverse(body.view(-1, 2, 3)), self.rest.view(2, 3)))

    def _from_rest(self, body: Tensor) -> Tensor:
        """Displacements ``[B, 2, 3]`` of the body layer for the torso's ``[(B,) 6]``, which are from the clip's reference."""
        return composed(inverse(self.rest.view(2, 3)), body.view(-1, 2, 3))

    def _field(self, motion: Tensor) -> Tensor:
        """Control displacements ``[B, 2, gh, gw]`` in fractions of the picture of affine ones ``[B, 2, 3]`` in half pictures."""
        return 0.5 * torch.einsum("rck,bdk->bdrc", _control_basis(self.grid, motion.device, motion.dtype), motion)

    def reference(self, side: int) -> Reference:
        """The body layer where the clip's reference shows it: what torsos of other frames are registered to.

        Args:
            side: of the picture, px.
        """
        small = self.layer(side, side).detach()
        small = torch.cat([small[:, :3].mean(1, keepdim=True), small[:, 3:]], 1)
        grid = _grid(self.displacement(self.center, torch.zeros_like(self.rest)), side, side)
        picture, weight = self._sampled(small, grid)[0].cpu()
        return Reference(picture, weight)

    def _sampled(self, layer: Tensor, grid: Tensor) -> Tensor:
        """The body layer ``[1, C, h, w]`` at places ``[B, H, W, 2]`` of the frame, in [-1, 1]; its edges are repeated."""
        down, across = self.framed
        grid = grid * constant((across, down), grid)
        return F.grid_sample(layer.expand(len(grid), -1, -1, -1), grid, padding_mode="border", align_corners=False)

    def _normalised(self, pose: Tensor) -> Tensor:
        return torch.nan_to_num((pose - self.center) / self.scale).clamp(-self.reach, self.reach)

    def forward(
        self,
        pose: Tensor,
        height: int | None = None,
        width: int | None = None,
        window: tuple[int, int, int, int] | None = None,
        body: Tensor | None = None,
    ) -> Tensor:
        """The picture behind the head ``[H, W, 3]`` for one pose vector ``[C]``, ``[B, H, W, 3]`` for several ``[B, C]``.

        ``body`` is the torso's track, if there is one, as :meth:`displacement` takes it. ``height`` and ``width`` are at most
        the stored size. With a ``window`` (top, left, rows, columns) only that part is computed: ``[rows, columns, 3]``.
        """
        height, width = height or self.size[0], width or self.size[1]
        top, left, rows, columns = window or (0, 0, height, width)
        part = (..., slice(top, top + rows), slice(left, left + columns))
        background = resized(self.background, height, width)[part]
        grid = _grid(self.displacement(pose, body), height, width, (top, left, rows, columns))
        color, alpha = self._sampled(self.layer(height, width), grid).split((3, 1), 1)
        shown = (color * alpha + background * (1 - alpha)).permute(0, 2, 3, 1)
        return shown if pose.dim() == 2 else shown[0]

    @torch.no_grad()
    def initialise(
        self,
        frames: Sequence[np.ndarray],
        mattes: Sequence[np.ndarray],
        head_masks: Tensor,
        indices: Sequence[int],
        poses: Tensor | None = None,
        body: Tensor | None = None,
    ) -> None:
        """Initialise from the clip: background and body get the mean colours where nothing occludes them.

        Args:
            frames, mattes: per frame uint8 ``[H, W, 3]`` and ``[H, W]`` of the pictures' size or larger.
            head_masks: ``[len(indices), H, W]`` where the head's own Gaussians will draw.
            indices: the frames to use.
            poses: ``[len(indices), C]`` their pose vectors, after :meth:`calibrate`: the displacement field is then
                fitted to these frames.
            body: ``[len(indices), 6]`` their torso's track, with ``poses``; by default torsos are registered here.
        """
        poses = None if poses is None else poses.to(self.center.device)
        motion = None
        if body is not None:
            self.rest.copy_(body.mean(0))
            motion = self._from_rest(body.to(self.center.device))
        if poses is not None and len(indices) > 1:
            self._follow(frames, mattes, head_masks, indices, poses, motion)
        background, torso = _Mean(self.background[:, :1]), _Mean(self.body[:, :1])
        framed = torch.zeros_like(torso.seen)
        for k, i in enumerate(indices):
            picture, alpha, region = self._shown(frames[i], mattes[i], head_masks[k])
            background.add(picture, (1 - _grown(alpha)).square().square())
            field = torch.zeros(1, 2, *self.grid, device=picture.device)
            if poses is not None:
                field = -self.displacement(poses[k]) if motion is None else self._field(motion[k : k + 1])
            top = _first_row(region, field, self.margin)
            places = self._places(field, top)  # of the body layer's pixels in the frame
            both = F.grid_sample(torch.cat([picture, region], 1), places, padding_mode="border", align_corners=False)
            inside = (places.abs() <= 1).all(-1)[:, None].float()
            torso.add(both[:, :3], both[:, 3:] * inside, top)
            framed[..., self.margin[0] : top, :] += 1  # above the torso
            framed[..., top:, :] += inside
        fill = (background.sum.sum((0, 2, 3)) + torso.sum.sum((0, 2, 3))) / (
            background.seen.sum() + torso.seen.sum()
        ).clamp_min(1e-6)
        for target, mean in ((self.background, background), (self.body, torso)):
            seen = mean.seen[0] / len(indices)
            target[0] = _completed(mean.sum[0] / mean.seen[0].clamp_min(1e-6), seen, fill)
        alpha = fill_hole(torso.seen / framed.clamp_min(1), (framed < 1).float())
        self.body_alpha.copy_(torch.logit(alpha.clamp(0.02, 0.98)))

    def _places(self, points: Tensor, top: int) -> Tensor:
        """Places ``[1, h, w, 2]`` in the frame, as of :func:`_grid`, of the body layer's pixels in rows from ``top`` on."""
        height, width = self.body.shape[-2:]
        return _grid(points, *self.size, (top, 0, height - top, width), self.margin)

    def _shown(self, frame: np.ndarray, matte: np.ndarray, head: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """A frame's colours ``[1, 3, H, W]``, matte and torso ``[1, 1, H, W]`` in [0, 1] at the pictures' size."""
        device = self.background.device
        picture = _picture(frame, *self.size)[None].to(device)
        alpha = _picture(np.asarray(matte)[..., None], *self.size)[None].to(device)
        return picture, alpha, alpha * (1 - resized(head[None, None].float(), *self.size).to(device))

    def _follow(
        self,
        frames: Sequence[np.ndarray],
        mattes: Sequence[np.ndarray],
        head_masks: Tensor,
        indices: Sequence[int],
        poses: Tensor,
        motion: Tensor | None,
    ) -> None:
        """Fit the field that follows the pose to the torso's motion ``[T, 2, 3]`` in these frames, which may be known."""
        x = self._normalised(poses)
        if motion is None:
            height, width = (max(8, round(side * min(1.0, REGISTERED / max(self.size)))) for side in self.size)
            small = []
            for k, i in enumerate(indices):
                picture, _, region = self._shown(frames[i], mattes[i], head_masks[k])
                small.append(resized(torch.cat([picture.mean(1, keepdim=True), region], 1), height, width))
            brightness, torso = torch.cat(small).unbind(1)
            motion = register(brightness, torso, first=int(x.square().sum(1).argmin()))
        weights = predicted_by(x, motion, RIDGE + 1 / len(x))
        # A pixel of the frame shows the body where it was before it moved; for small motions that is the negative.
        self.bend.weight.copy_(-self._field(weights.permute(2, 0, 1)).permute(1, 2, 3, 0).flatten(0, 2))


class _Mean:
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


def _grown(alpha: Tensor) -> Tensor:
    """A matte ``[1, 1, H, W]`` grown by ``EDGE`` of the picture's side: hair reaches beyond it."""
    reach = max(1, round(EDGE * max(alpha.shape[-2:])))
    return F.max_pool2d(F.max_pool2d(alpha, (2 * reach + 1, 1), 1, (reach, 0)), (1, 2 * reach + 1), 1, (0, reach))


def _completed(mean: Tensor, known: Tensor, fill: Tensor) -> Tensor:
    """Colours ``[3, H, W]`` where they are known, filled smoothly from their surroundings elsewhere."""
    if known.max() < 0.02:
        return fill[:, None, None].expand_as(mean)
    hole = (known < 0.02).float()[None]
    return fill_hole(torch.where(hole > 0, torch.zeros_like(mean), mean[None]), hole)[0]


def _picture(array: np.ndarray | Tensor, height: int, width: int) -> Tensor:
    return resized(torch.as_tensor(np.asarray(array)).permute(2, 0, 1)[None].float() / 255, height, width)[0]


def resized(image: Tensor, height: int, width: int) -> Tensor:
    if image.shape[-2:] == (height, width):
        return image
    return F.interpolate(image, (height, width), mode="bilinear", align_corners=False, antialias=True)


def _first_row(weight: Tensor, points: Tensor, margin: tuple[int, int]) -> int:
    """A row, ``margin[0]`` before the frame's first counted as 0, above which pixels that control displacements
    ``[1, 2, gh, gw]`` move have no weight ``[1, 1, H, W]``."""
    rows, height = weight[0, 0].amax(1).nonzero(), weight.shape[-2]
    reach = float(points[:, 1].abs().max()) * (height + 2 * margin[0])
    return margin[0] + (max(-margin[0], int(rows[0]) - int(reach) - 2) if len(rows) else height - 1)


def _grid(
    points: Tensor,
    height: int,
    width: int,
    window: tuple[int, int, int, int] | None = None,
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
def _control_basis(grid: tuple[int, int], device: torch.device, dtype: torch.dtype) -> Tensor:
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
