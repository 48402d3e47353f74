"""The conditional diffusion transformer over expression sequences."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pretrain.audio_expression import diffusion
from pretrain.audio_expression.config import AudioExpressionConfig, DenoiserConfig
from pretrain.audio_expression.layers import DenoiserLayer, EncoderLayer, RelativeBias, sinusoid
from pretrain.audio_expression.targets import target_sizes


class LinearPart(nn.Module):
    """A ridge regression: a frozen linear filter from ``2·context+1`` feature rows to the targets.

    The diffusion starts from it: with an untrained transformer the model's mean *is* the regression.
    """

    weight: Tensor

    def __init__(self, size: int, targets: int, context: int) -> None:
        super().__init__()
        self.context = context
        self.register_buffer("weight", torch.zeros(targets, size, 2 * context + 1))

    def forward(self, features: Tensor) -> Tensor:
        """Normalised ``features [B, T, C]`` to targets ``[B, T, D]``; the ends are continued with the last row."""
        rows = F.pad(features.transpose(1, 2), (self.context, self.context), mode="replicate")
        return F.conv1d(rows, self.weight).transpose(1, 2)


class UtteranceEncoder(nn.Module):
    """Speech features to one condition per frame and one for the whole window (a shallow transformer)."""

    def __init__(self, size: int, config: DenoiserConfig) -> None:
        super().__init__()
        width = config.width
        self.stem = nn.ModuleList([nn.Conv1d(size, width, 5, padding=2), nn.Conv1d(width, width, 5, padding=2)])
        self.bias = RelativeBias(config.heads, config.reach)
        self.layers = nn.ModuleList(
            EncoderLayer(width, config.heads, config.dropout) for _ in range(config.audio_layers)
        )
        self.norm, self.drop = nn.LayerNorm(width), nn.Dropout(config.dropout)
        self.silence = nn.Parameter(torch.zeros(width))

    def forward(self, features: Tensor, conditioned: Tensor) -> tuple[Tensor, Tensor]:
        """``features [B, T, C]``, ``conditioned [B]`` (``False`` drops the condition) to ``[B, T, W]`` and ``[B, W]``."""
        x = features.transpose(1, 2)
        for layer in self.stem:
            x = F.gelu(layer(x))
        x = self.drop(x.transpose(1, 2))
        bias = self.bias(x.shape[1], x.shape[1], 0, x.device)
        for layer in self.layers:
            x = layer(x, bias)
        x = torch.where(conditioned[:, None, None], self.norm(x), self.silence.to(x.dtype))
        return x, x.mean(1)


class Denoiser(nn.Module):
    """Predicts the clean targets from noisy ones, the audio and a style.

    ``x0 = m + k·(x_t − √ᾱ·m) + c·net``: ``m`` is the linear part plus the style's resting face, ``k`` the gain of the
    Gaussian posterior around it with residual variance ``spread``, ``c = √(1−√ᾱ·k)`` keeps the network's share small
    where the noisy input already determines the result. The network's output is zero at initialisation, so training starts
    at the posterior of the ridge regression. Time enters by FiLM and as a token.
    """

    resting: Tensor
    spread: Tensor

    def __init__(self, size: int, targets: int, identities: int, context: int, config: DenoiserConfig) -> None:
        super().__init__()
        width = config.width
        self.config, self.targets = config, targets
        self.linear = LinearPart(size, targets, context) if context else None
        self.audio = UtteranceEncoder(size, config)
        self.styles = nn.Embedding(identities, config.style)
        nn.init.normal_(self.styles.weight, std=0.1)
        self.rest = nn.Linear(config.style, targets, bias=False)
        self.gain = nn.Linear(config.style, targets, bias=False)
        self.register_buffer("resting", torch.zeros(identities, targets))  # each training person's mean targets
        self.input = nn.Linear(2 * targets, width)
        self.listen = nn.Linear(width, width)
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.utterance = nn.Linear(width + config.style, width)
        self.own_bias, self.cross_bias = (
            RelativeBias(config.heads, config.reach),
            RelativeBias(config.heads, config.reach),
        )
        self.layers = nn.ModuleList(DenoiserLayer(width, config.heads, config.dropout) for _ in range(config.layers))
        self.norm, self.output = nn.LayerNorm(width), nn.Linear(width, targets)
        for module in (self.output, self.rest, self.gain):
            nn.init.zeros_(module.weight)
        nn.init.zeros_(self.output.bias)
        self.register_buffer("spread", torch.ones(targets))

    @torch.no_grad()
    def set_resting(self, resting: Tensor) -> None:
        """Initialise the styles from each person's resting face: ``resting [P, D]``, normalised mean targets.

        Columns of ``rest`` are the principal directions in which people differ, scaled by their spread (with a floor, so
        that every face can be reached). A style is then roughly a standard normal vector.
        """
        self.resting.copy_(resting)
        covariance = resting.T @ resting / len(resting)
        covariance = covariance + 0.1 * covariance.diagonal().mean() * torch.eye(len(covariance))
        values, vectors = torch.linalg.eigh(covariance)
        count = min(self.rest.in_features, len(values))
        scale = values.flip(0)[:count].clamp_min(1e-8).sqrt()
        directions = vectors.flip(1)[:, :count]
        self.rest.weight[:, :count] = directions * scale
        self.styles.weight[:, :count] = resting @ directions / scale

    def resting_style(self, resting: Tensor, certainty: float) -> Tensor:
        """The most probable style ``[S]`` of a face at ``resting [D]``, which is known to a variance of ``1 / certainty``."""
        weight = self.rest.weight
        system = weight.T @ weight * certainty + torch.eye(weight.shape[1], device=weight.device)
        return torch.linalg.solve(system, weight.T @ resting * certainty)

    def mean(self, features: Tensor, style: Tensor, conditioned: Tensor) -> Tensor:
        """The linear prediction ``[B, T, D]``, normalised: the regression scaled by the style, plus its resting face.

        Args:
            features: ``[B, T, C]``, normalised.
            style: ``[B, S]``.
            conditioned: ``[B]``, false where the audio is not heard.
        """
        rest = self.rest(style)[:, None]
        if self.linear is None:
            return rest.expand(-1, features.shape[1], -1)
        loudness = conditioned[:, None, None] * (1 + torch.tanh(self.gain(style))[:, None])
        return self.linear(features) * loudness + rest

    def forward(
        self,
        noisy: Tensor,
        t: Tensor,
        alpha: Tensor,
        features: Tensor,
        style: Tensor,
        conditioned: Tensor,
        correction_weight: float = 1.0,
    ) -> Tensor:
        """The clean targets ``[B, T, D]``.

        Args:
            noisy: ``[B, T, D]``.
            t: ``[B]``, the step of each sequence.
            alpha: ``[B]``, ᾱ at that step.
            features: ``[B, T, C]``, normalised.
            style: ``[B, S]``.
            conditioned: ``[B]``, false where the audio is not heard.
            correction_weight: share of the network's correction that counts.
        """
        mean = self.mean(features, style, conditioned)
        alpha = alpha[:, None, None]
        gain = alpha.sqrt() * self.spread / (alpha * self.spread + 1 - alpha)
        guess = mean + gain * (noisy - alpha.sqrt() * mean)
        share = (1 - alpha.sqrt() * gain).clamp_min(1e-6).sqrt()
        return guess + correction_weight * share * self.network(noisy, mean, t, features, style, conditioned)

    def network(
        self, noisy: Tensor, mean: Tensor, t: Tensor, features: Tensor, style: Tensor, conditioned: Tensor
    ) -> Tensor:
        """The transformer's correction ``[B, T, D]``."""
        audio, whole = self.audio(features, conditioned)
        time = self.time(sinusoid(t, self.config.width))
        utterance = self.utterance(torch.cat([whole, style], -1))
        tokens, condition = torch.stack([time, utterance], 1), time + utterance
        frames = noisy.shape[1]
        own = self.own_bias(frames, frames, 2, noisy.device)
        cross = self.cross_bias(frames, frames, 2, noisy.device)
        x = self.input(torch.cat([noisy, mean], -1)) + self.listen(audio)
        for layer in self.layers:
            x = layer(x, audio, tokens, F.silu(condition), own, cross)
        return self.output(self.norm(x))


