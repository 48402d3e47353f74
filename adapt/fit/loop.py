"""The optimisation loop that all recipes share: sample a frame, render, compare, step; measure, save, show.

One frame a step: on a CPU the time of a step is that of its pixels, and fresh poses teach more than large batches.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from adapt.budget import Clock
from adapt.clip import Batch, Clip
from adapt.fit.track_refinement import TrackRefinement
from adapt.models.base import HeadModel, Rendered, head_window
from adapt.models.drive import DRIVEN, Drive, drive_of, feature_windows

if TYPE_CHECKING:
    from heads.gaussians.free import Densifier

Loss = Callable[[Rendered, Batch], Tensor]
SAVE_EVERY = 15.0
MEASURE_EVERY = 6.0
MEASURED_FRAMES = 3


class Optimizers:
    """One Adam for parameters of fixed size and, beside it, those of a densifier, whose parameters come and go."""

    def __init__(self, groups: list[dict], device: torch.device, densifier: Densifier | None) -> None:
        self.main = None
        if groups:
            fused = device.type in ("cpu", "cuda")
            self.main = torch.optim.Adam(groups, betas=(0.9, 0.99), eps=1e-12, fused=fused)
        self.densifier = densifier

    def _all(self) -> list[torch.optim.Optimizer]:
        own = [] if self.densifier is None else list(self.densifier.optimizers.values())
        return ([self.main] if self.main is not None else []) + own

    @property
    def param_groups(self) -> list[dict]:
        """Groups of all of them."""
        return [group for optimizer in self._all() for group in optimizer.param_groups]

    def state_of(self, parameter: Tensor) -> dict:
        """Adam's moments of a parameter, a live dictionary."""
        for optimizer in self._all():
            if any(parameter is p for group in optimizer.param_groups for p in group["params"]):
                return optimizer.state[parameter]
        raise KeyError("no optimiser holds this parameter")

    def zero_grad(self) -> None:
        for optimizer in self._all():
            optimizer.zero_grad(set_to_none=True)

    def step(self) -> None:
        # The densifier steps its own after it has looked at the gradients.
        if self.main is not None:
            self.main.step()


