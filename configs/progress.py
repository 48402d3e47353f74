"""Messages and progress of long steps for the person who waits.

Rooms call :func:`say`, :func:`warn`, :func:`task` and :func:`tracked`; the listener decides how they are shown (the command
line on a terminal). Without a listener sentences go to the logger ``headstart`` and tasks cost nothing.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

log = logging.getLogger("headstart")
Item = TypeVar("Item")


class Task(Protocol):
    """One step with a known or unknown length."""

    def update(self, done: float | None = None, *, total: float | None = None, note: str | None = None) -> None:
        """Report how far it is; what is ``None`` stays as it was.

        Args:
            done: units finished so far.
            total: number of units, once it is known.
            note: a few words, such as the loss.
        """

    def advance(self, by: float = 1) -> None:
        """Report that ``by`` more units are finished."""


class ByName:
    """A bar in bytes of clips or tars, which are known beforehand, unlike seconds."""

    def __init__(self, bar: Task, sizes: dict[str, int]) -> None:
        self._bar, self._bytes = bar, sizes
        self._shown: dict[str, float] = {}

    def show(self, clip: str, fraction: float) -> None:
        """Report the fraction (0 to 1) of a clip or tar that is done."""
        before = self._shown.get(clip, 0.0)
        if fraction > before:
            self._bar.advance(round(self._bytes.get(clip, 0) * (fraction - before)))
            self._bar.update(note=clip)
            self._shown[clip] = fraction


class Listener(Protocol):
    """Shows sentences and tasks."""

    def say(self, text: str) -> None:
        """Show a sentence."""

    def start(self, label: str, total: float | None, unit: str) -> Task:
        """Show a new task."""

    def stop(self, task: Task) -> None:
        """Remove a task that has ended, finished or not."""


class _Silent:
    def update(self, done: float | None = None, *, total: float | None = None, note: str | None = None) -> None:
        pass

    def advance(self, by: float = 1) -> None:
        pass


_listeners: list[Listener] = []
_warned: set[str] = set()  # since the newest listener came


@contextlib.contextmanager
def listen(listener: Listener) -> Iterator[None]:
    """Show everything that is said inside the block with ``listener``."""
    _listeners.append(listener)
    _warned.clear()
    try:
        yield
    finally:
        _listeners.remove(listener)


def say(text: str) -> None:
    """Show the person who waits a sentence."""
    if _listeners:
        _listeners[-1].say(text)
    else:
        log.info("%s", text)


def warn(text: str) -> None:
    """Say that something is not as it should be: once, however often it is met. Without a listener, it is a logger's warning."""
    if not _listeners:
        log.warning("%s", text)
    elif text not in _warned:
        _warned.add(text)
        say(text)


@contextlib.contextmanager
def task(label: str, total: float | None = None, unit: str = "") -> Iterator[Task]:
    """Show a step for the length of a ``with`` block, which updates the :class:`Task` that it gets.

    Args:
        label: what is being done, such as ``tracking``.
        total: how many units there are, if that is known.
        unit: what is counted, such as ``frames``.
    """
    if not _listeners:
        yield _Silent()
        return
    listener = _listeners[-1]
    shown = listener.start(label, total, unit)
    try:
        yield shown
    finally:
        listener.stop(shown)


def tracked(items: Iterable[Item], label: str, total: float | None = None, unit: str = "") -> Iterator[Item]:
    """Yield the items and show them as a task; an item counts as done when the next is asked for."""
    with task(label, total, unit) as shown:
        for item in items:
            yield item
            shown.advance()
