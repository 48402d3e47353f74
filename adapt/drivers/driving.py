"""From audio features to expressions, frame by frame: a prior where one is given, else what the person's clip taught.

A driver says how far it looks ahead (``lookahead`` frames) and gives streams; a stream takes feature rows as they
come and returns the expression of every frame that became final. Offline driving is the same stream fed at once, so
both give the same frames.

Expressions are dictionaries of float32 arrays: ``expression [T, K]``, and ``eyelids [T, 2]``, ``gaze [T, 2, 2]``
where the driver knows about them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import numpy as np
import torch

from configs import InputError

Expressions = dict[str, np.ndarray]


class Stream(Protocol):
    """Feature rows in, expressions of finished frames out."""

    def push(self, rows: np.ndarray) -> Expressions: ...
    def finish(self) -> Expressions: ...


class Driver(Protocol):
    """``name`` says in the result what moved the lips."""

    name: str
    lookahead: int

    def stream(self) -> Stream: ...


class Bounds:
    """Keeps driven expressions near those that the person's clip showed.

    A driver may err far (a weak prior, a foreign voice), and a head is only known near its training frames: beyond,
    its learned corrections extrapolate and the face falls apart. Each component stays within the clip's range and a
    margin, and the whole vector no farther from the clip's mean than the farthest frame and a quarter.

    Args:
        expression: ``[T, K]`` of the training clip, in deviations of the rig's basis.
    """

    def __init__(self, expression: np.ndarray) -> None:
        # A short clip shows little of what a face can do: it leaves more room.
        margin = 0.5 + 1.5 * float(np.exp(-len(expression) / 50.0))
        self.low, self.high = expression.min(0) - margin, expression.max(0) + margin
        self.mean = expression.mean(0)
        self.scale = np.sqrt(expression.var(0) + 0.25)
        self.farthest = max(4.0, 1.25 * float(self._distance(expression).max()))

    def _distance(self, expression: np.ndarray) -> np.ndarray:
        return np.linalg.norm((expression - self.mean) / self.scale, axis=1)

    def __call__(self, expression: np.ndarray) -> np.ndarray:
        """Bounded expressions ``[T, K]`` float32; what is not a number becomes the clip's mean."""
        expression = np.where(np.isfinite(expression), expression, self.mean)
        expression = np.clip(expression, self.low, self.high)
        shrink = np.minimum(1.0, self.farthest / np.maximum(self._distance(expression), 1e-9))
        return (self.mean + (expression - self.mean) * shrink[:, None]).astype(np.float32)


class WindowStream:
    """Applies a function of windows of ``2 * context + 1`` rows; the first and last rows are repeated past the ends."""

    def __init__(self, context: int, apply: Callable[[np.ndarray], Expressions]) -> None:
        self.context, self.apply = context, apply
        self.rows: np.ndarray | None = None

    def push(self, rows: np.ndarray) -> Expressions:
        """Expressions of the frames whose whole window has arrived."""
        rows = np.asarray(rows, np.float32)
        if self.rows is None:
            if not len(rows):
                return {}
            rows = np.concatenate([np.repeat(rows[:1], self.context, 0), rows])
            self.rows = rows[:0]
        self.rows = np.concatenate([self.rows, rows])
        return self._ready()

    def finish(self) -> Expressions:
        """Expressions of the last frames."""
        if self.rows is None or not len(self.rows):
            return {}
        self.rows = np.concatenate([self.rows, np.repeat(self.rows[-1:], self.context, 0)])
        return self._ready()

    def _ready(self) -> Expressions:
        ready = len(self.rows) - 2 * self.context
        if ready <= 0:
            return {}
        windows = np.lib.stride_tricks.sliding_window_view(self.rows, 2 * self.context + 1, 0)[:ready]
        # Window by window: a matrix product over more rows rounds differently, and streams must repeat bit for bit.
        parts = [self.apply(windows[i : i + 1].transpose(0, 2, 1)) for i in range(ready)]
        self.rows = self.rows[ready:]
        return _joined(parts)


# Candidates for the penalty of a ridge regression; the largest leaves nothing but the mean.
PENALTIES = 10.0 ** np.arange(1.0, 7.5, 0.5)
# Frames that penalties are chosen on: a minute says enough, and the cost grows with the cube.
CHOOSING_FRAMES = 1500


