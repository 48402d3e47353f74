"""Where build tasks run: processes of this machine, or Ray tasks on a cluster. Both only carry messages.

A worker that dies (a decoder that crashes on a hostile file, too little memory) is reported as ``("died", why)`` and
replaced; the builder decides which clip caused it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, Protocol

from cluster.launch.launch import ClusterConfig
from cluster.launch.ray_train import connect
from configs import InputError
from shards.build.task import BuildSettings, Message, Task
from shards.build.worker import run_task


class Pool(Protocol):
    """Runs tasks concurrently."""

    def idle(self) -> int:
        """How many more tasks may be submitted now."""

    def submit(self, task: Task) -> None:
        """Start a task."""

    def next(self) -> tuple[Task, Message]:
        """Wait for a message of any running task; the last of each is ``("finished",)`` or ``("died", why)``."""

    def close(self) -> None:
        """End all workers at once."""


class ProcessPool:
    """Workers are processes of this machine, started when first needed and kept: they have much to import."""

    def __init__(self, settings: BuildSettings, workers: int) -> None:
        self._settings, self._workers = settings, workers
        self._context = multiprocessing.get_context("spawn")  # mediapipe and torch do not survive a fork
        self._idle: list[tuple[SpawnProcess, Connection]] = []
        self._running: dict[Connection, tuple[SpawnProcess, Task]] = {}

    def idle(self) -> int:
        return self._workers - len(self._running)

    def submit(self, task: Task) -> None:
        process, connection = self._idle.pop() if self._idle else self._start()
        connection.send(task)
        self._running[connection] = (process, task)

    def next(self) -> tuple[Task, Message]:
        connection = wait(list(self._running))[0]
        process, task = self._running[connection]  # type: ignore[index]
        try:
            message: Any = connection.recv()  # type: ignore[union-attr, call-arg]
        except (EOFError, ConnectionError):
            process.join()
            message = ("died", _how(process.exitcode))
        if message[0] in ("finished", "died"):
            del self._running[connection]  # type: ignore[arg-type]
        if message[0] == "finished":
            self._idle.append((process, connection))  # type: ignore[arg-type]
        return task, message

    def close(self) -> None:
        for process, connection in [*self._idle, *((p, c) for c, (p, _) in self._running.items())]:
            process.terminate()
            process.join()
            connection.close()
        self._idle, self._running = [], {}

    def _start(self) -> tuple[SpawnProcess, Connection]:
        ours, theirs = self._context.Pipe()
        threads = max(1, (os.cpu_count() or 1) // self._workers)
        process = self._context.Process(target=_serve, args=(theirs, self._settings, threads), daemon=True)
        process.start()
        theirs.close()
        return process, ours


def _serve(connection: Connection, settings: BuildSettings, threads: int) -> None:
    """A worker: tasks in, messages out, until the builder hangs up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the builder ends its workers; Ctrl-C reaches only the builder
    _quiet_libraries()
    import torch

    torch.set_num_threads(threads)
    with suppress(EOFError, ConnectionError):  # the builder is gone
        while True:
            with closing(run_task(connection.recv(), settings)) as messages:  # type: ignore[type-var]
                for message in messages:
                    connection.send(message)
            connection.send(("finished",))


def _quiet_libraries() -> None:
    """Discard what C++ libraries print, unless HEADSTART_DEBUG is set; Python's own messages stay visible."""
    if os.environ.get("HEADSTART_DEBUG"):
        return
    terminal = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    sys.stderr = os.fdopen(terminal, "w", buffering=1)


def _how(code: int | None) -> str:
    if code is not None and code < 0:
        return f"signal {signal.Signals(-code).name}"
    return f"exit status {code}"


class RayPool:
    """Workers are Ray tasks of one core; each task may run on another machine, so output must be shared or remote."""

    def __init__(self, settings: BuildSettings, workers: int, address: str) -> None:
        self._ray, self._owned = connect(ClusterConfig(workers=workers, address=address or None))
        self._settings, self._workers = settings, workers
        # No retries by Ray: the builder decides, and Ray would repeat the crash.
        self._remote = self._ray.remote(run_task).options(num_cpus=1, max_retries=0, num_returns="streaming")
        self._running: dict[Any, Task] = {}

    def idle(self) -> int:
        return self._workers - len(self._running)

    def submit(self, task: Task) -> None:
        self._running[self._remote.remote(task, self._settings)] = task

    def next(self) -> tuple[Task, Message]:
        ready, _ = self._ray.wait(list(self._running), num_returns=1, fetch_local=False)
        stream = ready[0]
        task = self._running[stream]
        try:
            message = self._ray.get(next(stream))
        except StopIteration:
            message = ("finished",)
        except self._ray.exceptions.RayError as error:
            message = ("died", f"{type(error).__name__}: {str(error).strip().splitlines()[0]}")
        if message[0] in ("finished", "died"):
            del self._running[stream]
        return task, message

    def close(self) -> None:
        for stream in self._running:
            self._ray.cancel(stream, force=True)
        self._running = {}
        if self._owned:
            self._ray.shutdown()


class HerePool:
    """No workers: tasks run in this process, one after the other."""

    def __init__(self, settings: BuildSettings) -> None:
        self._settings = settings
        self._running: tuple[Task, Iterator[Message]] | None = None

    def idle(self) -> int:
        return int(self._running is None)

    def submit(self, task: Task) -> None:
        self._running = (task, run_task(task, self._settings))

    def next(self) -> tuple[Task, Message]:
        task, messages = self._running  # type: ignore[misc]
        message = next(messages, ("finished",))
        if message == ("finished",):
            self._running = None
        return task, message

    def close(self) -> None:
        if self._running is not None:
            self._running[1].close()  # type: ignore[attr-defined]
            self._running = None


def open_pool(settings: BuildSettings, workers: int, address: str | None) -> Pool:
    """Processes, Ray tasks where an address is given, or this process for ``workers=0``.

    Raises:
        InputError: a negative number, Ray absent, or nothing at the address.
    """
    if workers < 0:
        raise InputError(f"workers {workers}: expected 0 (in this process) or more")
    if address is not None:
        return RayPool(settings, max(1, workers), address)
    return ProcessPool(settings, workers) if workers else HerePool(settings)
