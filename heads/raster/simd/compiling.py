"""Kernels that compile: a machine's first run says so, and tells apart what it compiled from what it worked."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

from numba.core import event

from configs import progress

KIND = "numba:compile"  # broadcast around every compilation, but not where machine code is read from the cache
SAID = "compiling kernels (once on this machine)"


class Compilations(event.Listener):
    """Seconds of wall clock in which kernels compiled, in whichever thread, while this was told of them.

    Numba compiles one kernel after the other, and a kernel with those that it calls: a stretch of time counts once.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running, self._since, self._before, self._said = 0, 0.0, 0.0, False

    @property
    def seconds(self) -> float:
        """How many so far."""
        with self._lock:
            return self._before + (time.monotonic() - self._since if self._running else 0.0)

    def on_start(self, event: event.Event) -> None:
        """Numba begins with a kernel."""
        with self._lock:
            if not self._running:
                self._since = time.monotonic()
            self._running += 1
            first, self._said = not self._said, True
        if first:
            progress.say(SAID)

    def on_end(self, event: event.Event) -> None:
        """Numba has finished a kernel, or failed to."""
        with self._lock:
            self._running -= 1
            if not self._running:
                self._before += time.monotonic() - self._since


@contextlib.contextmanager
def compilations() -> Iterator[Compilations]:
    """Say when kernels compile inside the block, and count the seconds."""
    listener = Compilations()
    event.register(KIND, listener)
    try:
        yield listener
    finally:
        event.unregister(KIND, listener)
