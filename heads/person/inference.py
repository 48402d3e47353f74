"""Fast forward pass of a head that is no longer trained, on the CPU; it renders what the modules do.

:class:`HeadInference` and :class:`BackdropInference` precompute what is the same in every frame and run fused kernels
(:mod:`heads.raster.kernels.placing`, :mod:`heads.raster.kernels.layering`). They are built from frozen modules and do not
notice later changes of these: :class:`Frozen` rebuilds them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from heads.geometry.rotation import gaze_matrix, turn_matrix
from heads.person.appearance import STEP
from heads.person.backdrop import Backdrop
from heads.person.inputs import POSE, HeadInputs
from heads.person.residual import LowRankResidual
from heads.person.talking_head import TalkingHead
from heads.raster import threads
from heads.raster.arrays import plain
from heads.raster.frozen import LARGEST, FrozenGaussians
from heads.raster.kernels import layering
from heads.raster.kernels.bases import StoredBasis
from heads.raster.registry import default_backend

_ROWS = 64  # rows per thread below which a further thread costs more than it saves · guess
Result = TypeVar("Result")
_SMALLEST = 8  # px: pictures narrower than a vector are left to the modules


class Frozen(Generic[Result]):
    """Caches an object that is built from a frozen module, and rebuilds it when a weight or buffer has changed.

    Args:
        module: the module.
        make: builds the object.
        trained: whether the object is also given between the steps of a training, whenever no gradients are recorded.
    """

    def __init__(self, module: nn.Module, make: Callable[[], Result], *, trained: bool = False) -> None:
        self.module, self.make, self._trained = module, make, trained
        self._tensors = [*module.parameters(), *module.buffers()]
        self._parameters = list(module.parameters())
        self._made: tuple[tuple[int, ...], Result] | None = None

    def made(self) -> Result | None:
        """The object for the module's present weights.

        ``None`` where the fast path does not apply: gradients are enabled, the module is not in float32 on the CPU, our
        rasteriser is not the default one, or (unless ``trained``) the module is in training mode or has trainable parameters.
        """
        if torch.is_grad_enabled() or default_backend("cpu").name != "cpu" or not plain(self._parameters[0]):
            return None
        if not self._trained and (self.module.training or any(p.requires_grad for p in self._parameters)):
            return None
        now = tuple([number for tensor in self._tensors for number in (tensor.data_ptr(), tensor._version)])
        if self._made is None or self._made[0] != now:
            self._made = now, self.make()
        return self._made[1]


def stacked(frames: list[np.ndarray]) -> Tensor:
    """Frames ``[H, W, C]`` as a batch; one alone is not copied."""
    return torch.from_numpy(frames[0][None] if len(frames) == 1 else np.stack(frames))


@dataclass
class _Coefficients:
    """A :class:`heads.person.residual.CoefficientNet` in NumPy."""

    center: np.ndarray
    scale: np.ndarray
    reach: float
    linear: np.ndarray
    layers: list[np.ndarray]

    @classmethod
    def of(cls, residual: LowRankResidual) -> _Coefficients:
        net = residual.net
        layers = [] if net.mlp is None else [p.detach().numpy() for p in net.mlp.parameters()]
        return cls(net.center.numpy(), net.scale.numpy(), net.reach, net.linear.weight.detach().numpy(), layers)

    def __call__(self, vector: np.ndarray) -> np.ndarray:
        x = np.clip(np.nan_to_num((vector - self.center) / self.scale), -self.reach, self.reach)
        out = self.linear @ x
        if self.layers:
            weight, bias, weight_out, bias_out = self.layers
            out = out + (weight_out @ gelu(torch.from_numpy(weight @ x + bias)).numpy() + bias_out)
        return out


class _Residual:
    """A :class:`heads.person.residual.LowRankResidual` in NumPy."""

    def __init__(self, residual: LowRankResidual) -> None:
        self.net, self.basis, self.step = _Coefficients.of(residual), residual.basis.detach().numpy(), residual.step

    def __call__(self, vector: np.ndarray) -> np.ndarray:
        """The residual ``[N * channels]``."""
        return (self.net(vector) * np.float32(self.step)) @ self.basis


class _Colors:
    """Colours that change by a :class:`heads.person.residual.LowRankResidual`, whose basis is stored in 16 bits."""

    def __init__(self, colors: np.ndarray, residual: LowRankResidual | None) -> None:
        self.colors, self.net = colors, None
        if residual is not None:
            self.net, self.step = _Coefficients.of(residual), np.float32(residual.step)
            self.basis = StoredBasis(residual.basis.detach().numpy())

    def __call__(self, vector: np.ndarray) -> np.ndarray:
        """The colours ``[N * 3]`` of a frame, to be changed by the caller."""
        colors = self.colors.copy()
        return colors if self.net is None else self.basis.add(self.net(vector) * self.step, colors)


class HeadInference:
    """A frozen :class:`TalkingHead` as a function from a frame to its picture.

    Args:
        head: no longer trained; see :class:`Frozen`.
    """

    def __init__(self, head: TalkingHead) -> None:
        self.head, self.rig = head, head.rig
        rig, identity = self.rig, head.identity.detach()[None]
        rest = rig.mean + (identity @ rig.identity.flatten(1)).unflatten(1, rig.mean.shape)[0]
        lids = rig.eyelids * rig.lid_scale(identity)[0][:, None, None]
        self.rest = rest.numpy().reshape(-1)
        self.directions = torch.cat([rig.expression, lids]).flatten(1).numpy()
        self.centres = rig.eyeball_positions(identity)[0].numpy()
        self.eyes = [(rig.eyeball_vertices == eye + 1).nonzero()[:, 0].numpy() for eye in (0, 1)]
        self.offset, self.correction = (None if r is None else _Residual(r) for r in (head.offset, head.correction))
        self.correction_scale = head.correction_scale().numpy()
        self.colors = _Colors(head.colors.detach().numpy().reshape(-1), head.color)
        basis = head.appearance_basis
        self.rows = np.zeros(0, np.int32) if basis is None else basis.row.numpy().astype(np.int32)
        self.appearance = None if basis is None else StoredBasis(basis.basis.detach().numpy())
        uv = head.uv
        self.gaussians = FrozenGaussians(head.maps(), uv._faces, uv._runs, uv._weights)

    @staticmethod
    def fits(height: int, width: int) -> bool:
        """Whether the kernels can render pictures of this size, px."""
        return min(height, width) >= _SMALLEST and max(height, width) <= LARGEST

    def __call__(self, inputs: HeadInputs, index: int, intrinsics: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Premultiplied colour ``[H, W, 3]`` and alpha ``[H, W, 1]`` of frame ``index`` at the head's own size.

        ``intrinsics`` is ``[3, 3]`` px.
        """
        vector = inputs.vectors[index].numpy()
        change = None if self.correction is None else self.correction(vector) * self.correction_scale
        rotation, translation = self._pose(inputs, index, change)
        vertices = self._vertices(inputs, index, change, vector) @ rotation.T + translation
        colors = self.colors(vector)
        offsets = None
        if (appearance := self.head.appearance_basis) is not None:
            coefficients = appearance.coefficients_at(inputs.vectors[index, : appearance.size]) * STEP
            assert self.appearance is not None
            held = self.appearance.add(coefficients.numpy(), np.zeros(self.appearance.size, np.float32))
            offsets = self.gaussians.changed(held, self.rows, colors)
        size = (self.head.width, self.head.height)
        return self.gaussians.render(vertices, rotation, colors, intrinsics, size, offsets)

    def _pose(self, inputs: HeadInputs, index: int, change: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        rotation, translation = inputs.rotation[index].numpy(), inputs.translation[index].numpy()
        if change is None:
            return rotation, translation
        return rotation @ turn_matrix(change[:3]), translation + change[3:POSE]

    def _vertices(self, inputs: HeadInputs, index: int, change: np.ndarray | None, vector: np.ndarray) -> np.ndarray:
        """``[V, 3]`` in head space, the person's own residual included."""
        coefficients = np.concatenate([inputs.expression[index].numpy(), inputs.eyelids[index].numpy()])
        gaze = inputs.gaze[index].numpy()
        if change is not None:
            coefficients = coefficients + change[POSE : POSE + len(coefficients)]
            gaze = gaze + change[POSE + len(coefficients) :].reshape(2, 2)
        vertices = (self.rest + coefficients @ self.directions).reshape(-1, 3)
        for eye, centre, (yaw, pitch) in zip(self.eyes, self.centres, gaze):
            vertices[eye] = (vertices[eye] - centre) @ gaze_matrix(yaw, pitch).T + centre
        return vertices if self.offset is None else vertices + self.offset(vector).reshape(-1, 3)


class BackdropInference:
    """A frozen :class:`Backdrop` as a function: renders it alone or under a head.

    Args:
        backdrop: no longer trained; height, width: px of the frames, at most the backdrop's.
    """

    def __init__(self, backdrop: Backdrop, height: int, width: int) -> None:
        self.backdrop, self.size = backdrop, (width, height)
        texture = backdrop.layer(height, width)[0].detach().permute(1, 2, 0).contiguous().numpy()
        rows, columns = texture.shape[:2]
        down, across = rows * backdrop.framed[0], columns * backdrop.framed[1]  # px of the layer that the frame takes
        scale = (across / width, down / height)
        offset = ((columns - across + scale[0] - 1) / 2, (rows - down + scale[1] - 1) / 2)
        self.layer = (columns, rows), scale, offset
        self.texture = np.pad(texture.reshape(-1), (0, 4 * columns + 8))
        self.behind = backdrop.behind(height, width).detach().contiguous().numpy().reshape(-1)
        half = [1.0] * 4 + [0.0] * 4
        self.weights = np.array(half + [b - a for a, b in zip(half, half[::-1])], np.float32)
        self.nothing = np.zeros(width * height * 4, np.float32)

    def alone(
        self,
        pose: Tensor,
        body: Tensor | None = None,
        background: Tensor | None = None,
        rows: tuple[int, int] | None = None,
    ) -> np.ndarray:
        """Body and background ``[H, W, 3]`` for one pose vector ``[C]`` and their tracks ``[6]``, if there are any.

        With ``rows`` (first, end) only these rows are computed: ``[rows, W, 3]``.
        """
        pixels = self.size[0] * self.size[1]
        return self.under(self.nothing[: 3 * pixels], self.nothing[3 * pixels :], pose, body, background, rows)

    def under(
        self,
        color: np.ndarray,
        alpha: np.ndarray,
        pose: Tensor,
        body: Tensor | None = None,
        background: Tensor | None = None,
        rows: tuple[int, int] | None = None,
    ) -> np.ndarray:
        """A head of premultiplied ``color [H, W, 3]`` and ``alpha [H, W, 1]`` over body and background, clamped to [0, 1]."""
        (width, height), (top, end) = self.size, rows or (0, self.size[1])
        field = self.backdrop.displacement(pose, body).contiguous().numpy().reshape(-1)
        head, cover, behind = color.reshape(-1), alpha.reshape(-1), self.behind
        if background is not None and not torch.equal(background, self.backdrop.background_rest):
            moved = np.empty((3, height, width), np.float32)
            moved[:, top:end] = self.backdrop.behind(height, width, background, (top, 0, end - top, width))[0].numpy()
            behind = moved.reshape(-1)
        out = np.empty((height, width, 3), np.float32)

        def job(first: int, last: int) -> None:
            scratch = np.empty(4 * (width + 2), np.float32)
            layering.layer(
                head, cover, self.texture, self.layer, behind, field, self.backdrop.grid, self.weights, self.size,
                first, last, scratch, out.reshape(-1),
            )  # fmt: skip

        limit = max(1, min(threads.get_num_threads(), (end - top) // _ROWS))
        step = math.ceil((end - top) / limit)
        threads.run(job, [(first, min(first + step, end)) for first in range(top, end, step)], limit)
        return out[top:end]
