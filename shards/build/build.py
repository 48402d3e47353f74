"""``headstart shards build``: track videos into a dataset, in parallel and incrementally.

Run again after a crash or with more videos, it does only the remaining work. The builder hands tasks to workers
(processes or Ray tasks), which write their own shards; only the builder writes ``dataset.json`` and ``build.json``, so an
interruption at any point leaves the dataset at its last commit. Features that the dataset lacks are added to its shards first.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from cluster.storage import storage
from configs import InputError, progress
from shards.build.extend import feature_tasks, step_tasks
from shards.build.find import find_clips
from shards.build.from_tars import find_tars, plan_tars, tar_task
from shards.build.journal import Journal
from shards.build.lock import locked, sweep, tidy_when_nothing_came_of_it
from shards.build.pool import open_pool
from shards.build.report import write_report
from shards.build.tar_clips import CORRECT, stated
from shards.build.task import (
    BuildSettings,
    ClipRecord,
    FeatureTask,
    Message,
    SourceClip,
    SourceTar,
    TarTask,
    Task,
    TrackTask,
    same_video,
    task_prefix,
    track_tasks,
)
from shards.build.wanted import DEFAULT_SIZE, load_weights, wanted_features, wanted_rig
from shards.format.catalogue import FILE, Catalogue, ShardEntry, read_catalogue, write_catalogue
from shards.people.consent import read_consent
from shards.people.copies import Copies, leave_out_copies, people_of_one_video
from shards.people.stated import Statements, stated_keys
from shards.people.withdrawn import withdrawn_people
from shards.read.dataset import Dataset
from shards.tar.rewrite import remove_unlisted

COMMIT_EVERY = 2.0  # least seconds between two commits, and 20 times as long as the last commit took
ATTEMPTS = 2  # a clip whose worker died this many times is refused


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
    tars: Sequence[str] = (),
    json_keys: Mapping[str, str] | Sequence[str] = (),
    in_step: bool = True,
    put_in_step: bool = False,
) -> dict[str, Any]:
    """Track videos into a dataset; existing samples are kept, missing features are added to them and outdated ones replaced.

    Args:
        videos: files, folders (see :func:`shards.build.find.find_clips`) or ``s3://`` URLs of either; none to only add features.
        out: the dataset's folder or ``s3://`` URL.
        consent: CSV of :mod:`shards.people.consent`; without it every clip is its own identity with unknown licence.
        workers: processes, or concurrent Ray tasks; 0 works in this process.
        address: Ray cluster (``"auto"`` or host:port, ``""`` for a private one); None uses plain processes.
        features: audio features that all samples get, in addition to ``logmel`` and those of the dataset.
        size: largest side of the square crop, px; by default the dataset's, or 512.
        rig: name or path of the rig whose coefficients are stored; by default the dataset's, or ``mediapipe``.
        samples_per_shard: segments after which a shard ends at the next clip.
        tracker: ``module:function`` with the interface of :func:`shards.tracking.track_video`.
        extras: give shards of earlier versions the lips and the motion that every new shard has.
        tars: WebDataset tars of other tools, with a video and optionally its sound and a JSON per sample: paths, URLs,
            folders, brace patterns. They are read as streams, not unpacked.
        json_keys: ``identity, licence, consent, source`` → key in the JSON of a tar's sample; a dot leads into an inner object.
        in_step: move sound that is late or early with confidence into step with the lips (:mod:`shards.tracking.av_offset`).
        put_in_step: do so to a fraction of a frame in the dataset's shards too, by their rows of Whisper tiny.en; without tracking.

    Returns:
        ``identities, clips, segments, frames, hours, bytes, schema, tracked_fraction, seconds, built_clips,
        extended_shards, refused, report``; ``tracked_fraction`` is of the clips of this call, None without any;
        ``built_clips`` counts those of which something could be used.

    Raises:
        InputError: no videos, none of them usable, wrong consent file, settings that differ from the dataset's, output
            that cannot be written. The dataset then holds what was committed before.
    """
    started = time.monotonic()
    url = str(out) if storage.is_remote(out) else str(storage.local_path(out))
    given = [videos] if isinstance(videos, str | Path) else list(videos)
    if not given and not tars and not storage.exists(storage.join(url, FILE)):
        raise InputError(
            f"{url}: no dataset here, and no videos to build one from; check the name, or give files or folders"
        )
    keys = json_keys if isinstance(json_keys, Mapping) else stated_keys(json_keys)
    if put_in_step and not in_step:
        raise InputError("the sound of the dataset cannot both be put in step and be kept; give one of the two options")
    if keys and not tars:
        raise InputError("JSON keys were given without tars; name the tars, or remove the keys")
    clips = find_clips(given, consent) if given else []
    sources = find_tars(tars)
    statements = Statements(read_consent(str(consent)) if consent is not None and tars else None, dict(keys))
    with locked(url), tidy_when_nothing_came_of_it(url):
        builder = _Builder(url, features, size, rig, samples_per_shard, tracker, in_step)
        builder.extend(workers, address, extras)
        if put_in_step:
            builder.put_in_step(workers, address)
        builder.run(clips, workers, address)
        builder.run_tars(sources, statements, workers, address)
        return builder.result(clips, sources, time.monotonic() - started)


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
        in_step: bool = True,
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
            in_step=in_step,
        )
        self._pending: tuple[list[ShardEntry], list[dict[str, Any]]] = ([], [])
        self._last = 0.0
        self._current: dict[Task, SourceClip | None] = {}
        self._deaths: dict[str, int] = {}
        self._changed: list[dict[str, Any]] = []
        self._copies: list[dict[str, object]] = []
        self._sizes = {record["name"]: int(record["size"]) for record in records}
        self.built_now = self.extended = 0

    def extend(self, workers: int, address: str | None, extras: bool) -> None:
        """Add to the shards of the dataset the features that they lack, and the small members where asked for."""
        sweep(self.url, self.catalogue)
        lacking = [r for r in self.settings.features if not self.catalogue.has_rows_of(r)]
        if (lacking or extras) and self.catalogue.shards:
            # A run that stops here goes on with the same weights: shards of two models must not lie side by side.
            self.journal.settings["adding"] = lacking
            self.journal.write()
            with closing(Dataset(self.url, self.catalogue)) as dataset:
                tasks = feature_tasks(dataset, lacking, extras)
            shards = sum(len(task.shards) for task in tasks)
            names = ", ".join(
                [*(record["name"] for record in lacking), *(["lips, motion and groups of pictures"] if extras else [])]
            )
            settings = replace(self.settings, features=tuple(lacking), extras=extras)
            with progress.task(f"adding {names}", shards, "shards") as bar:
                self._work(list(tasks), settings, workers, address, bar)
            self.catalogue.features = dict(self._sizes)
            self._keep_records()
            write_catalogue(self.url, self.catalogue)
            self.journal.settings.pop("adding")
            self.journal.write()

    def put_in_step(self, workers: int, address: str | None) -> None:
        """Move the sound of the dataset's clips that is out of step by what its speech encoder tells."""
        load_weights(self.settings.features)
        with closing(Dataset(self.url, self.catalogue)) as dataset:
            tasks = step_tasks(dataset, self.settings.features)
        settings = replace(self.settings, put_in_step=True)
        with progress.task("putting sound in step", len(self.catalogue.shards), "shards") as bar:
            self._work(list(tasks), settings, workers, address, bar)

    def run(self, clips: list[SourceClip], workers: int, address: str | None) -> None:
        """Do what is not done yet."""
        todo = self._todo(clips)
        if todo:
            # Another rig than the dataset's and weights that are not here are refused before any work.
            self.catalogue.adopt_rig(dict(self.settings.rig))
            load_weights(self.settings.features)
        tasks = track_tasks(todo, workers)
        sizes = {clip.name: clip.bytes for clip in todo}
        with progress.task("tracking", sum(sizes.values()), "bytes of video") as bar:
            self._work(list(tasks), self.settings, workers, address, progress.ByName(bar, sizes))
        if clips:
            self.journal.write()

    def run_tars(self, tars: list[SourceTar], statements: Statements, workers: int, address: str | None) -> None:
        """Build what is not built yet of the tars of other tools; a task is a tar."""
        plan = plan_tars(tars, statements, self.journal, self.catalogue)
        self._changed += plan.changed
        if plan.tasks:
            self.catalogue.adopt_rig(dict(self.settings.rig))
            load_weights(self.settings.features)
            sizes = {task.tar.name: task.tar.bytes for task in plan.tasks}
            with progress.task("tracking", sum(sizes.values()), "bytes of tars") as bar:
                self._work(list(plan.tasks), self.settings, workers, address, progress.ByName(bar, sizes))
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
                    task = self._informed(queue.popleft())
                    self._current[task] = None
                    pool.submit(task)
                self._handle(*pool.next(), queue, bar)
            self._commit(force=True)
        except BaseException:
            with suppress(Exception):
                self._commit(force=True)  # what is published and complete need not be done again
            pool.close()
            with suppress(Exception):
                sweep(self.url, self.catalogue)  # workers that were ended leave a shard that they had begun
            raise
        finally:
            pool.close()

    def result(self, clips: list[SourceClip], tars: list[SourceTar], seconds: float) -> dict[str, Any]:
        """Write the report page and return what the dataset holds now.

        Raises:
            InputError: no clip of this call gave a sample.
        """
        names, inside = {clip.name for clip in clips}, {tar.name for tar in tars}
        records = [r for name, r in sorted(self.journal.clips.items()) if name in names or r.get("tar") in inside]
        refused = [{"clip": r["file"] if "tar" in r else r["clip"], **part} for r in records for part in r["refused"]]
        faults = [part for tar in tars for part in self.journal.tars.get(tar.name, {"refused": []})["refused"]]
        refused += faults
        if (clips or tars) and not any(record["frames"] for record in records):
            reasons = [f"{r['file']}: {part['reason']}" for r in records for part in r["refused"][:1]]
            reasons += [f"{part['clip']}: {part['reason']}" for part in self._copies + faults]
            raise InputError(_nothing(len(records) + len(self._copies), reasons))
        for sentence in people_of_one_video(self.journal.done(self.catalogue)):
            progress.say(sentence)
        report = write_report(self.url, self.journal, self.catalogue, seconds)
        length = sum(r["seconds"] for r in records)
        tracked = sum(r["tracked_fraction"] * r["seconds"] for r in records)
        return {
            **self.catalogue.totals(),
            "schema": 1,
            "tracked_fraction": round(tracked / length, 4) if length else None,
            "seconds": round(seconds, 2),
            "built_clips": self.built_now,
            "extended_shards": self.extended,
            "refused": refused + self._copies + self._changed,
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
            elif record["bytes"] != clip.bytes or not (record["modified"] == clip.modified or same_video(record, clip)):
                reason = "the file differs from the one that was built under this name; give it another name"
                self._changed.append({"clip": clip.name, "start": None, "end": None, "reason": reason})
            elif clip.known and (was := stated(record)) != (now := stated(clip.as_dict())):
                reason = f"was built as {was}, the consent file now says {now}; {CORRECT}"
                self._changed.append({"clip": clip.name, "start": None, "end": None, "reason": reason})
        todo, self._copies = leave_out_copies(todo, done)
        return todo

    def _informed(self, task: Task) -> Task:
        """A task for a tar, with the videos that are built by now."""
        return replace(task, held=Copies.of(self.journal.clips).held) if isinstance(task, TarTask) else task

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
            bar.advance(len(task.shards) if isinstance(task, FeatureTask) else 0)
        elif kind == "tar":
            self.journal.tars[message[1]] = message[2]
            self._changed += message[3]
        elif kind == "fatal":
            raise storage.StorageError(message[1])
        else:
            clip = self._current.pop(task)
            if kind == "died":
                queue.extend(self._after_death(task, clip, message[1]))

    def _replace(self, names: list[str], entries: list[ShardEntry], offsets: Mapping[str, float]) -> None:
        """Commit changed shards in place of the old ones at once; readers must open the dataset again."""
        for clip in offsets.keys() & self.journal.clips.keys():
            record = self.journal.clips[clip]
            record["av_offset"] = round(record.get("av_offset", 0.0) + offsets[clip], 4)
        self.catalogue.add(entries)
        self.catalogue.remove(names)
        write_catalogue(self.url, self.catalogue)
        remove_unlisted(self.url, self.catalogue, names)
        if offsets:
            self.journal.write()
        self.extended += len(entries)

    def _take(self, entries: list[ShardEntry], records: list[dict[str, object]]) -> None:
        self._pending[0].extend(entries)
        self.journal.add(records, [entry.name for entry in entries])
        self._pending[1].extend(records)
        self.built_now += sum(bool(record["frames"]) for record in records)
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
            self.catalogue.feature_records[record["name"]] = record

    def _after_death(self, task: Task, clip: SourceClip | None, why: str) -> list[Task]:
        """What is left of a task whose worker died: the suspect alone, unless it killed too many, and the others."""
        name = clip.name if clip is not None else ""
        self._deaths[name] = self._deaths.get(name, 0) + 1
        if isinstance(task, FeatureTask):
            raise InputError(f"a worker that changed shards died ({why}); run the same command again to continue")
        if clip is None and self._deaths[name] > ATTEMPTS:
            raise InputError(f"workers die before they start ({why}); run headstart doctor")
        culprit = clip is not None and self._deaths[name] >= ATTEMPTS and name not in self.journal.clips
        if clip is not None and culprit:
            self._refuse(clip, f"the tracker crashed on it {ATTEMPTS} times ({why})")
        if isinstance(task, TarTask):
            self._commit(force=True)
            return [tar_task(task.tar, task.statements, self.journal.done(self.catalogue))]
        rest = [c for c in task.clips if c.name not in self.journal.clips]
        groups = [[c for c in rest if c.name == name], [c for c in rest if c.name != name]]
        return [TrackTask(prefix=task_prefix(group), clips=tuple(group)) for group in groups if group]

    def _refuse(self, clip: SourceClip, reason: str) -> None:
        record = ClipRecord()
        record.refuse(reason)
        self._take([], [{**clip.as_dict(), **asdict(record)}])


def _nothing(count: int, reasons: list[str]) -> str:
    if count <= 1 and reasons:
        return reasons[0]
    shown = "; ".join(reasons[:3]) + ("; ..." if len(reasons) > 3 else "")
    return f"none of the {count} videos could be used ({shown})"


def _track_sizes(url: str, entry: ShardEntry) -> dict[str, int]:
    """Coefficient counts of the samples in a new shard."""
    sole = Catalogue.empty()
    sole.add([entry])
    track = Dataset(url, sole).read(0).track
    return {"identity": len(track["identity"]), "expression": int(track["expression"].shape[1])}
