"""The audio-expression task: diffusion over expression sequences, conditioned on sound and style."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heads.measures.face import component_importance, default_rig, lip_error, lip_motion, mouth_directions
from pretrain.audio_expression import diffusion
from pretrain.audio_expression.config import AudioExpressionConfig
from pretrain.audio_expression.prior import LEAST_STD, AudioExpressionPrior, ExpressionModel
from pretrain.audio_expression.targets import flatten_targets, target_sizes
from pretrain.audio_expression.view import WindowView
from pretrain.audio_expression.windows import levelled
from pretrain.baselines.baselines import RidgeFit, correlation, principal_columns
from pretrain.data.audible import speaking_people
from pretrain.data.sequences import Sequence, sequences
from pretrain.task import Evidence, Task, check_features

PURE_NOISE = 0.33


class SequenceObjective(nn.Module):
    """``forward(batch)``: the denoising loss of a batch of windows.

    Loss: L2 on the targets plus Huber on frame-to-frame differences, components weighted by how far they move the
    face and the lips; condition and style are dropped at random (Ho & Salimans 2022).
    """

    def __init__(self, model: ExpressionModel) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("importance", torch.ones(model.dims))
        self.register_buffer("mouth", torch.zeros(model.dims, 2))

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """batch: ``features`` [B, T, C], ``targets`` [B, T, D], ``person`` [B], ``weight`` [B]; returns the loss and its parts."""
        people, denoiser = batch["person"].clamp_min(0), self.model.denoiser
        known = torch.rand(len(people), device=people.device) >= self.model.config.diffusion.style_drop
        style = denoiser.styles(people) * known[:, None]
        # In the mean style everybody has the mean resting face, or the sound would have to tell who speaks.
        resting = denoiser.resting[people] * ~known[:, None]
        clean = self.model.encode(batch["targets"].float()) - resting[:, None]
        return self.step(batch["features"].float(), batch["mean"].float(), clean, style, batch["weight"].float())

    def step(
        self, features: Tensor, mean: Tensor, clean: Tensor, style: Tensor, weight: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Noise unit-sized windows [B, T, D], denoise them hearing features [B, T, C] in styles [B, S], and compare."""
        model, config = self.model, self.model.config
        features = model.normalise(features, mean)
        if self.training and config.augment.noise:
            features = features + config.augment.noise * torch.randn_like(features)
        count, device = len(clean), clean.device
        heard = torch.rand(count, device=device) >= config.diffusion.condition_drop
        t = torch.randint(0, config.diffusion.train_steps, (count,), device=device)
        # A third of the windows at pure noise: one-step means and the first sampling step both start there.
        last = torch.full_like(t, config.diffusion.train_steps - 1)
        t = torch.where(torch.rand(count, device=device) < PURE_NOISE, last, t)
        # Calm sampling scales its noise down, so the model must know windows with less of it.
        warmth = torch.where(torch.rand(count, device=device) < 0.5, torch.rand(count, device=device), 1.0)
        white = torch.randn(count, clean.shape[1] + len(model.taps) - 1, clean.shape[2], device=device)
        noise = diffusion.smooth_noise(white, model.taps) * warmth[:, None, None]
        noisy = diffusion.add_noise(model.alpha, clean, noise, t)
        return self.losses(model.predict(noisy, t, features, style, heard), clean, style, weight)

    def losses(self, guess: Tensor, clean: Tensor, style: Tensor, weight: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Weighted sum and parts; guess and clean [B, T, D], unit-sized; weight [B] is zero for unusable windows."""
        config = self.model.config.loss
        weight = (weight / weight.sum().clamp_min(1.0))[:, None]
        frame = ((guess - clean).square().mean(1) * self.importance * weight).sum(0).mean()
        moves = F.huber_loss(guess.diff(dim=1), clean.diff(dim=1), reduction="none").mean(1)
        difference = (moves * self.importance * weight).sum(0).mean()
        # How the mouth moves within a window: what sound tells, without the resting face, which it does not.
        error = (guess - clean) @ self.mouth
        mouth = ((error - error.mean(1, keepdim=True)).square().mean(1) * weight).sum(0).mean()
        size = style.square().mean()
        parts = {"frame": frame, "difference": difference, "mouth": mouth, "style": size}
        loss = torch.stack([getattr(config, name) * value for name, value in parts.items()]).sum()
        return loss, {name: value.detach() for name, value in parts.items()}


class AudioExpressionTask(Task):
    """See :class:`pretrain.task.Task`."""

    name: ClassVar[str] = "audio-expression"
    config_class: ClassVar[type] = AudioExpressionConfig

    def __init__(self, config: AudioExpressionConfig, train: Any, held: Any) -> None:
        super().__init__(config, train, held)
        self.size = check_features(train, config.features, self.name)
        self.people = sorted(train.identities)
        self.n_expression = int(train.track["expression"])

    @classmethod
    def usable(cls, dataset: Any, config: AudioExpressionConfig) -> Any:
        """The people who can be heard."""
        check_features(dataset, config.features, cls.name)
        return dataset.subset(speaking_people(dataset, config.unreliable))

    def view(self, *, training: bool) -> WindowView:
        """Windows of features and targets."""
        return WindowView(self.config, {name: i for i, name in enumerate(self.people)})

    def objective(self) -> SequenceObjective:
        """A fresh model with its losses."""
        model = ExpressionModel(self.config, self.size, self.n_expression, len(self.people))
        return SequenceObjective(model)

    def features(self) -> dict[str, Any]:
        """What the prior hears."""
        return {"name": self.config.features, "size": self.size}

    def sequences(self, dataset: Any) -> Iterator[Sequence]:
        """Trusted clips with sound, as long runs."""
        return sequences(dataset, self.config.features, unreliable=self.config.unreliable)

    def prepare(self, objective: SequenceObjective) -> None:
        """Statistics, the importance of each component and the ridge regression, from the training people alone."""
        heard, moved, rests = Moments(), Moments(), Moments()
        for sequence in self.sequences(self.train):
            targets = flatten_targets(sequence.track, self.config.targets)
            features = levelled(sequence.features, self.config.scale)
            heard.add(features - features.mean(0) if self.config.centre else features)
            moved.add(targets)
            rests.add(targets.mean(0, keepdims=True))
        model = objective.model
        model.feature_mean.copy_(torch.from_numpy(heard.mean()))
        model.feature_std.copy_(torch.from_numpy(heard.std()).clamp_min(LEAST_STD))
        # A clip counts once however long it is: a stranger's face is not likelier to rest as that of a long clip.
        model.target_mean.copy_(torch.from_numpy(rests.mean()))
        model.target_std.copy_(torch.from_numpy(moved.std()).clamp_min(LEAST_STD))
        self._weigh(objective)
        model.denoiser.set_resting(torch.from_numpy(self._resting(model)))
        if model.denoiser.linear is not None:
            self._fit_linear(model, objective.importance.numpy())

    def _resting(self, model: ExpressionModel) -> np.ndarray:
        """Mean targets of each training person (people, D), unit-sized; zero for people who were not heard."""
        moments = {name: Moments() for name in self.people}
        for run in self.sequences(self.train):
            targets = torch.from_numpy(flatten_targets(run.track, self.config.targets))
            moments[run.identity].add(model.encode(targets).numpy())
        empty = np.zeros(model.dims, np.float32)
        return np.stack([moments[name].mean() if moments[name].count else empty for name in self.people])

    def _weigh(self, objective: SequenceObjective) -> None:
        sizes = target_sizes(self.config.targets, self.n_expression)
        at = sum(sizes[name] for name in self.config.targets[: self.config.targets.index("expression")])
        here = slice(at, at + self.n_expression)
        scale, rig = objective.model.target_std[here].numpy(), default_rig()
        weight = component_importance(rig, scale, self.config.loss.lips)
        # Small components still count a little, or they would drift freely.
        objective.importance[here] = torch.from_numpy(np.maximum(weight, 0.05))
        directions = mouth_directions(rig, scale)
        spread = np.sqrt((directions**2).sum(0, keepdims=True))  # of components that vary by themselves
        objective.mouth[here] = torch.from_numpy((directions / spread).astype(np.float32))

    def _fit_linear(self, model: ExpressionModel, importance: np.ndarray) -> None:
        std, centre = model.feature_std.numpy(), self.config.centre

        def heard(run: Sequence) -> np.ndarray:
            return levelled(run.features, self.config.scale) / std

        columns = principal_columns((heard(run) for run in self.sequences(self.train)), centre=centre)
        fit = RidgeFit(context=self.config.linear_context, centre=centre, projection=columns)
        for run in self.sequences(self.train):
            targets = model.encode(torch.from_numpy(flatten_targets(run.track, self.config.targets))).numpy()
            fit.add(run.identity, heard(run), targets)
        weight, unexplained = fit.solve(importance=importance)
        model.denoiser.linear.weight.copy_(torch.from_numpy(weight))
        model.denoiser.spread.copy_(torch.from_numpy(unexplained).clamp(0.1, 1.0))

    def prior(self, objective: SequenceObjective) -> AudioExpressionPrior:
        """The objective's model as users get it."""
        return AudioExpressionPrior(objective.model, {"prior": self.name}, self.people)

    def validate(self, objective: SequenceObjective) -> dict[str, float]:
        """Mouth-opening correlation and lip error of the one-step mean, on the held-out people."""
        prior, rig, values = self.prior(objective), default_rig(), []
        for sequence in self.sequences(self.held):
            guess = prior.expect(sequence.features)["expression"]
            ours = lip_motion(rig, sequence.track["identity"], guess)
            real = lip_motion(rig, sequence.track["identity"], sequence.track["expression"])
            values.append((correlation(ours.opening, real.opening), lip_error(ours.lips, real.lips)))
        means = np.mean(values, axis=0) if values else (float("nan"), float("nan"))
        return {"mouth_correlation": float(means[0]), "lip_error": float(means[1])}

    def evidence(self, objective: SequenceObjective) -> Evidence:
        """See :mod:`pretrain.audio_expression.evidence`."""
        from pretrain.audio_expression.evidence import collect

        def train() -> Iterator[Sequence]:
            return self.sequences(self.train)

        def held() -> Iterator[Sequence]:
            return self.sequences(self.held)

        return collect(self.prior(objective), train, held, self.config.linear_context or 5)

    def weights(self, objective: SequenceObjective) -> dict[str, Tensor]:
        """The model without the training losses."""
        return super().weights(objective.model)


class Moments:
    """Mean and standard deviation of columns in one pass."""

    def __init__(self) -> None:
        self.count, self.total, self.squares = 0, 0.0, 0.0

    def add(self, rows: np.ndarray) -> None:
        """Take in (T, D) rows."""
        rows = rows.astype(np.float64)
        self.count += len(rows)
        self.total = self.total + rows.sum(0)
        self.squares = self.squares + (rows * rows).sum(0)

    def mean(self) -> np.ndarray:
        """(D,) float32."""
        return np.asarray(self.total / max(1, self.count), np.float32)

    def std(self) -> np.ndarray:
        """(D,) float32."""
        mean = self.total / max(1, self.count)
        return np.sqrt(np.maximum(self.squares / max(1, self.count) - mean * mean, 0)).astype(np.float32)
