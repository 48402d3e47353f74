"""Checkpoints of a run: folders ``RUN/checkpoints/step-00000100``, complete or absent, the last K kept.

One writer (the main rank) writes a folder; readers on any machine see it only when it is complete and check every
file's sha256 before they use it. A damaged or half-uploaded checkpoint is skipped, and the previous one is used.
"""

from __future__ import annotations

import logging
import re
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cluster.storage import storage
from cluster.storage.errors import StorageError, Url, sentence
from cluster.storage.local import on_disk, sync
from configs.scratch import ScratchFolder

log = logging.getLogger("headstart.checkpoint")
FOLDER = "checkpoints"
_NAME = re.compile(r"step-(\d{8,})$")


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint: the step after which it was taken and where it lies."""

    step: int
    url: str


def save_checkpoint(run_url: Url, step: int, write: Callable[[Path], None], keep: int = 3, *, main: bool = True) -> str:
    """Write and publish a checkpoint, then delete old ones. Returns its URL.

    Args:
        run_url: the run's folder, local or remote.
        step: optimiser steps done so far.
        write: fills the empty local folder that it is given. In a run with several ranks call ``save_checkpoint`` on
            *every* rank: ``write`` may then hold collective operations such as :meth:`cluster.engine.engine.Engine.save`.
        keep: complete checkpoints to keep, never fewer than two, so that one stays good while another is damaged.
        main: whether this rank publishes; what the others write is thrown away.

    Raises:
        StorageError: the disk is full or the store fails for good; the earlier checkpoints are untouched.
    """
    url = checkpoint_url(run_url, step)
    beside = storage.join(run_url, FOLDER)  # a later rename stays on one disk
    within = None if storage.is_remote(beside) or not main else storage.local_path(beside)
    if within is not None:
        on_disk(within, "create", lambda path: path.mkdir(parents=True, exist_ok=True))
    with ScratchFolder("checkpoint", within) as scratch:
        folder = scratch / storage.basename(url)
        folder.mkdir()
        _write(folder, write)
        if main:
            _publish(folder, url)
            _prune(run_url, max(2, keep))
    return url


class BackgroundWriter:
    """Writes checkpoints in a thread, one at a time, while training goes on.

    If the process is killed meanwhile, the previous checkpoint stays intact, as with :func:`save_checkpoint`.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def start(self, run_url: Url, step: int, write: Callable[[Path], None], keep: int = 3) -> str:
        """Wait for the previous checkpoint as :meth:`wait` does, then begin; returns the URL that this one will have."""
        self.wait()

        def work() -> None:
            try:
                save_checkpoint(run_url, step, write, keep=keep)
            except BaseException as error:  # handed to the thread that trains
                self._error = error

        self._thread = threading.Thread(target=work, name="checkpoint")
        self._thread.start()
        return checkpoint_url(run_url, step)

    def wait(self) -> None:
        """Wait until the last checkpoint is published.

        Raises:
            StorageError: it could not be written.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error


def checkpoint_url(run_url: Url, step: int) -> str:
    """URL of the checkpoint of a step, whether it exists or not."""
    return storage.join(run_url, FOLDER, f"step-{step:08d}")


def list_checkpoints(run_url: Url) -> list[Checkpoint]:
    """Complete checkpoints, oldest first; remains of broken uploads are left out. No checksum is read."""
    found = []
    for name in storage.listdir(storage.join(run_url, FOLDER)):
        url = storage.join(run_url, FOLDER, name)
        if (match := _NAME.match(name)) and storage.is_committed(url):
            found.append(Checkpoint(int(match[1]), url))
    return sorted(found, key=lambda checkpoint: checkpoint.step)


def latest_checkpoint(run_url: Url) -> str | None:
    """URL of the newest complete checkpoint, or None."""
    found = list_checkpoints(run_url)
    return found[-1].url if found else None


def fetch_checkpoint(url: Url, scratch: Path) -> Path:
    """A verified local copy of a checkpoint (a local one is verified in place, an earlier copy in ``scratch`` reused).

    Raises:
        StorageError: incomplete, or a file is damaged.
    """
    if storage.is_remote(url):
        copy = scratch / storage.basename(url)
        return copy if storage.is_committed(copy) else storage.download_tree(url, copy)
    storage.check_tree(url, storage.read_mark(url))
    return storage.local_path(url)


def fetch_latest(run_url: Url, scratch: Path) -> tuple[int, Path] | None:
    """The newest checkpoint that is complete *and* undamaged, as (step, local folder); None when there is none.

    Raises:
        StorageError: there are checkpoints but every one of them is damaged.
    """
    found = list_checkpoints(run_url)
    for checkpoint in reversed(found):
        try:
            return checkpoint.step, fetch_checkpoint(checkpoint.url, scratch)
        except StorageError as error:
            log.warning("checkpoint passed over: %s", error)
    if found:
        raise StorageError(f"{run_url}: all {len(found)} checkpoints are damaged; start again in a new run folder")
    return None


def _write(folder: Path, write: Callable[[Path], None]) -> None:
    try:
        write(folder)
    except OSError as error:
        raise sentence(folder, "write", error) from error


def _publish(folder: Path, url: str) -> None:
    if storage.is_committed(url):
        return  # the same step after a restart: the run is deterministic, the first copy is as good
    if storage.is_remote(url):
        storage.upload_tree(folder, url)
        return
    storage.seal(folder)
    on_disk(url, "write", lambda path: _rename(folder, path))


def _rename(folder: Path, target: Path) -> None:
    if target.exists():  # no commit mark: remains of a broken upload
        shutil.rmtree(target)
    folder.replace(target)
    sync(target.parent)


def _prune(run_url: Url, keep: int) -> None:
    """Remove all but the newest ``keep`` and the remains of broken uploads older than the newest."""
    complete = list_checkpoints(run_url)
    kept = {storage.basename(checkpoint.url) for checkpoint in complete[-keep:]}
    for name in storage.listdir(storage.join(run_url, FOLDER)):
        match = _NAME.match(name)
        if match and name not in kept and int(match[1]) < complete[-1].step:
            try:
                storage.remove(storage.join(run_url, FOLDER, name))
            except StorageError as error:
                log.warning("old checkpoint left behind: %s", error)
