"""Base of all avatar models: a head that is rendered from its inputs in front of a body; composition and windows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from configs.devices import constant, is_accelerator
from heads.gaussians.cloud import Gaussians
from heads.person.backdrop import Backdrop
from heads.person.inference import BackdropInference, Frozen, HeadInference, stacked
from heads.person.inputs import HeadInputs, behind_of, pose_vectors
from heads.person.layers import Window
from heads.pictures import over


@dataclass
class Rendered:
    """A batch of rendered frames (or of a window of them).

    Attributes:
        color: the head's premultiplied colour ``[B, H, W, 3]``.
        alpha: the head's coverage ``[B, H, W, 1]`` in [0, 1].
        body: body and background behind it ``[B, H, W, 3]``.
        image: the head over the body ``[B, H, W, 3]``, not clamped.
    """

    color: Tensor
    alpha: Tensor
    body: Tensor
    image: Tensor


class HeadModel(nn.Module):
    """Base of the recipes' models; subclasses render the head in :meth:`head`.

    Args:
        size: side of the frames, px.
        intrinsics: ``[3, 3]`` of such a frame, px.

    Attributes:
        backdrop: body and background; set by subclasses.
        uses_audio: whether the head needs audio features besides the tracked expression.
        inpainting: the body inpainter, once it is trained.
    """

    uses_audio = False
    _frozen_backdrop: Frozen[BackdropInference] | None = None
    # The training frames' track refinement is no part of the avatar: kept out of the module's children.
    _refiner: tuple[nn.Module, ...] = ()

    @property
    def refiner(self) -> nn.Module | None:
        """Corrects the tracks of training frames while training; never saved with the avatar."""
        return self._refiner[0] if self._refiner else None

    def refine_with(self, refiner: nn.Module | None) -> None:
        """Set :attr:`refiner`. A property setter would not be called: ``nn.Module`` intercepts assigned modules."""
        self._refiner = () if refiner is None else (refiner,)

    backdrop: Backdrop
    intrinsics: Tensor

    def __init__(self, size: int, intrinsics: Tensor) -> None:
        super().__init__()
        self.size = size
        self.inpainting: nn.Module | None = None
        self._window_backdrops: dict[int, Frozen[BackdropInference]] = {}
        self.register_buffer("intrinsics", intrinsics.float().clone())

    def head(self, inputs: HeadInputs, window: Window | None = None, shrink: int = 1) -> tuple[Tensor, Tensor]:
        """Premultiplied colour ``[B, H, W, 3]`` and alpha ``[B, H, W, 1]`` of the head.

        Args:
            window: only this part of the (shrunk) frame: top, left, height, width in px.
            shrink: divisor of the frame's side.
        """
        raise NotImplementedError

    def gaussians(self, inputs: HeadInputs | None) -> Gaussians:
        """The head's Gaussians in head space, at rest for ``None``."""
        raise NotImplementedError

    def behind(self, inputs: HeadInputs, shrink: int = 1, window: Window | None = None) -> Tensor:
        """Body and background ``[B, H, W, 3]``, of the frame with its side divided by ``shrink``, or of a window of it."""
        size = self.size // shrink
        fast = self._fast_backdrop() if window is None and shrink == 1 else None
        if fast is not None:
            return stacked([fast.alone(*behind_of(inputs, i)) for i in range(len(inputs))])
        if is_accelerator(inputs.vectors.device):
            return self.backdrop(pose_vectors(inputs.vectors), size, size, window, inputs.body, inputs.background)
        moved = (behind_of(inputs, i) for i in range(len(inputs)))
        untrained = self._window_backdrop(size) if window is not None else None
        if untrained is not None and window is not None:
            top, left, rows, columns = window
            frames = [untrained.alone(*how, rows=(top, top + rows))[:, left : left + columns] for how in moved]
            return torch.from_numpy(np.stack(frames))
        return torch.stack([self.backdrop(pose, size, size, window, *tracks) for pose, *tracks in moved])

    def _fast_backdrop(self) -> BackdropInference | None:
        """The backdrop as kernels, where nothing of it is trained now."""
        if not HeadInference.fits(self.size, self.size):
            return None
        if self._frozen_backdrop is None or self._frozen_backdrop.module is not self.backdrop:
            self._frozen_backdrop = Frozen(
                self.backdrop, lambda: BackdropInference(self.backdrop, self.size, self.size)
            )
        return self._frozen_backdrop.made()

    def _window_backdrop(self, size: int) -> BackdropInference | None:
        """The backdrop as kernels for windows of frames of a size: they do not train it, so it changes with whole frames only."""
        if not HeadInference.fits(size, size):
            return None
        kept = self._window_backdrops.get(size)
        if kept is None or kept.module is not self.backdrop:
            kept = Frozen(self.backdrop, lambda: BackdropInference(self.backdrop, size, size), trained=True)
            self._window_backdrops[size] = kept
        return kept.made()

    def pictures(self, inputs: HeadInputs) -> Tensor:
        """The head over its body ``[B, H, W, 3]`` in [0, 1], as :meth:`forward` has it in ``image``."""
        fast = self._fast_backdrop()
        if fast is None:
            return self(inputs).image.clamp(0, 1)
        color, alpha = (x.numpy() for x in self.head(inputs))
        return stacked([fast.under(color[i], alpha[i], *behind_of(inputs, i)) for i in range(len(inputs))])

    def forward(self, inputs: HeadInputs, window: Window | None = None, shrink: int = 1) -> Rendered:
        """The head over its body.

        Args:
            window: render only this part of the (shrunk) frame; the body then gets no gradient.
            shrink: divisor of the frame's side, for models that can render so.
        """
        color, alpha = self.head(inputs, window, shrink)
        # Windows are for steps that train the head; the body is trained on whole frames.
        with torch.set_grad_enabled(torch.is_grad_enabled() and window is None):
            body = self.behind(inputs, shrink, window)
        return Rendered(color, alpha, body, over(color, alpha, body))

    def view(self, window: Window | None, shrink: int = 1) -> tuple[Tensor, int, int]:
        """Intrinsics ``[3, 3]``, height and width of the (shrunk) frame or of a window of it."""
        intrinsics, size = self.intrinsics, self.size // shrink
        if shrink != 1:
            intrinsics = intrinsics * constant(((1 / shrink,), (1 / shrink,), (1.0,)), intrinsics)
        if window is None:
            return intrinsics, size, size
        top, left, height, width = window
        shift = torch.zeros_like(intrinsics)
        shift[0, 2], shift[1, 2] = left, top
        return intrinsics - shift, height, width


