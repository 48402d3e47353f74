"""The trained audio-expression prior: audio to facial motion, of any length and in any person's style."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cluster.registry.prior_folder import PriorInfo
from configs import InputError
from configs.records import revision_of
from pretrain.audio_expression import diffusion
from pretrain.audio_expression.model import ExpressionModel
from pretrain.audio_expression.objective import SequenceObjective
from pretrain.audio_expression.style import fit_style
from pretrain.audio_expression.targets import flatten_targets, split_targets, target_sizes
from pretrain.audio_expression.windows import RecentStatistics, Stitcher, frame_noise, utterance_statistics
from pretrain.roles import LiveFilter


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Options of sampling; ``None`` means the value of the prior's configuration.

    Attributes:
        style: ``[S]`` from :meth:`AudioExpressionPrior.find_style` or ``styles``; None: the mean style.
        steps, guidance, temperature: of the sampler.
        seed: of the noise, which is indexed by frame number.
        first: frame number of the first row.
        mean: statistics of the recording, if known beforehand (``utterance_statistics(features)`` of a whole file); by
            default those of the last seconds, which are slightly worse.
        correction_weight: factor on the network's correction of the regression.
    """

    style: np.ndarray | None = None
    steps: int | None = None
    guidance: float | None = None
    temperature: float | None = None
    seed: int = 0
    first: int = 0
    mean: np.ndarray | None = None
    correction_weight: float = 1.0


