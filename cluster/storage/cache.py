"""Caches of remote files on this machine, shared by its processes."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from cluster.storage.errors import Url, is_remote
from cluster.storage.files import fetch_file, read_bytes
from cluster.storage.local import TEMPORARY, basename, home, local_path
from cluster.storage.remote import request


def cached(url: Url, cache_dir: Url | None = None, limit_bytes: int = 20 * 10**9) -> Path:
    """A cached local copy of a remote file; the path of a local one as it is.

    The cache key is the URL with the store's ETag and the size, so a changed object is fetched again. When the folder
    outgrows ``limit_bytes`` the least recently used files are removed, never the one returned. Safe for several
    processes at once.

    Args:
        cache_dir: by default ``HEADSTART_HOME/cache``.

    Raises:
        StorageError: no such file, or the store does not answer.
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
    fetch_file(url, target)
    return target


def _evict(folder: Path, limit: int) -> None:
    files = [(path.stat().st_mtime, path.stat().st_size, path) for path in folder.glob("*/*") if path.is_file()]
    used = sum(entry[1] for entry in files)
    for _, length, path in sorted(files):
        if used <= limit:
            break
        shutil.rmtree(path.parent, ignore_errors=True)
        used -= length


def shared_bytes(url: Url, checksum: str, limit_bytes: int = 2 * 10**9) -> bytes:
    """The bytes of a small remote file of known sha256, fetched once for all processes of this machine.

    Files lie in ``HEADSTART_HOME/shared`` by their checksum. Processes that want the same file at once wait for the first
    one. When the folder outgrows ``limit_bytes`` those used longest ago are removed. Where it cannot be written to, every
    process fetches for itself.

    Args:
        checksum: sha256, hexadecimal; bytes of another one are returned as they came, and not kept.

    Raises:
        StorageError: no such file, or the store does not answer.
    """
    folder = home() / "shared"
    kept = folder / checksum[:2] / checksum
    if (data := _verified(kept, checksum)) is not None:
        return data
    with _alone(folder / f"{checksum[:2]}.lock"):
        if (data := _verified(kept, checksum)) is None:
            data = read_bytes(url)
            if hashlib.sha256(data).hexdigest() == checksum:
                with suppress(OSError):
                    _keep(kept, data, limit_bytes)
    return data


def shared_range(url: Url, version: str, start: int, stop: int, limit_bytes: int = 2 * 10**9) -> bytes:
    """Bytes ``start:stop`` of a remote file, fetched once for all processes of this machine that ask for the same.

    For a range that several of them want within a short time: as :func:`shared_bytes`, in ``HEADSTART_HOME/ranges``. Each
    is kept with its own sha256, so that damage on this machine is noticed here, and damage in the store by the caller.

    Args:
        version: what tells versions of the file apart, such as a checksum of its index.

    Raises:
        StorageError: no such file, or the store does not answer.
    """
    folder = home() / "ranges"
    name = hashlib.sha256(f"{url}|{version}|{start}-{stop}".encode()).hexdigest()
    kept = folder / name[:2] / name
    if (data := _sealed(kept)) is not None:
        return data
    with _alone(folder / f"{name[:2]}.lock"):
        if (data := _sealed(kept)) is None:
            data = read_bytes(url, start, stop)
            with suppress(OSError):
                _keep(kept, hashlib.sha256(data).digest() + data, limit_bytes)
    return data


def _sealed(kept: Path) -> bytes | None:
    """What is kept behind its own sha256, if it is whole."""
    try:
        data = kept.read_bytes()
        os.utime(kept)
    except OSError:
        return None
    seal = hashlib.sha256().digest_size
    return data[seal:] if hashlib.sha256(data[seal:]).digest() == data[:seal] else None


def _verified(kept: Path, checksum: str) -> bytes | None:
    """What is kept, if it is whole."""
    try:
        data = kept.read_bytes()
        os.utime(kept)
    except OSError:
        return None
    return data if hashlib.sha256(data).hexdigest() == checksum else None


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Wait until no other process or thread is here; without a lock where the folder cannot be written to."""
    with ExitStack() as stack:
        with suppress(OSError):  # a full disk, a network file system without locks
            lock.parent.mkdir(parents=True, exist_ok=True)
            fcntl.flock(stack.enter_context(open(lock, "w")), fcntl.LOCK_EX)
        yield


def _keep(kept: Path, data: bytes, limit: int) -> None:
    # Not synced to the disk as other files are: what a power cut leaves half written fails its checksum.
    kept.parent.mkdir(exist_ok=True)
    temporary = kept.with_name(f"{TEMPORARY}{uuid.uuid4().hex}")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, kept)
    finally:
        temporary.unlink(missing_ok=True)
    # Checksums are spread evenly, so each folder may take its share; only this one is looked through.
    _evict_oldest(kept.parent, limit // 256)


def _evict_oldest(folder: Path, limit: int) -> None:
    files = []
    for entry in os.scandir(folder):
        with suppress(FileNotFoundError):
            files.append((entry.stat().st_mtime, entry.stat().st_size, entry.path))
    used = sum(length for _, length, _ in files)
    for _, length, path in sorted(files)[:-1]:
        if used <= limit:
            break
        Path(path).unlink(missing_ok=True)
        used -= length
