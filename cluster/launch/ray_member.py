"""The process in which one worker trains, and trains again after other workers were lost or have joined."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from typing import TYPE_CHECKING

from cluster.engine import process_group
from cluster.launch import ray_worker
from cluster.launch.worker import find_target
from configs import InputError

if TYPE_CHECKING:
    import socket


class Member:
    """The actor; SIGTERM asks it to save and end."""

    def __init__(self) -> None:
        ray_worker.listen_for_sigterm()
        self._listener: socket.socket | None = None
        self._sound = True

    def prepare(self, job: ray_worker.Job) -> int:
        """Import what training needs, ahead of it; returns the process's number."""
        ray_worker.extend_path(job)
        with contextlib.suppress(InputError):  # an import that fails is reported by the training
            find_target(job["target"])
            find_target("cluster.engine.engine:load_libraries")()  # named, as its module imports torch
        return os.getpid()

    def listen(self, host: str = process_group.LOOPBACK) -> tuple[str, int]:
        """Open the socket where the others will meet this one, rank 0; returns host and port."""
        self._listener = process_group.listen(host)
        return host, self._listener.getsockname()[1]

    def work(self, payload: ray_worker.Payload, place: process_group.Place) -> object:
        """Train; see :func:`cluster.launch.ray_worker.work_at`."""
        listener, self._listener, self._sound = self._listener, None, False
        gc.collect()  # the model of the attempt before, if any, was still in use while its error was on the way
        try:
            result = ray_worker.work_at(payload, place, listener)
        except RuntimeError as error:
            self._sound = process_group.is_broken(error)
            raise
        self._sound = True
        return result

    def is_sound(self) -> bool:
        """Whether this process can train again: the last attempt returned, or lost its connection to another worker.

        DeepSpeed keeps the process group of its first run, so a process that has used it is replaced.
        """
        return self._sound and "deepspeed" not in sys.modules
