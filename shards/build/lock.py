"""One writer at a time for a local dataset, and nothing left behind by writers that failed."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cluster.storage import storage
from cluster.storage.errors import sentence
from configs import InputError
from shards.format.catalogue import FILE, Catalogue, read_catalogue

LOCK = ".build.lock"


@contextmanager
def locked(url: str) -> Iterator[None]:
    """Hold the dataset for writing; the lock ends with the process. Buckets have no locks: write from one place.

    Raises:
        InputError: another build, withdrawal or repair is under way, or the folder cannot be written.
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


@contextmanager
def edited(url: str) -> Iterator[Catalogue]:
    """Hold an existing dataset for writing, with its catalogue as it is then: one that was read before may lack new shards.

    Raises:
        InputError: no dataset there, or as :func:`locked`.
    """
    read_catalogue(url)  # a folder that is no dataset gets no lock file
    with locked(url):
        yield read_catalogue(url)


@contextmanager
def tidy_when_nothing_came_of_it(url: str) -> Iterator[None]:
    """Remove the dataset that this build created if it ends in an :class:`InputError` before its first sample."""
    new = not storage.exists(storage.join(url, FILE))
    try:
        yield
    except InputError:
        begun = storage.exists(storage.join(url, FILE))
        with suppress(InputError):
            if new and not (begun and read_catalogue(url).shards):
                for name in (FILE, "build.json", "report", "shards", "index"):
                    storage.remove(storage.join(url, name))
                if not storage.is_remote(url):
                    with suppress(OSError):
                        Path(url, LOCK).unlink(missing_ok=True)
                        Path(url).rmdir()
        raise


def sweep(url: str, catalogue: Catalogue) -> None:
    """Remove what an interrupted build left: shards and indexes that are not listed, temporary files."""
    if storage.is_remote(url):
        return  # another build may be about to list them; a repeated task overwrites its own
    listed = catalogue.names()
    for folder in ("shards", "index"):
        for path in Path(url, folder).glob("*"):
            if path.stem not in listed:
                storage.remove(path)
    for path in Path(url).glob(".tmp-*"):
        storage.remove(path)