class LiveRegression(nn.Module):
    """``(rows - mean) @ weight``: the expression ``[T, K]`` around the resting face, from rows ``[T, C]`` for live use.

    Attributes:
        mean: ``[C]`` the average of the training clips' mean rows.
        weight: ``[C, K]``.
        closure: ``[C]``, to how much more probable than usual it is that the lips are shut; ``None`` if it is not wanted.
    """

    mean: Tensor
    weight: Tensor
    closure: Tensor | None

    def __init__(self, size: int, n_expression: int, closure: bool = False) -> None:
        super().__init__()
        self.register_buffer("closure", torch.zeros(size) if closure else None)
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("weight", torch.zeros(size, n_expression))


class ExpressionModel(nn.Module):
    """The denoiser with the statistics that normalise its inputs and outputs.

    Args:
        size: C, columns of the audio features; n_expression: K of the rig; identities: rows of the style table.
        alpha: ᾱ ``[train_steps]`` of a stored schedule; by default computed by ``diffusers``.
        live: columns of the feature for live use; 0: no regression for it.
    """

    feature_mean: Tensor
    feature_std: Tensor
    target_mean: Tensor
    target_std: Tensor
    alpha: Tensor
    taps: Tensor
    amplitude: Tensor

    def __init__(
        self,
        config: AudioExpressionConfig,
        size: int,
        n_expression: int,
        identities: int,
        alpha: Tensor | None = None,
        live: int = 0,
    ) -> None:
        super().__init__()
        self.live = LiveRegression(live, n_expression, config.closure) if live else None
        self.closure = LinearPart(size, 1, config.linear_context) if config.closure else None
        self.config, self.size, self.n_expression = config, size, n_expression
        self.dims = sum(target_sizes(config.targets, n_expression).values())
        self.denoiser = Denoiser(size, self.dims, identities, config.linear_context, config.model)
        self.register_buffer("feature_mean", torch.zeros(size))
        self.register_buffer("feature_std", torch.ones(size))
        self.register_buffer("target_mean", torch.zeros(self.dims))
        self.register_buffer("target_std", torch.ones(self.dims))
        self.register_buffer("alpha", diffusion.alphas(config.diffusion) if alpha is None else alpha.clone())
        self.register_buffer("amplitude", torch.tensor(1.0))  # of the noise at temperature 1, see evidence.calibrate
        self.register_buffer("taps", diffusion.smoothing(config.diffusion.smooth), persistent=False)

    def normalise(self, features: Tensor, mean: Tensor) -> Tensor:
        """``features [B, T, C]`` normalised for the network, ``[B, T, C]``.

        ``mean`` ``[B, C]`` is that of the last seconds (with ``centre``); with ``scale`` it is mean and spread ``[B, 2, C]``.
        """
        if self.config.scale:
            return (features - mean[:, :1]) / (mean[:, 1:] * self.feature_std)
        return (features - (mean[:, None] if self.config.centre else self.feature_mean)) / self.feature_std

    @property
    def columns(self) -> int:
        """Columns of what sampling gives: the targets, and with ``closure`` how much more probable shut lips are than usual."""
        return self.dims + (self.closure is not None)

    def with_closure(self, targets: Tensor, features: Tensor) -> Tensor:
        """``targets [B, T, D]`` with the column for shut lips from normalised ``features [B, T, C]``, if there is one."""
        return targets if self.closure is None else torch.cat([targets, self.closure(features)], -1)

    def encode(self, targets: Tensor) -> Tensor:
        """``targets [B, T, D]`` in the track's units to normalised ones ``[B, T, D]``."""
        return (targets - self.target_mean) / self.target_std

    def decode(self, x: Tensor) -> Tensor:
        """The inverse of :meth:`encode`."""
        return x * self.target_std + self.target_mean

    def predict(
        self,
        noisy: Tensor,
        t: Tensor,
        features: Tensor,
        style: Tensor,
        conditioned: Tensor,
        correction_weight: float = 1.0,
    ) -> Tensor:
        """Clean normalised targets from noisy ones; ``features`` are normalised, ``correction_weight`` is as in the denoiser."""
        return self.denoiser(noisy, t, self.alpha[t], features, style, conditioned, correction_weight)
