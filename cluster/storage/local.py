"""URLs as text, and files on this machine's disk: ranged reads and atomic writes."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from cluster.storage.errors import Url, sentence

T = TypeVar("T")
TEMPORARY = ".tmp-"  # prefix of names that readers ignore


def local_path(url: Url) -> Path:
    """The path of a local URL, ``~`` expanded."""
    text = str(url)
    for scheme in ("file://", "local://"):
        text = text.removeprefix(scheme)
    return Path(text).expanduser()


def join(url: Url, *parts: str) -> str:
    """``url`` and further names, with single slashes."""
    return "/".join([str(url).rstrip("/"), *(str(part).strip("/") for part in parts)])


def basename(url: Url) -> str:
    """The last name of a URL."""
    return str(url).rstrip("/").rsplit("/", 1)[-1]


def home() -> Path:
    """Where this user's registry, caches and spools live: ``HEADSTART_HOME`` or ``~/.headstart``."""
    return Path(os.environ.get("HEADSTART_HOME") or "~/.headstart").expanduser()


def on_disk(url: Url, verb: str, action: Callable[[Path], T]) -> T:
    """``action(path)`` for a local URL; an ``OSError`` becomes a StorageError that says ``cannot VERB URL``."""
    try:
        return action(local_path(url))
    except OSError as error:
        raise sentence(url, verb, error) from error


def read_range(path: Path, start: int | None, end: int | None) -> bytes:
    """The bytes ``[start, end)`` of a file; a range past the end is cut short."""
    with open(path, "rb") as stream:
        start, end, _ = slice(start, end).indices(os.fstat(stream.fileno()).st_size)
        stream.seek(start)
        return stream.read(max(0, end - start))


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write(temporary path)`` make a file, then rename it to ``path`` once it is on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY}{uuid.uuid4().hex}")
    try:
        write(temporary)
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync(path: Path) -> None:
    # A rename that reaches the disk before the data would leave an empty file after a power cut.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
