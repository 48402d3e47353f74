"""The optimisation loop that all recipes share: sample a frame, render, compare, step; and in between measure and save.

One frame per step: on a CPU the time of a step is proportional to its pixels, and new poses help more than large batches.

A run of steps repeats bit for bit on one machine, even if it was interrupted: the random numbers of a step are derived
from the seed and the step's number, and :meth:`Fit.state` holds the rest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import torch
from torch import Tensor

from adapt.budget import Clock
from adapt.clip import Batch, Clip
from adapt.fit.config import RecipeConfig
from adapt.fit.context import Context
from adapt.fit.losses import Loss
from adapt.fit.optimizers import Group, Optimizers
from adapt.fit.sampling import Sampler, next_frame
from adapt.fit.schedule import FLOOR, cosine
from adapt.fit.state import Place, seed_step
from adapt.fit.track_refinement import TrackRefinement
from adapt.models.base import HeadModel, head_window
from adapt.models.inpainting import Inpainting
from configs.progress import Task
from heads.gaussians.free import Densifier
from heads.measures.image import psnr
from heads.person.inputs import HeadInputs, feature_windows, head_inputs
from heads.person.layers import Window
from heads.rig import facemesh

SAVE_EVERY = 15.0  # seconds of wall clock
MEASURE_EVERY = 6.0  # seconds of wall clock
MEASURED_FRAMES = 3  # of the held-out ones, at most


class Stopped(Exception):
    """A signal asked the run to end: the step is finished, the state is whole, and no further stage begins."""


@dataclass
class Fit:
    """One adaptation's model and the loop over it.

    Attributes:
        held: numbers of the training frames that no step sees.
        save: called between steps, every ``SAVE_EVERY`` seconds, to write the current avatar to disk.
        when_tracked: called once, between steps, when the whole clip is tracked.
        task: is told what share of the budget is spent.
        restored: what :meth:`state` returned in the run that is resumed.
        exact: whether the budget is that of the resumed run, so that stages continue where they stood. With another
            budget they continue at the share of it that is spent.
        shrink: steps see frames at this fraction of the side (2: half); only for models that can render so.
        history: ``(seconds, PSNR in dB)`` of the held-out frames' faces.
        optimizers: name and optimisers of the running stage.
    """

    model: HeadModel
    context: Context[RecipeConfig]
    clock: Clock
    held: np.ndarray
    save: Callable[[], object] | None = None
    when_tracked: Callable[[], object] | None = None
    task: Task | None = None
    restored: Mapping[str, Tensor] = field(default_factory=dict)
    exact: bool = False
    shrink: int = 1
    history: list[tuple[float, float]] = field(default_factory=list)
    optimizers: tuple[str, Optimizers] | None = None

    def __post_init__(self) -> None:
        self.place = Place.from_tensors(self.restored)
        self.exact = self.exact and "place/stage" in self.restored
        self._resumed_at = (self.place.stage, self.place.steps) if self.exact else (-1, 0)
        self._stages = 0
        self._inputs: HeadInputs | None = None
        self._features: Tensor | None = None
        self._last_save = self._last_measure = time.monotonic()
        if self.place.pictured:
            self.context.pictured = self.place.pictured

    @property
    def clip(self) -> Clip:
        """The training frames."""
        return self.context.clip

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.context.device

    def inpainting(self) -> Inpainting:
        """The model's inpainter, created on first use."""
        if self.model.inpainting is None:
            seed_step(self.context.seed, self.device, "inpainter")
            self.model.inpainting = Inpainting().to(self.device)
        return cast(Inpainting, self.model.inpainting)

    def start_refinement(self) -> TrackRefinement:
        """Begin to correct the tracks of the training frames, or continue with the corrections of the resumed run."""
        refinement = TrackRefinement(self.context.frames, self.context.rig.n_expression).to(self.device)
        saved = _under("refine/", self.restored)
        if saved.keys() == refinement.state_dict().keys():
            refinement.load_state_dict(saved)
        self.model.refine_with(refinement)
        return refinement

    def once(self, name: str, work: Callable[[], object]) -> None:
        """Call ``work`` once per adaptation, however often that is interrupted and resumed."""
        if name not in self.place.once and not self.clock.stopped:
            with self.clock.timed("building"):
                work()
            self.place.once.add(name)

    # --- frames -------------------------------------------------------------------------------------------------

    def available(self) -> np.ndarray:
        """Numbers of the training frames that are tracked and not held out."""
        self.clip.check()
        frames = np.arange(len(self.clip))
        return frames if len(frames) <= len(self.held) + 1 else np.setdiff1d(frames, self.held, assume_unique=True)

    def inputs(self, batch: Batch, frames: np.ndarray | None = None) -> HeadInputs:
        """What moved the head in a batch of training frames, as tracked; ``frames`` are their numbers, if the host knows them."""
        if self._inputs is None or len(self._inputs) < len(self.clip):
            self._inputs = head_inputs(self.clip.motion(), self.device)
        rows = batch.index if frames is None else frames
        return self._inputs.pick(rows).with_(features=self.windows(batch.index), index=batch.index)

    def windows(self, index: Tensor) -> Tensor | None:
        """Audio rows ``[B, R, C]`` around frames; ``None`` for a silent clip, or a model that uses expressions alone."""
        features = self.features() if self.model.uses_audio else None
        return None if features is None else feature_windows(features, index)

    def features(self) -> Tensor | None:
        """Audio rows ``[T, C]`` of the frames so far; ``None`` for a silent clip."""
        if self.clip.has_sound and (self._features is None or len(self._features) < len(self.clip)):
            self._features = torch.from_numpy(self.clip.features().astype(np.float32)).to(self.device)
        return self._features

    # --- optimisation -------------------------------------------------------------------------------------------

    def stage(
        self,
        name: str,
        begin: float,
        until: float,
        groups: Iterable[Group],
        loss: Loss,
        *,
        sample: Sampler | None = None,
        before: Callable[[float], None] | None = None,
        after: Callable[[float], None] | None = None,
        floor: float = FLOOR,
        whole_every: int = 4,
        anneal: tuple[float, float] = (0.0, 1.0),
        densifier: Densifier | None = None,
    ) -> None:
        """Optimise parameter groups between two fractions of the budget.

        Args:
            name: unique within the recipe; the saved state is found by it.
            begin, until: fractions of the budget.
            groups: Adam groups with ``lr`` (at the stage's start) and ``name``.
            loss: scalar of a rendered batch and the real one.
            sample: which frames a step sees; by default one, all frames in random order before any is repeated.
            before: called with the stage's progress (0..1) before each step.
            after: called with the stage's progress after each step (densification).
            floor: share of their start that learning rates fall to along a cosine.
            anneal: fractions of the budget between which they fall; by default the whole budget.
            whole_every: the whole frame is rendered once in this many steps, else the window that holds the head;
                0: never.
            densifier: of a cloud of free Gaussians to optimise as well; it steps in ``after``.

        Raises:
            Stopped: a signal asked for the end.
        """
        number, self._stages = self._stages, self._stages + 1
        if number < self._resumed_at[0]:
            return
        begun = number == self._resumed_at[0]
        optimizers = Optimizers(groups, self.device, densifier)
        optimizers.restore(_under(f"{name}/", self.restored))
        self.optimizers = (name, optimizers)
        rates = [group["lr"] for group in optimizers.param_groups]
        steps = self._resumed_at[1] if begun else 0
        # Without an exact place, the share of the budget that is spent determines which stages are over.
        for progress in self.clock.steps(begin, until, begun=begun if self.exact else None):
            rng = seed_step(self.context.seed, self.device, "step", self.clock.iterations)
            for group, rate in zip(optimizers.param_groups, rates, strict=True):
                group["lr"] = rate * cosine(self.clock.fraction, *anneal, floor)
            if before is not None:
                before(progress)
            frames = next_frame(self.place, self.available(), rng) if sample is None else sample(progress, steps, rng)
            whole = bool(whole_every) and self.clock.iterations % whole_every == 0
            with self.clock.timed("steps"):
                self._step(optimizers, frames, loss, whole)
                if after is not None:
                    after(progress)
            steps += 1
            self.place.stage, self.place.steps = number, steps
            self.clock.tick()
            self._between(name)
        if self.clock.stopped:
            raise Stopped(name)

    def _step(self, optimizers: Optimizers, frames: np.ndarray, loss: Loss, whole: bool) -> None:
        batch, window = self._sight(frames, whole)
        optimizers.zero_grad()
        inputs = self.inputs(batch, frames)
        value = loss(self.model(inputs, window, self.shrink), batch)
        # A broken frame (black, all motion blur) must not end the run, nor reach the weights.
        if optimizers.refuses_behind:
            optimizers.refuse_broken(value.detach())
        elif not torch.isfinite(value):
            return
        value.backward()
        if window is None:
            mouths = self.clip.track["landmarks"][frames][:, facemesh.LIP_CORNERS, 1]
            self.model.backdrop.shield(batch.head, float(mouths.min()) / self.clip.size, inputs.background)
        optimizers.step()

    def _sight(self, frames: np.ndarray, whole: bool) -> tuple[Batch, Window | None]:
        """What a step sees of its frames: all, or the window that holds the head, which is returned too."""
        if whole:
            return self.clip.batch(frames, self.device, shrink=self.shrink), None
        landmarks = self.clip.track["landmarks"][frames] / self.shrink
        window = head_window(landmarks, self.model.size // self.shrink)
        top, left, height, width = (self.shrink * side for side in window)
        return self.clip.batch(frames, self.device, (top, left, height, width), self.shrink), window

    # --- between steps ------------------------------------------------------------------------------------------

    def _between(self, stage: str) -> None:
        if self.clip.done:
            self.once("complete backdrop", lambda: self.context.complete_backdrop(self.model))
            if self.when_tracked is not None and not self.clock.stopped:
                due, self.when_tracked = self.when_tracked, None
                due()
        if self.task is not None:
            self.task.update(self.clock.fraction)
        now = time.monotonic()
        if now - self._last_measure > MEASURE_EVERY:
            self.measure(stage)
            self._last_measure = time.monotonic()
        if self.save is not None and now - self._last_save > SAVE_EVERY:
            self.save()
            self._last_save = time.monotonic()

    @torch.no_grad()
    def measure(self, stage: str) -> float:
        """Face PSNR (dB) of the held-out frames with uncorrected tracks; NaN before one of them is tracked.

        Args:
            stage: name for the progress line.
        """
        held = self.held[self.held < len(self.clip)]
        values = []
        with self.clock.timed("measuring"):
            for frame in held[:: max(1, len(held) // MEASURED_FRAMES)][:MEASURED_FRAMES]:
                real, image, mask = self.look(int(frame))
                values.append(psnr(image, real, mask))
        value = float(np.nanmean(values)) if values else float("nan")
        self.history.append((self.clock.seconds, value))
        if self.task is not None:
            self.task.update(note=f"{stage}, face {value:.2f} dB")
        return value

    def why_unmeasured(self) -> str:
        """Why :meth:`measure` returned NaN."""
        if not len(self.held):
            return "the training frames are too few to hold any out; 20 or more are needed"
        if self.held.min() >= len(self.clip):
            return "the face leaves before the held-out frames, or the adaptation ended before they were tracked"
        return "no face is in view in the held-out frames"

    @torch.no_grad()
    def look(self, frame: int) -> tuple[Tensor, Tensor, Tensor]:
        """A real frame ``[H, W, 3]``, the same rendered as tracked, and the mask of its face ``[H, W]``, on the CPU."""
        batch = self.clip.batch([frame], self.device)
        image = self.model(self.inputs(batch).with_(index=None)).image
        return batch.image[0].cpu(), image[0].clamp(0, 1).cpu(), batch.masks["face"][0, ..., 0].cpu()

    # --- state --------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Tensor]:
        """What ``--resume`` needs besides the weights: place, Adam's moments by stage, track refinement, anchor."""
        self.place.pictured = self.context.pictured
        tensors = self.place.tensors()
        if self.model.refiner is not None:
            tensors |= {f"refine/{key}": value for key, value in self.model.refiner.state_dict().items()}
        start = getattr(self.model, "start", None)
        if start is not None:
            tensors["anchor"] = start
        if self.optimizers is not None:
            stage, optimizers = self.optimizers
            tensors |= {f"{stage}/{key}": value for key, value in optimizers.state().items()}
        return tensors


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
