"""Temporary files, folders and locks that do not outlive their process, however it ends.

A process that is killed (SIGKILL, out of memory, Ray ending an actor) cannot remove its folder. So each folder is locked
as long as it is in use, which the kernel ends together with the process, and whoever makes the next one removes those
that are no longer locked.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from configs.errors import InputError

PREFIX, LOCK_PREFIX = "headstart-scratch-", "headstart-output-"
WITHIN_PREFIX = ".tmp-scratch-"  # inside folders of ours, whose readers ignore names that begin with ".tmp-"
__all__ = ["PREFIX", "ScratchFolder", "Spool", "one_writer"]


class Spool:
    """A growing array in a temporary file without a name, of which nothing stays even if the process is killed.

    Attributes:
        rows: what was appended so far, ``[T, ...]``, mapped into memory; one map, however many appends.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the spool
        self.rows: np.ndarray = np.zeros(0, np.uint8)

    def append(self, array: np.ndarray) -> None:
        """Add rows ``[n, ...]`` of the same shape and type as those before."""
        self._file.write(np.ascontiguousarray(array).data)
        self._file.flush()
        self.rows = np.memmap(self._file, array.dtype, "r", shape=(len(self.rows) + len(array), *array.shape[1:]))

    def close(self) -> None:
        """Free the disk."""
        self.rows = self.rows[:0]
        self._file.close()


class ScratchFolder:
    """A fresh temporary folder of this process, for use as a context manager or until :meth:`close`.

    Args:
        purpose: a word for the folder's name.
        within: the folder that it lies in, such as one from which its content is moved; default the system's temporary one.

    Attributes:
        path: the folder.
    """

    def __init__(self, purpose: str, within: Path | None = None) -> None:
        parent, prefix = (Path(tempfile.gettempdir()), PREFIX) if within is None else (within, WITHIN_PREFIX)
        _remove_abandoned(parent, prefix)
        self.path, self._lock = _locked(parent, f"{prefix}{purpose}-")

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the folder; the second time nothing happens."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


@contextlib.contextmanager
def one_writer(output: str | Path) -> Iterator[None]:
    """Hold an output, which need not exist yet, against other commands of this user on this machine until the process ends.

    The lock is a file of the temporary folder, named after the output's path; those that killed commands left are removed.
    Where none can be made, nothing is held.

    Raises:
        InputError: another command is writing the output.
    """
    name = hashlib.sha256(os.path.realpath(output).encode()).hexdigest()[:16]
    path = Path(tempfile.gettempdir(), f"{LOCK_PREFIX}{os.getuid()}-{name}")
    try:
        lock = _sole(path)
        _remove_locks()
    except BlockingIOError:
        raise InputError(
            f"output '{output}': another command is writing it; wait for it or choose another name"
        ) from None
    except OSError:
        lock = -1  # a disk without locks
    try:
        yield
    finally:
        if lock >= 0:
            path.unlink(missing_ok=True)
            os.close(lock)


def _remove_locks() -> None:
    """Remove the lock files of this user that no process holds."""
    for path in Path(tempfile.gettempdir()).glob(f"{LOCK_PREFIX}{os.getuid()}-*"):
        with contextlib.suppress(OSError), _taken(path, os.O_RDONLY):
            path.unlink()


def _sole(path: Path) -> int:
    """A locked descriptor of the file, which is made.

    Raises:
        BlockingIOError: somebody else holds it.
    """
    refused = 0
    while True:
        lock = os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.stat(path), os.fstat(lock)):
                return lock
        except FileNotFoundError:
            pass  # its holder ended, and removed it, before it was locked here
        except BlockingIOError:
            if refused:
                os.close(lock)
                raise
            refused += 1  # who removes it as left behind holds it for a moment only
            time.sleep(0.05)
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)


def _locked(parent: Path, prefix: str) -> tuple[Path, int]:
    while True:
        path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        lock = os.open(path, os.O_RDONLY)
        with contextlib.suppress(OSError):  # a network file system without locks: nobody can take it for abandoned
            fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists():  # nobody took it for abandoned before it was locked
            return path, lock
        os.close(lock)


def _remove_abandoned(parent: Path, prefix: str) -> None:
    for path in parent.glob(f"{prefix}*"):
        with contextlib.suppress(OSError), _taken(path, os.O_RDONLY | os.O_DIRECTORY):
            shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def _taken(path: Path, flags: int) -> Iterator[None]:
    """Holds the lock of a file or folder of this user that nobody holds.

    Raises:
        OSError: somebody does, it is gone, another user's, or of another kind than ``flags`` say.
    """
    lock = os.open(path, flags | os.O_NOFOLLOW)
    try:
        if os.fstat(lock).st_uid != os.getuid():
            raise PermissionError(path)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(lock)
