"""How long an adaptation may take: wall-clock or iterations, shared out among the stages of a recipe.

Schedules are written in fractions of the budget, so that the same recipe runs in 10 s and in 10 minutes. An
iteration budget ignores the clock and makes a run repeat bit for bit on one machine.
"""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from configs import InputError
from heads.raster.simd.compiling import Compilations, compilations

_UNITS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Exactly one of ``seconds`` (wall clock) and ``iterations`` is set."""

    seconds: float | None = None
    iterations: int | None = None

    def share(self, part: float) -> Budget:
        """A part of it, at least one step or 0.1 s: ``Budget(seconds=60).share(0.05)`` is 3 s."""
        if self.iterations is not None:
            return Budget(iterations=max(1, round(part * self.iterations)))
        return Budget(seconds=max(0.1, part * (self.seconds or 0.0)))

    def __str__(self) -> str:
        return f"{self.iterations}it" if self.iterations is not None else f"{self.seconds:g}s"


def parse_budget(text: str | float | Budget) -> Budget:
    """``60s``, ``10m``, ``1.5h``, ``1000it`` or a bare number of seconds.

    Raises:
        InputError: not a budget, or not positive.
    """
    if isinstance(text, Budget):
        return text
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*(s|m|min|h|it)?\s*", str(text))
    if match is None:
        raise InputError(f"budget '{text}': expected a time or a number of steps such as 60s, 10m, 1h or 1000it")
    number, unit = float(match[1]), match[2] or "s"
    if number <= 0 or (unit == "it" and number < 1):
        raise InputError(f"budget '{text}': nothing can be adapted in no time; give at least 1s or 1it")
    if unit == "it":
        if number != int(number):
            raise InputError(f"budget '{text}': the number of iterations must be whole, such as 1000it")
        return Budget(iterations=int(number))
    return Budget(seconds=number * _UNITS[unit])


class Clock:
    """How much of a budget is spent; continues the count of the run that is resumed.

    Args:
        budget: the whole.
        spent_seconds: used by the run that is resumed.
        spent_iterations: steps of the run that is resumed.
        most: steps after which a wall-clock budget counts as spent, because more would overfit; by default no limit.
        start: ``time.monotonic()`` at which it began to run; now by default.

    Attributes:
        iterations: optimisation steps done, earlier runs included.
        stopped: whether someone asked to stop.
        reserve: wall-clock seconds kept free at the end, for the last save and what belongs to it; may change on the way.
        stages: wall-clock seconds by what they were spent on, of this run alone; see :meth:`timed`.
        latest: how long each of them took the last time, without what compiled meanwhile.
        compiled: the kernels that compiled meanwhile: seconds that do not count, see :meth:`waits_for_compiling`.
    """

    def __init__(
        self,
        budget: Budget,
        *,
        spent_seconds: float = 0.0,
        spent_iterations: int = 0,
        most: int | None = None,
        start: float | None = None,
    ) -> None:
        self.budget, self.reserve, self.most = budget, 0.0, most
        self.iterations = spent_iterations
        self._before, self._start = spent_seconds, time.monotonic() if start is None else start
        self.stages: dict[str, float] = {}
        self.latest: dict[str, float] = {}
        self.compiled = Compilations()
        self.resumed = bool(spent_iterations)
        self.stopped = False

    @property
    def seconds(self) -> float:
        """Wall-clock seconds spent, earlier runs included, without those that kernels took to compile."""
        return self._before + time.monotonic() - self._start - self.compiled.seconds

    @property
    def fraction(self) -> float:
        """Spent share of the budget, 0..1; 1 as soon as someone asked to stop."""
        if self.stopped:
            return 1.0
        if self.budget.iterations is not None:
            return min(1.0, self.iterations / self.budget.iterations)
        whole = self.budget.seconds or 0.0
        usable = max(whole * 0.5, whole - self.reserve)
        return min(1.0, max(self.seconds / usable, self.iterations / self.most if self.most else 0.0))

    @property
    def seconds_left(self) -> float | None:
        """Wall-clock seconds to the end; for iteration budgets estimated from the pace, ``None`` before the first step."""
        if self.budget.seconds is not None:
            return max(0.0, self.budget.seconds - self.seconds)
        if not self.iterations or self.budget.iterations is None:
            return None
        return self.seconds / self.iterations * (self.budget.iterations - self.iterations)

    @contextmanager
    def waits_for_compiling(self) -> Iterator[None]:
        """Do not count the time that kernels take to compile inside the block: that happens once on a machine."""
        with compilations() as self.compiled:
            yield

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the seconds of a ``with`` block to those of a stage; stages must not be nested."""
        begin = self.seconds
        try:
            yield
        finally:
            self.latest[stage] = self.seconds - begin
            self.stages[stage] = self.stages.get(stage, 0.0) + self.latest[stage]

    def seconds_by_stage(self) -> dict[str, float]:
        """What :meth:`timed` has counted, rounded to 0.01 s; and ``compiling``, if kernels were, which no budget counts."""
        compiling = {"compiling": self.compiled.seconds} if self.compiled.seconds else {}
        return {name: round(seconds, 2) for name, seconds in (self.stages | compiling).items()}

    def tick(self) -> None:
        """One optimisation step was done."""
        self.iterations += 1

    def steps(self, begin: float, until: float, *, begun: bool | None = None) -> Iterator[float]:
        """Yield the progress 0..1 of the stage between two fractions of the budget; the caller ticks after each step.

        A stage always gets one step, so that every part of an avatar exists however small the budget is.

        Args:
            begun: whether the stage had that step before the run was resumed; by default assumed of every stage of a
                resumed run that should be over by now.
        """
        until = min(until, 1.0)  # shares add up to one only within rounding
        if begun is None:
            begun = self.resumed and self.fraction >= until
        first = not self.stopped and not begun
        while first or self.fraction < until:
            first = False
            yield min(1.0, max(0.0, (self.fraction - begin) / max(1e-9, until - begin)))
            if self.stopped:
                return


@contextmanager
def graceful_stop(clock: Clock) -> Iterator[None]:
    """SIGTERM and Ctrl-C end the running stage after its step; the avatar is then saved as usual.

    Signals can only be caught in the main thread; elsewhere this does nothing.
    """

    def stop(*_: object) -> None:
        clock.stopped = True

    previous = {}
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            previous[number] = signal.signal(number, stop)
    except ValueError:
        pass
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
