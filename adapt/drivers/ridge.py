"""Ridge regression from audio features to expressions, fitted on the person's own clip."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch

from adapt.drivers.base import Expressions, Stream, WindowStream
from adapt.drivers.closing import ClosingStream, LipClosing
from shards.media.rates import FPS

NAMES = ("mean", "spread", "weight", "bias")  # of the tensors that an avatar keeps
# Candidates for the penalty of a ridge regression; the largest leaves little but the mean.
PENALTIES = 10.0 ** np.arange(1.0, 7.5, 0.5)
# Frames that penalties are chosen on: one minute is enough, and the cost is cubic.
CHOOSING_FRAMES = 1500
PAST, AHEAD = 5, 5  # rows before and after a frame in the regression's window
QUICK_AHEAD = 2  # rows after it for live use: 80 ms


class RidgeDriver:
    """Ridge regression from feature rows within ±0.2 s to the expression, fitted on the person's own clip.

    It needs no prior and a few seconds of video, but knows only the sounds of that clip; every result names it. Each
    component of the expression has its own penalty, chosen on held-out blocks of the clip: components that the sound does
    not determine stay at the person's mean without damping the others.

    Args:
        mean, spread: ``[C]`` mean and standard deviation of the feature rows.
        weight: ``[(PAST + 1 + lookahead) * C, K]``.
        bias: ``[K]`` the clip's mean expression.
        quick: the same person's regression with a shorter look-ahead, for live use.
        feature: name of the audio feature, if it is not the avatar's.
        closing: presses lips that nearly meet; ``None``: they are left as they are.
    """

    kind: ClassVar[str] = "ridge"
    by_sound: ClassVar[bool] = True
    name = "ridge regression on the person's own clip (no audio-expression prior)"

    def __init__(
        self,
        mean: np.ndarray,
        spread: np.ndarray,
        weight: np.ndarray,
        bias: np.ndarray,
        quick: RidgeDriver | None = None,
        feature: str = "",
        closing: LipClosing | None = None,
    ) -> None:
        self.mean, self.spread, self.weight, self.bias, self.quick = mean, spread, weight, bias, quick
        self.feature, self.closing = feature, closing
        self.lookahead = len(weight) // len(mean) - PAST - 1
        if self.lookahead != AHEAD:
            self.name = f"ridge regression on the person's own clip, {1000 * self.lookahead // FPS} ms ahead"

    @classmethod
    def fit(cls, features: np.ndarray, expression: np.ndarray) -> RidgeDriver:
        """Fit on ``features [T, C]`` and ``expression [T, K]`` of one clip.

        Raises:
            ValueError: fewer than 25 frames, from which nothing can be learned.
        """
        if len(features) < 25:
            raise ValueError(f"{len(features)} frames are too few to learn how this person moves to sound")
        mean, spread = features.mean(0), features.std(0) + 1e-3
        bias = expression.mean(0)
        rows, target = (features - mean) / spread, expression - bias
        windows = cls._windows(rows, AHEAD)
        errors = cls._held_back_errors(windows[:CHOOSING_FRAMES], target[:CHOOSING_FRAMES])
        penalties = PENALTIES[errors.argmin(0)]

        def fitted(windows: np.ndarray, quick: RidgeDriver | None) -> RidgeDriver:
            weight = _ridge(windows, target, penalties).astype(np.float32)
            return cls(mean.astype(np.float32), spread.astype(np.float32), weight, bias.astype(np.float32), quick)

        return fitted(windows, fitted(cls._windows(rows, QUICK_AHEAD), None))

    def hearing(self, feature: str) -> RidgeDriver:
        """The same regression, marked as one from this audio feature instead of the avatar's."""
        quick = self.quick.hearing(feature) if self.quick is not None else None
        return RidgeDriver(self.mean, self.spread, self.weight, self.bias, quick, feature, self.closing)

    def closed(self, closing: LipClosing | None) -> RidgeDriver:
        """The same regression, its lips pressed where they nearly meet."""
        quick = self.quick.closed(closing) if self.quick is not None else None
        return RidgeDriver(self.mean, self.spread, self.weight, self.bias, quick, self.feature, closing)

    def resting(self, face: np.ndarray) -> RidgeDriver:
        """The same regression around another resting face ``[K]``."""
        quick = self.quick.resting(face) if self.quick is not None else None
        return RidgeDriver(self.mean, self.spread, self.weight, face, quick, self.feature, self.closing)

    @staticmethod
    def _windows(rows: np.ndarray, ahead: int) -> np.ndarray:
        padded = np.pad(rows, ((PAST, ahead), (0, 0)), mode="edge")
        windows = np.lib.stride_tricks.sliding_window_view(padded, PAST + 1 + ahead, 0)
        return np.ascontiguousarray(windows.transpose(0, 2, 1)).reshape(len(rows), -1)

    def low_delay(self) -> RidgeDriver:
        """This person's regression for live use: ``quick``, else this one with its later rows predicted.

        They are predicted to equal the last row heard, so their weights are added to that row's.
        """
        if self.quick is not None or self.lookahead <= QUICK_AHEAD:
            return self.quick or self
        weight = self.weight.reshape(PAST + 1 + self.lookahead, len(self.mean), -1)
        last = PAST + QUICK_AHEAD
        kept = np.concatenate([weight[:last], weight[last:].sum(0, keepdims=True)])
        weight = kept.reshape(-1, kept.shape[-1])
        return RidgeDriver(self.mean, self.spread, weight, self.bias, feature=self.feature, closing=self.closing)

    @staticmethod
    def _held_back_errors(windows: np.ndarray, target: np.ndarray, blocks: int = 4) -> np.ndarray:
        """Squared error ``[P, K]`` of each penalty and component on held-out blocks."""
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
        stream = WindowStream(PAST, self._apply, self.lookahead)
        return stream if self.closing is None else ClosingStream(stream, self.closing)

    def _apply(self, windows: np.ndarray) -> Expressions:
        rows = ((windows - self.mean) / self.spread).reshape(len(windows), -1)
        return {"expression": (rows @ self.weight + self.bias).astype(np.float32)}

    def tensors(self) -> dict[str, torch.Tensor]:
        """What an avatar keeps of it."""
        kept = {name: torch.from_numpy(np.ascontiguousarray(getattr(self, name))) for name in NAMES}
        if self.quick is not None:
            kept |= {f"quick.{name}": value for name, value in self.quick.closed(None).tensors().items()}
        if self.closing is not None:
            kept |= {f"closing.{name}": value for name, value in self.closing.tensors().items()}
        return kept

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, torch.Tensor]) -> RidgeDriver:
        """The inverse of :meth:`tensors`."""
        quick = {key.removeprefix("quick."): value for key, value in tensors.items() if key.startswith("quick.")}
        lips = {key.removeprefix("closing."): value for key, value in tensors.items() if key.startswith("closing.")}
        mean, spread, weight, bias = (tensors[name].float().numpy() for name in NAMES)
        fitted = cls(mean, spread, weight, bias, cls.from_tensors(quick) if quick else None)
        return fitted.closed(LipClosing.from_tensors(lips) if lips else None)


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
