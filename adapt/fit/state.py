"""The position of an optimisation between two steps: all that ``--resume`` needs besides weights and moments.

Everything random is derived from the seed and the number of the step (:mod:`configs.seeds`), so no generator is saved.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from configs.devices import seed_device
from configs.seeds import derive


@dataclass
class Place:
    """A place in a recipe's stages.

    Attributes:
        stage: number of the stage that the last step belonged to, -1 before the first.
        steps: how many steps of that stage are done.
        order: frames left of the current random order.
        newest: the last frame of the clip that came into it, -1 before the first order.
        once: names of the work that must not be repeated.
        pictured: number of frames that were tracked when body and background were initialised.
    """

    stage: int = -1
    steps: int = 0
    order: list[int] = field(default_factory=list)
    newest: int = -1
    once: set[str] = field(default_factory=set)
    pictured: int = 0

    def tensors(self) -> dict[str, Tensor]:
        """As ``place/KEY`` and ``once/NAME``, all int64."""
        numbers = {"stage": self.stage, "steps": self.steps, "pictured": self.pictured, "newest": self.newest}
        found = {f"place/{name}": torch.tensor(value) for name, value in numbers.items()}
        found["place/order"] = torch.tensor(self.order, dtype=torch.int64)
        return {**found, **{f"once/{name}": torch.tensor(1) for name in sorted(self.once)}}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Place:
        """The inverse of :meth:`tensors`; the place before the first step where nothing was saved."""
        if "place/stage" not in tensors:
            return cls()
        order = tensors["place/order"].tolist()
        return cls(
            stage=int(tensors["place/stage"]),
            steps=int(tensors["place/steps"]),
            order=order,
            # Earlier versions did not say it.
            newest=int(tensors.get("place/newest", torch.tensor(max(order, default=-1)))),
            once={name.removeprefix("once/") for name in tensors if name.startswith("once/")},
            pictured=int(tensors["place/pictured"]),
        )


def seed_step(seed: int, device: torch.device, *purpose: object) -> np.random.Generator:
    """Set torch's generators for one purpose, such as ``("step", 12)``, and return numpy's for the same.

    The generators are set directly: ``torch.manual_seed`` also looks for every other kind of accelerator, which takes
    0.2 ms a step.
    """
    number = derive(seed, *purpose)
    torch.default_generator.manual_seed(number)
    seed_device(device, number)
    return np.random.default_rng(number)
