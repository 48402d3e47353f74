"""Metrics of steps, kept on the device until they are read: one collective and one wait of the host for many steps.

On an accelerator the host must run ahead of the device. A step therefore reads nothing back: its metrics stay tensors,
and a flag on the device, which the optimiser obeys there, says whether its loss or gradient was not finite. Once the flag
is set, no step changes a weight, so that a broken step can be detected later.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from cluster.engine.engine import Engine


@dataclass(frozen=True)
class Broken:
    """The first step whose loss or gradient was not finite.

    Attributes:
        step: its number.
        keys: this rank's samples, if the value was not finite on this rank.
        value: the loss or the norm of the gradient.
        what: ``loss`` or ``gradient``.
    """

    step: int
    keys: list[str]
    value: float
    what: str


class Tally:
    """Metrics of the steps since the last :meth:`settle`.

    Attributes:
        broken: a scalar on the device, 1 from the first broken step on; for the engine's ``step_behind``.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.broken = torch.zeros((), device=engine.device)
        self._rows: list[torch.Tensor] = []
        self._steps: list[tuple[int, list[str]]] = []
        self._names: list[str] = []
        self._stop = False

    def refuse(self, loss: torch.Tensor) -> None:
        """Set the flag if a loss is not finite."""
        torch.maximum(self.broken, (~torch.isfinite(loss.detach())).to(self.broken), out=self.broken)

    def add(self, step: int, keys: list[str], metrics: dict[str, torch.Tensor], norm: torch.Tensor, stop: bool) -> None:
        """Add a step's metrics (scalars on the device), the norm of its gradient and whether to stop after it."""
        self._names = [*metrics, "gradient_norm"]
        values = [value.detach().float().reshape(()) for value in metrics.values()]
        self._rows.append(torch.stack([*values, norm.detach().float().reshape(()), self.broken]))
        self._steps.append((step, keys))
        self._stop = self._stop or stop

    def settle(self) -> tuple[list[dict[str, float]], bool, Broken | None]:
        """Read back: each step's metrics averaged over the ranks, whether a rank was asked to stop, and what broke. Collective."""
        if not self._rows:
            return [], self.engine.any(self._stop), None
        mine = torch.stack(self._rows)
        stop = torch.full((len(mine), 1), float(self._stop)).to(mine.device, non_blocking=True)
        rows = self.engine.mean(torch.cat([mine, stop], 1)).tolist()
        self._rows = []
        steps, self._steps = self._steps, []
        found = [dict(zip(self._names, row)) for row in rows]
        broken = next((k for k, row in enumerate(rows) if row[-2] != 0), None)
        return (
            found,
            rows[-1][-1] > 0,
            None if broken is None else self._describe(mine[broken], found[broken], steps[broken]),
        )

    def _describe(self, mine: torch.Tensor, metrics: dict[str, float], at: tuple[int, list[str]]) -> Broken:
        own = dict(zip(self._names, mine.tolist()))
        value, what = (own["loss"], "loss") if not math.isfinite(own["loss"]) else (own["gradient_norm"], "gradient")
        theirs = math.isfinite(own["loss"]) and not math.isfinite(metrics["loss"])
        return Broken(at[0], [] if theirs else at[1], value, what)
