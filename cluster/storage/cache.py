"""A cache of remote files on this machine."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from cluster.storage.errors import Url, is_remote
from cluster.storage.files import fetch_file
from cluster.storage.local import basename, home, local_path
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
