"""``headstart shards build``: track videos into a dataset, in parallel and incrementally.

Run again after a crash or with more videos, it does only the remaining work. The builder hands tasks to workers (processes or Ray
tasks) that write shards of their own; it alone writes ``dataset.json`` and ``build.json``, so an interruption at any
point leaves the dataset of the last commit. Features that the dataset lacks are added to its shards first.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from cluster.storage import storage
from configs import InputError, progress
from shards.build.extend import feature_tasks
from shards.build.find import find_clips
from shards.build.journal import Journal
from shards.build.lock import LOCK, locked
from shards.build.pool import open_pool
from shards.build.report import write_report
from shards.build.task import BuildSettings, ClipRecord, FeatureTask, Message, SourceClip, Task, TrackTask, task_prefix
from shards.build.wanted import DEFAULT_SIZE, load_weights, wanted_features, wanted_rig
from shards.format.catalogue import FILE, Catalogue, ShardEntry, read_catalogue, write_catalogue
from shards.people.withdrawn import withdrawn_people
from shards.read.dataset import Dataset
from shards.tar.rewrite import remove_unlisted

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
    size: int | None = None,
    rig: str | Path | None = None,
    samples_per_shard: int = 32,
    tracker: str = "shards.tracking:track_video",
    extras: bool = False,
) -> dict[str, Any]:
    """Track videos into a dataset; existing samples are kept, and missing features are added to them.

    Args:
        videos: files, folders (searched for videos) or ``s3://`` URLs of either; none to add features alone.
        out: the dataset's folder or ``s3://`` URL.
        consent: CSV of :mod:`shards.people.consent`; without it every clip is its own identity with unknown licence.
        workers: processes, or Ray tasks at a time; 0 works in this process.
        address: Ray cluster (``"auto"`` or host:port, ``""`` for a private one); None uses plain processes.
        features: audio features that all samples get, in addition to ``logmel`` and those of the dataset.
        size: side of the square crop in px, at most; by default the dataset's, or 512.
        rig: name or path of the rig whose coefficients are stored; by default the dataset's, or ``mediapipe``.
        samples_per_shard: segments after which a shard ends at the next clip.
        tracker: ``module:function`` with the interface of :func:`shards.tracking.track_video`.
        extras: give shards of earlier versions the lips and the motion that every new shard has.

    Returns:
        ``identities, clips, segments, frames, hours, bytes, schema, tracked_fraction, seconds, built_clips,
        extended_shards, refused, report``.

    Raises:
        InputError: no videos, none of them usable, wrong consent file, settings that differ from the dataset's, output
            that cannot be written. The dataset then holds what was committed before.
    """
    started = time.monotonic()
    url = str(out) if storage.is_remote(out) else str(storage.local_path(out))
    given = [videos] if isinstance(videos, str | Path) else list(videos)
    if not given and not storage.exists(storage.join(url, FILE)):
        raise InputError("no videos were given; name files or folders")
    clips = find_clips(given, consent) if given else []
    with locked(url), _tidy_when_nothing_came_of_it(url):
        builder = _Builder(url, features, size, rig, samples_per_shard, tracker)
        builder.extend(workers, address, extras)
        builder.run(clips, workers, address)
        return builder.result(clips, time.monotonic() - started)


class _Builder:
    """Hands out tasks, collects messages, commits."""

    def __init__(
        self,
        url: str,
        features: Sequence[str],
        size: int | None,
        rig: str | Path | None,
        samples_per_shard: int,
        tracker: str,
    ) -> None:
        self.url = url
        self.journal = Journal.read(url)
        new = not storage.exists(storage.join(url, FILE))
        self.catalogue = Catalogue.empty() if new else read_catalogue(url)
        records = wanted_features(self.catalogue, self.journal, features)
        if new:
            write_catalogue(url, self.catalogue)  # output that cannot be written is found before hours of work
        self.journal.agree({"size": size or self.journal.settings.get("size", DEFAULT_SIZE)})
        self.settings = BuildSettings(
            out=url,
            features=tuple(records),
            rig=wanted_rig(self.catalogue, rig),
            size=self.journal.settings["size"],
            samples_per_shard=samples_per_shard,
            tracker=tracker,
        )
        self._pending: tuple[list[ShardEntry], list[dict[str, Any]]] = ([], [])
        self._last = 0.0
        self._current: dict[Task, str] = {}
        self._deaths: dict[str, int] = {}
        self._changed: list[dict[str, Any]] = []
        self._sizes = {record["name"]: int(record["size"]) for record in records}
        self.built_now = self.extended = 0

    def extend(self, workers: int, address: str | None, extras: bool) -> None:
        """Add to the shards of the dataset the features that they lack, and lips and motion where asked for."""
        _sweep(self.url, self.catalogue)
        lacking = [r for r in self.settings.features if r["name"] not in self.catalogue.features]
        if (lacking or extras) and self.catalogue.shards:
            # A run that stops here goes on with the same weights: shards of two models must not lie side by side.
            self.journal.settings["adding"] = lacking
            self.journal.write()
            with closing(Dataset(self.url, self.catalogue)) as dataset:
                tasks = feature_tasks(dataset, lacking, extras)
            shards = sum(len(task.shards) for task in tasks)
            names = ", ".join([*(record["name"] for record in lacking), *(["lips and motion"] if extras else [])])
            settings = replace(self.settings, features=tuple(lacking), extras=extras)
            with progress.task(f"adding {names}", shards, "shards") as bar:
                self._work(list(tasks), settings, workers, address, bar)
            self.catalogue.features = dict(self._sizes)
            self._keep_records()
            write_catalogue(self.url, self.catalogue)
            self.journal.settings.pop("adding")
            self.journal.write()

    def run(self, clips: list[SourceClip], workers: int, address: str | None) -> None:
        """Do what is not done yet."""
        todo = self._todo(clips)
        if todo:
            # Another rig than the dataset's and weights that are not here are refused before any work.
            self.catalogue.adopt_rig(dict(self.settings.rig))
            load_weights(self.settings.features)
        tasks = _tasks(todo, workers)
        with progress.task("tracking", sum(clip.bytes for clip in todo), "bytes of video") as bar:
            self._work(list(tasks), self.settings, workers, address, _ByClip(bar, todo))
        if clips:
            self.journal.write()

    def _work(self, tasks: list[Task], settings: BuildSettings, workers: int, address: str | None, bar: object) -> None:
        """Run tasks; what is complete is committed even when one of them fails."""
        if not tasks:
            self._commit(force=True)
            return
        queue, pool = deque(tasks), open_pool(settings, workers, address)
        try:
            while queue or self._current:
                while queue and pool.idle():
                    task = queue.popleft()
                    self._current[task] = ""
                    pool.submit(task)
                self._handle(*pool.next(), queue, bar)
            self._commit(force=True)
        except BaseException:
            with suppress(Exception):
                self._commit(force=True)  # what is published and complete need not be done again
            raise
        finally:
            pool.close()

    def result(self, clips: list[SourceClip], seconds: float) -> dict[str, Any]:
        """Write the report page and say what the dataset holds now.

        Raises:
            InputError: not one clip of this call gave a sample.
        """
        names = {clip.name for clip in clips}
        records = [record for name, record in sorted(self.journal.clips.items()) if name in names]
        refused = [{"clip": r["clip"], **part} for r in records for part in r["refused"]]
        if clips and not any(record["frames"] for record in records):
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
            "extended_shards": self.extended,
            "refused": refused + self._changed,
            "report": report,
        }

    def _todo(self, clips: list[SourceClip]) -> list[SourceClip]:
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

    def _handle(self, task: Task, message: Message, queue: deque[Task], bar: Any) -> None:
        kind = message[0]
        if kind == "start":
            self._current[task] = message[1]
        elif kind == "progress":
            bar.show(message[1], message[2])
        elif kind == "commit":
            self._take(*message[1:])
        elif kind == "replace":
            self._replace(*message[1:])
            bar.advance(len(message[1]))
        elif kind == "fatal":
            raise storage.StorageError(message[1])
        else:
            clip = self._current.pop(task)
            if kind == "died":
                queue.extend(self._after_death(task, clip, message[1]))

    def _replace(self, names: list[str], entries: list[ShardEntry]) -> None:
        """Extended shards take the place of the old ones at once; a reader of the dataset must be opened again."""
        self.catalogue.add(entries)
        self.catalogue.remove(names)
        write_catalogue(self.url, self.catalogue)
        remove_unlisted(self.url, self.catalogue, names)
        self.extended += len(entries)

    def _take(self, entries: list[ShardEntry], records: list[dict[str, object]]) -> None:
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
            self.catalogue.features = dict(self._sizes)
            self._keep_records()
            self.catalogue.track = _track_sizes(self.url, entries[0]) or self.catalogue.track
        self.journal.write()
        if entries:
            write_catalogue(self.url, self.catalogue)
        self._pending = ([], [])
        self._last = time.monotonic() + 20 * (time.monotonic() - begun)

    def _keep_records(self) -> None:
        for record in self.settings.features:
            self.catalogue.feature_records.setdefault(record["name"], dict(record))

    def _after_death(self, task: Task, clip: str, why: str) -> list[TrackTask]:
        """What is left of a task whose worker died: the suspect alone, unless it killed too many, and the others."""
        self._deaths[clip] = self._deaths.get(clip, 0) + 1
        if isinstance(task, FeatureTask):
            raise InputError(f"a worker that added features died ({why}); run the same command again to continue")
        if not clip and self._deaths[clip] > ATTEMPTS:
            raise InputError(f"workers die before they start ({why}); run headstart doctor")
        rest = [c for c in task.clips if c.name not in self.journal.clips]
        suspects = [c for c in rest if c.name == clip]
        groups = [suspects, [c for c in rest if c.name != clip]]
        if self._deaths[clip] >= ATTEMPTS:
            for culprit in suspects:
                self._refuse(culprit, f"the tracker crashed on it {ATTEMPTS} times ({why})")
            groups = groups[1:]
        return [TrackTask(prefix=task_prefix(group), clips=tuple(group)) for group in groups if group]

    def _refuse(self, clip: SourceClip, reason: str) -> None:
        record = ClipRecord()
        record.refuse(reason)
        self._take([], [{**clip.as_dict(), **asdict(record)}])


def _recorded(record: dict[str, object]) -> str:
    return f"{record['identity']}, licence {record['licence']}, consent {record['consent']}"


def _nothing(clips: list[SourceClip], records: list[dict[str, Any]]) -> str:
    reasons = [f"{r['file']}: {part['reason']}" for r in records for part in r["refused"][:1]]
    if len(clips) == 1 and reasons:
        return reasons[0]
    shown = "; ".join(reasons[:3]) + ("; ..." if len(reasons) > 3 else "")
    return f"none of the {len(clips)} videos could be used ({shown})"


def _track_sizes(url: str, entry: ShardEntry) -> dict[str, int]:
    """Coefficient counts of the samples in a new shard."""
    sole = Catalogue.empty()
    sole.add([entry])
    track = Dataset(url, sole).read(0).track
    return {"identity": len(track["identity"]), "expression": int(track["expression"].shape[1])}


def _same(record: dict[str, object], clip: SourceClip) -> bool:
    """A touched or copied file is the same one when its content is."""
    return bool(record["sha256"]) and storage.sha256(storage.cached(clip.path)) == record["sha256"]


def _tasks(clips: list[SourceClip], workers: int) -> list[TrackTask]:
    """Several clips a task, so that shards are full, but enough tasks to keep all workers busy to the end."""
    each = max(1, min(16, len(clips) // (3 * max(1, workers)))) if workers > 1 else 16
    groups = [tuple(clips[at : at + each]) for at in range(0, len(clips), each)]
    return [TrackTask(prefix=task_prefix(group), clips=group) for group in groups]


# ---------------------------------------------------------------------------------------------------- surroundings


@contextmanager
def _tidy_when_nothing_came_of_it(url: str) -> Iterator[None]:
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


class _ByClip:
    """A bar in bytes of video, which are known beforehand, unlike seconds."""

    def __init__(self, bar: progress.Task, clips: list[SourceClip]) -> None:
        self._bar, self._bytes = bar, {clip.name: clip.bytes for clip in clips}
        self._shown: dict[str, float] = {}

    def show(self, clip: str, fraction: float) -> None:
        """So much of a clip is done."""
        before = self._shown.get(clip, 0.0)
        if fraction > before:
            self._bar.advance(round(self._bytes.get(clip, 0) * (fraction - before)))
            self._bar.update(note=clip)
            self._shown[clip] = fraction
