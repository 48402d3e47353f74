"""Stacking the values of samples into a batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch


def collate(items: list[dict[str, Any]]) -> dict[str, Any]:
    """Stack the values of samples: arrays and numbers become tensors ``[N, ...]``, texts become lists."""
    batch: dict[str, Any] = {}
    for name in items[0] if items else ():
        values = [item[name] for item in items]
        if isinstance(values[0], str):
            batch[name] = values
        elif isinstance(values[0], torch.Tensor):
            batch[name] = torch.stack(values)
        else:
            batch[name] = torch.from_numpy(np.stack([np.asarray(value) for value in values]))
    return batch