class RidgeDriver:
    """Ridge regression from log-mel rows within ±0.2 s to the expression, fitted on the person's own clip.

    It needs no prior and learns from seconds, but knows only the sounds of that clip: a baseline, named as such in
    every result. Each component of the expression has its own penalty, chosen on held-back blocks of the clip: what
    sound does not tell (a head that turns shows in some components) stays at the person's mean, what it does is not
    held back for its sake.
    """

    name = "ridge regression on the person's own clip (no audio-expression prior)"
    lookahead = 5

    def __init__(self, mean: np.ndarray, spread: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> None:
        self.mean, self.spread, self.weight, self.bias = mean, spread, weight, bias

    @classmethod
    def fit(cls, features: np.ndarray, expression: np.ndarray) -> RidgeDriver:
        """Fit on ``features [T, C]`` and ``expression [T, K]`` of one clip.

        Raises:
            ValueError: fewer than 25 frames, from which nothing can be learned.
        """
        if len(features) < 25:
            raise ValueError(f"{len(features)} frames are too few to learn how this person moves to sound")
        mean, spread = features.mean(0), features.std(0) + 1e-3
        windows = cls._windows((features - mean) / spread)
        bias = expression.mean(0)
        target = expression - bias
        errors = cls._held_back_errors(windows[:CHOOSING_FRAMES], target[:CHOOSING_FRAMES])
        weight = _ridge(windows, target, PENALTIES[errors.argmin(0)])
        return cls(
            mean.astype(np.float32),
            spread.astype(np.float32),
            weight.astype(np.float32),
            bias.astype(np.float32),
        )

    @classmethod
    def _windows(cls, rows: np.ndarray) -> np.ndarray:
        padded = np.pad(rows, ((cls.lookahead, cls.lookahead), (0, 0)), mode="edge")
        windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * cls.lookahead + 1, 0)
        return np.ascontiguousarray(windows.transpose(0, 2, 1)).reshape(len(rows), -1)

    @staticmethod
    def _held_back_errors(windows: np.ndarray, target: np.ndarray, blocks: int = 4) -> np.ndarray:
        """Squared error ``[P, K]`` of each penalty and component on held-back blocks."""
        fold = np.arange(len(windows)) * blocks // len(windows)
        errors = np.zeros((len(PENALTIES), target.shape[1]))
        for block in range(blocks):
            learn, test = _Spectrum(windows[fold != block], target[fold != block]), fold == block
            seen = learn.project(windows[test])
            for i, penalty in enumerate(PENALTIES):
                errors[i] += ((seen @ learn.solved(np.full(target.shape[1], penalty)) - target[test]) ** 2).sum(0)
        return errors

    def stream(self) -> Stream:
        """A new stream."""
        return WindowStream(self.lookahead, self._apply)

    def _apply(self, windows: np.ndarray) -> Expressions:
        rows = ((windows - self.mean) / self.spread).reshape(len(windows), -1)
        return {"expression": (rows @ self.weight + self.bias).astype(np.float32)}

    def tensors(self) -> dict[str, torch.Tensor]:
        """What an avatar keeps of it."""
        names = ("mean", "spread", "weight", "bias")
        return {name: torch.from_numpy(np.ascontiguousarray(getattr(self, name))) for name in names}

    @classmethod
    def from_tensors(cls, tensors: dict[str, torch.Tensor]) -> RidgeDriver:
        """The inverse of :meth:`tensors`."""
        return cls(*(tensors[name].numpy() for name in ("mean", "spread", "weight", "bias")))


class _Spectrum:
    """Rows ``[T, D]`` and targets ``[T, K]`` in the eigenbasis of the smaller Gram matrix: any penalty costs little."""

    def __init__(self, rows: np.ndarray, target: np.ndarray) -> None:
        rows = rows.astype(np.float64)
        self.dual = len(rows) < rows.shape[1]
        self.values, vectors = np.linalg.eigh(rows @ rows.T if self.dual else rows.T @ rows)
        # Row space: weights are ``basis @ solved(penalty)``.
        self.basis = rows.T @ vectors if self.dual else vectors
        self.aims = vectors.T @ target if self.dual else vectors.T @ (rows.T @ target)

    def project(self, rows: np.ndarray) -> np.ndarray:
        """Coordinates ``[T, M]`` of rows, to be multiplied by :meth:`solved`."""
        return rows.astype(np.float64) @ self.basis

    def solved(self, penalties: np.ndarray) -> np.ndarray:
        """Coefficients ``[M, K]`` for one penalty per target column."""
        return self.aims / (np.maximum(self.values, 0.0)[:, None] + penalties)


