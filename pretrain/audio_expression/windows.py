"""Any length of sound by overlapping windows: constant memory, no seam, the same values streamed or at once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from configs.seeds import derive

NOISE_BLOCK = 64


def frame_noise(seed: int, first: int, count: int, size: int) -> torch.Tensor:
    """Noise ``[T, D]``, T = ``count``, D = ``size``, of absolute frames: windows that share a frame share its noise."""
    blocks = range(first // NOISE_BLOCK, (first + count - 1) // NOISE_BLOCK + 1)
    rows = [
        torch.randn(NOISE_BLOCK, size, generator=torch.Generator().manual_seed(derive(seed, "frame", block)))
        for block in blocks
    ]
    at = first - blocks[0] * NOISE_BLOCK
    return torch.cat(rows)[at : at + count]


def fade(length: int) -> np.ndarray:
    """Raised-cosine weights (length, 1) of the incoming window over an overlap; the outgoing one has the rest."""
    return (0.5 - 0.5 * np.cos(np.pi * (np.arange(length) + 0.5) / length)).astype(np.float32)[:, None]


LEAST_SPREAD = 0.2  # added to a column's spread, in units of log-mel (5 dB): noise in a silent room stays small


def utterance_statistics(rows: np.ndarray, scale: bool) -> np.ndarray:
    """Mean ``[C]`` of a recording ``[T, C]``: microphone and room; with ``scale`` mean and spread ``[2, C]``."""
    mean = rows.mean(0)
    return np.stack([mean, rows.std(0) + LEAST_SPREAD]) if scale else mean


def normalise_utterance(rows: np.ndarray, scale: bool) -> np.ndarray:
    """Rows ``[T, C]`` of a whole recording divided by their spread; as they are without ``scale``."""
    return rows / utterance_statistics(rows, True)[1] if scale else rows


class RecentStatistics:
    """Statistics of the last ``memory`` rows of a stream of overlapping windows: of its microphone and room.

    They use no more than what has come so far, so a stream and a whole file give the same values.
    """

    def __init__(self, memory: int, overlap: int, scale: bool = False) -> None:
        self.memory, self.overlap, self.scale = memory, overlap, scale
        self._rows: np.ndarray | None = None

    def __call__(self, window: np.ndarray) -> np.ndarray:
        """Take in the next window (m, C), whose first ``overlap`` rows are known already; see :func:`utterance_statistics`."""
        known = self._rows
        self._rows = window if known is None else np.concatenate([known, window[self.overlap :]])[-self.memory :]
        return utterance_statistics(self._rows, self.scale)


class Stitcher:
    """Runs a window function over a stream of feature rows and cross-fades the overlaps; holds one window at most.

    Windows start at ``first + k·(window − overlap)``. What frame t becomes depends on the windows that hold it alone,
    so a long input gives what its parts give, away from the parts' ends.

    Args:
        window, overlap: in rows.
        run: ``(features (m, C), absolute first frame) -> (m, D)``, m at most ``window``.
        first: number of the first row's frame.
    """

    def __init__(
        self, window: int, overlap: int, run: Callable[[np.ndarray, int], np.ndarray], size: int, first: int = 0
    ) -> None:
        self.window, self.overlap, self.run, self.size, self.at = window, overlap, run, size, first
        self._rows: np.ndarray | None = None
        self._tail: np.ndarray | None = None

    @property
    def lookahead(self) -> int:
        """Rows that must have arrived after a frame's own before it is sure to be final."""
        return self.window

    def push(self, rows: np.ndarray) -> np.ndarray:
        """Take in (n, C) rows; the (m, D) frames that became final, in order."""
        rows = np.asarray(rows, np.float32)
        self._rows = rows if self._rows is None else np.concatenate([self._rows, rows])
        step, done = self.window - self.overlap, []
        # One row more than a window: the last window of a stream is left for finish, which may find it shorter.
        while len(self._rows) > self.window:
            out = self._join(self.run(self._rows[: self.window], self.at))
            done.append(out[:step])
            self._tail, self._rows, self.at = out[step:], self._rows[step:], self.at + step
        return np.concatenate(done) if done else np.zeros((0, self.size), np.float32)

    def finish(self) -> np.ndarray:
        """The rest, (m, D); nothing may be pushed afterwards."""
        if self._rows is None or not len(self._rows):
            return np.zeros((0, self.size), np.float32)
        return self._join(self.run(self._rows, self.at))

    def _join(self, out: np.ndarray) -> np.ndarray:
        if self._tail is None:
            return out
        weight, overlap = fade(self.overlap), self.overlap
        return np.concatenate([self._tail * (1 - weight) + out[:overlap] * weight, out[overlap:]])
