"""An atlas for meshes that come without one: each triangle gets half of a square cell."""

from __future__ import annotations

import numpy as np


def packed_atlas(n_faces: int, margin: float = 0.08) -> np.ndarray:
    """UV corners ``[F, 3, 2]`` in [0, 1]: two triangles per cell, ``margin`` of a cell apart; no flips, no overlaps."""
    cells = -(-n_faces // 2)
    side = max(1, int(np.ceil(np.sqrt(cells))))
    cell = np.arange(n_faces) // 2
    origin = np.stack([cell % side, cell // side], -1)[:, None] / side
    low, high = margin, 1 - margin
    lower = np.array([[low, low], [low, high - margin], [high - margin, low]])
    upper = np.array([[high, high], [high, low + margin], [low + margin, high]])
    shape = np.where((np.arange(n_faces) % 2 == 0)[:, None, None], lower, upper)
    return origin + shape / side
