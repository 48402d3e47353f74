"""Which tars of other tools to read, under which names, and what a dataset already holds of them."""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from cluster.storage import storage
from configs import InputError
from shards.build.find import file_state, unique_names
from shards.build.journal import Journal
from shards.build.task import SourceTar, TarTask, tar_file
from shards.format.catalogue import Catalogue
from shards.people.stated import Statements
from shards.tar.tars import expand_braces

ENDINGS = (".tar", ".tar.gz", ".tgz")


def find_tars(patterns: Sequence[str]) -> list[SourceTar]:
    """The tars behind URLs, brace patterns (``data-{000..010}.tar``), ``*`` patterns and folders.

    A tar that does not exist is listed too: the build continues without it and reports it.

    Raises:
        InputError: a pattern or folder behind which there are no tars.
    """
    urls = list(dict.fromkeys(url for pattern in patterns for url in _expand(str(pattern))))
    names = unique_names({url: _stem(url) for url in urls})
    return [SourceTar(names[url], url, *_state(url)) for url in urls]


def _expand(pattern: str) -> Iterator[str]:
    for url in expand_braces(pattern):
        if _is_tar(url) and not ("*" in url and not storage.is_remote(url)):
            yield url if storage.is_remote(url) else str(storage.local_path(url).absolute())
            continue
        if storage.is_remote(url):
            found = [storage.join(url, name) for name in storage.listdir(url)]
        else:
            path = str(storage.local_path(url).absolute())
            found = sorted(glob.glob(path if "*" in url else f"{glob.escape(path)}/*"))
        tars = [name for name in found if _is_tar(name)]
        if not tars:
            raise InputError(f"{url}: no tars there (looked for {' '.join(ENDINGS)}); check the name")
        yield from tars


def _is_tar(url: str) -> bool:
    return tar_file(url).lower().endswith(ENDINGS)


def _stem(url: str) -> str:
    name = tar_file(url)
    return next(
        (name[: -len(end)] for end in sorted(ENDINGS, key=len, reverse=True) if name.lower().endswith(end)), name
    )


def _state(url: str) -> tuple[int, int]:
    try:
        return file_state(url)
    except (OSError, storage.StorageError):
        return 0, 0  # what is wrong with it is said when it is read


@dataclass(frozen=True)
class TarPlan:
    """What is left to do.

    Attributes:
        tasks: one for each tar that is not built completely.
        changed: tars that differ from those that were built, with a reason, in the form of the build's refusals.
    """

    tasks: list[TarTask]
    changed: list[dict[str, object]]


def plan_tars(tars: Sequence[SourceTar], statements: Statements, journal: Journal, catalogue: Catalogue) -> TarPlan:
    """Tasks for the tars that are not done; a tar is read again if it was damaged, or if its time or the statements changed."""
    done = journal.done(catalogue)
    tasks: list[TarTask] = []
    changed: list[dict[str, object]] = []
    for tar in tars:
        record = journal.tars.get(tar.name)
        if record is not None and record["complete"] and record["bytes"] != tar.bytes:
            reason = "the tar differs from the one that was built under this name; give it another name"
            changed.append({"clip": tar.file, "start": None, "end": None, "reason": reason})
        elif not _is_done(record, tar, statements, done):
            tasks.append(tar_task(tar, statements, done))
    return TarPlan(tasks, changed)


def _is_done(
    record: Mapping[str, object] | None, tar: SourceTar, statements: Statements, done: Mapping[str, object]
) -> bool:
    if record is None or not record["complete"] or record["stated"] != statements.digest:
        return False
    if record["modified"] != tar.modified:
        return False
    return all(name in done for name in record["clips"])  # type: ignore[attr-defined]


def tar_task(tar: SourceTar, statements: Statements, done: Mapping[str, Mapping[str, object]]) -> TarTask:
    """The task for the rest of a tar; its shards get names that no shard of the finished part has."""
    known = {name: dict(record) for name, record in done.items() if record.get("tar") == tar.name}
    text = "\n".join([f"{tar.name} {tar.bytes}", *sorted(name for name in known if known[name]["frames"])])
    prefix = hashlib.sha256(text.encode()).hexdigest()[:12] + "-"
    return TarTask(prefix=prefix, tar=tar, statements=statements, done=known)