class AudioExpressionPrior:
    """Ready-to-use prior. Features are float ``[T, C]``, one row per frame of 40 ms; outputs are float32 NumPy arrays.

    Attributes:
        info: the ``prior.json`` dictionary.
        config: the configuration that it was trained with.
        features_name, features_size: the audio feature that it uses.
        mean_style: ``[S]`` the average style.
        styles: training person to style ``[S]``.
    """

    def __init__(self, model: ExpressionModel, info: PriorInfo, people: list[str]) -> None:
        self.model, self.info, self.config = model.eval(), info, model.config
        self.features_name, self.features_size = model.config.features, model.size
        self.mean_style = np.zeros(model.config.model.style, np.float32)
        table = model.denoiser.styles.weight.detach().cpu().numpy()
        self.styles = {name: table[i] for i, name in enumerate(people)}

    def check_features(self, features: np.ndarray, name: str | None = None) -> np.ndarray:
        """Features as float32 ``[T, C]``.

        Raises:
            InputError: features of another name or width.
        """
        if name is not None and name != self.features_name:
            raise InputError(
                f"audio features '{name}': this audio-expression prior uses '{self.features_name}'; "
                f"extract those, or use a prior trained on '{name}'"
            )
        features = np.asarray(features, np.float32)
        if features.ndim != 2 or features.shape[1] != self.features_size:
            raise InputError(
                f"audio features of shape {features.shape}: this audio-expression prior expects (frames, {self.features_size}) "
                f"of '{self.features_name}'; extract those"
            )
        return features

    def sample(self, features: np.ndarray, **options: Any) -> dict[str, np.ndarray]:
        """Motion for ``[T, C]`` features: ``expression [T, K]`` and the other targets of the config, e.g. ``eyelids [T, 2]``.

        With ``closure`` in the configuration also ``closure [T]``, by how much shut lips are more probable than usual.

        Args:
            options: see :class:`Sampling`. ``steps=1, temperature=0`` gives the model's mean: least error, calmest motion.

        Raises:
            InputError: features or utterance statistics of another size.
        """
        streamer = self.streamer(**options)
        parts = [streamer.push(features), streamer.finish()]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def expect(self, features: np.ndarray, *, style: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """The model's mean for a whole recording ``[T, C]``: one step, no noise, the recording's own statistics.

        It has the least error, but less motion than a real face: for measuring, not for display. The network's correction
        of the regression is scaled by ``diffusion.correction_weight``, because it is overconfident on new people.
        """
        features = self.check_features(features)
        return self.sample(
            features,
            style=style,
            steps=1,
            temperature=0.0,
            guidance=1.0,
            mean=self.utterance_statistics(features),
            correction_weight=self.config.diffusion.correction_weight,
        )

    def utterance_statistics(self, features: np.ndarray) -> np.ndarray:
        """Statistics of a whole recording ``[T, C]`` for ``sample(mean=...)``: the mean ``[C]``; with ``scale`` ``[2, C]``."""
        return utterance_statistics(self.check_features(features), self.config.scale)

    def _check_statistics(self, mean: np.ndarray) -> np.ndarray:
        mean = np.asarray(mean, np.float32)
        wanted = (2, self.features_size) if self.config.scale else (self.features_size,)
        if mean.shape != wanted:
            raise InputError(
                f"mean has shape {mean.shape}, this audio-expression prior expects {wanted}; "
                "give prior.utterance_statistics(features) of the whole recording"
            )
        return mean

    def stream(self, blocks: Iterable[np.ndarray], **options: Any) -> Iterator[dict[str, np.ndarray]]:
        """The same for a stream of blocks ``[n, C]``: yields frames as they become final; options as for :meth:`sample`."""
        streamer = self.streamer(**options)
        for block in blocks:
            yield streamer.push(block)
        yield streamer.finish()

    def streamer(self, **options: Any) -> MotionStream:
        """The push form of :meth:`stream`; ``push`` and ``finish`` return the frames that became final."""
        sampling = Sampling(**options)
        style = self.mean_style if sampling.style is None else np.asarray(sampling.style, np.float32)
        recent = RecentStatistics(self.config.memory, self.config.overlap, self.config.scale)
        known = None if sampling.mean is None else self._check_statistics(sampling.mean)

        def run(rows: np.ndarray, at: int) -> np.ndarray:
            return self._window(rows, recent(rows) if known is None else known, at, style, sampling)

        return MotionStream(
            self, Stitcher(self.config.window, self.config.overlap, run, self.model.columns, sampling.first)
        )

    @torch.no_grad()
    def _window(self, rows: np.ndarray, mean: np.ndarray, at: int, style: np.ndarray, sampling: Sampling) -> np.ndarray:
        model, config = self.model, self.config.diffusion
        device = model.alpha.device
        scale = config.guidance if sampling.guidance is None else sampling.guidance
        noise_scale = config.temperature if sampling.temperature is None else sampling.temperature
        steps = config.sample_steps if sampling.steps is None else sampling.steps
        features = model.normalise(torch.tensor(rows)[None].to(device), torch.tensor(mean)[None].to(device))
        style_row = torch.from_numpy(style)[None].to(device)
        reach = len(model.taps) // 2
        white = frame_noise(sampling.seed, at - reach, len(rows) + 2 * reach, model.dims)[None].to(device)
        noise = diffusion.smooth_noise(white, model.taps) * (noise_scale * model.amplitude)
        yes, no = torch.ones(1, dtype=torch.bool, device=device), torch.zeros(1, dtype=torch.bool, device=device)

        def predict(noisy: Tensor, t: Tensor) -> Tensor:
            conditional = model.predict(noisy, t, features, style_row, yes, sampling.correction_weight)
            if scale == 1.0:
                return conditional
            unconditional = model.predict(noisy, t, features, style_row, no, sampling.correction_weight)
            return unconditional + scale * (conditional - unconditional)

        clean = diffusion.denoise(config, noise, steps, predict)
        return model.with_closure(model.decode(clean), features)[0].cpu().numpy()

    @property
    def live(self) -> LiveFilter | None:
        """The regression for live use; ``None`` if the dataset had no rows for it."""
        live = self.model.live
        if live is None:
            return None
        return LiveFilter(
            feature=self.config.live,
            mean=live.mean.cpu().numpy(),
            weight=live.weight.cpu().numpy(),
            closure=None if live.closure is None else live.closure.cpu().numpy(),
            revision=revision_of(self.info.get("live")),
        )

    @property
    def tells_closure(self) -> bool:
        """Whether motion comes with ``closure``."""
        return self.model.closure is not None

    @property
    def audio_encoder(self) -> nn.Module:
        """The audio encoder, which adaptation keeps frozen."""
        return self.model.denoiser.audio

    @property
    def window(self) -> int:
        """Length of a training window, frames."""
        return self.config.window

    def parameters(self) -> Iterator[nn.Parameter]:
        """All trained parameters, including those of the audio encoder."""
        return self.model.parameters()

    def state_dict(self) -> dict[str, Tensor]:
        """Weights and statistics by name."""
        return self.model.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Load the result of :meth:`state_dict`."""
        self.model.load_state_dict(state)

    def loss(
        self, features: Tensor, expression: Tensor, eyelids: Tensor | None = None, style: Tensor | None = None
    ) -> Tensor:
        """The training loss on a person's own windows, for fine-tuning; uses torch's global random state.

        Args:
            features: ``[B, T, C]`` of one recording; expression: ``[B, T, K]``; eyelids: ``[B, T, 2]``;
                style: ``[B, S]`` or ``[S]``, the mean style by default.
        """
        device = self.model.alpha.device
        batch, frames = features.shape[:2]
        targets = self.model.target_mean.expand(batch, frames, -1).clone()
        given, at = {"expression": expression, "eyelids": eyelids}, 0
        for name, size in target_sizes(self.config.targets, self.model.n_expression).items():
            known = given.get(name)
            if known is not None:
                targets[..., at : at + size] = known.to(device)
            at += size
        style = torch.zeros(self.config.model.style, device=device) if style is None else style.to(device)
        objective = SequenceObjective(self.model).train(self.model.training).to(device)
        features = features.to(device)
        rows = features.detach().flatten(0, 1).cpu().numpy()
        statistics = torch.from_numpy(self.utterance_statistics(rows)).to(device)
        mean = statistics.expand(batch, *statistics.shape)
        weight = torch.ones(batch, device=device)
        return objective.step(features, mean, self.model.encode(targets), style.expand(batch, -1), weight)[0]

    def find_style(
        self, features: np.ndarray, track: dict[str, np.ndarray] | np.ndarray, *, iterations: int = 40, seed: int = 0
    ) -> np.ndarray:
        """The style ``[S]`` with which the model fits a person's clip best; the network stays frozen.

        Args:
            features: ``[T, C]``; track: the clip's track fields, or ``expression [T, K]`` alone.
            iterations: gradient steps after the closed-form resting face; 0 leaves them out.
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
        windows = torch.from_numpy(np.stack([features[s : s + window] for s in starts])).to(device)
        wanted = torch.from_numpy(np.stack([targets[s : s + window] for s in starts])).to(device)
        mean = torch.from_numpy(self.utterance_statistics(features))[None].to(device)
        return fit_style(self.model, self.model.normalise(windows, mean), self.model.encode(wanted), iterations, seed)

    def _targets(self, track: dict[str, np.ndarray] | np.ndarray) -> np.ndarray:
        if isinstance(track, dict):
            return flatten_targets(track, self.config.targets)
        # Missing fields stay at the training mean, where they have no effect.
        flat = self.model.target_mean.cpu().numpy()[None].repeat(len(track), 0)
        at = 0
        for name, size in target_sizes(self.config.targets, self.model.n_expression).items():
            if name == "expression":
                flat[:, at : at + size] = track
            at += size
        return flat.astype(np.float32)


class MotionStream:
    """Audio in, motion out, in blocks; the same values as :meth:`AudioExpressionPrior.sample` on the whole.

    Attributes:
        lookahead: number of later rows that a frame needs at most before it is final.
    """

    def __init__(self, prior: AudioExpressionPrior, stitcher: Stitcher) -> None:
        self.prior, self.stitcher, self.lookahead = prior, stitcher, stitcher.lookahead

    def push(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Take in feature rows ``[n, C]``; returns the targets of the frames that became final, possibly none."""
        return self._split(self.stitcher.push(self.prior.check_features(rows)))

    def finish(self) -> dict[str, np.ndarray]:
        """The targets of the remaining frames."""
        return self._split(self.stitcher.finish())

    def _split(self, flat: np.ndarray) -> dict[str, np.ndarray]:
        found = split_targets(flat, self.prior.config.targets, self.prior.model.n_expression)
        return {**found, "closure": flat[:, -1]} if self.prior.tells_closure else found
