"""A prior of motion as a driver: in the person's style, with their amplitude, averaged with a regression."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch

from adapt.avatar.document import PriorRecord
from adapt.drivers.base import Expressions, Stream, joined
from adapt.drivers.closing import ClosingStream, LipClosing
from adapt.drivers.live import LiveDriver
from adapt.drivers.ridge import RidgeDriver
from configs import InputError
from configs.records import revision_of
from pretrain.roles import ClosureMotion, FineTunable, LiveMotion, MotionPrior

# One step without noise gives the mean of the prior's distribution: lips that agree with the sound matter more than lively
# ones. A little guidance restores some of the amplitude that a mean loses.
SAMPLER = {"steps": 1, "temperature": 0.0, "guidance": 1.3}


# Weight of the regression in the average: it knows how this person moves but only one clip's sound, the prior many voices.
# Chosen on ten held-out people by ``benchmarks drivers``: with a half, another person's voice loses 0.03 in correlation.
SHARE = 0.35
# The mean of two predictions with different errors moves less than either, so its distance from the clip's mean face is
# multiplied by this. Not where lips are closed wherever they nearly meet, from a speech encoder's rows: that already moves them
# as much as real ones (``benchmarks drivers``).
EMPHASIS = 1.2


QUICK_FEATURE = "logmel"  # of the regression for live use: a row is final 7.5 ms after its frame


class PriorDriver:
    """A prior of motion, sampled with the person's speaking style.

    Args:
        prior: ``pretrain.load_prior(...)``, its weights perhaps fine-tuned.
        style: ``[S]``; ``None`` is the mean style.
        label: the prior's version, for :attr:`name`.
        changed: names of the weights that fine-tuning changed, which an avatar stores besides the style.
        seed: of the sampler.
        options: of the sampler: ``steps``, ``guidance``, ``temperature``; ``SAMPLER`` by default.
        calibration: ``[3, K]`` of the expression, ``(gain, centre, rest)``: the prior's expressions become
            ``rest + gain * (expression - centre)``, this person's amplitude around this person's mean; ``None``: as is.
        regression: fitted to the person's clip; its expressions are averaged with the prior's, see ``SHARE``, :attr:`emphasis`.
        closing: presses lips that nearly meet; ``None``: they are left as they are.
        quick: a regression from log-mel fitted to the clip, for live use if the prior uses a speech encoder.
        live: the prior's regression for live use, corrected on the clip; better than ``quick``, but it needs the encoder.
    """

    kind: ClassVar[str] = "prior"
    by_sound: ClassVar[bool] = True
    feature = ""

    def __init__(
        self,
        prior: MotionPrior,
        style: np.ndarray | None = None,
        *,
        label: str = "",
        changed: tuple[str, ...] = (),
        seed: int = 0,
        options: dict[str, object] | None = None,
        calibration: np.ndarray | None = None,
        regression: RidgeDriver | None = None,
        closing: LipClosing | None = None,
        quick: RidgeDriver | None = None,
        live: LiveDriver | None = None,
    ) -> None:
        self.live = live
        self.calibration, self.regression, self.closing, self.quick = calibration, regression, closing, quick
        self.prior, self.style, self.label, self.changed, self.seed = prior, style, label, changed, seed
        self.options = SAMPLER if options is None else options
        self.name = f"{prior.info['prior']} prior {label}".strip() + (", fine-tuned on the clip" if changed else "")
        self.lookahead = int(prior.streamer(style=style).lookahead)
        if regression is not None:
            self.name += ", averaged with a ridge regression on the clip"
            self.lookahead = max(self.lookahead, regression.lookahead)

    @property
    def emphasis(self) -> float:
        """Factor on the distance of the average from the clip's mean face."""
        record = self.prior.info.get("features")
        encoded = record is not None and record["name"] != QUICK_FEATURE
        if isinstance(self.prior, ClosureMotion) and self.prior.tells_closure:
            return EMPHASIS
        return 1.0 if encoded and self.closing is not None else EMPHASIS

    def stream(self) -> Stream:
        """A new stream."""
        voice = _PriorStream(self.prior, self.style, self.seed, self.options, self.calibration)
        stream = voice if self.regression is None else _MeanStream(voice, self.regression, self.emphasis)
        return stream if self.closing is None else ClosingStream(stream, self.closing)

    def with_style(self, style: np.ndarray | None) -> PriorDriver:
        """The same voice in another style ``[S]``; ``None`` is the mean style.

        Raises:
            InputError: a style of another size.
        """
        if style is not None and style.shape != self.prior.mean_style.shape:
            raise InputError(
                f"style has shape {style.shape}, the {self.prior.info['prior']} prior expects {self.prior.mean_style.shape}"
            )
        return self._with(style=style)

    def calibrated(self, calibration: np.ndarray) -> PriorDriver:
        """The same voice with this calibration ``[3, K]``."""
        return self._with(calibration=calibration)

    def averaged(self, regression: RidgeDriver) -> PriorDriver:
        """The same voice, averaged with a regression."""
        return self._with(regression=regression)

    def closed(self, closing: LipClosing | None) -> PriorDriver:
        """The same voice, its lips pressed where they nearly meet."""
        return self._with(closing=closing)

    def with_quick(self, regression: RidgeDriver) -> PriorDriver:
        """The same voice, with a regression for live use."""
        return self._with(quick=regression)

    def with_live(self, regression: LiveDriver) -> PriorDriver:
        """The same voice, with the prior's regression for live use."""
        return self._with(live=regression)

    def _with(self, **changes: object) -> PriorDriver:
        names = (
            "style",
            "label",
            "changed",
            "seed",
            "options",
            "calibration",
            "regression",
            "closing",
            "quick",
            "live",
        )
        kept = {name: getattr(self, name) for name in names}
        return PriorDriver(self.prior, **{**kept, **changes})

    def tensors(self) -> dict[str, torch.Tensor]:
        """What an avatar stores of it: style, calibration, regressions, lip closing; changed weights in half precision."""
        state = self.prior.state_dict() if isinstance(self.prior, FineTunable) else {}
        kept = {f"weights.{name}": state[name].detach().cpu().half() for name in self.changed}
        style = self.prior.mean_style if self.style is None else self.style
        if self.calibration is not None:
            kept["calibration"] = torch.from_numpy(np.asarray(self.calibration, np.float32))
        if self.regression is not None:
            kept |= {f"regression.{name}": value for name, value in self.regression.tensors().items()}
        if self.quick is not None:
            kept |= {f"quick.{name}": value for name, value in self.quick.tensors().items()}
        if self.live is not None:
            kept |= {f"live.{name}": value for name, value in self.live.tensors().items()}
        if self.closing is not None:
            kept |= {f"closing.{name}": value for name, value in self.closing.tensors().items()}
        return {**kept, "style": torch.from_numpy(np.asarray(style, np.float32))}

    @classmethod
    def from_tensors(cls, prior: MotionPrior, tensors: dict[str, torch.Tensor], record: PriorRecord) -> PriorDriver:
        """The inverse of :meth:`tensors`; the changed weights are copied into ``prior``, which ``record`` names."""
        changed = {key.removeprefix("weights."): value for key, value in tensors.items() if key.startswith("weights.")}
        state = prior.state_dict() if isinstance(prior, FineTunable) else {}
        with torch.no_grad():
            for name, value in changed.items():
                state[name].copy_(value.to(state[name].dtype))
        calibration = tensors["calibration"].float().numpy() if "calibration" in tensors else None
        fitted = {k.removeprefix("regression."): v.float() for k, v in tensors.items() if k.startswith("regression.")}
        quick = {k.removeprefix("quick."): v.float() for k, v in tensors.items() if k.startswith("quick.")}
        live = {k.removeprefix("live."): v for k, v in tensors.items() if k.startswith("live.")}
        filter = prior.live if isinstance(prior, LiveMotion) else None
        revision = revision_of(record.get("live"))
        lips = {key.removeprefix("closing."): value for key, value in tensors.items() if key.startswith("closing.")}
        return cls(
            prior,
            tensors["style"].numpy(),
            label=str(record.get("version", "")),
            changed=tuple(changed),
            calibration=calibration,
            regression=RidgeDriver.from_tensors(fitted) if fitted else None,
            closing=LipClosing.from_tensors(lips) if lips else None,
            quick=RidgeDriver.from_tensors(quick).hearing(QUICK_FEATURE) if quick else None,
            live=LiveDriver.from_tensors(live, filter.feature, revision) if live and filter is not None else None,
        )


