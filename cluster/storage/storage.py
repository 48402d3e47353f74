"""Files and folders on disk and in object stores by one URL, written whole or not at all.

A URL is a local path (``str`` or ``Path``), ``file://...``, ``s3://bucket/key`` or any other fsspec scheme.
Endpoint and credentials come from the environment only (``AWS_ENDPOINT_URL``, ``AWS_ACCESS_KEY_ID``, ...), never from
a configuration file or an argument, so they cannot end up in a log or a checkpoint.

Promises: a reader never sees half a file (temporary name, then rename; on S3 one PUT or a completed multipart upload);
a reader never sees half a folder (:func:`upload_tree` writes its commit mark last and :func:`download_tree` demands it
and verifies every checksum); 5xx, resets and slow responses are tried again with backoff and jitter.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from cluster.storage.errors import StorageError, Url, is_remote, sentence
from cluster.storage.remote import (
    BLOCK,
    MULTIPART_FROM,
    BlockReader,
    call_with_deadline,
    is_s3,
    multipart,
    names,
    parallel,
    read_span,
    remove_tree,
    request,
)

T = TypeVar("T")
COMMIT_MARK = "_COMMIT.json"

__all__ = [
    "COMMIT_MARK",
    "StorageError",
    "Url",
    "basename",
    "cached",
    "check_tree",
    "download_tree",
    "exists",
    "home",
    "is_committed",
    "is_remote",
    "join",
    "listdir",
    "local_path",
    "open_read",
    "publish",
    "read_bytes",
    "read_json",
    "read_mark",
    "remove",
    "scratch",
    "seal",
    "sha256",
    "size",
    "upload_tree",
    "write_bytes",
    "write_json",
]


# ---------------------------------------------------------------------------------------------------- URLs


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


# ---------------------------------------------------------------------------------------------------- questions


def exists(url: Url) -> bool:
    """Whether a file, folder or key prefix of this name exists."""
    if not is_remote(url):
        return local_path(url).exists()
    return request(url, "look for", lambda fs, path: fs.exists(path))


def listdir(url: Url) -> list[str]:
    """Sorted names directly inside a folder, temporary ones left out; [] where it does not exist."""
    if not is_remote(url):
        folder = local_path(url)
        found = os.listdir(folder) if folder.is_dir() else []
    else:
        found = request(url, "list", names)
    return sorted(name for name in found if name and not name.startswith(_TEMPORARY))


def size(url: Url) -> int:
    """Bytes of a file.

    Raises:
        StorageError: no such file, or the store does not answer.
    """
    if not is_remote(url):
        return _local(url, "measure", lambda path: path.stat().st_size)
    return _length(url, "measure")


# ---------------------------------------------------------------------------------------------------- reading


def read_bytes(url: Url, start: int | None = None, end: int | None = None) -> bytes:
    """The bytes ``[start, end)`` of a file, or all of it; a range past the end is cut short.

    Raises:
        StorageError: no such file, refused, or still failing after the retries.
    """
    if not is_remote(url):
        return _local(url, "read", lambda path: _read_range(path, start, end))
    if start is None and end is None:
        start, end = 0, _length(url, "read")
    elif start is None or end is None or start < 0:
        start, end, _ = slice(start, end).indices(_length(url, "read"))
    if end <= start:
        return b""
    spans = [(at, min(at + BLOCK, end)) for at in range(start, end, BLOCK)]
    pieces = parallel(lambda span: read_span(url, *span), spans)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


@contextmanager
def open_read(url: Url) -> Iterator[BinaryIO]:
    """A seekable binary stream that survives resets: each block is a ranged read of its own with retries.

    Memory stays at two blocks (16 MiB) whatever the file's size.
    """
    if not is_remote(url):
        with _local(url, "open", lambda path: open(path, "rb")) as stream:
            yield stream
        return
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


# ---------------------------------------------------------------------------------------------------- writing


def write_bytes(url: Url, data: bytes) -> None:
    """Write a whole file; readers see the old content or the new one, never a part.

    Raises:
        StorageError: disk full, refused, or still failing after the retries.
    """
    if not is_remote(url):
        _local(url, "write", lambda path: _replace(path, lambda temporary: temporary.write_bytes(data)))
    elif len(data) >= MULTIPART_FROM and is_s3(url):
        multipart(url, len(data), lambda start, end: data[start:end])
    else:
        request(url, "write", lambda fs, path: call_with_deadline(fs, "_pipe_file", len(data), path, data))


def write_json(url: Url, value: Any) -> None:
    """Write a value as JSON, whole or not at all."""
    write_bytes(url, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode())


def publish(local_file: Url, url: Url) -> None:
    """Copy a finished local file to ``url`` whole or not at all; memory stays at a few blocks."""
    source = local_path(local_file)
    if not source.is_file():
        raise StorageError(f"{source}: no such file to publish as {url}; write it first")
    if not is_remote(url):
        _local(url, "write", lambda path: _replace(path, lambda temporary: shutil.copyfile(source, temporary)))
        return
    total = source.stat().st_size
    if total >= MULTIPART_FROM and is_s3(url):
        multipart(url, total, lambda start, end: _read_range(source, start, end))
    else:
        request(url, "write", lambda fs, path: call_with_deadline(fs, "_pipe_file", total, path, source.read_bytes()))


def remove(url: Url) -> None:
    """Remove a file or a whole folder; nothing there is fine. A folder loses its commit mark first."""
    if not is_remote(url):
        _local(url, "remove", _remove_local)
        return
    with suppress(StorageError):
        mark = join(url, COMMIT_MARK)
        request(mark, "remove", lambda fs, path: fs.rm_file(path))
    request(url, "remove", remove_tree)


# ---------------------------------------------------------------------------------------------------- folders


def upload_tree(local: Url, url: Url) -> dict[str, Any]:
    """Publish a local folder at ``url``: all files, then the commit mark. Returns the mark.

    The mark ``_COMMIT.json`` lists every file with bytes and sha256. Until it is written (remote) or the temporary
    folder is renamed (local) the folder does not exist for :func:`is_committed` and :func:`download_tree`.

    Raises:
        StorageError: nothing to publish, a committed folder of that name exists, or the store failed for good.
    """
    source = local_path(local)
    if not source.is_dir():
        raise StorageError(f"{source}: no such folder to publish as {url}; write it first")
    if is_committed(url):
        raise StorageError(f"{url}: a complete folder of this name exists; remove it or choose another name")
    mark = {"files": _manifest(source)}
    if is_remote(url):
        remove(url)  # rests of an upload that broke off
        parallel(lambda name: publish(source / name, join(url, name)), list(mark["files"]))
        write_json(join(url, COMMIT_MARK), mark)
        return mark
    _local(url, "write", lambda path: _publish_folder(source, path, mark))
    return mark


def is_committed(url: Url) -> bool:
    """Whether a folder was published completely."""
    return exists(join(url, COMMIT_MARK))


def download_tree(url: Url, local: Url) -> Path:
    """Copy a published folder to a local one, every checksum verified; appears whole or not at all. Returns ``local``.

    Raises:
        StorageError: never completed, a file is missing or damaged, the target exists, or the disk is full.
    """
    target = local_path(local)
    if target.exists():
        raise StorageError(f"{target}: exists already; choose a new folder for the copy of {url}")
    mark = read_mark(url)
    temporary = target.with_name(f"{_TEMPORARY}{uuid.uuid4().hex}-{target.name}")
    try:
        parallel(lambda name: _fetch(join(url, name), temporary / name), list(mark["files"]))
        check_tree(temporary, mark)
        write_json(temporary / COMMIT_MARK, mark)
        os.replace(temporary, target)
    except OSError as error:
        raise sentence(target, "write", error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def read_mark(url: Url) -> dict[str, Any]:
    """The commit mark of a published folder: ``{"files": {name: {"bytes", "sha256"}}}``.

    Raises:
        StorageError: the folder was never completed, or its mark names files outside it.
    """
    if not is_committed(url):
        raise StorageError(
            f"{url}: no complete folder here ({COMMIT_MARK} is missing); the upload broke off or the name is wrong"
        )
    mark = read_json(join(url, COMMIT_MARK))
    files = mark.get("files") if isinstance(mark, dict) else None
    if not isinstance(files, dict) or not all(_is_inside(name) for name in files):
        raise StorageError(f"{join(url, COMMIT_MARK)}: not a commit mark of ours; do not use this folder")
    return mark


def check_tree(folder: Url, mark: dict[str, Any]) -> None:
    """Compare a local folder with a commit mark.

    Raises:
        StorageError: the first file that is missing or whose sha256 differs, by name.
    """
    for name, expected in mark["files"].items():
        path = local_path(folder) / name
        if not path.is_file():
            raise StorageError(f"{folder}: file '{name}' of its commit mark is missing; fetch the folder again")
        if (got := sha256(path)) != expected["sha256"]:
            wanted = expected["sha256"][:12]
            raise StorageError(f"{path}: sha256 {got[:12]}, expected {wanted}; the file is damaged, fetch it again")


def sha256(path: Url) -> str:
    """Hex digest of a local file, read in blocks."""
    digest = hashlib.sha256()
    with open(local_path(path), "rb") as stream:
        while block := stream.read(2**20):
            digest.update(block)
    return digest.hexdigest()


# ---------------------------------------------------------------------------------------------------- cache


def cached(url: Url, cache_dir: Url | None = None, limit_bytes: int = 20 * 10**9) -> Path:
    """A local copy of a remote file, kept for next time; a local URL is returned as it is.

    The key is the URL with the store's version tag, so a changed object is fetched again. When the folder outgrows
    ``limit_bytes`` the files used longest ago go first, never the one returned. Safe for several processes at once.
    """
    if not is_remote(url):
        return local_path(url)
    folder = local_path(cache_dir) if cache_dir else home() / "cache"
    info = request(url, "look up", lambda fs, path: fs.info(path))
    tag = f"{url}|{info.get('ETag')}|{info.get('size')}"
    target = folder / hashlib.sha256(tag.encode()).hexdigest()[:16] / basename(url)
    if target.is_file() and target.stat().st_size == info.get("size"):
        os.utime(target)
        return target
    _evict(folder, limit_bytes - int(info.get("size") or 0))
    _fetch(url, target)
    return target


def home() -> Path:
    """Where this user's registry, caches and spools live: ``HEADSTART_HOME`` or ``~/.headstart``."""
    return Path(os.environ.get("HEADSTART_HOME") or "~/.headstart").expanduser()


