"""``headstart shards build``: videos into a dataset, in parallel, as often as needed.

Run again after a crash or with more videos, only the rest is done. The builder hands tasks to workers (processes or Ray
tasks) that write shards of their own; it alone writes ``dataset.json`` and ``build.json``, so an interruption at any
point leaves the dataset of the last commit.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cluster.storage import storage
from configs import InputError
from shards.build.journal import Journal
from shards.build.lock import LOCK, locked
from shards.build.pool import open_pool
from shards.build.report import write_report
from shards.build.worker import BuildSettings, Clip, ClipRecord, Task, default_rig, task_prefix
from shards.features.registry import feature_size, parse_feature
from shards.format.catalogue import FILE, Catalogue, ShardEntry, read_catalogue, write_catalogue
from shards.format.schema import clean_name
from shards.people.consent import read_consent, unknown_record
from shards.people.withdrawn import withdrawn_people

VIDEOS = frozenset(
    [
        ".avi",
        ".flv",
        ".m2ts",
        ".m4v",
        ".mkv",
        ".mov",
        ".mp4",
        ".mpeg",
        ".mpg",
        ".mts",
        ".mxf",
        ".ogv",
        ".ts",
        ".webm",
        ".wmv",
        ".3gp",
    ]
)
COMMIT_EVERY = 2.0  # seconds between two commits at least; writing them must not become the work
ATTEMPTS = 2  # a clip whose worker died so often is refused


def build(
    videos: Sequence[str | Path] | str | Path,
    out: str | Path,
    *,
    consent: str | Path | None = None,
    workers: int = 1,
    address: str | None = None,
    features: Sequence[str] = ("logmel",),
    size: int = 512,
    samples_per_shard: int = 32,
    tracker: str = "shards.tracking:track_video",
) -> dict[str, Any]:
    """Track videos into a dataset; what is there already stays.

    Args:
        videos: files, folders (searched for videos) or ``s3://`` URLs of either.
        out: the dataset's folder or ``s3://`` URL.
        consent: CSV of :mod:`shards.people.consent`; without it every clip is its own identity with unknown licence.
        workers: processes, or Ray tasks at a time; 0 works in this process.
        address: Ray cluster (``"auto"`` or host:port, ``""`` for a private one); None uses plain processes.
        features: audio features to store; ``logmel`` is always among them.
        size: side of the square crop in px, at most.
        samples_per_shard: segments after which a shard ends at the next clip.
        tracker: ``module:function`` with the interface of :func:`shards.tracking.track_video`.

    Returns:
        ``identities, clips, segments, frames, hours, bytes, schema, tracked_fraction, seconds, refused, report``.

    Raises:
        InputError: no videos, none of them usable, wrong consent file, settings that differ from the dataset's, output
            that cannot be written. The dataset then holds what was committed before.
    """
    started = time.monotonic()
    url = str(out) if storage.is_remote(out) else str(storage.local_path(out))
    features = tuple(dict.fromkeys(["logmel", *features]))
    settings = BuildSettings(
        out=url, features=features, size=size, samples_per_shard=samples_per_shard, tracker=tracker
    )
    clips = find_clips([videos] if isinstance(videos, str | Path) else videos, consent)
    with locked(url), _tidy_when_nothing_came_of_it(url):
        builder = _Builder(settings)
        builder.run(clips, workers, address)
        return builder.result(clips, time.monotonic() - started)


# ---------------------------------------------------------------------------------------------------- which clips


def find_clips(videos: Sequence[str | Path], consent: str | Path | None = None) -> list[Clip]:
    """The clips behind files and folders, with names that are unique in keys and their consent records.

    Raises:
        InputError: nothing there, a folder without videos, or a wrong consent file.
    """
    rows = read_consent(str(consent)) if consent is not None else None
    paths = list(dict.fromkeys(path for video in videos for path in _expand(str(video))))
    if not paths:
        raise InputError("no videos were given; name files or folders")
    names = _names(paths)
    clips = []
    for path in paths:
        found = rows.find(storage.basename(path)) if rows is not None else None
        bytes_, modified = _stat(path)
        record = found or unknown_record(names[path])
        clips.append(
            Clip(name=names[path], path=path, bytes=bytes_, modified=modified, consent=record, known=found is not None)
        )
    return sorted(clips, key=lambda clip: clip.name)


def _expand(video: str) -> list[str]:
    if storage.is_remote(video):
        if Path(video).suffix.lower() in VIDEOS:
            return [video]
        found = [storage.join(video, n) for n in storage.listdir(video) if Path(n).suffix.lower() in VIDEOS]
    else:
        path = storage.local_path(video)
        if not path.exists():
            raise InputError(f"{video}: no such file or folder; check the name")
        if not path.is_dir():
            return [str(path.resolve())]
        found = [str(p.resolve()) for p in sorted(path.rglob("*")) if p.suffix.lower() in VIDEOS and p.is_file()]
    if not found:
        raise InputError(
            f"{video}: holds no videos (looked for {' '.join(sorted(VIDEOS))}); name another folder or a file"
        )
    return found


def _names(paths: list[str]) -> dict[str, str]:
    """A clean, unique clip name per path; files of the same name in different folders get a hash of their path."""
    plain = {path: clean_name(Path(storage.basename(path)).stem) for path in paths}
    counts: dict[str, int] = {}
    for name in plain.values():
        counts[name.lower()] = counts.get(name.lower(), 0) + 1
    return {p: n if counts[n.lower()] == 1 else f"{n[:27]}-{_short(p)}" for p, n in plain.items()}


def _short(path: str) -> str:
    return hashlib.sha256(path.encode()).hexdigest()[:8]


def _stat(path: str) -> tuple[int, int]:
    if storage.is_remote(path):
        return storage.size(path), 0
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns


# ---------------------------------------------------------------------------------------------------- the builder


class _Builder:
    """Hands out tasks, collects messages, commits."""

    def __init__(self, settings: BuildSettings) -> None:
        self.settings, self.url = settings, settings.out
        self.journal = Journal.read(self.url)
        sizes = {parse_feature(name)[0]: feature_size(name) for name in settings.features}
        self.journal.agree({"features": list(settings.features), "size": settings.size})
        if storage.exists(storage.join(self.url, FILE)):
            self.catalogue = read_catalogue(self.url)
        else:
            self.catalogue = Catalogue.empty()
            write_catalogue(self.url, self.catalogue)  # output that cannot be written is found before hours of work
        if self.catalogue.features and self.catalogue.features != sizes:
            raise InputError(f"{self.url}: holds features {self.catalogue.features}, asked for {sizes}; use the same")
        self.sizes = sizes
        self._pending: tuple[list[ShardEntry], list[dict[str, Any]]] = ([], [])
        self._last = 0.0
        self._current: dict[Task, str] = {}
        self._deaths: dict[str, int] = {}
        self._changed: list[dict[str, Any]] = []
        self.built_now = 0

    def run(self, clips: list[Clip], workers: int, address: str | None) -> None:
        """Do what is not done yet."""
        _sweep(self.url, self.catalogue)
        todo = self._todo(clips)
        if todo:
            self.catalogue.adopt_rig(default_rig())  # another rig than the dataset's is refused before any work
        queue = deque(_tasks(todo, workers))
        progress = _Progress(todo)
        pool = open_pool(self.settings, workers, address)
        try:
            while queue or self._current:
                while queue and pool.idle():
                    task = queue.popleft()
                    self._current[task] = ""
                    pool.submit(task)
                self._handle(*pool.next(), queue, progress)
            self._commit(force=True)
        except BaseException:
            with suppress(Exception):
                self._commit(force=True)  # what is published and complete need not be done again
            raise
        finally:
            pool.close()
            progress.close()

    def result(self, clips: list[Clip], seconds: float) -> dict[str, Any]:
        """Write the report page and say what the dataset holds now.

        Raises:
            InputError: not one clip of this call gave a sample.
        """
        names = {clip.name for clip in clips}
        records = [record for name, record in sorted(self.journal.clips.items()) if name in names]
        refused = [{"clip": r["clip"], **part} for r in records for part in r["refused"]]
        if not any(record["frames"] for record in records):
            raise InputError(_nothing(clips, records))
        report = write_report(self.url, self.journal, self.catalogue, seconds)
        length = sum(r["seconds"] for r in records)
        tracked = sum(r["tracked_fraction"] * r["seconds"] for r in records)
        return {
            **self.catalogue.totals(),
            "schema": 1,
            "tracked_fraction": round(tracked / length, 4) if length else 0.0,
            "seconds": round(seconds, 2),
            "built_clips": self.built_now,
            "refused": refused + self._changed,
            "report": report,
        }

    def _todo(self, clips: list[Clip]) -> list[Clip]:
        done, gone = self.journal.done(self.catalogue), withdrawn_people(self.url)
        todo = []
        for clip in clips:
            record = done.get(clip.name)
            if gone.covers(clip.consent.identity):
                self._refuse(clip, "this person was withdrawn from the dataset (headstart shards forget)")
            elif record is None:
                todo.append(clip)
            elif record["bytes"] != clip.bytes or not (record["modified"] == clip.modified or _same(record, clip)):
                reason = "the file differs from the one that was built under this name; give it another name"
                self._changed.append({"clip": clip.name, "start": None, "end": None, "reason": reason})
            elif clip.known and (was := _recorded(record)) != (now := _recorded(clip.as_dict())):
                reason = f"was built as {was}, the consent file now says {now}; forget the person and build again"
                self._changed.append({"clip": clip.name, "start": None, "end": None, "reason": reason})
        return todo

    def _handle(self, task: Task, message: tuple[Any, ...], queue: deque[Task], progress: _Progress) -> None:
        kind = message[0]
        if kind == "start":
            self._current[task] = message[1]
        elif kind == "progress":
            progress.show(message[1], message[2])
        elif kind == "commit":
            self._take(*message[1:])
        elif kind == "fatal":
            raise storage.StorageError(message[1])
        else:
            clip = self._current.pop(task)
            if kind == "died":
                queue.extend(self._after_death(task, clip, message[1]))

    def _take(self, entries: list[ShardEntry], records: list[dict[str, Any]]) -> None:
        self._pending[0].extend(entries)
        self.journal.add(records, [entry.name for entry in entries])
        self._pending[1].extend(records)
        self.built_now += len(records)
        self._commit()

    def _commit(self, force: bool = False) -> None:
        entries, records = self._pending
        if not (entries or records) or not (force or time.monotonic() - self._last > COMMIT_EVERY):
            return
        begun = time.monotonic()
        if entries:
            self.catalogue.add(entries)
            self.catalogue.features = dict(self.sizes)
            self.catalogue.track = _track_sizes(self.url, entries[0]) or self.catalogue.track
        self.journal.write()
        if entries:
            write_catalogue(self.url, self.catalogue)
        self._pending = ([], [])
        self._last = time.monotonic() + 20 * (time.monotonic() - begun)

    def _after_death(self, task: Task, clip: str, why: str) -> list[Task]:
        """What is left of a task whose worker died: the suspect alone, unless it killed too many, and the others."""
        self._deaths[clip] = self._deaths.get(clip, 0) + 1
        if not clip and self._deaths[clip] > ATTEMPTS:
            raise InputError(f"workers end before they begin ({why}); run headstart doctor")
        rest = [c for c in task.clips if c.name not in self.journal.clips]
        suspects = [c for c in rest if c.name == clip]
        groups = [suspects, [c for c in rest if c.name != clip]]
        if self._deaths[clip] >= ATTEMPTS:
            for culprit in suspects:
                self._refuse(culprit, f"the tracker crashed on it {ATTEMPTS} times ({why})")
            groups = groups[1:]
        return [Task(prefix=task_prefix(group), clips=tuple(group)) for group in groups if group]

    def _refuse(self, clip: Clip, reason: str) -> None:
        record = ClipRecord()
        record.refuse(reason)
        self._take([], [{**clip.as_dict(), **asdict(record)}])


def _recorded(record: dict[str, Any]) -> str:
    return f"{record['identity']}, licence {record['licence']}, consent {record['consent']}"


def _nothing(clips: list[Clip], records: list[dict[str, Any]]) -> str:
    reasons = [f"{r['file']}: {part['reason']}" for r in records for part in r["refused"][:1]]
    if len(clips) == 1 and reasons:
        return reasons[0]
    shown = "; ".join(reasons[:3]) + ("; ..." if len(reasons) > 3 else "")
    return f"none of the {len(clips)} videos could be used ({shown})"


def _track_sizes(url: str, entry: ShardEntry) -> dict[str, int]:
    """Coefficient counts of the samples in a new shard."""
    from shards.read.dataset import Dataset

    sole = Catalogue.empty()
    sole.add([entry])
    track = Dataset(url, sole).read(0).track
    return {"identity": len(track["identity"]), "expression": int(track["expression"].shape[1])}


def _same(record: dict[str, Any], clip: Clip) -> bool:
    """A touched or copied file is the same one when its content is."""
    return bool(record["sha256"]) and storage.sha256(storage.cached(clip.path)) == record["sha256"]


def _tasks(clips: list[Clip], workers: int) -> list[Task]:
    """Several clips a task, so that shards are full, but enough tasks to keep all workers busy to the end."""
    each = max(1, min(16, len(clips) // (3 * max(1, workers)))) if workers > 1 else 16
    groups = [tuple(clips[at : at + each]) for at in range(0, len(clips), each)]
    return [Task(prefix=task_prefix(group), clips=group) for group in groups]


# ---------------------------------------------------------------------------------------------------- surroundings


@contextmanager
def _tidy_when_nothing_came_of_it(url: str):
    """A folder that this build made is removed again when the build ends in an error before its first sample."""
    new = not storage.exists(storage.join(url, FILE))
    try:
        yield
    except InputError:
        begun = storage.exists(storage.join(url, FILE))
        with suppress(InputError):
            if new and not (begun and read_catalogue(url).shards):
                for name in (FILE, "build.json", "report", "shards", "index"):
                    storage.remove(storage.join(url, name))
                if not storage.is_remote(url):
                    with suppress(OSError):
                        Path(url, LOCK).unlink(missing_ok=True)
                        Path(url).rmdir()
        raise


def _sweep(url: str, catalogue: Catalogue) -> None:
    """Remove what an interrupted build left: shards and indexes that nobody lists, temporary files."""
    if storage.is_remote(url):
        return  # another build may be about to list them; a repeated task overwrites its own
    listed = catalogue.names()
    for folder in ("shards", "index"):
        for path in Path(url, folder).glob("*"):
            if path.stem not in listed:
                storage.remove(path)
    for path in Path(url).glob(".tmp-*"):
        storage.remove(path)


class _Progress:
    """A bar in bytes of video (known beforehand, unlike seconds), with an estimate of the time left."""

    def __init__(self, clips: list[Clip]) -> None:
        from tqdm import tqdm

        self._bytes = {clip.name: clip.bytes for clip in clips}
        self._shown: dict[str, float] = {}
        self._bar = tqdm(
            total=sum(self._bytes.values()),
            unit="B",
            unit_scale=True,
            desc=f"{len(clips)} clips",
            disable=not clips or not sys.stderr.isatty(),
            file=sys.stderr,
        )

    def show(self, clip: str, fraction: float) -> None:
        """So much of a clip is done."""
        before = self._shown.get(clip, 0.0)
        if fraction > before:
            self._bar.update(round(self._bytes.get(clip, 0) * (fraction - before)))
            self._bar.set_postfix_str(clip, refresh=False)
            self._shown[clip] = fraction

    def close(self) -> None:
        self._bar.close()