class _PriorStream:
    def __init__(
        self,
        prior: MotionPrior,
        style: np.ndarray | None,
        seed: int,
        options: dict[str, Any],
        calibration: np.ndarray | None,
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
    """A prior's stream and a regression's, averaged frame by frame; eyelids and gaze are the prior's."""

    def __init__(self, prior: _PriorStream, regression: RidgeDriver, emphasis: float) -> None:
        self.prior, self.regression, self.rest = prior, regression.stream(), regression.bias
        self.emphasis = emphasis
        self.waiting: tuple[Expressions, Expressions] = ({}, {})

    def push(self, rows: np.ndarray) -> Expressions:
        """Expressions of the frames that both know."""
        return self._both(self.prior.push(rows), self.regression.push(rows))

    def finish(self) -> Expressions:
        """Expressions of the last frames."""
        return self._both(self.prior.finish(), self.regression.finish())

    def _both(self, sampled: Expressions, regressed: Expressions) -> Expressions:
        sampled, regressed = map(joined, zip(self.waiting, (sampled, regressed), strict=True))
        ready = min(len(part.get("expression", ())) for part in (sampled, regressed))
        rest = [{name: rows[ready:] for name, rows in part.items()} for part in (sampled, regressed)]
        self.waiting = rest[0], rest[1]
        if not ready:
            return {}
        found = {name: rows[:ready] for name, rows in sampled.items()}
        mean = (1 - SHARE) * found["expression"] + SHARE * regressed["expression"][:ready]
        found["expression"] = (self.rest + self.emphasis * (mean - self.rest)).astype(np.float32)
        return found


def _arrays(values: Mapping[str, np.ndarray] | None) -> Expressions:
    return {name: np.asarray(rows, np.float32) for name, rows in (values or {}).items() if rows is not None}
