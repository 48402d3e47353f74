"""This person's regression for live use: a prior's, with their amplitude and what their clip adds to it.

A prior's :class:`pretrain.roles.LiveFilter` maps a row of a feature that looks ahead 120 ms to an expression. On the
person's clip each component gets a gain, as the prior's own voice does, and the filter a correction: the ridge regression
of what it leaves unexplained. Both are linear, so the driver is one matrix. The mean of what it says about a voice and a
microphone is subtracted as a running mean, which begins at the clip's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch

from adapt.drivers.base import Expressions, Stream
from adapt.drivers.calibration import calibration
from adapt.drivers.closing import ClosingStream, LipClosing
from pretrain.roles import LiveFilter
from shards.features.whisper_live import LAYOUT, Layout

# Penalty of the correction, in mean squared lengths of a row: the clip outweighs the prior in a direction that as many
# rows share · chosen by leaving people out (docs/priors.md).
PENALTY = 30.0
SETTLING = 500.0  # frames of speech in which the running mean moves most of the way · measured (docs/priors.md)
AUDIBLE = (
    -0.9
)  # mean log-mel of a frame above which it counts for the running mean · a fifth of the frames of 70 clips is below
NAMES = ("mean", "weight", "bias")  # of the tensors that an avatar keeps


class LiveDriver:
    """Expressions from single rows of a feature for live use.

    Args:
        mean: ``[C]`` mean row of the person's clip.
        weight: ``[C, K]``.
        bias: ``[K]`` the person's resting face.
        feature: name of the audio feature.
        revision: of the feature.
        closure: ``[C]``, to how much more probable than usual it is that the lips are shut; ``None``: the gap tells alone.
        closing: presses lips that nearly meet; ``None``: they are left as they are.
        layout: of a row.
    """

    kind: ClassVar[str] = "live"
    by_sound: ClassVar[bool] = True
    lookahead = 0  # the rows themselves look ahead

    def __init__(
        self,
        mean: np.ndarray,
        weight: np.ndarray,
        bias: np.ndarray,
        feature: str,
        closing: LipClosing | None = None,
        layout: Layout = LAYOUT,
        revision: int = 1,
        closure: np.ndarray | None = None,
    ) -> None:
        self.mean, self.weight, self.bias, self.feature, self.closing = mean, weight, bias, feature, closing
        self.layout, self.revision, self.closure = layout, revision, closure
        self.name = f"regression of the prior for live use on {feature}, corrected on the person's clip"

    @classmethod
    def fit(
        cls,
        prior: LiveFilter,
        rows: np.ndarray,
        expression: np.ndarray,
        importance: np.ndarray,
        rest: np.ndarray | None = None,
    ) -> LiveDriver:
        """Fit on ``rows [T, C]`` and ``expression [T, K]`` of some frames of a clip.

        Args:
            importance: ``[K]`` of each component in the common gain, see :func:`adapt.drivers.calibration.lip_weights`.
            rest: ``[K]`` the person's resting face; by default the mean of ``expression``.
        """
        mean, face = rows.mean(0), expression.mean(0)
        centred = rows - mean
        gain = calibration(centred @ prior.weight, expression, importance)[0]
        weight = prior.weight * gain
        unexplained = expression - face - centred @ weight
        gram = centred.astype(np.float64) @ centred.T
        penalty = PENALTY * max(float(np.trace(gram)) / len(gram), 1e-9)
        weight = weight + centred.T @ np.linalg.solve(gram + penalty * np.eye(len(gram)), unexplained)
        bias = face if rest is None else rest
        mean, weight, bias = (value.astype(np.float32) for value in (mean, weight, bias))
        return cls(mean, weight, bias, prior.feature, revision=prior.revision, closure=prior.closure)

    def closed(self, closing: LipClosing | None) -> LiveDriver:
        """The same regression, its lips pressed where they nearly meet."""
        fitted = self.mean, self.weight, self.bias
        return LiveDriver(*fitted, self.feature, closing, self.layout, self.revision, self.closure)

    def stream(self) -> Stream:
        """A new stream."""
        stream = _LiveStream(self)
        return stream if self.closing is None else ClosingStream(stream, self.closing)

    def tensors(self) -> dict[str, torch.Tensor]:
        """What an avatar keeps of it, lip closing aside."""
        kept = {name: torch.from_numpy(np.ascontiguousarray(getattr(self, name))) for name in NAMES}
        return kept if self.closure is None else {**kept, "closure": torch.from_numpy(self.closure)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, torch.Tensor], feature: str, revision: int = 1) -> LiveDriver:
        """The inverse of :meth:`tensors`."""
        mean, weight, bias = (tensors[name].float().numpy() for name in NAMES)
        closure = tensors["closure"].float().numpy() if "closure" in tensors else None
        return cls(mean, weight, bias, feature, revision=revision, closure=closure)


class _LiveStream:
    """Row by row: a product over more rows rounds differently, and streams must repeat bit for bit."""

    def __init__(self, driver: LiveDriver) -> None:
        self.driver, self.weight = driver, driver.weight
        if driver.closure is not None:
            self.weight = np.column_stack([driver.weight, driver.closure])
        self.drift = np.zeros(self.weight.shape[1], np.float32)  # running mean of the motion

    def push(self, rows: np.ndarray) -> Expressions:
        """Expressions of these rows' frames."""
        if not len(rows):
            return {}
        motion, count = np.concatenate([self._frame(row) for row in rows]), len(self.driver.bias)
        found = {"expression": (self.driver.bias + motion[:, :count]).astype(np.float32)}
        return found if self.driver.closure is None else {**found, "closure": motion[:, count]}

    def finish(self) -> Expressions:
        """Nothing is held back."""
        return {}

    def _frame(self, row: np.ndarray) -> np.ndarray:
        driver = self.driver
        motion = (row - driver.mean)[None] @ self.weight
        if driver.layout.loudness(row) > AUDIBLE:
            self.drift = self.drift + (motion[0] - self.drift) / np.float32(SETTLING)
        return motion - self.drift
