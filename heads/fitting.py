"""The optimisation core: one clip with tracks → a :class:`heads.person.talking_head.TalkingHead` that reproduces it.

Every recipe drives the same loop body; budgets, stages, resuming and reports are the driver's::

    clip = Clip(frames, mattes, track)                 # first part of a person's video
    head = TalkingHead(rig, track["identity"], H, W, HeadConfig(), maps=prior_maps_or_None)
    fitting = Fitting(head, clip, FitConfig())
    while budget_left:
        losses = fitting.step(progress)                # progress: share of the budget used, 0..1

Schedules (rates, resolution, which parts train) are functions of ``progress`` alone, so that one minute and one hour
run the same programme. Only training frames are ever read; an unseen frame needs nothing but its track.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from configs import InputError
from heads.losses import d_ssim, offset_penalty, scale_penalty, weighted_mean
from heads.masks import region_masks
from heads.person.inputs import POSE, pose_vectors
from heads.person.talking_head import Rendered, TalkingHead


@dataclass
class Clip:
    """Training frames with their tracks.

    Attributes:
        frames: per frame uint8 RGB ``(H, W, 3)``: an array ``(T, H, W, 3)``, or anything with a length and an index.
        mattes: per frame uint8 person alpha ``(H, W)``, likewise.
        track: DESIGN section 4 entries with T rows; ``landmarks`` (px of the frames) place the loss weights.
    """

    frames: Sequence
    mattes: Sequence
    track: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.frames)

    def frame(self, index: int) -> Tensor:
        """Frame as float32 ``(H, W, 3)`` in [0, 1]."""
        return torch.as_tensor(np.asarray(self.frames[index])).float() / 255


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """How to optimise.

    Attributes:
        ssim: share of D-SSIM in the picture loss.
        coarse: share of the progress spent at half resolution.
        refine: whether every training frame gets its own pose and expression residual.
        refine_from: progress at which they start to move; refine_penalty: what ties them to zero.
        face_weight, detail_weight: extra loss weight of the face, and of eyes, lips and inside of the mouth.
        rate: factor on all learning rates.
        final_rate: factor reached at the end of the cosine schedule.
        full_every: every so many steps the whole frame is rendered and the backdrop learns; the others see the head.
        offset_limit: free length of local offsets, triangle sizes.
        seed: of the frame order.
    """

    ssim: float = 0.2
    coarse: float = 0.1
    refine: bool = True
    refine_from: float = 0.1
    refine_penalty: float = 0.01
    face_weight: float = 1.0
    detail_weight: float = 2.0
    rate: float = 1.0
    final_rate: float = 0.05
    full_every: int = 4
    offset_limit: float = 2.0
    seed: int = 0

    def check(self) -> None:
        if not 0 <= self.ssim <= 1:
            raise InputError(f"fit: ssim {self.ssim}: expected a share between 0 and 1")
        if self.full_every < 1:
            raise InputError(f"fit: full_every {self.full_every}: expected at least 1")


RATES = {
    "offsets": 0.02,
    "quats": 0.01,
    "log_scales": 0.02,
    "colors": 0.01,
    "opacities": 0.05,
    "identity": 0.002,
    "color": 0.0005,
    "offset": 0.0001,
    "correction": 0.002,
    "appearance_basis.code": 0.015,
    "appearance_basis.basis": 0.002,
    "backdrop.background": 0.01,
    "backdrop.body": 0.01,
    "backdrop.body_alpha": 0.05,
    "backdrop.bend": 0.0,  # found by registration; steps would fit it to the training frames alone
}
"""Adam's rate per part of the head, at the start of the schedule."""


def parameter_groups(head: TalkingHead) -> list[dict[str, Any]]:
    """Adam groups of all that a head learns, ``params, lr, name`` by the keys of :data:`RATES` (and the backdrop's ``eps``)."""
    groups: dict[str, list[nn.Parameter]] = {}
    for name, parameter in head.named_parameters():
        if not parameter.requires_grad:
            continue
        key = max((k for k in RATES if name == k or name.startswith(k + ".")), key=len)
        groups.setdefault(key, []).append(parameter)
    rows: list[dict[str, Any]] = [{"params": p, "lr": RATES[k], "name": k} for k, p in groups.items()]
    for row in rows:
        if row["name"].startswith("backdrop."):
            row["eps"] = head.backdrop.adam_eps
    return rows


