"""Files and folders on disk and in object stores, addressed by URL and written atomically.

A URL is a local path (``str`` or ``Path``), ``file://...``, ``s3://bucket/key`` or any other fsspec scheme.
Endpoint and credentials come from the environment only (``AWS_ENDPOINT_URL``, ``AWS_ACCESS_KEY_ID``, ...), never from
a configuration file or an argument, so they cannot end up in a log or a checkpoint.

Promises: a reader never sees half a file (temporary name, then rename; on S3 one PUT or a completed multipart upload);
a reader never sees half a folder (:func:`upload_tree` writes its commit mark last and :func:`download_tree` requires
it and verifies every checksum); 5xx errors, resets and slow responses are retried with backoff and jitter.
"""

from __future__ import annotations

from cluster.storage.cache import cached, shared_bytes, shared_range
from cluster.storage.errors import StorageError, Url, is_remote
from cluster.storage.files import (
    COMMIT_MARK,
    exists,
    listdir,
    open_read,
    publish,
    read_bytes,
    read_json,
    remove,
    scratch,
    sha256,
    size,
    write_bytes,
    write_json,
)
from cluster.storage.local import basename, home, join, local_path
from cluster.storage.trees import check_tree, checksum_of, download_tree, is_committed, read_mark, seal, upload_tree

__all__ = [
    "COMMIT_MARK",
    "StorageError",
    "Url",
    "basename",
    "cached",
    "check_tree",
    "checksum_of",
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
    "shared_bytes",
    "shared_range",
    "size",
    "upload_tree",
    "write_bytes",
    "write_json",
]
