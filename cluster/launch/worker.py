"""What a training function learns from its launcher: its rank, its run, where to continue, and when to stop."""

from __future__ import annotations

import importlib
import json
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from cluster import checkpoint
from cluster.engine import process_group
from cluster.storage import storage
from configs import InputError
from configs.progress import say
from configs.scratch import ScratchFolder

log = logging.getLogger("headstart.launch")
run_log = logging.getLogger("headstart.run")


class Context:
    """Given to ``target(config, context)`` on every worker.

    Attributes:
        rank: this worker's number, from 0.
        world_size: number of workers.
        local_rank: this worker's number on its machine.
        run: the run's folder or URL.
        scratch: a local folder of this worker, removed when it ends.
    """

    def __init__(
        self,
        run: str,
        *,
        rank: int = 0,
        world_size: int = 1,
        local_rank: int = 0,
        stop: Callable[[], bool] | None = None,
    ) -> None:
        self.run, self.rank, self.world_size, self.local_rank = str(run), rank, world_size, local_rank
        self._folder = ScratchFolder("worker")
        self.scratch = self._folder.path
        self._stop = stop or (lambda: False)
        self._stopped = False

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, the one that writes."""
        return self.rank == 0

    def latest_checkpoint(self) -> str | None:
        """URL of the newest checkpoint of the run that is complete and undamaged, or None: the same on every rank.

        Rank 0 decides and verifies; ``cluster.checkpoint.fetch_checkpoint(url, context.scratch)`` then reuses its copy.

        Raises:
            StorageError: there are checkpoints but every one of them is damaged.
        """
        found = checkpoint.fetch_latest(self.run, self.scratch) if self.is_main else None
        step = process_group.share(found[0] if found else -1)
        return None if step < 0 else checkpoint.checkpoint_url(self.run, step)

    def report(self, checkpoint_url: str | None, metrics: dict[str, Any]) -> None:
        """Log where the run stands: one line of JSON to the logger ``headstart.run``, for log collectors.

        Only rank 0 logs; other ranks may call it, and none waits.
        """
        if self.is_main:
            numbers = {name: value for name, value in metrics.items() if isinstance(value, int | float | str)}
            run_log.info("%s", json.dumps({"run": self.run, "checkpoint": checkpoint_url, **numbers}))

    def should_stop(self) -> bool:
        """Whether this worker was asked to exit (SIGTERM, spot preemption): then save a checkpoint and return.

        Ranks may learn it at different steps: combine with :meth:`cluster.engine.engine.Engine.any` before acting on it.
        """
        self._stopped = self._stopped or self._stop()
        return self._stopped

    def close(self) -> None:
        """Remove the scratch folder."""
        self._folder.close()


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """An event that SIGTERM or the first Ctrl-C sets; a second Ctrl-C interrupts. The old handlers are restored afterwards.

    Outside the main thread, where Python forbids handlers, the event is never set.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if asked.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not asked.is_set():
            name = signal.Signals(number).name
            text = f"{name}: saving a checkpoint and ending; add --resume to go on later"
            say(text)
            log.warning("%s", text)  # without a command line the former is not shown
        asked.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_here(target: Callable[[dict, Context], object], config: dict, run: str) -> object:
    """Call ``target`` in this process as the only worker; SIGTERM and Ctrl-C make ``should_stop`` true."""
    with stop_signals() as asked:
        context = Context(run, stop=asked.is_set)
        try:
            return target(config, context)
        finally:
            context.close()
            process_group.disconnect()


def find_target(target: str) -> Callable[..., Any]:
    """The function that ``"module:function"`` names.

    Raises:
        InputError: no such module or function.
    """
    module, _, name = target.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"target '{target}': {error}; expected module:function, importable on every worker") from error


def check_shared(run: str, context: Context) -> None:
    """Refuse a run folder that another machine of the run does not see.

    Raises:
        StorageError: on every rank, saying whether this one sees it.
    """
    if storage.is_remote(run) or context.world_size == 1:
        return
    mark = storage.local_path(run) / ".shared"
    if context.is_main:
        storage.write_bytes(mark, b"every worker must see this file\n")
    process_group.share(0)  # rank 0 has written
    seen = mark.is_file()
    if process_group.smallest(int(seen)) == 0:
        raise storage.StorageError(
            f"{run}: not every worker sees this folder (rank {context.rank} {'does' if seen else 'does not'}); "
            "with several machines use a shared file system or s3:// for --out"
        )
