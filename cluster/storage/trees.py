"""Whole folders by URL: published with a commit mark that lists every file's sha256, fetched and verified by it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TypedDict, cast

from cluster.storage.errors import StorageError, Url, is_remote, sentence
from cluster.storage.files import COMMIT_MARK, exists, fetch_file, publish, read_json, remove, sha256, write_json
from cluster.storage.local import join, local_path, on_disk, sync
from cluster.storage.remote import parallel
from configs.scratch import ScratchFolder


class Entry(TypedDict):
    """One file of a published folder."""

    bytes: int
    sha256: str


class CommitMark(TypedDict):
    """``_COMMIT.json``: every file of a published folder, by its path within the folder."""

    files: dict[str, Entry]


def upload_tree(local: Url, url: Url, *, replace: bool = False) -> CommitMark:
    """Publish a local folder at ``url``: all files, then the commit mark. Returns the mark.

    With ``replace`` a complete folder of this name is replaced; otherwise it is refused.

    The mark ``_COMMIT.json`` lists every file with bytes and sha256. Until it is written (remote) or the temporary
    folder is renamed (local) the folder does not exist for :func:`is_committed` and :func:`download_tree`.

    Raises:
        StorageError: nothing to publish, a committed folder of that name exists, or the store failed for good.
    """
    source = local_path(local)
    if not source.is_dir():
        raise StorageError(f"{source}: no such folder to publish as {url}; write it first")
    if is_committed(url) and not replace:
        raise StorageError(f"{url}: a complete folder of this name exists; remove it or choose another name")
    mark = CommitMark(files=_manifest(source))
    if is_remote(url):
        remove(url)  # remains of an upload that broke off
        parallel(lambda name: publish(source / name, join(url, name)), list(mark["files"]))
        write_json(join(url, COMMIT_MARK), mark)
        return mark
    on_disk(url, "write", lambda path: _publish_folder(source, path, mark))
    return mark


def is_committed(url: Url) -> bool:
    """Whether a folder was published completely."""
    return exists(join(url, COMMIT_MARK))


def download_tree(url: Url, local: Url) -> Path:
    """Copy a published folder to a local one, every checksum verified, atomically. Returns ``local``.

    Raises:
        StorageError: never completed, a file is missing or damaged, the target exists, or the disk is full.
    """
    target = local_path(local)
    if target.exists():
        raise StorageError(f"{target}: exists already; choose a new folder for the copy of {url}")
    mark = read_mark(url)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with ScratchFolder("copy", within=target.parent) as scratch:
            temporary = scratch / target.name
            parallel(lambda name: fetch_file(join(url, name), temporary / name), list(mark["files"]))
            check_tree(temporary, mark)
            write_json(temporary / COMMIT_MARK, mark)
            os.replace(temporary, target)
    except OSError as error:
        raise sentence(target, "write", error) from error
    return target


def read_mark(url: Url) -> CommitMark:
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
    return cast(CommitMark, mark)


def checksum_of(mark: CommitMark, name: str) -> str | None:
    """The SHA-256 of a file of the folder; ``None`` where the mark does not list it."""
    entry = mark["files"].get(name)
    return None if entry is None else entry["sha256"]


def check_tree(folder: Url, mark: CommitMark) -> None:
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


def seal(folder: Path, mark: CommitMark | None = None) -> CommitMark:
    """Flush a finished local folder to the disk and write its commit mark, which is returned."""
    mark = mark or CommitMark(files=_manifest(folder))
    for name in mark["files"]:
        sync(folder / name)
    write_json(folder / COMMIT_MARK, mark)
    return mark


def _publish_folder(source: Path, target: Path, mark: CommitMark) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with ScratchFolder("copy", within=target.parent) as scratch:
        temporary = scratch / target.name
        shutil.copytree(source, temporary)
        seal(temporary, mark)
        if target.exists():
            (target / COMMIT_MARK).unlink(missing_ok=True)
            shutil.rmtree(target)
        os.replace(temporary, target)
        sync(target.parent)


def _manifest(folder: Path) -> dict[str, Entry]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != COMMIT_MARK)
    if not files:
        raise StorageError(f"{folder}: the folder is empty, nothing to publish; write its files first")
    return {p.relative_to(folder).as_posix(): {"bytes": p.stat().st_size, "sha256": sha256(p)} for p in files}


def _is_inside(name: str) -> bool:
    # A mark comes from storage: a name such as ../../x must not leave the folder.
    parts = Path(name).parts
    return bool(parts) and not Path(name).is_absolute() and ".." not in parts
