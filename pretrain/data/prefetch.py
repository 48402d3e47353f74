"""Batches that a thread prepares while the model trains."""

from __future__ import annotations

import copy
import queue
import threading
from collections.abc import Generator
from typing import Any

import torch

from configs import InputError


class Prefetcher:
    """Prepares batches in a thread, each with the reader's state after it.

    The exposed state belongs to the batches consumed, not to those prepared, so that a checkpoint never skips one.
    ``depth`` is the number of batches prepared ahead (0 reads in the caller's thread); ``pin`` uses pinned memory.
    """

    def __init__(self, reader: Any, depth: int, pin: bool = False) -> None:
        self.reader, self.state, self.pin = reader, reader.state_dict(), pin
        self._stop = threading.Event()
        self._queue: queue.Queue = queue.Queue(max(1, depth))
        self._source = self._endless()
        self._thread = threading.Thread(target=self._fill, daemon=True, name="prefetch") if depth else None
        if self._thread:
            self._thread.start()

    def _endless(self) -> Generator[tuple[dict, dict], None, None]:
        while True:
            count = 0
            for batch in self.reader:
                count += 1
                yield _pinned(batch) if self.pin else batch, copy.deepcopy(self.reader.state_dict())
            if not count:
                raise InputError(
                    "the reader gave no batch; the dataset has fewer samples than one batch needs, lower batch_size"
                )

    def _fill(self) -> None:
        try:
            for item in self._source:
                while not self._stop.is_set():
                    try:
                        self._queue.put(item, timeout=0.2)
                        break
                    except queue.Full:
                        continue
                if self._stop.is_set():
                    return
        except BaseException as error:
            self._queue.put(error)

    def next(self) -> dict:
        """The next batch; errors of the thread are raised here."""
        item = self._queue.get() if self._thread else next(self._source)
        if isinstance(item, BaseException):
            raise item
        batch, self.state = item
        return batch

    def close(self) -> None:
        """Stop the thread and discard batches that were not consumed."""
        self._stop.set()
        if self._thread:
            self._thread.join(timeout=5)
        if self._thread is None or not self._thread.is_alive():
            self._source.close()  # the reader's processes end now, not when the garbage is collected


def _pinned(batch: dict) -> dict:
    return {k: v.pin_memory() if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
