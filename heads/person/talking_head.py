"""One person's head as a module: UV Gaussians on a rig, residuals that depend on expression and pose, body, background.

This is what every recipe optimises and what an avatar stores. Everything learned beyond the plain rigged Gaussians is a
residual that starts at zero:

* colours per Gaussian and offsets per vertex (the person's own corrective blendshapes), low rank in the frame's
  vector (:class:`heads.person.residual.LowRankResidual`);
* with a prior that has one, a shared appearance basis (:class:`heads.person.appearance.PersonalAppearance`);
* a correction of the track (pose, expression, eyelids, gaze), which is a function of the tracked values alone, so that
  unseen frames are corrected as the training frames are;
* a body layer that follows its own track, or the head, over a background that moves if the camera does
  (:class:`heads.person.backdrop.Backdrop`).

Usage::

    head = TalkingHead(load_rig("mediapipe"), track["identity"], 256, 256, HeadConfig())
    head.calibrate(track)
    inputs = head.inputs(track)             # any track of the same rig
    image = head.render(inputs, 7).image    # [H, W, 3]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from configs import InputError
from heads.gaussians.cloud import Gaussians
from heads.gaussians.covering import covering
from heads.gaussians.neck import neck_fade
from heads.gaussians.render import render_head
from heads.gaussians.uv import UVGaussians
from heads.geometry.camera import view_intrinsics
from heads.geometry.rotation import rotation_matrix
from heads.motion.fields import Motion
from heads.person.appearance import PersonalAppearance
from heads.person.backdrop import Backdrop
from heads.person.inputs import POSE, SPANS, HeadInputs, behind_of, frame_vectors, head_inputs, pose_vectors
from heads.person.layers import Window
from heads.person.residual import LowRankResidual
from heads.rig import Rig
from heads.rig.holder import RigModule

FEW_FRAMES = 25.0  # frames at which the clip's own spread and USUAL_SPREAD have equal weight · guess
# Standard deviations of a talking person, per part of a frame's vector: rotation (radians), translation (rig units),
# expression (the rig's standard deviations), eyelids (closure), gaze (radians) · guess
USUAL_SPREAD = (0.1, 0.15, 0.7, 0.3, 0.15)


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """Size and parts of a head.

    Attributes:
        resolution: side of the UV map, texels; the shipped rig has about 0.88 of its square as Gaussians.
        color_rank, offset_rank: basis vectors per Gaussian of the colour residual and per vertex of the offset
            residual; 0 leaves it out.
        correction_rank: basis vectors of the track correction; 0 leaves it out.
        hidden: width of the networks that read the vectors.
        noise: added to the vectors while training, in standard deviations, so that the residuals do not memorise
            frames.
        body: whether a body layer and a background are learned.
        body_grid: control points per side of the body's displacement field.
        neck: heights between which the neck fades out, as :data:`heads.gaussians.neck.FADE`; the head has no Gaussians
            further down. ``None``: the whole neck.
    """

    resolution: int = 128
    color_rank: int = 16
    offset_rank: int = 24
    correction_rank: int = 16
    hidden: int = 32
    noise: float = 0.1
    body: bool = True
    body_grid: int = 9
    neck: tuple[float, float] | None = None

    def check(self) -> None:
        """Raise ``InputError`` for sizes that make no head."""
        if self.resolution < 8:
            raise InputError(f"head: resolution {self.resolution}: expected at least 8")
        if min(self.color_rank, self.offset_rank, self.correction_rank, self.hidden) < 0:
            raise InputError("head: ranks and hidden must not be negative")


@dataclass
class RenderedHead:
    """One frame.

    Attributes:
        image: ``[H, W, 3]`` the composed picture.
        alpha: ``[H, W, 1]`` of the head.
        head: ``[H, W, 3]`` the head alone, premultiplied.
        gaussians: those rendered, in head space.
        meta: of :func:`heads.rasterization`.
    """

    image: Tensor
    alpha: Tensor
    head: Tensor
    gaussians: Gaussians
    meta: dict


class TalkingHead(RigModule):
    """The optimisable head of one person.

    Args:
        rig: the rig its tracks belong to.
        identity: ``[K_id]`` identity coefficients of the track.
        height, width: px of the view that the track's intrinsics describe.
        config: sizes and parts.
        maps: ``[N, 14]`` UV Gaussians to start from (a prior's), else neutral skin on the rig.

    Raises:
        InputError: impossible sizes in ``config``.
        ValueError: ``maps`` of another shape.
    """

    center: Tensor
    spread: Tensor
    _correction_scale: Tensor

    def __init__(
        self,
        rig: Rig,
        identity: Tensor,
        height: int,
        width: int,
        config: HeadConfig | None = None,
        maps: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.rig, self.config = rig, config or HeadConfig()
        self.config.check()
        self.height, self.width = height, width
        self.uv = UVGaussians(rig, self.config.resolution)
        start = covering(self.uv, rig) if maps is None else maps
        if self.config.neck:
            shown = neck_fade(self.uv, rig, self.config.neck) < 1
            self.uv.keep(shown)
            start = start[shown] if maps is None else maps
        self.identity = nn.Parameter(torch.as_tensor(identity, dtype=torch.float32).clone())
        self._set_maps(start)
        size = POSE + rig.n_expression + 6
        entries, cfg = (1 + len(SPANS)) * size, self.config
        self.color = self._residual(cfg.color_rank, self.uv.n, 3, entries)
        self.offset = self._residual(cfg.offset_rank, rig.n_vertices, 3, entries)
        self.correction = self._residual(cfg.correction_rank, 1, size, entries)
        grid = (cfg.body_grid, cfg.body_grid)
        self.appearance_basis: PersonalAppearance | None = None
        self.backdrop = Backdrop(height, width, (1 + len(SPANS)) * POSE, grid) if cfg.body else None
        self.register_buffer("center", torch.zeros(size))
        self.register_buffer("spread", torch.ones(size))
        scale = torch.full((size,), 0.1)
        scale[:3], scale[3:5], scale[5], scale[-6:] = 0.005, 0.01, 0.05, 0.05
        self.register_buffer("_correction_scale", scale, persistent=False)

    def _residual(self, rank: int, n: int, channels: int, inputs: int) -> LowRankResidual | None:
        if not rank:
            return None
        residual = LowRankResidual(n, channels, inputs, rank, self.config.hidden)
        residual.net.noise = self.config.noise
        return residual

    def _set_maps(self, maps: Tensor) -> None:
        if maps.shape != (self.uv.n, 14):
            raise ValueError(f"maps: expected shape ({self.uv.n}, 14), got {tuple(maps.shape)}")
        offsets, quats, log_scales, colors, opacities = maps.detach().float().split([3, 4, 3, 3, 1], dim=-1)
        self.offsets, self.quats = nn.Parameter(offsets.clone()), nn.Parameter(quats.clone())
        self.log_scales, self.colors = nn.Parameter(log_scales.clone()), nn.Parameter(colors.clone())
        self.opacities = nn.Parameter(opacities.clone())

    @property
    def n(self) -> int:
        """Number of Gaussians."""
        return self.uv.n

    def maps(self) -> Tensor:
        """The UV Gaussians ``[N, 14]`` without residuals."""
        return torch.cat([self.offsets, self.quats, self.log_scales, self.colors, self.opacities], dim=-1)

    def add_appearance_basis(self, rank: int, rows: int) -> PersonalAppearance:
        """Add an empty :class:`heads.person.appearance.PersonalAppearance`, to be filled from a prior or an avatar."""
        self.appearance_basis = PersonalAppearance(len(self.center), rank, rows, self.n).to(self.offsets.device)
        return self.appearance_basis

    @torch.no_grad()
    def calibrate(self, track: Mapping[str, object]) -> None:
        """Set centres and scales from the training track, so that the networks see inputs of about unit size."""
        inputs = self.inputs(track)
        vectors = frame_vectors(track, self.center.device)
        self.center.copy_(vectors.mean(dim=0))
        self.spread.copy_(vectors.std(dim=0, unbiased=False))
        for residual in (self.color, self.offset, self.correction):
            if residual is not None:
                residual.net.calibrate(inputs.vectors)
                self._soften(residual.net.scale, len(inputs))
        if self.backdrop is not None:
            self.backdrop.calibrate(pose_vectors(inputs.vectors))

    def _soften(self, scale: Tensor, frames: int) -> None:
        """Raise the scales of entries that hardly move, so that tracking noise is not amplified to unit size.

        With few frames the usual spread of people is added. Otherwise a pose that a second of video did not show would be
        tens of standard deviations away, where the residuals are undetermined.
        """
        size, few = len(self.center), FEW_FRAMES / (FEW_FRAMES + frames)
        parts = ((0, 3), (3, 6), (6, size - 6), (size - 6, size - 4), (size - 4, size))
        for (first, last), usual in zip(parts, USUAL_SPREAD):
            for block in range(3):
                part = scale[block * size + first : block * size + last]
                part.copy_((part.square() + 0.1 * part.square().mean() + (few * usual) ** 2).sqrt())

    def inputs(self, track: Mapping[str, object]) -> HeadInputs:
        """Per-frame inputs from a track; see :func:`heads.person.inputs.head_inputs`."""
        return head_inputs(track, self.offsets.device)

    def corrected(self, inputs: HeadInputs, index: int, refinement: Tensor | None = None) -> dict[str, Tensor]:
        """The frame's corrected track, batch of one: rotation, translation, expression, eyelids, gaze.

        Args:
            refinement: ``[6 + K + 6]`` a further residual for this frame alone (training only).
        """
        change = refinement
        if self.correction is not None:
            learned = self.correction(inputs.vectors[index]).squeeze(0) * self.correction_scale()
            change = learned if change is None else change + learned
        parts = {name: getattr(inputs, name)[index : index + 1] for name in ("rotation", "translation", "expression")}
        parts |= {"eyelids": inputs.eyelids[index : index + 1], "gaze": inputs.gaze[index : index + 1]}
        if change is None:
            return parts
        # Split in one go: the gradient of a slice would fill a vector of zeros first.
        turn, shift, expression, eyelids, gaze = change.split((3, 3, self.rig.n_expression, 2, 4))
        parts["rotation"] = parts["rotation"] @ rotation_matrix(turn)
        parts["translation"] = parts["translation"] + shift
        parts["expression"] = parts["expression"] + expression
        parts["eyelids"] = parts["eyelids"] + eyelids
        parts["gaze"] = parts["gaze"] + gaze.view(1, 2, 2)
        return parts

    def correction_scale(self) -> Tensor:
        """Typical size ``[6 + K + 6]`` of tracking errors (guesses), which makes an optimiser's step equal for all entries."""
        return self._correction_scale

    def gaussians(self, inputs: HeadInputs, index: int, refinement: Tensor | None = None) -> tuple[Gaussians, dict]:
        """Gaussians in head space, batch of one, and the corrected track of the frame."""
        parts = self.corrected(inputs, index, refinement)
        vertices = self.rig.vertices(self.identity[None], parts["expression"], parts["eyelids"], parts["gaze"])
        vector = inputs.vectors[index]
        if self.offset is not None:
            vertices = vertices + self.offset(vector)
        colors = self.colors if self.color is None else self.colors + self.color(vector)
        offsets: Tensor = self.offsets
        if self.appearance_basis is not None:
            # The frame's own entries come before those of its neighbours.
            shift, tint = self.appearance_basis.at(vector[: self.appearance_basis.size])
            offsets, colors = offsets + shift, colors + tint
        maps = torch.cat([offsets, self.quats, self.log_scales, colors, self.opacities], dim=-1)
        return self.uv.bind(vertices, maps[None]), parts

    def together(self, inputs: HeadInputs, size: tuple[int, int], delta: Motion | None = None) -> tuple[Tensor, Tensor]:
        """Premultiplied colour ``[B, H, W, 3]`` and alpha ``[B, H, W, 1]`` of all frames in one pass.

        Equals the ``head`` and ``alpha`` of :meth:`render` frame by frame, with as many kernel launches as one frame needs.

        Args:
            size: (height, width) px of the whole view.
            delta: residual motion of every Gaussian in head space, ``[B, N, ...]``.

        Raises:
            ValueError: inputs without intrinsics.
        """
        if inputs.intrinsics is None:
            raise ValueError("inputs without intrinsics cannot be rendered; use inputs.with_(intrinsics=...)")
        count, vectors = len(inputs), inputs.vectors
        rotation, translation, expression = inputs.rotation, inputs.translation, inputs.expression
        eyelids, gaze = inputs.eyelids, inputs.gaze
        if self.correction is not None:
            change = self.correction(vectors)[:, 0] * self.correction_scale()
            k = POSE + self.rig.n_expression
            rotation, translation = rotation @ rotation_matrix(change[:, :3]), translation + change[:, 3:6]
            expression, eyelids = expression + change[:, 6:k], eyelids + change[:, k : k + 2]
            gaze = gaze + change[:, k + 2 :].unflatten(1, (2, 2))
        vertices = self.rig.vertices(self.identity[None], expression, eyelids, gaze)
        if self.offset is not None:
            vertices = vertices + self.offset(vectors)
        colors = self.colors[None] if self.color is None else self.colors + self.color(vectors)
        offsets = self.offsets[None]
        if self.appearance_basis is not None:
            changes = [self.appearance_basis.at(vector[: self.appearance_basis.size]) for vector in vectors]
            offsets = offsets + torch.stack([shift for shift, _ in changes])
            colors = colors + torch.stack([tint for _, tint in changes])
        parts = (offsets, self.quats[None], self.log_scales[None], colors, self.opacities[None])
        gaussians = self.uv.bind(vertices, torch.cat([part.expand(count, -1, -1) for part in parts], -1))
        gaussians = gaussians if delta is None else moved(gaussians, delta)
        intrinsics = view_intrinsics(inputs.intrinsics, (self.height, self.width), size)
        head, alpha, _ = render_head(gaussians, rotation, translation, intrinsics.expand(count, 3, 3), size[1], size[0])
        return head, alpha

    def render(
        self,
        inputs: HeadInputs,
        index: int,
        size: tuple[int, int] | None = None,
        background: str | Tensor | None = "learned",
        window: Window | None = None,
        refinement: Tensor | None = None,
        delta: Motion | None = None,
    ) -> RenderedHead:
        """One frame.

        Args:
            inputs, index: the frame; the inputs must have intrinsics.
            size: (height, width) px of the whole view; the head's own by default.
            background: ``"learned"`` (body over background), a colour ``[3]``, a picture ``[H, W, 3]`` of the
                rendered size, or ``None`` for black.
            window: (top, left, height, width) px within ``size``: render only this part. The backdrop then gets no
                gradient (it is trained on whole frames).
            refinement: see :meth:`corrected`.
            delta: residual motion of every Gaussian in head space (motion fields of other recipes).

        Raises:
            InputError: an unknown name as ``background``.
            ValueError: inputs without intrinsics.
        """
        height, width = size or (self.height, self.width)
        top, left, rows, columns = window or (0, 0, height, width)
        gaussians, parts = self.gaussians(inputs, index, refinement)
        if delta is not None:
            gaussians = moved(gaussians, delta)
        if inputs.intrinsics is None:
            raise ValueError("inputs without intrinsics cannot be rendered; use inputs.with_(intrinsics=...)")
        intrinsics = view_intrinsics(inputs.intrinsics, (self.height, self.width), (height, width), (top, left))
        head, alpha, meta = render_head(
            gaussians, parts["rotation"], parts["translation"], intrinsics[None], columns, rows
        )
        head, alpha = head.squeeze(0), alpha.squeeze(0)  # views back: an index would fill pictures of zeros first
        behind = self._behind(background, inputs, index, (height, width), window)
        image = head if behind is None else head + (1 - alpha) * behind
        return RenderedHead(image, alpha, head, gaussians, meta)

    def _behind(
        self,
        background: str | Tensor | None,
        inputs: HeadInputs,
        index: int,
        size: tuple[int, int],
        window: Window | None,
    ) -> Tensor | None:
        if isinstance(background, str):
            if background != "learned":
                raise InputError(f"background '{background}': expected 'learned', a colour, a picture or None")
            if self.backdrop is None:
                return None
            with torch.set_grad_enabled(torch.is_grad_enabled() and window is None):
                pose, *tracks = behind_of(inputs, index)
                return self.backdrop(pose, *size, window, *tracks)
        if background is None or background.dim() == 1 or window is None:
            return background
        top, left, rows, columns = window
        return background[top : top + rows, left : left + columns]


def moved(gaussians: Gaussians, delta: Motion) -> Gaussians:
    """Gaussians with residual motion added to means, log-scales and quaternions; ``delta`` with or without a batch."""
    quats = gaussians.quats if delta.quats is None else nn.functional.normalize(gaussians.quats, dim=-1) + delta.quats
    scales = gaussians.scales if delta.scales is None else gaussians.scales * delta.scales.exp()
    means = gaussians.means + delta.means
    return Gaussians(means, quats, scales, gaussians.opacities, gaussians.colors)