def head_window(landmarks: np.ndarray, size: int) -> Window:
    """The window that contains the head in all frames of landmarks ``[B, 478, 2+]`` px, its sides multiples of 16.

    Margins, in parts of the landmarks' box: 0.45 above, 0.2 below, 0.25 on either side.
    """
    points = landmarks[..., :2].reshape(-1, 2)
    (x0, y0), (x1, y1) = points.min(0), points.max(0)
    wide, high = x1 - x0, y1 - y0
    spans = ((y0 - 0.45 * high, y1 + 0.2 * high), (x0 - 0.25 * wide, x1 + 0.25 * wide))
    out = []
    for low, top in spans:
        length = min(-(-int(top - low) // 16) * 16, size)
        out.append((min(max(int((low + top - length) / 2), 0), size - length), length))
    return out[0][0], out[1][0], out[0][1], out[1][1]


def over_original(rendered: Rendered, original: Tensor, head: Tensor) -> Tensor:
    """The rendered head over a real frame ``[B, H, W, 3]`` whose own head is removed.

    Args:
        original: ``[B, H, W, 3]`` the frame that shows the body.
        head: ``[B, H, W, 1]`` its dilated head region: there the model's own body is shown, blended softly, so that
            nothing of the real head remains.
    """
    soft = feather(head, max(2, original.shape[2] // 64))
    plate = original * (1 - soft) + rendered.body * soft
    return rendered.color + (1 - rendered.alpha) * plate


def feather(mask: Tensor, radius: int) -> Tensor:
    """Feather a mask ``[B, H, W, 1]`` outwards: its inside stays 1, and beyond twice ``radius`` px it stays 0."""
    grown = mask
    for dim in (2, 1):
        grown = _slide(grown, radius, dim, torch.maximum)
    soft = grown
    for dim in (2, 1):
        inside = grown.new_ones([grown.shape[d] if d == dim else 1 for d in range(4)])
        soft = _slide(soft, radius, dim, torch.add) / _slide(inside, radius, dim, torch.add)
    return torch.maximum(soft, mask)


def _slide(x: Tensor, radius: int, dim: int, reduce: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """``reduce`` over the ``2 * radius + 1`` neighbours along a dimension of ``[B, H, W, 1]``, zeros beyond the edge.

    Blocks are doubled in width by combining two, so the cost is logarithmic in the window: on a CPU twenty times less than
    pooling. Sums of zeros stay exactly zero, unlike the differences of a running total.
    """
    length, width, offset = x.shape[dim], 1, 0
    total: Tensor | None = None
    block = functional.pad(x, (0, 0, radius, radius) if dim == 2 else (0, 0, 0, 0, radius, radius))
    while width <= 2 * radius + 1:
        if (2 * radius + 1) & width:
            part = block.narrow(dim, offset, length)
            total = part if total is None else reduce(total, part)
            offset += width
        count = block.shape[dim] - width
        block, width = reduce(block.narrow(dim, 0, count), block.narrow(dim, width, count)), 2 * width
    assert total is not None, "a window has at least one element"
    return total
