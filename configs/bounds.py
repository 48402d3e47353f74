"""Which numbers a configuration's key takes: ``Annotated[int, Within(1)]``; without it, any from zero on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated


@dataclass(frozen=True)
class Within:
    """The numbers from ``least`` to ``most``; ``most`` itself is left out if ``below``."""

    least: float = 0
    most: float = math.inf
    below: bool = False

    def __contains__(self, value: float) -> bool:
        return self.least <= value < self.most or (value == self.most and not self.below and math.isfinite(value))

    def __str__(self) -> str:
        if math.isinf(self.most):
            return f"from {self.least:g} on"
        return f"from {self.least:g} to {'below ' if self.below else ''}{self.most:g}"


NOT_NEGATIVE = Within()

Count = Annotated[int, Within(1)]
Share = Annotated[float, Within(0, 1)]
Decay = Annotated[float, Within(0, 1, below=True)]  # of a moving average, or a dropout: 1 would leave nothing
Seed = Annotated[int, Within(0, 2**63, below=True)]
