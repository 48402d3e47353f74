"""What stands behind the head: a body layer and a background, each with a motion of its own.

The body (torso, shoulders, hair that falls on them) is one RGBA picture, warped by a smooth displacement field. It reaches
beyond the frame by a margin, since a body that moves shows in one frame what others cut off. Where the torso is tracked
(:mod:`shards.tracking.body`), the field is the track's affine map. Elsewhere it is linear in the head's pose, by a regression
of the torso's motion on the poses of the clip; optimising that afterwards only overfits the training frames. Either costs one
bilinear lookup per pixel and is as sharp as the clip. The background is a picture with the same margin. It stands still
unless the camera moves (:mod:`shards.tracking.background`); then it is warped by its own track.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from heads.person.image_registration import Reference, composed, inverse, predicted_by, register
from heads.person.inpaint import fill_hole
from heads.person.layers import (
    EDGE,
    Mean,
    Window,
    completed,
    continued_upwards,
    control_basis,
    first_row,
    for_frames,
    framed,
    grown,
    margin_of,
    middle,
    picture,
    places,
    resized,
    sampled,
)

REGISTERED = 64  # px, longer side of the frames that are registered · guess
# Penalty of the regression of the body's motion on poses, in variances of a pose entry · guess: a body also moves by itself.
RIDGE = 0.2
# Of the frame's side, by which both layers reach beyond it: 95 % of 178 real clips move the frame's left and right edges by
# less in 95 % of their frames.
MARGIN = 1 / 8
# Of the frame's side, by which throat and hanging hair go on behind the head that hides them · guess, looked at on six people
THROAT = 1 / 10
LEAST_SHOWN = 0.1  # of the frames that must show a place: less is what the edge of a mask leaves · guess


class Backdrop(nn.Module):
    """Body layer and background of one camera view.

    Args:
        height, width: px of the stored pictures.
        inputs: entries of the pose vector.
        grid: (rows, columns) of the displacement field's control points.
        reach: limit of the pose vector in standard deviations, so that no pose warps the body beyond what was seen.
        margin: of the frame's side, by which body layer and background reach beyond the frame on every side.

    Attributes:
        background, body, body_alpha: ``[1, 3, h, w]``, ``[1, 3, h, w]`` and ``[1, 1, h, w]``, the margin included.
    """

    center: Tensor
    scale: Tensor
    rest: Tensor
    background_rest: Tensor
    background: Tensor
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
        self.size, self.grid, self.reach = (height, width), grid, reach
        rows, columns = (side + 2 * round(margin * side) for side in self.size)
        self.background = nn.Parameter(torch.full((1, 3, rows, columns), 0.5))
        self.body = nn.Parameter(torch.zeros(1, 3, rows, columns))
        self.body_alpha = nn.Parameter(torch.full((1, 1, rows, columns), -4.0))
        self.register_buffer("center", torch.zeros(inputs))
        self.register_buffer("scale", torch.ones(inputs))
        # The displacements ``[6]`` of torso and background in which the two layers are drawn: their means over the clip.
        self.register_buffer("rest", torch.zeros(6))
        self.register_buffer("background_rest", torch.zeros(6))
        self.bend = nn.Linear(inputs, 2 * grid[0] * grid[1], bias=False)
        nn.init.zeros_(self.bend.weight)
        # Found by registration: steps would overfit it, and its gradient is half the cost of the lookup's backward pass.
        self.bend.requires_grad_(False)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *arguments: object) -> None:
        # Avatars of versions whose bodies had no track were drawn at the mean already, and layers without a margin stay so.
        for name in ("rest", "background_rest"):
            state_dict.setdefault(f"{prefix}{name}", torch.zeros_like(self.rest))
        for name in ("background", "body", "body_alpha"):
            layer = getattr(self, name)
            saved = state_dict.get(f"{prefix}{name}", layer).shape[-2:]
            if saved != layer.shape[-2:] and all(a <= b <= 1.5 * a for a, b in zip(self.size, saved, strict=True)):
                setattr(
                    self, name, nn.Parameter(layer.detach().new_zeros(*layer.shape[:2], *saved), layer.requires_grad)
                )
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    @property
    def framed(self) -> tuple[float, float]:
        """Shares (vertical, horizontal) of the body layer's sides that the frame takes, in their middle."""
        return framed(self.body, self.size)

    def layer(self, height: int, width: int) -> Tensor:
        """The body layer ``[1, 4, h, w]``, colours and alpha, for frames of a size."""
        return for_frames(torch.cat([self.body, torch.sigmoid(self.body_alpha)], dim=1), self.size, height, width)

    def behind(self, height: int, width: int, background: Tensor | None = None, window: Window | None = None) -> Tensor:
        """The background ``[B or 1, 3, H, W]`` of frames of a size, or of a window (top, left, rows, columns) of them.

        Args:
            background: ``[(B,) 6]`` where it was tracked, see :class:`heads.person.inputs.HeadInputs`; by default at its mean.
        """
        top, left, rows, columns = window or (0, 0, height, width)
        if background is None:
            still = resized(middle(self.background, *self.size), height, width)
            return still[..., top : top + rows, left : left + columns]
        layer = for_frames(self.background, self.size, height, width)
        field = self._field(_back(background, self.background_rest))
        return sampled(layer, places(field, height, width, window), framed(self.background, self.size))

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

    def shield(self, heads: Tensor, rows: float, background: Tensor | None = None) -> None:
        """Take away the background's gradient where the heads of the frames that it comes from are.

        What a head's Gaussians leave of its hair would be learned as background, and be seen as an outline where the head was
        once it turns away.

        Args:
            heads: ``[B, H, W, 1]`` coverage of these frames, in [0, 1], of any size.
            rows: share of the height, from the top, to which this is limited: below it background, neck and collar join.
            background: ``[B, 6]`` its track in these frames, if it moves.
        """
        height = int(min(rows, 1.0) * self.size[0])
        if self.background.grad is None or height < 1:
            return
        cells = [min(side, round(1 / EDGE)) for side in heads.shape[1:3]]  # a pixel's cell and those around it: quick
        near = F.max_pool2d(F.adaptive_max_pool2d(heads.permute(0, 3, 1, 2), cells), 3, 1, 1)
        gradient = self.background.grad
        if background is None:
            shown = (1 - near if len(near) == 1 else 1 - near.amax(0, keepdim=True)).pow(4)
            middle(gradient, *self.size)[:, :, :height].mul_(F.interpolate(shown, self.size)[:, :, :height])
            return
        near[:, :, round(rows * cells[0]) :] = 0
        field = self._field(_from_rest(background, self.background_rest))
        near = F.grid_sample(
            near, places(field, *self.size, margin=margin_of(gradient, self.size)), align_corners=False
        )
        gradient.mul_((1 - near.amax(0, keepdim=True)).pow(4))

    def displacement(self, pose: Tensor, body: Tensor | None = None) -> Tensor:
        """Control displacements ``[B or 1, 2, gh, gw]`` in fractions of the picture (x, y).

        Args:
            pose: pose vectors ``[(B,) C]``.
            body: ``[(B,) 6]`` where the torso was tracked, see :class:`heads.person.inputs.HeadInputs`; by default the body
                follows the pose.
        """
        if body is None:
            return self.bend(self._normalised(pose)).view(-1, 2, *self.grid)
        return self._field(_back(body, self.rest))

    def _field(self, motion: Tensor) -> Tensor:
        """Control displacements ``[B, 2, gh, gw]`` in fractions of the picture of affine ones ``[B, 2, 3]`` in half pictures."""
        return 0.5 * torch.einsum("rck,bdk->bdrc", control_basis(self.grid, motion.device, motion.dtype), motion)

    def reference(self, side: int) -> Reference:
        """The body layer where the clip's reference shows it: what torsos of other frames are registered to.

        Args:
            side: of the picture, px.
        """
        small = self.layer(side, side).detach()
        small = torch.cat([small[:, :3].mean(1, keepdim=True), small[:, 3:]], 1)
        grid = places(self.displacement(self.center, torch.zeros_like(self.rest)), side, side)
        shown, weight = sampled(small, grid, self.framed)[0].cpu()
        return Reference(shown, weight)

    def background_reference(self, side: int) -> Reference:
        """The background where the clip's reference shows it, as :meth:`reference` gives the body; all of it has weight."""
        shown = self.behind(side, side, torch.zeros_like(self.background_rest)).detach()[0].mean(0).cpu()
        return Reference(shown, torch.ones_like(shown))

    def _normalised(self, pose: Tensor) -> Tensor:
        return torch.nan_to_num((pose - self.center) / self.scale).clamp(-self.reach, self.reach)

    def forward(
        self,
        pose: Tensor,
        height: int | None = None,
        width: int | None = None,
        window: Window | None = None,
        body: Tensor | None = None,
        background: Tensor | None = None,
    ) -> Tensor:
        """The picture behind the head ``[H, W, 3]`` for one pose vector ``[C]``, ``[B, H, W, 3]`` for several ``[B, C]``.

        ``body`` is the torso's track, if there is one, as :meth:`displacement` takes it, and ``background`` that of
        :meth:`behind`. ``height`` and ``width`` are at most the frame's. With a ``window`` (top, left, rows, columns) only
        that part is computed: ``[rows, columns, 3]``.
        """
        height, width = height or self.size[0], width or self.size[1]
        grid = places(self.displacement(pose, body), height, width, window)
        color, alpha = sampled(self.layer(height, width), grid, self.framed).split((3, 1), 1)
        behind = self.behind(height, width, background, window)
        shown = (color * alpha + behind * (1 - alpha)).permute(0, 2, 3, 1)
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
        background: Tensor | None = None,
    ) -> None:
        """Initialise from the clip: background and body get the mean colours where nothing occludes them.

        Args:
            frames, mattes: per frame uint8 ``[H, W, 3]`` and ``[H, W]`` of the pictures' size or larger.
            head_masks: ``[len(indices), H, W]`` where the head's own Gaussians will draw.
            indices: the frames to use.
            poses: ``[len(indices), C]`` their pose vectors, after :meth:`calibrate`: the displacement field is then
                fitted to these frames.
            body: ``[len(indices), 6]`` their torso's track, with ``poses``; by default torsos are registered here.
            background: ``[len(indices), 6]`` the background's track; by default it stands still.
        """
        poses = None if poses is None else poses.to(self.center.device)
        motion = None if body is None else _start(self.rest, body)
        behind = None if background is None else _start(self.background_rest, background)
        if poses is not None and len(indices) > 1:
            self._follow(frames, mattes, head_masks, indices, poses, motion)
        means = ground, torso = Mean(self.background[:, :1]), Mean(self.body[:, :1])
        framed, hidden = torch.zeros_like(torso.seen), torch.zeros_like(torso.seen)
        margin, reach = margin_of(self.body, self.size), round(THROAT * self.size[0])
        for k, i in enumerate(indices):
            shown, alpha, region = self._shown(frames[i], mattes[i], head_masks[k])
            bare = (1 - grown(alpha)).square().square()
            if behind is None:
                middle(ground.sum, *self.size).addcmul_(shown, bare)
                middle(ground.seen, *self.size).add_(bare)
            else:
                both, inside = self._moved(shown, bare, self._field(behind[k : k + 1]), self.background)
                ground.add(both[:, :3], both[:, 3:] * inside)
            field = torch.zeros(1, 2, *self.grid, device=shown.device)
            if poses is not None:
                field = -self.displacement(poses[k]) if motion is None else self._field(motion[k : k + 1])
            top = max(0, first_row(region, field, margin) - reach)
            moved, inside = self._moved(shown, torch.cat([region, alpha - region], 1), field, self.body, top)
            torso.add(moved[:, :3], moved[:, 3:4] * inside, top)
            hidden[..., top:, :] += moved[:, 4:] * inside
            framed[..., margin[0] : top, :] += 1  # above the torso
            framed[..., top:, :] += inside
        sums, seen = (torch.stack(parts).sum(0) for parts in zip(*(mean.total() for mean in means), strict=True))
        fill = sums / seen.clamp_min(1e-6)
        for target, mean in zip((self.background, self.body), means, strict=True):
            seen = mean.seen[0] / len(indices)
            target[0] = completed(mean.sum[0] / mean.seen[0].clamp_min(1e-6), seen, fill)
        self._set_alpha(torso.seen, framed, hidden, reach)

    def _set_alpha(self, seen: Tensor, framed: Tensor, hidden: Tensor, reach: int) -> None:
        """Set the body's alpha, and continue body and alpha by ``reach`` rows behind the head.

        Args:
            seen, framed, hidden: ``[1, 1, h, w]`` in how many frames the body, any pixel, and the head are at a place.
        """
        bared, framed_once = framed - hidden, framed >= 1
        known = (bared > LEAST_SHOWN * framed) | ~framed_once
        alpha = fill_hole((seen / bared.clamp_min(1e-3) * known).clamp(0, 1), (~framed_once).float())
        self.body[0], alpha = continued_upwards(self.body[0], alpha[0], known[0], reach)
        self.body_alpha.copy_(torch.logit(alpha.clamp(0.02, 0.98)))

    def _moved(
        self, shown: Tensor, weight: Tensor, field: Tensor, layer: Tensor, top: int = 0
    ) -> tuple[Tensor, Tensor]:
        """A frame's colours and weights ``[1, 3 + C, h, w]`` at a layer's pixels in rows from ``top`` on, and which are inside it.

        Args:
            shown, weight: ``[1, 3, H, W]`` and ``[1, C, H, W]``.
            field: control displacements ``[1, 2, gh, gw]`` from the layer to the frame.
        """
        height, width = layer.shape[-2:]
        at = places(field, *self.size, (top, 0, height - top, width), margin_of(layer, self.size))
        both = F.grid_sample(torch.cat([shown, weight], 1), at, padding_mode="border", align_corners=False)
        return both, (at.abs() <= 1).all(-1)[:, None].float()

    def _shown(self, frame: np.ndarray, matte: np.ndarray, head: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """A frame's colours ``[1, 3, H, W]``, matte and torso ``[1, 1, H, W]`` in [0, 1] at the pictures' size."""
        device = self.background.device
        shown = picture(frame, *self.size)[None].to(device)
        alpha = picture(np.asarray(matte)[..., None], *self.size)[None].to(device)
        # What the edge of the mask leaves of the head would be a thin line in the body layer.
        return shown, alpha, alpha * (1 - grown(resized(head[None, None].float(), *self.size).to(device)))

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
                shown, _, region = self._shown(frames[i], mattes[i], head_masks[k])
                small.append(resized(torch.cat([shown.mean(1, keepdim=True), region], 1), height, width))
            brightness, torso = torch.cat(small).unbind(1)
            motion = register(brightness, torso, first=int(x.square().sum(1).argmin()))
        weights = predicted_by(x, motion, RIDGE + 1 / len(x))
        # A pixel of the frame shows the body where it was before it moved; for small motions that is the negative.
        self.bend.weight.copy_(-self._field(weights.permute(2, 0, 1)).permute(1, 2, 3, 0).flatten(0, 2))


def _start(rest: Tensor, track: Tensor) -> Tensor:
    """Set a layer's ``rest [6]`` to the mean of a track ``[T, 6]``; its displacements ``[T, 2, 3]`` from there."""
    rest.copy_(track.mean(0))
    return _from_rest(track.to(rest.device), rest)


def _from_rest(track: Tensor, rest: Tensor) -> Tensor:
    """Displacements ``[B, 2, 3]`` of a layer that is drawn at ``rest [6]``; a track ``[(B,) 6]`` is from the clip's reference."""
    return composed(inverse(rest.view(2, 3)), track.view(-1, 2, 3))


def _back(track: Tensor, rest: Tensor) -> Tensor:
    """The inverse of :func:`_from_rest`: a pixel of the frame shows the layer where it was before it moved."""
    return composed(inverse(track.view(-1, 2, 3)), rest.view(2, 3))
