"""What runs on each of Ray's workers: join the others, train, tell the driver."""

from __future__ import annotations

import contextlib
import logging
import platform
import signal
import sys
import threading
from typing import TYPE_CHECKING, TypedDict

from cluster.engine import process_group
from cluster.launch.board import Forward
from cluster.launch.failures import Preempted
from cluster.launch.worker import Context, check_shared, find_target
from cluster.storage.errors import StorageError
from configs import InputError, progress

if TYPE_CHECKING:
    import socket

    from ray.actor import ActorHandle
    from ray.train._internal.base_worker_group import BaseWorkerGroup
    from ray.train.backend import BackendConfig

log = logging.getLogger("headstart.launch")
_asked_to_stop = threading.Event()  # set by SIGTERM in a worker process


class Job(TypedDict):
    """What every worker is told.

    Attributes:
        target: ``module:function``.
        config: its first argument.
        run: the run's folder or URL.
        threads: CPU threads of one worker.
        machine: host name of the driver's machine.
        path: the driver's ``sys.path``.
    """

    target: str
    config: dict[str, object]
    run: str
    threads: int
    machine: str
    path: list[str]


class Payload(TypedDict):
    """A job, the :class:`cluster.launch.board.Board` between driver and workers, and which attempt of the run this is.

    Attributes:
        attempt: counted where a board tells one attempt to make way for another, else 0.
    """

    job: Job
    board: ActorHandle
    attempt: int


def backend_config() -> BackendConfig:
    """Ray's hook on each worker's start."""
    from ray.train.backend import Backend, BackendConfig

    class Signals(Backend):
        def on_start(self, worker_group: BaseWorkerGroup, backend_config: BackendConfig) -> None:
            worker_group.execute(listen_for_sigterm)

    class SignalsConfig(BackendConfig):
        @property
        def backend_cls(self) -> type:
            return Signals

    return SignalsConfig()


def listen_for_sigterm() -> None:
    """Make SIGTERM set a flag. Runs in the worker's main thread, as Python demands."""
    _asked_to_stop.clear()
    signal.signal(signal.SIGTERM, lambda number, frame: _asked_to_stop.set())


def asked_to_stop() -> bool:
    """Whether SIGTERM has reached this process."""
    return _asked_to_stop.is_set()


def extend_path(job: Job) -> None:
    """Workers on the driver's machine can import what it can."""
    if job["machine"] == platform.node():
        sys.path.extend(entry for entry in job["path"] if entry not in sys.path)


def work_at(payload: Payload, place: process_group.Place, listener: socket.socket | None) -> object:
    """One worker whose place is known; rank 0 brings the ``listener`` at which the others meet it."""
    import ray

    job, board = payload["job"], payload["board"]
    extend_path(job)
    given_up: str | None = ray.get(board.read.remote())[1]
    if given_up is not None:
        return {"input_error": given_up}
    watch = _Watch(board, payload["attempt"])
    context = _join(job, watch, place, listener)
    try:
        check_shared(job["run"], context)
        if context.is_main:
            board.begin.remote(context.world_size)
        with _shown_by(board) if context.is_main else contextlib.nullcontext():
            result = find_target(job["target"])(job["config"], context)
        if _asked_to_stop.is_set():
            raise Preempted(f"rank {context.rank} was asked to go (SIGTERM); its state is saved")
        return result if context.is_main else None
    except Exception as error:
        if not _worth_a_restart(error):
            log.error("rank %d", context.rank, exc_info=True)
            sentence = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
            ray.get(board.give_up.remote(sentence))
        raise
    finally:
        watch.close()
        context.close()
        process_group.disconnect()


def _shown_by(board: ActorHandle) -> contextlib.AbstractContextManager[None]:
    """What this worker reports with :mod:`configs.progress` is shown by the driver."""
    return progress.listen(Forward(board.tell.remote))


def _worth_a_restart(error: Exception) -> bool:
    """A dead peer or a store that was away may be better next time; wrong input stays wrong."""
    if isinstance(error, InputError) and not isinstance(error, StorageError):
        return False
    return getattr(error, "retry", True)


def _join(job: Job, watch: _Watch, place: process_group.Place, listener: socket.socket | None) -> Context:
    import torch

    torch.set_num_threads(max(1, job["threads"]))
    if place.world > 1:
        process_group.connect(place, "nccl" if torch.cuda.is_available() else "gloo", listener)
    return Context(
        job["run"],
        rank=place.rank,
        world_size=place.world,
        local_rank=place.local_rank,
        stop=watch.asked,
    )


class _Watch:
    """Reads the board every second in a thread, so that asking at every step costs nothing."""

    def __init__(self, board: ActorHandle, attempt: int, every: float = 1.0) -> None:
        self._board, self._attempt, self._every, self._stop = board, attempt, every, threading.Event()
        threading.Thread(target=self._look, daemon=True, name="stop-watch").start()

    def asked(self) -> bool:
        return self._stop.is_set() or _asked_to_stop.is_set()

    def close(self) -> None:
        """Look no more."""
        self._stop.set()

    def _look(self) -> None:
        import ray

        while not self._stop.wait(self._every):
            try:
                if ray.get(self._board.read.remote(self._attempt), timeout=30)[0]:
                    self._stop.set()
            except ray.exceptions.GetTimeoutError:
                continue  # the machine is busy
            except Exception:
                return  # the driver is gone, and this process soon will be