def _ridge(rows: np.ndarray, target: np.ndarray, penalties: np.ndarray) -> np.ndarray:
    """``argmin ||rows w - target||² + penalty ||w||²`` with a penalty per column of the target."""
    spectrum = _Spectrum(rows, target)
    return spectrum.basis @ spectrum.solved(penalties)


class LoudnessDriver:
    """Opens the jaw with the loudness: all that can be done for a silent clip without a prior."""

    name = "loudness to jaw (the clip has no sound and no audio-expression prior was given)"
    lookahead = 1

    def __init__(self, rest: np.ndarray, jaw: np.ndarray) -> None:
        self.rest, self.jaw = rest, jaw

    def stream(self) -> Stream:
        """A new stream."""
        return WindowStream(self.lookahead, self._apply)

    def _apply(self, windows: np.ndarray) -> Expressions:
        # Log-mel rows are absolute: silence is about -1.2, loud speech 1 (shards.features.logmel).
        amount = np.clip((windows.mean((1, 2)) + 0.7) / 1.2, 0.0, 1.0) * 0.5
        return {"expression": (self.rest + amount[:, None] * self.jaw).astype(np.float32)}


# The mean of what the prior thinks possible, in one step without noise: lips that agree with the sound matter more than
# lively ones. A little guidance gives back some of the spread that a mean loses.
SAMPLER = {"steps": 1, "temperature": 0.0, "guidance": 1.3}


# Two that err apart move less on average than either: so much farther from the resting face goes what they agree on.
EMPHASIS = 1.3


class PriorDriver:
    """The audio-expression prior, sampled with the person's speaking style.

    Args:
        prior: ``pretrain.load_prior(...)``, its weights perhaps fine-tuned.
        style: ``[S]``; ``None`` is the mean style.
        changed: names of the weights that fine-tuning changed: what an avatar stores beside the style.
        options: of the sampler: ``steps``, ``guidance``, ``temperature``; ``SAMPLER`` by default.
        calibration: ``[3, K]`` of the expression, ``(gain, centre, rest)``: what the prior says becomes
            ``rest + gain * (expression - centre)``, this person's amplitude around this person's mean; ``None``: as is.
        regression: of the person's own clip: what the prior says and what it says are averaged, see ``EMPHASIS``.
    """

    def __init__(
        self,
        prior: Any,
        style: np.ndarray | None = None,
        *,
        label: str = "",
        changed: tuple[str, ...] = (),
        seed: int = 0,
        options: dict[str, Any] | None = None,
        calibration: np.ndarray | None = None,
        regression: RidgeDriver | None = None,
    ) -> None:
        self.calibration, self.regression = calibration, regression
        self.prior, self.style, self.label, self.changed, self.seed = prior, style, label, changed, seed
        self.options = SAMPLER if options is None else options
        self.name = f"audio-expression prior {label}".strip() + (", fine-tuned on the clip" if changed else "")
        self.lookahead = int(prior.streamer(style=style).lookahead)
        if regression is not None:
            self.name += ", averaged with a ridge regression on the clip"
            self.lookahead = max(self.lookahead, regression.lookahead)

    def stream(self) -> Stream:
        """A new stream."""
        said = _PriorStream(self.prior, self.style, self.seed, self.options, self.calibration)
        return said if self.regression is None else _MeanStream(said, self.regression)

    def with_style(self, style: np.ndarray | None) -> PriorDriver:
        """The same voice in another style.

        Raises:
            InputError: a style of another size.
        """
        if style is not None and style.shape != self.prior.mean_style.shape:
            raise InputError(
                f"style has shape {style.shape}, the audio-expression prior expects {self.prior.mean_style.shape}"
            )
        return self._with(style=style)

    def calibrated(self, calibration: np.ndarray) -> PriorDriver:
        """The same voice with this amplitude."""
        return self._with(calibration=calibration)

    def averaged(self, regression: RidgeDriver) -> PriorDriver:
        """The same voice, averaged with a regression."""
        return self._with(regression=regression)

    def _with(self, **changes: Any) -> PriorDriver:
        names = ("style", "label", "changed", "seed", "options", "calibration", "regression")
        kept = {name: getattr(self, name) for name in names}
        return PriorDriver(self.prior, **{**kept, **changes})

    def tensors(self) -> dict[str, torch.Tensor]:
        """What an avatar keeps of it: the style and the changed weights, in half precision."""
        state = self.prior.model.state_dict()
        kept = {f"weights.{name}": state[name].detach().cpu().half() for name in self.changed}
        style = self.prior.mean_style if self.style is None else self.style
        if self.calibration is not None:
            kept["calibration"] = torch.from_numpy(np.asarray(self.calibration, np.float32))
        if self.regression is not None:
            kept |= {f"regression.{name}": value for name, value in self.regression.tensors().items()}
        return {**kept, "style": torch.from_numpy(np.asarray(style, np.float32))}

    @classmethod
    def from_tensors(cls, prior: Any, tensors: dict[str, torch.Tensor], record: dict[str, Any]) -> PriorDriver:
        """The inverse of :meth:`tensors` on the prior that ``record`` names."""
        changed = {key.removeprefix("weights."): value for key, value in tensors.items() if key.startswith("weights.")}
        state = prior.model.state_dict()
        with torch.no_grad():
            for name, value in changed.items():
                state[name].copy_(value.to(state[name].dtype))
        calibration = tensors["calibration"].float().numpy() if "calibration" in tensors else None
        told = {k.removeprefix("regression."): v.float() for k, v in tensors.items() if k.startswith("regression.")}
        return cls(
            prior,
            tensors["style"].numpy(),
            label=str(record.get("version", "")),
            changed=tuple(changed),
            calibration=calibration,
            regression=RidgeDriver.from_tensors(told) if told else None,
        )


