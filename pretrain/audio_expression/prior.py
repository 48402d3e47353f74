"""The trained audio-expression prior: sound in, motion of a face out, at any length and in any person's style."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from configs import InputError
from pretrain.audio_expression import diffusion
from pretrain.audio_expression.config import AudioExpressionConfig
from pretrain.audio_expression.model import Denoiser
from pretrain.audio_expression.targets import flatten_targets, split_targets, target_sizes
from pretrain.audio_expression.windows import RecentMean, Stitcher, frame_noise, level_of

LEAST_STD = 1e-3
CERTAINTY = 20.0  # of a clip's mean as its resting face, in unit-sized targets


class ExpressionModel(nn.Module):
    """The denoiser with the statistics that make its inputs and outputs unit-sized.

    Args:
        size: C, columns of the audio features; n_expression: K of the rig; identities: rows of the style table.
        alpha: the schedule (train_steps,) where it is known already.
    """

    def __init__(
        self,
        config: AudioExpressionConfig,
        size: int,
        n_expression: int,
        identities: int,
        alpha: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.config, self.size, self.n_expression = config, size, n_expression
        self.dims = sum(target_sizes(config.targets, n_expression).values())
        self.denoiser = Denoiser(size, self.dims, identities, config.linear_context, config.model)
        self.register_buffer("feature_mean", torch.zeros(size))
        self.register_buffer("feature_std", torch.ones(size))
        self.register_buffer("target_mean", torch.zeros(self.dims))
        self.register_buffer("target_std", torch.ones(self.dims))
        self.register_buffer("alpha", diffusion.alphas(config.diffusion) if alpha is None else alpha.clone())
        self.register_buffer("taps", diffusion.smoothing(config.diffusion.smooth), persistent=False)

    def normalise(self, features: Tensor, mean: Tensor) -> Tensor:
        """Features [B, T, C] as the network wants them.

        ``mean`` [B, C] is that of the last seconds (with ``centre``); with ``scale`` it is mean and spread [B, 2, C].
        """
        if self.config.scale:
            return (features - mean[:, :1]) / (mean[:, 1:] * self.feature_std)
        return (features - (mean[:, None] if self.config.centre else self.feature_mean)) / self.feature_std

    def encode(self, targets: Tensor) -> Tensor:
        """Targets [B, T, D] in rig units to unit-sized ones."""
        return (targets - self.target_mean) / self.target_std

    def decode(self, x: Tensor) -> Tensor:
        """The inverse of :meth:`encode`."""
        return x * self.target_std + self.target_mean

    def predict(
        self, noisy: Tensor, t: Tensor, features: Tensor, style: Tensor, heard: Tensor, trust: float = 1.0
    ) -> Tensor:
        """Clean unit-sized targets from noisy ones; ``features`` already normalised; ``trust`` as in the denoiser."""
        return self.denoiser(noisy, t, self.alpha[t], features, style, heard, trust)


class AudioExpressionPrior:
    """Ready-to-use prior. Features are float (T, C), one row a frame of 40 ms; outputs are float32 NumPy arrays.

    Attributes:
        info: the ``prior.json`` dictionary; config: what it was trained with; features_name, features_size: what it
        hears; mean_style: (S,) the style of nobody in particular; styles: {training person: (S,)}.
    """

    def __init__(self, model: ExpressionModel, info: dict[str, Any], people: list[str]) -> None:
        self.model, self.info, self.config = model.eval(), info, model.config
        self.features_name, self.features_size = model.config.features, model.size
        self.mean_style = np.zeros(model.config.model.style, np.float32)
        table = model.denoiser.styles.weight.detach().cpu().numpy()
        self.styles = {name: table[i] for i, name in enumerate(people)}

    @classmethod
    def restore(cls, info: dict[str, Any], tensors: dict[str, Tensor], device: torch.device) -> AudioExpressionPrior:
        """From a prior folder's content (see :func:`pretrain.folder.load_prior`)."""
        from pretrain.folder import restored_config

        config, people = restored_config(info), list(info["dataset"]["identities"])
        rest = sum(target_sizes(config.targets, 0).values())
        n_expression = tensors["target_mean"].numel() - rest
        size = int(info["features"]["size"])
        model = ExpressionModel(config, size, n_expression, len(people), tensors.get("alpha"))
        model.load_state_dict(tensors)
        return cls(model.to(device), info, people)

    def check_features(self, features: np.ndarray, name: str | None = None) -> np.ndarray:
        """Refuse features of another name or width with a sentence instead of a shape error."""
        if name is not None and name != self.features_name:
            raise InputError(
                f"audio features '{name}': this audio-expression prior hears '{self.features_name}'; "
                f"extract those, or use a prior trained on '{name}'"
            )
        features = np.asarray(features, np.float32)
        if features.ndim != 2 or features.shape[1] != self.features_size:
            raise InputError(
                f"audio features of shape {features.shape}: this audio-expression prior expects (frames, {self.features_size}) "
                f"of '{self.features_name}'; extract those"
            )
        return features

    def sample(
        self,
        features: np.ndarray,
        *,
        style: np.ndarray | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        temperature: float | None = None,
        seed: int = 0,
        first: int = 0,
        mean: np.ndarray | None = None,
        trust: float = 1.0,
    ) -> dict[str, np.ndarray]:
        """Motion for (T, C) features: ``expression (T, K)`` and the other targets of the config, e.g. ``eyelids (T, 2)``.

        Args:
            style: (S,) from :meth:`find_style` or ``styles``; the mean style when absent.
            steps, guidance, temperature: of the sampler; the config's when absent. ``steps=1, temperature=0`` gives
                the mean of what the model thinks possible: least error, calmest motion.
            seed: of the noise, which belongs to frames: ``first`` is the first row's frame number.
            mean: level of the recording where it is known beforehand: ``level(features)`` of a whole file is a little
                better than that of the last seconds, which is used without it.
            trust: share of what the network adds to the regression.

        Raises:
            InputError: features or a level of another size.
        """
        streamer = self.streamer(
            style=style,
            steps=steps,
            guidance=guidance,
            temperature=temperature,
            seed=seed,
            first=first,
            mean=mean,
            trust=trust,
        )
        parts = [streamer.push(features), streamer.finish()]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def expect(self, features: np.ndarray, *, style: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """What the model expects on average for a whole recording (T, C): one step, no noise, its own mean level.

        The least error that the prior is capable of, and calmer than a face is: for measuring, not for showing. What
        the network adds to the regression counts as much as ``diffusion.caution`` says: it is surer of its training
        people than of a stranger.
        """
        features, level = self.check_features(features), self.level(features)
        trust = self.config.diffusion.caution
        return self.sample(features, style=style, steps=1, temperature=0.0, guidance=1.0, mean=level, trust=trust)

    def level(self, features: np.ndarray) -> np.ndarray:
        """What a whole recording (T, C) sounds like, as ``sample(mean=...)`` takes it: (C,), or (2, C) with ``scale``."""
        return level_of(self.check_features(features), self.config.scale)

    def _check_level(self, level: np.ndarray) -> np.ndarray:
        level = np.asarray(level, np.float32)
        wanted = (2, self.features_size) if self.config.scale else (self.features_size,)
        if level.shape != wanted:
            raise InputError(
                f"mean has shape {level.shape}, this audio-expression prior expects {wanted}; "
                "give prior.level(features) of the whole recording"
            )
        return level

    def stream(self, blocks: Iterable[np.ndarray], **options: Any) -> Iterator[dict[str, np.ndarray]]:
        """The same for a stream of blocks (n, C): finished frames as they come; options as :meth:`sample`."""
        streamer = self.streamer(**options)
        for block in blocks:
            yield streamer.push(block)
        yield streamer.finish()

    def streamer(
        self,
        *,
        style: np.ndarray | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        temperature: float | None = None,
        seed: int = 0,
        first: int = 0,
        mean: np.ndarray | None = None,
        trust: float = 1.0,
    ) -> MotionStream:
        """The push form of :meth:`stream`: ``push(rows (n, C))`` and ``finish()`` give the frames that became final."""
        style = self.mean_style if style is None else np.asarray(style, np.float32)
        recent = RecentMean(self.config.memory, self.config.overlap, self.config.scale)
        known = None if mean is None else self._check_level(mean)

        def run(rows: np.ndarray, at: int) -> np.ndarray:
            level = recent(rows) if known is None else known
            return self._window(rows, level, at, style, steps, guidance, temperature, seed, trust)

        return MotionStream(self, Stitcher(self.config.window, self.config.overlap, run, self.model.dims, first))

    @torch.no_grad()
    def _window(
        self,
        rows: np.ndarray,
        mean: np.ndarray,
        at: int,
        style: np.ndarray,
        steps: int | None,
        guidance: float | None,
        temperature: float | None,
        seed: int,
        trust: float,
    ) -> np.ndarray:
        model, config = self.model, self.config.diffusion
        device = model.alpha.device
        scale = config.guidance if guidance is None else guidance
        warmth = config.temperature if temperature is None else temperature
        features = model.normalise(torch.tensor(rows)[None].to(device), torch.tensor(mean)[None].to(device))
        wanted = torch.from_numpy(style)[None].to(device)
        reach = len(model.taps) // 2
        white = frame_noise(seed, at - reach, len(rows) + 2 * reach, model.dims)[None].to(device)
        noise = diffusion.smooth_noise(white, model.taps) * warmth
        yes, no = torch.ones(1, dtype=torch.bool, device=device), torch.zeros(1, dtype=torch.bool, device=device)

        def predict(noisy: Tensor, t: Tensor) -> Tensor:
            heard = model.predict(noisy, t, features, wanted, yes, trust)
            if scale == 1.0:
                return heard
            deaf = model.predict(noisy, t, features, wanted, no, trust)
            return deaf + scale * (heard - deaf)

        clean = diffusion.denoise(config, noise, config.sample_steps if steps is None else steps, predict)
        return model.decode(clean)[0].cpu().numpy()

    @property
    def audio_encoder(self) -> nn.Module:
        """The part that listens; adaptation keeps it as it is."""
        return self.model.denoiser.audio

    def parameters(self) -> Iterator[nn.Parameter]:
        """Everything that training moved, the audio encoder among them."""
        return self.model.parameters()

    def state_dict(self) -> dict[str, Tensor]:
        """Weights and statistics by name."""
        return self.model.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over what :meth:`state_dict` gave."""
        self.model.load_state_dict(state)

    def loss(
        self, features: Tensor, expression: Tensor, eyelids: Tensor | None = None, style: Tensor | None = None
    ) -> Tensor:
        """The training loss on a person's own windows, for fine-tuning; uses torch's global random state.

        Args:
            features: (B, T, C) of one recording; expression: (B, T, K); eyelids: (B, T, 2); style: (B, S) or (S,), the
                mean style when absent.
        """
        from pretrain.audio_expression.task import SequenceObjective

        device = self.model.alpha.device
        batch, frames = features.shape[:2]
        targets = self.model.target_mean.expand(batch, frames, -1).clone()
        given, at = {"expression": expression, "eyelids": eyelids}, 0
        for name, size in target_sizes(self.config.targets, self.model.n_expression).items():
            if given.get(name) is not None:
                targets[..., at : at + size] = given[name].to(device)
            at += size
        style = torch.zeros(self.config.model.style, device=device) if style is None else style.to(device)
        objective = SequenceObjective(self.model).train(self.model.training).to(device)
        features = features.to(device)
        level = torch.from_numpy(self.level(features.detach().flatten(0, 1).cpu().numpy())).to(device)
        mean = level.expand(batch, *level.shape)
        weight = torch.ones(batch, device=device)
        return objective.step(features, mean, self.model.encode(targets), style.expand(batch, -1), weight)[0]

    def find_style(
        self, features: np.ndarray, track: dict[str, np.ndarray] | np.ndarray, *, iterations: int = 40, seed: int = 0
    ) -> np.ndarray:
        """The style (S,) under which the model explains a person's clip best; the network stays as it is.

        Args:
            features: (T, C); track: the clip's track fields (the config's targets among them), or ``expression (T, K)``.
        """
        features = self.check_features(features)
        targets = self._targets(track)
        if len(targets) != len(features):
            raise InputError(
                f"features have {len(features)} rows and the track {len(targets)}; they must share their frames"
            )
        window = min(self.config.window, len(features))
        starts = range(0, len(features) - window + 1, max(1, window // 2))
        device = self.model.alpha.device
        heard = torch.from_numpy(np.stack([features[s : s + window] for s in starts])).to(device)
        wanted = torch.from_numpy(np.stack([targets[s : s + window] for s in starts])).to(device)
        mean = torch.from_numpy(self.level(features))[None].to(device)
        return _fit_style(self.model, self.model.normalise(heard, mean), self.model.encode(wanted), iterations, seed)

    def _targets(self, track: dict[str, np.ndarray] | np.ndarray) -> np.ndarray:
        if isinstance(track, dict):
            return flatten_targets(track, self.config.targets)
        # Fields that the caller does not know stay at the training mean, where they pull nowhere.
        flat = self.model.target_mean.cpu().numpy()[None].repeat(len(track), 0)
        at = 0
        for name, size in target_sizes(self.config.targets, self.model.n_expression).items():
            if name == "expression":
                flat[:, at : at + size] = track
            at += size
        return flat.astype(np.float32)


class MotionStream:
    """Sound in, motion out, in pieces; the same values as :meth:`AudioExpressionPrior.sample` on the whole.

    Attributes:
        lookahead: frames of sound after its own that a frame needs at most before it is final.
    """

    def __init__(self, prior: AudioExpressionPrior, stitcher: Stitcher) -> None:
        self.prior, self.stitcher, self.lookahead = prior, stitcher, stitcher.lookahead

    def push(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Take in feature rows (n, C); the targets of the frames that became final, possibly none."""
        return self._split(self.stitcher.push(self.prior.check_features(rows)))

    def finish(self) -> dict[str, np.ndarray]:
        """The targets of the remaining frames."""
        return self._split(self.stitcher.finish())

    def _split(self, flat: np.ndarray) -> dict[str, np.ndarray]:
        return split_targets(flat, self.prior.config.targets, self.prior.model.n_expression)


