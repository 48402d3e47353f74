"""The one error that storage raises."""

from __future__ import annotations

import errno
import re
from pathlib import Path

from cluster.storage.retry import brief
from configs import InputError

Url = str | Path
LOST_SLASH = re.compile(r"(s3a?|gcs|gs|https?|file|local):/(?!/)")


class StorageError(InputError):
    """A file or folder cannot be read or written: one sentence with the URL, the reason and what to do."""


def sentence(url: Url, verb: str, error: BaseException) -> StorageError:
    """A caught error as a :class:`StorageError`; ``verb`` is what was tried, such as ``read``."""
    reason = _reason(error, remote=is_remote(url))
    return StorageError(f"cannot {verb} {url}: {reason}")


def _reason(error: BaseException, remote: bool) -> str:
    number = getattr(error, "errno", None)
    name = type(error).__name__
    if isinstance(error, FileNotFoundError):
        return "no such file or folder; check the name"
    if number in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full; free some space and run the same command again"
    if name in ("NoCredentialsError", "PartialCredentialsError"):
        return "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment"
    if isinstance(error, PermissionError):
        cure = "check the credentials and the bucket's policy" if remote else "check its owner and mode"
        return f"permission denied; {cure}"
    if isinstance(error, IsADirectoryError | NotADirectoryError):
        return f"{error.strerror or name}; check the name"
    cure = "check AWS_ENDPOINT_URL and the network, then run the same command again" if remote else "check the disk"
    return f"{brief(error)}; {cure}"


def is_remote(url: Url) -> bool:
    """Whether ``url`` names an object store rather than this machine's disk.

    Raises:
        StorageError: it has lost a slash, as ``Path("s3://bucket/key")`` does, and would become a folder named ``s3:``.
    """
    text = str(url)
    if lost := LOST_SLASH.match(text):
        raise StorageError(
            f"{text}: a slash is missing; write {lost[1]}://{text[lost.end() :]}, and from Python as text, because "
            "Path() removes one"
        )
    return "://" in text and not text.startswith(("file://", "local://"))
