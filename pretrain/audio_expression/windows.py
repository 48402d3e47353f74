"""Any length of sound by overlapping windows: constant memory, no seam, the same values streamed or at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch

from pretrain.seeds import derive

NOISE_BLOCK = 64


def frame_noise(seed: int, first: int, count: int, size: int) -> torch.Tensor:
    """Noise [count, size] that belongs to absolute frames: windows that share a frame share its noise."""
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


def stitched(
    rows: Iterable[np.ndarray], window: int, overlap: int, run: Callable[[np.ndarray, int], np.ndarray], first: int = 0
) -> Iterator[np.ndarray]:
    """Run a window function over a stream of feature rows and cross-fade the overlaps.

    Windows start at ``first + k·(window − overlap)``. What frame t becomes depends on the windows that hold it alone,
    so a long input gives what its parts give, away from the parts' ends.

    Args:
        rows: blocks (n, C) of any n.
        run: ``(features (m, C), absolute first frame) -> (m, D)``, m at most ``window``.

    Yields:
        finished blocks (n, D) in order; together as many rows as went in.
    """
    held: list[np.ndarray] = []
    count, at, tail = 0, first, None
    for block in rows:
        held.append(np.asarray(block, np.float32))
        count += len(block)
        while count >= window + 1:  # one row more than a window: the last window is left for the end
            buffer = np.concatenate(held)
            out = _join(tail, run(buffer[:window], at), overlap)
            yield out[: window - overlap]
            tail = out[window - overlap :]
            held, count, at = [buffer[window - overlap :]], count - window + overlap, at + window - overlap
    buffer = np.concatenate(held) if held else np.zeros((0, 0), np.float32)
    if tail is None:
        if count:
            yield run(buffer, at)
    else:
        yield _join(tail, run(buffer, at), overlap)


def _join(tail: np.ndarray | None, out: np.ndarray, overlap: int) -> np.ndarray:
    if tail is None:
        return out
    weight = fade(overlap)
    return np.concatenate([tail * (1 - weight) + out[:overlap] * weight, out[overlap:]])