def _fit_style(model: ExpressionModel, features: Tensor, clean: Tensor, iterations: int, seed: int) -> np.ndarray:
    """The resting face in closed form, then Adam on the style alone at high noise, where style must explain the rest."""
    device = clean.device
    generator = torch.Generator().manual_seed(derive_style(seed))
    with torch.no_grad():
        first = model.denoiser.resting_style((clean - _motion(model, features)).mean((0, 1)), CERTAINTY)
    style = first[None].clone().requires_grad_()
    optimizer = torch.optim.Adam([style], lr=0.02)
    steps, batch = len(model.alpha), min(8, len(clean))
    frozen = [p for p in model.parameters() if p.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        with torch.enable_grad():
            for _ in range(iterations):
                pick = torch.randperm(len(clean), generator=generator)[:batch].to(device)
                t = torch.randint(steps // 2, steps, (batch,), generator=generator).to(device)
                noise = torch.randn(clean[pick].shape, generator=generator).to(device)
                noisy = diffusion.add_noise(model.alpha, clean[pick], noise, t)
                heard = torch.ones(batch, dtype=torch.bool, device=device)
                guess = model.predict(noisy, t, features[pick], style.expand(batch, -1), heard)
                loss = (guess - clean[pick]).square().mean() + 0.05 * (style - first).square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)
    return style.detach()[0].cpu().numpy()


def _motion(model: ExpressionModel, features: Tensor) -> Tensor:
    """What the mean style expects for normalised features [B, T, C], unit-sized: speech, not the face at rest."""
    count, device = len(features), features.device
    t = torch.full((count,), len(model.alpha) - 1, device=device)
    noisy = torch.zeros(*features.shape[:2], model.dims, device=device)
    style = torch.zeros(count, model.config.model.style, device=device)
    return model.predict(noisy, t, features, style, torch.ones(count, dtype=torch.bool, device=device))


def derive_style(seed: int) -> int:
    """Seed of the style search."""
    from configs.seeds import derive

    return derive(seed, "style")
