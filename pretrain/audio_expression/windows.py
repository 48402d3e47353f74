"""Audio of any length in overlapping windows: constant memory, no seams, the same values streamed or at once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from configs.seeds import derive

NOISE_BLOCK = 64  # frames of noise drawn from one seed


def frame_noise(seed: int, first: int, count: int, size: int) -> torch.Tensor:
    """Noise ``[T, D]``, T = ``count``, D = ``size``, by absolute frame number: windows that share a frame share its noise."""
    blocks = range(first // NOISE_BLOCK, (first + count - 1) // NOISE_BLOCK + 1)
    rows = [
        torch.randn(NOISE_BLOCK, size, generator=torch.Generator().manual_seed(derive(seed, "frame", block)))
        for block in blocks
    ]
    at = first - blocks[0] * NOISE_BLOCK
    return torch.cat(rows)[at : at + count]


def fade(length: int) -> np.ndarray:
    """Raised-cosine weights ``[length, 1]`` of the incoming window over an overlap; the outgoing one gets the rest."""
    return (0.5 - 0.5 * np.cos(np.pi * (np.arange(length) + 0.5) / length)).astype(np.float32)[:, None]


LEAST_SPREAD = 0.2  # added to a column's spread, in units of log-mel (5 dB): noise in a silent room stays small


def utterance_statistics(rows: np.ndarray, scale: bool) -> np.ndarray:
    """Mean ``[C]`` of a recording ``[T, C]`` (microphone and room); with ``scale``, mean and spread ``[2, C]``."""
    mean = rows.mean(0)
    return np.stack([mean, rows.std(0) + LEAST_SPREAD]) if scale else mean


def normalise_utterance(rows: np.ndarray, scale: bool) -> np.ndarray:
    """Rows ``[T, C]`` of a whole recording, divided by their spread with ``scale``."""
    return rows / utterance_statistics(rows, True)[1] if scale else rows


class RecentStatistics:
    """Running statistics of the last ``memory`` rows of a stream of overlapping windows.

    They use only rows that have arrived, so a stream and a whole file give the same values.
    """

    def __init__(self, memory: int, overlap: int, scale: bool = False) -> None:
        self.memory, self.overlap, self.scale = memory, overlap, scale
        self._rows: np.ndarray | None = None

    def __call__(self, window: np.ndarray) -> np.ndarray:
        """Take in the next window ``[m, C]``, whose first ``overlap`` rows are known; returns :func:`utterance_statistics`."""
        known = self._rows
        self._rows = window if known is None else np.concatenate([known, window[self.overlap :]])[-self.memory :]
        return utterance_statistics(self._rows, self.scale)


class Stitcher:
    """Runs a function over overlapping windows of a stream of feature rows and cross-fades the overlaps.

    It buffers about one window. Windows start at ``first + k·(window − overlap)``. A frame depends only on the windows that
    contain it, so a long input gives the same values as its parts, away from the parts' ends.

    Args:
        window, overlap: in rows.
        run: ``(features [m, C], frame number of the first row) -> [m, D]``, m at most ``window``.
        size: D.
        first: frame number of the first row.
    """

    def __init__(
        self, window: int, overlap: int, run: Callable[[np.ndarray, int], np.ndarray], size: int, first: int = 0
    ) -> None:
        self.window, self.overlap, self.run, self.size, self.at = window, overlap, run, size, first
        self._rows: np.ndarray | None = None
        self._tail: np.ndarray | None = None

    @property
    def lookahead(self) -> int:
        """Number of rows after a frame's own that must have arrived before it is certainly final."""
        return self.window

    def push(self, rows: np.ndarray) -> np.ndarray:
        """Take in rows ``[n, C]``; returns the frames ``[m, D]`` that became final, in order."""
        rows = np.asarray(rows, np.float32)
        self._rows = rows if self._rows is None else np.concatenate([self._rows, rows])
        step, done = self.window - self.overlap, []
        # One row more than a window: the last window of a stream may be shorter and is left to finish.
        while len(self._rows) > self.window:
            out = self._join(self.run(self._rows[: self.window], self.at))
            done.append(out[:step])
            self._tail, self._rows, self.at = out[step:], self._rows[step:], self.at + step
        return np.concatenate(done) if done else np.zeros((0, self.size), np.float32)

    def finish(self) -> np.ndarray:
        """The remaining frames ``[m, D]``; nothing may be pushed afterwards."""
        if self._rows is None or not len(self._rows):
            return np.zeros((0, self.size), np.float32)
        return self._join(self.run(self._rows, self.at))

    def _join(self, out: np.ndarray) -> np.ndarray:
        if self._tail is None:
            return out
        weight, overlap = fade(self.overlap), self.overlap
        return np.concatenate([self._tail * (1 - weight) + out[:overlap] * weight, out[overlap:]])
