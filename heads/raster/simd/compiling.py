"""Kernel compilation on a machine's first run: announces it and measures the time that it takes."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

from numba.core import event

from configs import progress

KIND = "numba:compile"  # broadcast around every compilation, but not when machine code is read from the cache
SAID = "compiling kernels (once on this machine)"


class Compilations(event.Listener):
    """Wall-clock seconds of kernel compilation in all threads, while registered as a listener.

    Compilations may be nested, because a kernel is compiled with those that it calls; overlapping time counts once.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running, self._since, self._before, self._said = 0, 0.0, 0.0, False

    @property
    def seconds(self) -> float:
        """Wall-clock seconds so far."""
        with self._lock:
            return self._before + (time.monotonic() - self._since if self._running else 0.0)

    def on_start(self, event: event.Event) -> None:
        """A kernel starts to compile."""
        with self._lock:
            if not self._running:
                self._since = time.monotonic()
            self._running += 1
            first, self._said = not self._said, True
        if first:
            progress.say(SAID)

    def on_end(self, event: event.Event) -> None:
        """A kernel has compiled, or failed to."""
        with self._lock:
            self._running -= 1
            if not self._running:
                self._before += time.monotonic() - self._since


@contextlib.contextmanager
def compilations() -> Iterator[Compilations]:
    """Announce the first compilation inside the block and count the seconds of all."""
    listener = Compilations()
    event.register(KIND, listener)
    try:
        yield listener
    finally:
        event.unregister(KIND, listener)