def _evict(folder: Path, limit: int) -> None:
    files = [(path.stat().st_mtime, path.stat().st_size, path) for path in folder.glob("*/*") if path.is_file()]
    used = sum(entry[1] for entry in files)
    for _, length, path in sorted(files):
        if used <= limit:
            break
        shutil.rmtree(path.parent, ignore_errors=True)
        used -= length


# ---------------------------------------------------------------------------------------------------- local details

_TEMPORARY = ".tmp-"


def _length(url: Url, verb: str) -> int:
    return int(request(url, verb, lambda fs, path: fs.size(path)))


def _is_inside(name: str) -> bool:
    # A mark comes from storage: a name such as ../../x must not leave the folder.
    parts = Path(name).parts
    return bool(parts) and not Path(name).is_absolute() and ".." not in parts


def _local(url: Url, verb: str, action: Callable[[Path], T]) -> T:
    try:
        return action(local_path(url))
    except OSError as error:
        raise sentence(url, verb, error) from error


def _read_range(path: Path, start: int | None, end: int | None) -> bytes:
    with open(path, "rb") as stream:
        start, end, _ = slice(start, end).indices(os.fstat(stream.fileno()).st_size)
        stream.seek(start)
        return stream.read(max(0, end - start))


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{_TEMPORARY}{uuid.uuid4().hex}")
    try:
        write(temporary)
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    # A rename that reaches the disk before the data would leave an empty file after a power cut.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _publish_folder(source: Path, target: Path, mark: dict[str, Any]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{_TEMPORARY}{uuid.uuid4().hex}-{target.name}")
    try:
        shutil.copytree(source, temporary)
        seal(temporary, mark)
        if target.exists():  # rests without a mark
            shutil.rmtree(target)
        os.replace(temporary, target)
        _sync(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def seal(folder: Path, mark: dict[str, Any] | None = None) -> dict[str, Any]:
    """Write the commit mark into a finished local folder and bring everything to the disk. Returns the mark."""
    mark = mark or {"files": _manifest(folder)}
    for name in mark["files"]:
        _sync(folder / name)
    write_json(folder / COMMIT_MARK, mark)
    return mark


def _manifest(folder: Path) -> dict[str, dict[str, Any]]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != COMMIT_MARK)
    if not files:
        raise StorageError(f"{folder}: the folder is empty, nothing to publish; write its files first")
    return {p.relative_to(folder).as_posix(): {"bytes": p.stat().st_size, "sha256": sha256(p)} for p in files}


def _remove_local(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        (path / COMMIT_MARK).unlink(missing_ok=True)
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _fetch(url: Url, target: Path) -> None:
    """Copy one file to disk block by block."""
    target.parent.mkdir(parents=True, exist_ok=True)

    def copy(temporary: Path) -> None:
        with open_read(url) as source, open(temporary, "wb") as sink:
            shutil.copyfileobj(source, sink, BLOCK)

    _local(target, "write", lambda path: _replace(path, copy))


def scratch(near: Url | None = None) -> Path:
    """A fresh temporary folder; beside ``near`` when that is local, so that a later rename stays on one disk."""
    parent = None
    if near is not None and not is_remote(near):
        parent = local_path(near)
        _local(parent, "create", lambda path: path.mkdir(parents=True, exist_ok=True))
    return Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=parent))
