"""Waiting for a condition instead of for a time; the deadline only guards against hanging, whatever the machine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator

LONGEST = 600.0  # s; a busy machine with two cores may need minutes for what takes seconds elsewhere


def wait_until(condition: Callable[[], object], pause: float = 0.02) -> None:
    """Return once the condition is true.

    Raises:
        TimeoutError: it stays false.
    """
    for _ in _while_false(condition):
        time.sleep(pause)


async def until(condition: Callable[[], object], pause: float = 0.02) -> None:
    """:func:`wait_until` for a coroutine.

    Raises:
        TimeoutError: it stays false.
    """
    for _ in _while_false(condition):
        await asyncio.sleep(pause)


def _while_false(condition: Callable[[], object]) -> Iterator[None]:
    end = time.monotonic() + LONGEST
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{condition} stays false")
        yield


async def at_rest(value: Callable[[], object], seconds: float = 0.5) -> object:
    """The value, once it has stayed the same for a while.

    Raises:
        TimeoutError: it goes on changing.
    """
    end, before = time.monotonic() + LONGEST, object()
    while before != (now := value()):
        if time.monotonic() > end:
            raise TimeoutError(f"{value} goes on changing")
        before = now
        await asyncio.sleep(seconds)
    return now