class Fitting:
    """Optimiser state of one head on one clip.

    Raises:
        InputError: an empty clip, frames of another size than the head's view, or a track of another length.
    """

    def __init__(self, head: TalkingHead, clip: Clip, config: FitConfig | None = None) -> None:
        self.head, self.clip, self.config = head, clip, config or FitConfig()
        self.config.check()
        self._check()
        self.device = head.offsets.device
        self.drive = head.inputs(clip.track)
        self.refinement = nn.Parameter(torch.zeros(len(clip), POSE + head.rig.n_expression + 6, device=self.device))
        self.optimizer = self._optimizer()
        self.iteration = 0
        self._order: list[int] = []
        self._random = np.random.default_rng(self.config.seed)
        self._weights: dict[int, Tensor] = {}
        if head.backdrop is not None:
            self._start_backdrop()

    def _check(self) -> None:
        if len(self.clip) == 0:
            raise InputError("fit: the clip has no frames")
        size = tuple(np.asarray(self.clip.frames[0]).shape[:2])
        if size != (self.head.height, self.head.width):
            raise InputError(f"fit: frames are {size} px, expected the head's {(self.head.height, self.head.width)}")
        if len(self.clip.track["rotation"]) != len(self.clip):
            rows = len(self.clip.track["rotation"])
            raise InputError(f"fit: {len(self.clip)} frames but {rows} rows of track; cut both to the same length")

    def _optimizer(self) -> torch.optim.Optimizer:
        rows = [{**row, "base": row["lr"]} for row in parameter_groups(self.head)]
        rows.append({"params": [self.refinement], "lr": 0.02, "base": 0.02, "name": "refinement"})
        return torch.optim.Adam(rows, betas=(0.9, 0.99), eps=1e-12, fused=True)

    def _start_backdrop(self) -> None:
        indices = np.unique(np.linspace(0, len(self.clip) - 1, 60).astype(int)).tolist()
        landmarks = torch.as_tensor(np.asarray(self.clip.track["landmarks"])[indices])
        masks = region_masks(landmarks, self.head.height, self.head.width, ("head",))["head"]
        poses = pose_vectors(self.drive.vectors[indices])
        self.head.backdrop.initialise(self.clip.frames, self.clip.mattes, masks, indices, poses)

    def step(
        self,
        progress: float,
        frame: int | None = None,
        extra: Callable[[Rendered, int], Tensor] | None = None,
    ) -> dict[str, float]:
        """One iteration on one frame; returns the losses by name.

        Args:
            progress: share of the driver's budget used so far, in [0, 1].
            frame: which frame, else the next of a random order.
            extra: ``extra(rendered, frame) -> scalar loss`` of a recipe, added to the picture loss.
        """
        index = self._next_frame() if frame is None else frame
        self._set_rates(progress)
        whole = self.iteration % self.config.full_every == 0 or extra is not None
        size, window = self._view(index, progress, whole)
        rendered = self.head.render(
            self.drive, index, size, window=window, refinement=self._refinement(index, progress)
        )
        losses = self._losses(rendered, index, size, window)
        if extra is not None:
            losses["extra"] = extra(rendered, index)
        total = sum(losses.values())
        self.optimizer.zero_grad(set_to_none=True)
        self.iteration += 1
        if not torch.isfinite(total):
            # A broken frame (black, all motion blur) must not end the run, nor reach the weights.
            return {"loss": float(total.detach()), "skipped": 1.0}
        total.backward()
        self.optimizer.step()
        return {name: float(value.detach()) for name, value in losses.items()} | {"loss": float(total.detach())}

    def state_dict(self) -> dict[str, Any]:
        """What resuming needs beside the head's own state: optimiser, refinements, place in the frame order."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "refinement": self.refinement.detach().clone(),
            "iteration": self.iteration,
            "order": list(self._order),
            "random": self._random.bit_generator.state,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken, on the same clip."""
        self.optimizer.load_state_dict(state["optimizer"])
        with torch.no_grad():
            self.refinement.copy_(state["refinement"])
        self.iteration, self._order = int(state["iteration"]), list(state["order"])
        self._random.bit_generator.state = state["random"]

    def _next_frame(self) -> int:
        if not self._order:
            self._order = self._random.permutation(len(self.clip)).tolist()
        return self._order.pop()

    def _set_rates(self, progress: float) -> None:
        low = self.config.final_rate
        factor = self.config.rate * (low + (1 - low) * 0.5 * (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0))))
        for group in self.optimizer.param_groups:
            group["lr"] = group["base"] * factor

    def _view(self, index: int, progress: float, whole: bool):
        half = progress < self.config.coarse and min(self.head.height, self.head.width) >= 128
        size = (self.head.height // 2, self.head.width // 2) if half else (self.head.height, self.head.width)
        return size, None if whole else self._head_window(index, size)

    def _refinement(self, index: int, progress: float) -> Tensor | None:
        """The frame's own residual, tied to zero by a penalty, from ``refine_from`` on."""
        if not self.config.refine or progress < self.config.refine_from:
            return None
        return self.refinement[index] * self.head.correction_scale()

    def _head_window(self, index: int, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """The part of the frame that holds the head, sides rounded up to 16 px."""
        points = np.asarray(self.clip.track["landmarks"][index])[:, :2] * (size[1] / self.head.width)
        (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
        w, h = x1 - x0, y1 - y0
        return _clipped((y0 - 0.45 * h, x0 - 0.25 * w, y1 + 0.2 * h, x1 + 0.25 * w), size)

    def _losses(self, rendered: Rendered, index: int, size, window) -> dict[str, Tensor]:
        target, weight = self._target(index, size)
        if window is not None:
            top, left, rows, columns = window
            target, weight = (x[top : top + rows, left : left + columns] for x in (target, weight))
        share = self.config.ssim
        losses = {"l1": (1 - share) * weighted_mean((rendered.image - target).abs(), weight)}
        if share:
            losses["d_ssim"] = share * d_ssim(rendered.image, target, weight)
        if self.config.refine:
            losses["refinement"] = self.config.refine_penalty * self.refinement[index].square().mean()
        losses["offset"] = 0.01 * offset_penalty(self.head.offsets, self.config.offset_limit)
        losses["scale"] = 0.01 * scale_penalty(self.head.log_scales, largest=2.0)
        return losses

    def _target(self, index: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        target, weight = self.clip.frame(index).to(self.device), self._weight(index)
        if tuple(target.shape[:2]) != size:
            both = torch.cat([target, weight[..., None]], dim=-1).permute(2, 0, 1)[None]
            both = F.adaptive_avg_pool2d(both, size)[0].permute(1, 2, 0)
            target, weight = both[..., :3], both[..., 3]
        return target, weight

    def _weight(self, index: int) -> Tensor:
        """Loss weight per pixel ``(H, W)``; kept for the frames seen last, as drawing costs as much as rendering."""
        if index not in self._weights:
            if len(self._weights) >= 512:
                self._weights.pop(next(iter(self._weights)))
            landmarks = np.asarray(self.clip.track["landmarks"][index : index + 1], dtype=np.float32)
            regions = ("face", "eyes", "lips", "mouth_inside")
            masks = region_masks(landmarks, self.head.height, self.head.width, regions)
            detail = np.maximum.reduce([masks[name][0] for name in regions[1:]])
            weight = 1 + self.config.face_weight * masks["face"][0] + self.config.detail_weight * detail
            self._weights[index] = torch.from_numpy((weight * 16).astype(np.uint8))
        return self._weights[index].to(self.device).float() / 16


def _clipped(box: tuple[float, float, float, float], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """(top, left, height, width) inside the frame, height and width multiples of 16 where the frame allows."""
    out = []
    for low, high, limit in ((box[0], box[2], size[0]), (box[1], box[3], size[1])):
        length = min(-(-int(high - low) // 16) * 16, limit)
        first = min(max(int((low + high - length) / 2), 0), limit - length)
        out.append((first, length))
    return out[0][0], out[1][0], out[0][1], out[1][1]