class _PriorStream:
    def __init__(
        self, prior: Any, style: np.ndarray | None, seed: int, options: dict[str, Any], calibration: np.ndarray | None
    ) -> None:
        self.live, self.calibration = prior.streamer(style=style, seed=seed, **options), calibration

    def push(self, rows: np.ndarray) -> Expressions:
        return self._calibrated(_arrays(self.live.push(rows)))

    def finish(self) -> Expressions:
        return self._calibrated(_arrays(self.live.finish()))

    def _calibrated(self, found: Expressions) -> Expressions:
        if self.calibration is not None and "expression" in found:
            gain, centre, rest = self.calibration
            found["expression"] = (rest + gain * (found["expression"] - centre)).astype(np.float32)
        return found


class _MeanStream:
    """A prior's stream and a regression's, averaged frame by frame; eyes are the prior's."""

    def __init__(self, said: _PriorStream, regression: RidgeDriver) -> None:
        self.said, self.told, self.rest = said, regression.stream(), regression.bias
        self.waiting: tuple[Expressions, Expressions] = ({}, {})

    def push(self, rows: np.ndarray) -> Expressions:
        """Expressions of the frames that both know."""
        return self._both(self.said.push(rows), self.told.push(rows))

    def finish(self) -> Expressions:
        """Expressions of the last frames."""
        return self._both(self.said.finish(), self.told.finish())

    def _both(self, said: Expressions, told: Expressions) -> Expressions:
        said, told = map(_joined, zip(self.waiting, (said, told), strict=True))
        ready = min(len(part.get("expression", ())) for part in (said, told))
        self.waiting = tuple({name: rows[ready:] for name, rows in part.items()} for part in (said, told))
        if not ready:
            return {}
        found = {name: rows[:ready] for name, rows in said.items()}
        mean = (found["expression"] + told["expression"][:ready]) / 2
        found["expression"] = (self.rest + EMPHASIS * (mean - self.rest)).astype(np.float32)
        return found


def _joined(parts: Iterable[Expressions]) -> Expressions:
    """Parts of a sequence one after the other; those without frames may be empty."""
    parts = [part for part in parts if part]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}


def _arrays(values: dict[str, Any] | None) -> Expressions:
    values = values or {}
    return {name: np.asarray(value, np.float32) for name, value in values.items() if value is not None}


def drive(driver: Driver, features: np.ndarray) -> Expressions:
    """Expressions of a whole sequence ``features [T, C]``: the stream fed at once."""
    stream = driver.stream()
    return _joined([stream.push(features), stream.finish()])
