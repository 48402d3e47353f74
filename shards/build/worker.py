"""What a worker does: turns clips into shards, in its own process or as a Ray task; each clip is tracked as a stream.

It reports by yielding messages, so the same generator runs anywhere:

    ("start", clip)                 work on a clip (a :class:`SourceClip`) begins
    ("progress", clip, fraction)    this fraction (0 to 1) of the clip or tar of this name is done
    ("commit", entries, records)    these shards are published and hold these clips completely
    ("replace", names, entries, offsets)  these shards are published in place of those, with more features, or with
                                    the sound of clips moved by these offsets (clip -> s)
    ("tar", name, record, changed)  this tar was read, to its end if ``record["complete"]``
    ("fatal", sentence)             nothing further will work, such as an output that cannot be written
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from importlib import import_module
from typing import Any

import numpy as np

from cluster.storage import storage
from configs import InputError
from shards.build.clip_writer import ClipWriter, OutputError
from shards.build.extend import extend_shards
from shards.build.report import overlay_strip
from shards.build.tar_clips import TarClips
from shards.build.task import BuildSettings, ClipRecord, FeatureTask, Message, SourceClip, TarTask, Task
from shards.features.registry import open_feature
from shards.format.catalogue import FILE
from shards.media.rates import FPS
from shards.people.withdrawn import withdrawn_people
from shards.tar.shardfile import ShardSet
from shards.tracking.av_offset import IN_STEP, has_filters
from shards.tracking.options import TrackOptions

log = logging.getLogger("headstart.build")


def run_task(task: Task, settings: BuildSettings) -> Iterator[Message]:
    """Do a task and yield messages; an :class:`InputError` that stops it becomes ``("fatal", sentence)``."""
    try:
        _check_shared(settings.out)
        if isinstance(task, FeatureTask):
            yield extend_shards(task, settings)
        else:
            clips = TarClips(task, settings.out) if isinstance(task, TarTask) else task.clips
            yield from _build_clips(clips, task.prefix, settings)
            if isinstance(clips, TarClips):
                yield clips.message()
    except storage.StorageError as error:
        yield ("fatal", str(error))
    except InputError as error:
        yield ("fatal", str(error))


def _build_clips(clips: Iterable[SourceClip], prefix: str, settings: BuildSettings) -> Iterator[Message]:
    """Build all clips of a task into shards of their own."""
    records: list[dict[str, object]] = []
    shards = ShardSet(settings.out, prefix, samples_per_shard=settings.samples_per_shard)
    try:
        for clip in clips:
            yield ("start", clip)
            record = ClipRecord()
            yield from _build_clip(clip, settings, shards, record)
            shards.end_clip()
            records.append({**clip.as_dict(), **asdict(record), "prefix": prefix})
            entries = shards.take()
            if entries:
                yield ("commit", entries, records)
                records = []
            if isinstance(clips, TarClips):
                yield ("progress", clip.tar, clips.fraction)
        yield ("commit", shards.close(), records)
    finally:
        shards.abort()


def _build_clip(clip: SourceClip, settings: BuildSettings, shards: ShardSet, record: ClipRecord) -> Iterator[Message]:
    """Add a clip's samples to the shards; whatever is wrong with the video ends in the record, not in an error."""
    writer = ClipWriter(clip, settings, shards, record)
    try:
        path = writer.path = storage.cached(clip.path)
        record.sha256 = storage.sha256(path)
        writer.source_sha256 = record.sha256
        if withdrawn_people(settings.out).entry(clip.consent.identity, record.sha256) is not None:
            raise InputError("the person in this video was withdrawn from the dataset (headstart shards forget)")
        with _tracker(settings.tracker)(path, _options(settings, clip)) as video:
            record.seconds = video.frames / FPS
            record.av_offset = getattr(video, "av_offset", IN_STEP).seconds
            for part in video.refusals:
                record.refuse(part.reason, part.start / FPS, part.end / FPS)
            for shot in video:
                record.shots += 1
                for segment in shot:
                    writer.push(segment)
                    yield ("progress", clip.name, min(1.0, record.frames / video.frames))
                writer.end_shot()
                record.jitter = dict(getattr(shot, "jitter", None) or record.jitter)
    except OutputError as error:
        raise error.args[0] from None
    except ImportError as error:
        # The installation is incomplete, which is not the clip's fault: stop instead of refusing every clip.
        raise storage.StorageError(
            f"tracking needs {error.name or error}, which is absent; install headstart[track]"
        ) from None
    except InputError as error:
        record.refuse(_for_people(str(error), clip, writer))
    except Exception as error:  # a decoder that fails on one video must not end a build of thousands
        log.exception("clip %s", clip.name)
        record.refuse(f"tracking failed ({type(error).__name__}: {error}); report it with this clip")
    record.tracked_fraction = round(record.frames / FPS / record.seconds, 4) if record.seconds else 0.0
    if not record.frames and not record.refused:
        record.refuse("no usable frames were found")
    yield from _thumbnail(clip, settings, writer, record)


def _for_people(reason: str, clip: SourceClip, writer: ClipWriter) -> str:
    """The sentence without the path of the video and of temporary files."""
    reason = reason.removeprefix(f"{writer.path}: ")
    return reason.replace(f"{clip.sound}: ", "its sound ") if clip.sound else reason


def _check_shared(out: str) -> None:
    """The builder made ``dataset.json`` before the first task: a worker that misses it writes to another disk."""
    if not storage.exists(storage.join(out, FILE)):
        raise storage.StorageError(
            f"{out}: a worker does not see this folder; with several machines use a shared file system or s3://"
        )


def _thumbnail(clip: SourceClip, settings: BuildSettings, writer: ClipWriter, record: ClipRecord) -> Iterator[Message]:
    if writer.pictures:
        chosen = np.linspace(0, len(writer.pictures) - 1, settings.thumbnails).round().astype(int)
        name = f"report/{clip.name}.jpg"
        data = overlay_strip([writer.pictures[i] for i in dict.fromkeys(chosen.tolist())])
        storage.write_bytes(storage.join(settings.out, name), data)
        record.thumbnail = name
    yield ("progress", clip.name, 1.0)


def _tracker(target: str) -> Any:
    module, _, name = target.partition(":")
    return getattr(import_module(module), name)


def _options(settings: BuildSettings, clip: SourceClip) -> TrackOptions | BuildSettings:
    if settings.tracker != BuildSettings.tracker:
        return settings
    speech = next((open_feature(record) for record in settings.features if has_filters(record)), None)
    return TrackOptions(
        size=settings.size,
        rig=settings.rig.get("source", TrackOptions.rig),
        sound=clip.sound,
        feature=speech,
        av_offset=None if settings.in_step else 0.0,
    )
