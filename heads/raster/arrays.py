"""Tensors as flat arrays for the kernels, and work cut into pieces for threads."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from heads.raster import threads
from heads.raster.simd.vector import WIDTH

MIN_CHUNK = 4096  # Gaussians below which a second thread costs more than it saves · guess


def plain(*tensors: Tensor) -> bool:
    """Whether the kernels take these tensors: float32 on the CPU."""
    return all(t.device.type == "cpu" and t.dtype == torch.float32 for t in tensors)


def flat(tensor: Tensor) -> np.ndarray:
    """A tensor as a flat array, which shares its memory if the tensor is contiguous on the CPU."""
    return tensor.detach().contiguous().numpy().reshape(-1)


def chunks(sets: int, number: int, parts: int) -> list[tuple[int, int, int]]:
    """About ``parts`` pieces (set, first, end) of ``sets`` x ``number`` items, cut at multiples of the vector width."""
    pieces = max(1, min(-(-parts // sets), number // MIN_CHUNK)) if sets else 1
    step = -(-number // pieces)
    step = -(-step // WIDTH) * WIDTH
    return [(s, first, min(first + step, number)) for s in range(sets) for first in range(0, number, max(step, 1))]


def worthwhile_threads(items: int) -> int:
    """Number of threads that pays off for so many Gaussians."""
    return max(1, min(threads.get_num_threads(), items // MIN_CHUNK))
