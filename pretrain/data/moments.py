"""Mean and standard deviation of columns in one pass."""

from __future__ import annotations

import numpy as np


class Moments:
    """Running sums over rows."""

    def __init__(self) -> None:
        self.count, self.total, self.squares = 0, 0.0, 0.0

    def add(self, rows: np.ndarray) -> None:
        """Add rows ``[T, D]``."""
        rows = rows.astype(np.float64)
        self.count += len(rows)
        self.total = self.total + rows.sum(0)
        self.squares = self.squares + (rows * rows).sum(0)

    def mean(self) -> np.ndarray:
        """``[D]`` float32."""
        return np.asarray(self.total / max(1, self.count), np.float32)

    def std(self) -> np.ndarray:
        """``[D]`` float32."""
        mean = self.total / max(1, self.count)
        return np.sqrt(np.maximum(self.squares / max(1, self.count) - mean * mean, 0)).astype(np.float32)
