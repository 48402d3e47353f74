"""Learning-rate schedule and the moving average of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from pretrain.config import OptimiserConfig


def rate(step: int, steps: int, config: OptimiserConfig) -> float:
    """Factor on ``config.lr`` at ``step`` of ``steps``: linear warm-up, then a cosine to the floor (or constant)."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    if config.decay == "constant":
        return 1.0
    done = min(1.0, (step - config.warmup) / max(1, steps - config.warmup))
    return config.floor + (1 - config.floor) * 0.5 * (1 + math.cos(math.pi * done))


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """Move ``average`` towards ``model``; early steps use a smaller decay, so that the initial weights are forgotten.

    Parameters are averaged, persistent buffers (statistics) are copied, and other buffers are constant.
    """
    decay = decay_at(decay, step)
    for kept, new in zip(average.parameters(), model.parameters(), strict=True):
        kept.lerp_(new.detach().to(kept.dtype), 1 - decay)
    kept_names = average.state_dict().keys()
    for (name, held), (_, now) in zip(average.named_buffers(), model.named_buffers(), strict=True):
        if name in kept_names:
            held.copy_(now)


def decay_at(decay: float, step: int) -> float:
    """The share of the old average that a step keeps."""
    return min(decay, (1 + step) / (10 + step))


@torch.no_grad()
def update_average_from_state(
    average: nn.Module, state: dict[str, torch.Tensor], decay: float, steps: Iterable[int]
) -> None:
    """:func:`update_average` for all of some steps at once, from a gathered state, for engines that shard the weights."""
    kept_share = math.prod(decay_at(decay, step) for step in steps)
    learned = dict(average.named_parameters())
    for name, kept in average.state_dict().items():
        new = state[name].to(kept.device, kept.dtype)
        if name in learned:
            kept.lerp_(new, 1 - kept_share)
        else:
            kept.copy_(new)
