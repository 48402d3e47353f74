"""The rasteriser's own threads: a handful of workers that run kernels without the GIL.

numba's parallel backends kill forked children (OpenMP) or abort on concurrent threads (workqueue), and spin beside
torch's pool. Ours sleeps between calls, is rebuilt in a forked child, serves several calling threads at once (the
caller always does its own share, so calls cannot deadlock), and obeys one limit.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from itertools import pairwise
from queue import SimpleQueue

import torch

from configs import InputError

_limit: int | None = None
_jobs: SimpleQueue = SimpleQueue()
_workers = 0
_lock = threading.Lock()


def set_num_threads(count: int | None) -> None:
    """Limit the CPU rasteriser to ``count`` threads; None restores the default (see :func:`get_num_threads`).

    Raises:
        InputError: a number below 1, or not a whole one.
    """
    global _limit
    if count is not None and (not isinstance(count, int) or count < 1):
        raise InputError(f"set_num_threads: expected a whole number of at least 1 or None, got {count!r}")
    _limit = count


def get_num_threads() -> int:
    """Threads a call may use: ``set_num_threads``, else ``HEADSTART_THREADS``, else ``torch.get_num_threads()``.

    Raises:
        InputError: ``HEADSTART_THREADS`` is not a number of at least 1.
    """
    if _limit is not None:
        return _limit
    value = os.environ.get("HEADSTART_THREADS")
    if not value:
        return torch.get_num_threads()
    if not value.isdigit() or int(value) < 1:
        raise InputError(f"environment variable HEADSTART_THREADS: expected a number of at least 1, got {value!r}")
    return int(value)


def _work(jobs: SimpleQueue) -> None:
    while True:
        function, arguments, done = jobs.get()
        try:
            done.put(function(*arguments))
        except BaseException as error:  # handed to the caller, which raises it
            done.put(_Failure(error))


class _Failure:
    def __init__(self, error: BaseException) -> None:
        self.error = error


def _ensure_workers(count: int) -> SimpleQueue:
    global _workers
    if _workers < count:
        with _lock:
            for number in range(_workers, count):
                thread = threading.Thread(target=_work, args=(_jobs,), name=f"raster-{number}", daemon=True)
                thread.start()
            _workers = max(_workers, count)
    return _jobs


def _run_all(function: Callable, calls: Sequence[tuple]) -> None:
    for arguments in calls:
        function(*arguments)


def run(function: Callable, calls: Sequence[tuple], limit: int) -> None:
    """Run ``function(*arguments)`` for each item of ``calls`` on at most ``limit`` threads, this one included, and wait.

    Calls are dealt out in contiguous groups, the same for the same number of threads.
    """
    parts = min(limit, len(calls))
    if parts <= 1:
        _run_all(function, calls)
        return
    cuts = [len(calls) * k // parts for k in range(parts + 1)]
    groups = [calls[a:b] for a, b in pairwise(cuts)]
    jobs = _ensure_workers(parts - 1)
    done: SimpleQueue = SimpleQueue()
    for group in groups[:-1]:
        jobs.put((_run_all, (function, group), done))
    failure = None
    try:
        _run_all(function, groups[-1])
    finally:
        # Arrays of this call must not go away while a worker still writes to them.
        for _ in range(parts - 1):
            result = done.get()
            failure = result if isinstance(result, _Failure) else failure
    if failure is not None:
        raise failure.error


def _after_fork() -> None:
    """A forked child has none of the parent's threads: start over with an empty queue and a fresh lock."""
    global _jobs, _workers, _lock
    _jobs, _workers, _lock = SimpleQueue(), 0, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
