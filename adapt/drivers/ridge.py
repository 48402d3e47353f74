"""Ridge regression from audio features to expressions, fitted on the person's own clip."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch

from adapt.drivers.base import Expressions, Stream, WindowStream

# Candidates for the penalty of a ridge regression; the largest leaves nothing but the mean.
PENALTIES = 10.0 ** np.arange(1.0, 7.5, 0.5)
# Frames that penalties are chosen on: a minute says enough, and the cost grows with the cube.
CHOOSING_FRAMES = 1500


class RidgeDriver:
    """Ridge regression from feature rows within ±0.2 s to the expression, fitted on the person's own clip.

    It needs no prior and learns from seconds, but knows only the sounds of that clip: a baseline, named as such in
    every result. Each component of the expression has its own penalty, chosen on held-back blocks of the clip: what
    sound does not tell (a head that turns shows in some components) stays at the person's mean, what it does is not
    held back for its sake.
    """

    kind: ClassVar[str] = "ridge"
    by_sound: ClassVar[bool] = True
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
