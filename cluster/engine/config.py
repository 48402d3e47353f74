"""The keys ``engine.*`` of a training configuration; imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from configs.bounds import Count


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """How a model is spread over the workers. ``plain`` with several workers means ``ddp``."""

    mode: Literal["plain", "ddp", "zero1", "zero2", "zero3"] = "plain"
    precision: Literal["fp32", "bf16"] = "fp32"
    device: str = "auto"  # cpu, cuda or another that torch knows; auto: CUDA where there is one
    accumulate: Count = 1  # micro-batches per optimiser step
    clip: float = 1.0  # largest gradient norm; 0: no clipping
    persistence: int = 100_000  # zero3: parameters with fewer elements stay whole on every rank