@dataclass
class Fit:
    """State of one adaptation.

    Attributes:
        clip: the training frames; held: frames of it that no step sees, for the progress line.
        save: called now and then, between steps, to put the present avatar on disk.
        shrink: steps see frames at one so-manieth of the size; only for models that can render so.
        report: called with a line's content: stage, iterations, seconds left, PSNR of the held-out frames.
        tracked: called once, between steps, when the whole clip is tracked.
    """

    model: HeadModel
    clip: Clip
    clock: Clock
    device: torch.device
    held: np.ndarray
    seed: int = 0
    save: Callable[[Fit], None] | None = None
    report: Callable[[dict], None] | None = None
    tracked: Callable[[], None] | None = None
    features: Tensor | None = None
    shrink: int = 1
    history: list[tuple[float, float]] = field(default_factory=list)
    optimizers: dict[str, Optimizers] = field(default_factory=dict)
    restored: dict[str, Tensor] = field(default_factory=dict)
    _last_save: float = 0.0
    _last_measure: float = 0.0
    _driven: Drive | None = None
    _order: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng((self.seed, self.clock.iterations))
        self._last_save = self._last_measure = time.monotonic()

    def inpainting(self) -> torch.nn.Module:
        """The model's inpainter, made when first asked for."""
        from adapt.fit.alignment import Inpainting

        if self.model.inpainting is None:
            self.model.inpainting = Inpainting().to(self.device)
        return self.model.inpainting

    def start_refinement(self, n_expression: int, frames: int) -> TrackRefinement:
        """Begin (or after ``--resume`` go on) correcting the tracks of the training frames."""
        refinement = TrackRefinement(frames, n_expression).to(self.device)
        saved = {key.removeprefix("refine/"): t for key, t in self.restored.items() if key.startswith("refine/")}
        if saved.keys() == refinement.state_dict().keys():
            refinement.load_state_dict(saved)
        self.model.refine_with(refinement)
        return refinement

    # --- frames -------------------------------------------------------------------------------------------------

    def available(self) -> np.ndarray:
        """Numbers of the training frames that the tracker has finished."""
        self.clip.check()
        frames = np.arange(len(self.clip))
        return frames if len(frames) <= len(self.held) + 1 else np.setdiff1d(frames, self.held, assume_unique=True)

    def drive(self, batch: Batch) -> Drive:
        """What moved the head in a batch of training frames, as tracked."""
        if self._driven is None or len(self._driven) < len(self.clip):
            self._driven = drive_of({name: self.clip.track[name].copy() for name in DRIVEN}, self.device)
        return self._driven.pick(batch.index.cpu()).with_(features=self.windows(batch.index), index=batch.index)

    def windows(self, index: Tensor) -> Tensor | None:
        """Audio rows around frames; ``None`` for a silent clip."""
        if self.features is None or len(self.features) < len(self.clip):
            self._extract()
        return None if self.features is None else feature_windows(self.features, index)

    def _extract(self) -> None:
        if self.clip.has_sound:
            self.features = torch.from_numpy(self.clip.features().astype(np.float32)).to(self.device)

    # --- optimisation -------------------------------------------------------------------------------------------

    def stage(
        self,
        name: str,
        begin: float,
        until: float,
        groups: Iterable[dict],
        loss: Loss,
        *,
        sample: Callable[[float], np.ndarray] | None = None,
        after: Callable[[float], None] | None = None,
        floor: float = 0.05,
        whole_every: int = 4,
        anneal: tuple[float, float] = (0.0, 1.0),
        densifier: Densifier | None = None,
    ) -> None:
        """Optimise parameter groups between two fractions of the budget.

        Args:
            groups: Adam groups with ``lr`` (at the stage's start) and ``name``.
            loss: scalar of a rendered batch and the real one.
            sample: progress -> frame numbers; by default one frame, all frames in random order before any comes again.
            after: called with the progress after each step (densification, schedules).
            floor: learning rates fall along a cosine to this share of their start,
            anneal: between these fractions of the budget: the whole by default.
            whole_every: every so many steps the whole frame is rendered, else the window that holds the head;
                0: never.
            densifier: of a cloud of free Gaussians to optimise as well; it steps in ``after``.
        """
        groups = [group for group in groups if group["params"]]
        optimizer: Any = Optimizers(groups, self.device, densifier)
        rates = [group["lr"] for group in optimizer.param_groups]
        self.optimizers = {name: optimizer}
        self._restore(name, optimizer)
        draw = sample or self._next_frame
        for progress in self.clock.steps(begin, until):
            spent = min(1.0, max(0.0, (self.clock.fraction - anneal[0]) / max(1e-9, anneal[1] - anneal[0])))
            for group, rate in zip(optimizer.param_groups, rates):
                group["lr"] = rate * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * spent)))
            whole = bool(whole_every) and self.clock.iterations % whole_every == 0
            self._step(optimizer, draw(progress), loss, whole)
            if after is not None:
                after(progress)
            self._between(name)
        self.optimizers = {}

    def _next_frame(self, progress: float) -> np.ndarray:
        """The next frame of a random order of those that are there."""
        if not self._order:
            self._order = self.rng.permutation(self.available()).tolist()
        return np.array([self._order.pop()])

    def _step(self, optimizer: Optimizers, frames: np.ndarray, loss: Loss, whole: bool) -> None:
        batch = self.clip.batch(frames, self.device)
        drive, batch = self.drive(batch), batch.shrunk(self.shrink)
        window = None
        if not whole:
            window = head_window(batch.track["landmarks"].cpu().numpy(), self.model.size // self.shrink)
        optimizer.zero_grad()
        value = loss(self.model(drive, window, self.shrink), batch if window is None else batch.crop(window))
        if not torch.isfinite(value):
            # A broken frame (black, all motion blur) must not end the run, nor reach the weights.
            return
        value.backward()
        optimizer.step()

    # --- between steps ------------------------------------------------------------------------------------------

    def _between(self, stage: str) -> None:
        if self.tracked is not None and self.clip.done:
            self.tracked()
            self.tracked = None
        now = time.monotonic()
        if now - self._last_measure > MEASURE_EVERY:
            self.measure(stage)
            self._last_measure = time.monotonic()
        if self.save is not None and now - self._last_save > SAVE_EVERY:
            self.save(self)
            self._last_save = time.monotonic()

    @torch.no_grad()
    def measure(self, stage: str) -> float:
        """Face PSNR (dB) of the held-out frames, uncorrected tracks; NaN before one of them is tracked."""
        from heads.measures.image import psnr

        held = self.held[self.held < len(self.clip)]
        values = []
        for frame in held[:: max(1, len(held) // MEASURED_FRAMES)][:MEASURED_FRAMES]:
            batch = self.clip.batch([frame], self.device)
            image = self.model(self.drive(batch).with_(index=None)).image
            arrays = (t[0].clamp(0, 1).cpu().numpy() for t in (image, batch.image))
            values.append(psnr(*arrays, batch.masks["face"][0, ..., 0].cpu().numpy()))
        value = float(np.nanmean(values)) if values else float("nan")
        self.history.append((self.clock.seconds, value))
        if self.report is not None:
            self.report(
                {
                    "stage": stage,
                    "iterations": self.clock.iterations,
                    "fraction": self.clock.fraction,
                    "seconds_left": self.clock.seconds_left,
                    "psnr_face": value,
                }
            )
        return value

    # --- state --------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Tensor]:
        """Adam's moments by stage, group and position, for ``--resume``."""
        tensors = {}
        if self.model.refiner is not None:
            tensors = {f"refine/{key}": value for key, value in self.model.refiner.state_dict().items()}
        start = getattr(self.model, "start", None)
        if start is not None:
            tensors["anchor"] = start.detach().cpu()
        for stage, optimizer in self.optimizers.items():
            for g, group in enumerate(optimizer.param_groups):
                for p, parameter in enumerate(group["params"]):
                    for key, value in optimizer.state_of(parameter).items():
                        tensors[f"{stage}/{g}/{p}/{key}"] = torch.as_tensor(value).detach().cpu()
        return tensors

    def _restore(self, stage: str, optimizer: Optimizers) -> None:
        for key, value in self.restored.items():
            if not key.startswith(f"{stage}/"):
                continue
            _, g, p, name = key.split("/")
            parameter = optimizer.param_groups[int(g)]["params"][int(p)]
            if name == "step" or value.shape == parameter.shape:
                target = value.to(torch.float32) if name == "step" else value.to(parameter.device, parameter.dtype)
                optimizer.state_of(parameter)[name] = target.clone()
