"""Files by URL: list, read, write, remove; writes are atomic."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from cluster.storage.errors import StorageError, Url, is_remote
from cluster.storage.local import TEMPORARY, join, local_path, on_disk, read_range, replace_file
from cluster.storage.remote import (
    BLOCK,
    MULTIPART_FROM,
    BlockReader,
    call_with_deadline,
    check_bucket,
    check_ranges,
    is_s3,
    multipart,
    names,
    parallel,
    read_span,
    remove_tree,
    request,
)

COMMIT_MARK = "_COMMIT.json"  # written last into a published folder, removed first


def exists(url: Url) -> bool:
    """Whether a file, folder or key prefix of this name exists."""
    if not is_remote(url):
        return local_path(url).exists()
    found: bool = request(url, "look for", lambda fs, path: fs.exists(path))
    if not found:
        check_bucket(url)
    return found


def listdir(url: Url) -> list[str]:
    """Sorted names directly inside a folder, without temporary ones; [] if it does not exist."""
    if not is_remote(url):
        folder = local_path(url)
        found = os.listdir(folder) if folder.is_dir() else []
    else:
        found = request(url, "list", names)
        if not found:
            check_bucket(url)
    return sorted(name for name in found if name and not name.startswith(TEMPORARY))


def size(url: Url) -> int:
    """Bytes of a file.

    Raises:
        StorageError: no such file, or the store does not answer.
    """
    if not is_remote(url):
        return on_disk(url, "measure", lambda path: path.stat().st_size)
    return _length(url, "measure")


def read_bytes(url: Url, start: int | None = None, end: int | None = None) -> bytes:
    """The bytes ``[start, end)`` of a file, or all of it; a range past the end is cut short.

    Raises:
        StorageError: no such file, refused, or still failing after the retries.
    """
    if not is_remote(url):
        return on_disk(url, "read", lambda path: read_range(path, start, end))
    if start is None and end is None:
        first = read_span(url, 0, BLOCK, whole=True)
        return first if len(first) != BLOCK else first + read_bytes(url, BLOCK, None)
    if start is None or end is None or start < 0:
        start, end, _ = slice(start, end).indices(_length(url, "read"))
    if end <= start:
        return b""
    spans = [(at, min(at + BLOCK, end)) for at in range(start, end, BLOCK)]
    pieces = parallel(lambda span: read_span(url, *span), spans)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


@contextmanager
def open_read(url: Url) -> Iterator[BinaryIO]:
    """A seekable binary stream that survives resets: each block is a separate ranged read with retries.

    Memory stays at two blocks (16 MiB) whatever the file's size.

    Raises:
        StorageError: no such file, the store does not answer, or it is a web server that ignores ranges.
    """
    if not is_remote(url):
        with on_disk(url, "open", lambda path: open(path, "rb")) as stream:
            yield stream
        return
    check_ranges(url)
    with BlockReader(url, size(url)) as raw, io.BufferedReader(raw, buffer_size=2**16) as stream:
        yield stream  # type: ignore[misc]


def read_json(url: Url) -> Any:
    """A JSON file's content.

    Raises:
        StorageError: unreadable, or not JSON.
    """
    try:
        return json.loads(read_bytes(url))
    except ValueError as error:
        raise StorageError(
            f"{url}: not readable as JSON ({error}); the file is damaged, restore or rebuild it"
        ) from None


def write_bytes(url: Url, data: bytes) -> None:
    """Write a whole file; readers see the old content or the new one, never a part.

    Raises:
        StorageError: disk full, refused, or still failing after the retries.
    """
    if not is_remote(url):
        on_disk(url, "write", lambda path: replace_file(path, lambda temporary: temporary.write_bytes(data)))
    elif len(data) >= MULTIPART_FROM and is_s3(url):
        multipart(url, len(data), lambda start, end: data[start:end])
    else:
        request(url, "write", lambda fs, path: call_with_deadline(fs, "_pipe_file", len(data), path, data))


def write_json(url: Url, value: object) -> None:
    """Write a value as JSON, atomically; raises as :func:`write_bytes`."""
    write_bytes(url, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode())


def publish(local_file: Url, url: Url) -> None:
    """Copy a finished local file to ``url``, atomically; memory stays at a few blocks of 8 MiB.

    Raises:
        StorageError: no such local file, disk full, refused, or still failing after the retries.
    """
    source = local_path(local_file)
    if not source.is_file():
        raise StorageError(f"{source}: no such file to publish as {url}; write it first")
    if not is_remote(url):
        on_disk(url, "write", lambda path: replace_file(path, lambda temporary: shutil.copyfile(source, temporary)))
        return
    total = source.stat().st_size
    if total >= MULTIPART_FROM and is_s3(url):
        multipart(url, total, lambda start, end: read_range(source, start, end))
    else:
        request(url, "write", lambda fs, path: call_with_deadline(fs, "_pipe_file", total, path, source.read_bytes()))


def remove(url: Url) -> None:
    """Remove a file or a whole folder, if it exists. A folder loses its commit mark first."""
    if not is_remote(url):
        on_disk(url, "remove", _remove_local)
        return
    with suppress(StorageError):
        mark = join(url, COMMIT_MARK)
        request(mark, "remove", lambda fs, path: fs.rm_file(path))
    request(url, "remove", remove_tree)


def sha256(path: Url) -> str:
    """Hex digest of a local file, read in blocks."""
    digest = hashlib.sha256()
    with open(local_path(path), "rb") as stream:
        while block := stream.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def scratch(near: Url | None = None) -> Path:
    """A fresh temporary folder; beside ``near`` when that is local, so that a later rename stays on one disk."""
    parent = None
    if near is not None and not is_remote(near):
        parent = local_path(near)
        on_disk(parent, "create", lambda path: path.mkdir(parents=True, exist_ok=True))
    return Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=parent))


def fetch_file(url: Url, target: Path) -> None:
    """Copy one file to a local path, block by block and atomically."""
    target.parent.mkdir(parents=True, exist_ok=True)

    def copy(temporary: Path) -> None:
        with open_read(url) as source, open(temporary, "wb") as sink:
            shutil.copyfileobj(source, sink, BLOCK)

    on_disk(target, "write", lambda path: replace_file(path, copy))


def _length(url: Url, verb: str) -> int:
    length = request(url, verb, lambda fs, path: fs.size(path))
    if length is None:
        raise StorageError(
            f"cannot {verb} {url}: the server does not say how long it is; copy it to a disk or a bucket"
        )
    return int(length)


def _remove_local(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        (path / COMMIT_MARK).unlink(missing_ok=True)
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
