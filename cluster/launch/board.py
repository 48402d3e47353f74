"""Messages between the workers and their launcher: a small Ray actor on the driver's machine, and progress sent over it."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable
from typing import Any

from configs import progress

EVERY = 0.5  # seconds at least between two updates of a task


class Board:
    """The actor. It holds whether to stop, an error that no restart can cure, and messages of the main rank.

    Args:
        workers: how many the run was asked to have.
    """

    def __init__(self, workers: int = 1) -> None:
        self.stopping = False
        self.error: str | None = None
        self.messages: list[tuple[object, ...]] = []
        self._wanted, self._world = workers, 0

    def stop(self) -> None:
        """Ask every worker to save and exit."""
        self.stopping = True

    def give_up(self, error: str) -> None:
        """Record the first error that a restart cannot cure."""
        self.error = self.error or error

    def read(self, attempt: int = 0) -> tuple[bool, str | None]:
        """(Whether the workers of an attempt should stop, the final error or None); here all attempts are told the same."""
        return self.stopping, self.error

    def begin(self, world: int) -> None:
        """So many workers begin to train together: tell the driver where that is news."""
        before, self._world = self._world, world
        if text := change(before, world, self._wanted):
            self.tell("say", text)

    def tell(self, *message: object) -> None:
        """Leave a message for the driver."""
        self.messages.append(message)

    def take(self) -> list[tuple[Any, ...]]:
        """The messages since the last call, in order."""
        taken, self.messages = self.messages, []
        return taken


def change(before: int, now: int, wanted: int) -> str | None:
    """What the person who waits is told when workers begin together; None when a run begins as it was asked to.

    Args:
        before: workers of the attempt before; 0 where this is the first.
        now: those that begin.
        wanted: those that the run was asked to have.
    """
    have = f"{now} of {wanted} workers"
    if not before:
        return f"the run begins with {have}, and takes the others when machines have room" if now < wanted else None
    if now < before:
        lost = f"{before - now} worker{'s were' if before - now > 1 else ' was'} lost"
        return f"{lost}: training goes on with {have} from the newest checkpoint"
    if now > before:
        return f"{now - before} worker{'s' if now - before > 1 else ''} joined: training goes on with {have}"
    return f"the workers were started again after a failure: {have} go on from the newest checkpoint"


class Forward:
    """A :class:`configs.progress.Listener` on a worker that sends everything on, through ``send(*message)``."""

    def __init__(self, send: Callable[..., object]) -> None:
        self._send, self._numbers = send, itertools.count()

    def say(self, text: str) -> None:
        """Send a sentence."""
        self._send("say", text)

    def start(self, label: str, total: float | None, unit: str) -> _Sent:
        """Announce a task."""
        number = next(self._numbers)
        self._send("start", number, label, total, unit)
        return _Sent(number, self._send)

    def stop(self, task: progress.Task) -> None:
        """The task has ended."""
        assert isinstance(task, _Sent)
        task.flush()
        self._send("stop", task.number)


class _Sent:
    """A task whose updates are sent at most every ``EVERY`` seconds."""

    def __init__(self, number: int, send: Callable[..., object]) -> None:
        self.number, self._send = number, send
        self._done, self._last = 0.0, 0.0
        self._total: float | None = None
        self._note: str | None = None

    def update(self, done: float | None = None, *, total: float | None = None, note: str | None = None) -> None:
        self._done = self._done if done is None else done
        self._total, self._note = total if total is not None else self._total, note or self._note
        if time.monotonic() - self._last >= EVERY:
            self.flush()

    def advance(self, by: float = 1) -> None:
        self.update(self._done + by)

    def flush(self) -> None:
        """Send how far it is."""
        self._last = time.monotonic()
        self._send("update", self.number, self._done, self._total, self._note)


class Replay:
    """Shows a worker's messages on the driver; tasks that a killed worker left open end with :meth:`close`."""

    def __init__(self) -> None:
        self._tasks: dict[int, tuple[contextlib.ExitStack, progress.Task]] = {}

    def show(self, messages: list[tuple[Any, ...]]) -> None:
        """Show messages of :class:`Forward`, in order."""
        for kind, *rest in messages:
            if kind == "say":
                progress.say(rest[0])
            elif kind == "start":
                self._start(*rest)
            elif kind == "update" and rest[0] in self._tasks:
                self._tasks[rest[0]][1].update(rest[1], total=rest[2], note=rest[3])
            elif kind == "stop" and rest[0] in self._tasks:
                self._tasks.pop(rest[0])[0].close()

    def _start(self, number: int, label: str, total: float | None, unit: str) -> None:
        if number in self._tasks:  # of workers that were started again
            self._tasks.pop(number)[0].close()
        stack = contextlib.ExitStack()
        self._tasks[number] = stack, stack.enter_context(progress.task(label, total, unit))

    def close(self) -> None:
        """End every task that is still shown."""
        for stack, _ in self._tasks.values():
            stack.close()
        self._tasks.clear()
