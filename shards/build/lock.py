"""One writer at a time for a local dataset."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster.storage import storage
from cluster.storage.errors import sentence
from configs import InputError

LOCK = ".build.lock"


@contextmanager
def locked(url: str) -> Iterator[None]:
    """Hold the dataset for writing; the lock of a dead process is none. Buckets have no locks: write from one place.

    Raises:
        InputError: another build or withdrawal is under way, or the folder cannot be written.
    """
    if storage.is_remote(url):
        yield
        return
    path = Path(url)
    try:
        path.mkdir(parents=True, exist_ok=True)
        stream = open(path / LOCK, "w")  # noqa: SIM115  (closed below)
    except OSError as error:
        raise sentence(url, "write", error) from None
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        stream.close()
        raise InputError(f"{url}: another build is writing here; wait for it or choose another folder") from None
    try:
        yield
    finally:
        stream.close()  # the file stays: removing it could let two others lock two files of this name
