"""The part of the configuration that all priors share: the run, the optimiser, the engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from cluster.engine.config import EngineConfig
from configs import InputError
from configs.bounds import Count, Decay, Seed, Share, Within


@dataclass(frozen=True, kw_only=True)
class OptimiserConfig:
    """AdamW with warm-up and decay."""

    lr: float = 3e-4
    weight_decay: float = 0.01
    beta1: Decay = 0.9
    beta2: Decay = 0.99
    warmup: int = 50  # steps over which the learning rate rises linearly
    decay: Literal["cosine", "constant"] = "cosine"
    floor: Share = 0.05  # of the cosine, as a share of lr

    def check(self) -> None:
        """Raise ``InputError`` for a rate that cannot train."""
        if self.lr <= 0:
            raise InputError(f"optimiser.lr is {self.lr}, expected a positive number")


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Keys of every prior; the tasks add ``model``, ``loss`` and keys of their own."""

    steps: Count = 1000
    batch_size: Count = 16  # samples per optimiser step, over all workers and accumulated micro-batches
    seed: Seed = 0
    checkpoint_every: Count = 200
    keep: int = 3  # checkpoints kept; never fewer than two
    validate_every: Count = 200
    log_every: Count = 20
    holdout: float | list[str] = 0.2  # share of the people, or their names, that is never trained on
    allow_unknown_licence: bool = False
    reader_workers: Annotated[int, Within(0, 1024)] = 0  # processes that decode; 0 decodes in this one
    prefetch: int = 2  # batches that a thread prepares ahead; 0 turns it off
    max_broken: int = 8  # broken samples skipped before the run stops
    ema: Decay = 0.995  # decay of the moving average of the weights per step; 0 turns it off
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)

    def check(self) -> None:
        """Raise ``InputError`` for values out of range or in contradiction."""
        if self.keep < 2:
            raise InputError(f"keep is {self.keep}, expected two or more: the last checkpoint may be half written")
        if isinstance(self.holdout, float) and not 0 < self.holdout < 1:
            raise InputError(
                f"holdout is {self.holdout}, expected a share of the people between 0 and 1, or their names"
            )
        if self.batch_size % self.engine.accumulate:
            raise InputError(
                f"batch_size {self.batch_size} does not divide into engine.accumulate {self.engine.accumulate} "
                "micro-batches; make batch_size a multiple of engine.accumulate"
            )


# Keys that were renamed, old to new; priors and checkpoints of earlier versions stay readable.
RENAMED = {"caution": "correction_weight"}


def renamed(config: Mapping[str, object]) -> dict[str, object]:
    """A stored configuration with its keys under their present names."""
    return {
        RENAMED.get(key, key): renamed(value) if isinstance(value, Mapping) else value for key, value in config.items()
    }


# A resumed run may change how long and where it runs, never what it learns.
FREE_ON_RESUME = frozenset(
    {
        "steps",
        "checkpoint_every",
        "keep",
        "validate_every",
        "log_every",
        "reader_workers",
        "prefetch",
        "engine",
        "max_broken",
    }
)


def check_same_run(saved: dict, now: dict, where: str) -> None:
    """Refuse to resume a checkpoint that another configuration wrote.

    Raises:
        InputError: names the first differing key and both values.
    """
    saved = renamed(saved)
    for key in sorted(set(saved) | set(now)):
        if key in FREE_ON_RESUME:
            continue
        if saved.get(key) != now.get(key):
            raise InputError(
                f"{where}: checkpoint of another configuration, '{key}' was {saved.get(key)!r} and is {now.get(key)!r}; "
                "use the same configuration, or another --out for a fresh run"
            )
