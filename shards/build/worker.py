"""One video to samples: track it as a stream, align its audio features, encode its segments, draw its thumbnails.

This is what a worker does, in a process of its own or as a Ray task. It reports by yielding messages, so the same
generator runs anywhere:

    ("start", clip)                 work on a clip begins
    ("progress", clip, fraction)    so much of the video's length is tracked
    ("commit", entries, records)    these shards are published and hold these clips completely
    ("fatal", sentence)             the output cannot be written; nothing further will work
"""

from __future__ import annotations

import hashlib
import logging
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from cluster.storage import storage
from configs import InputError
from shards.features import FeatureStream
from shards.features.registry import parse_feature
from shards.format.catalogue import FILE
from shards.format.encode import encode_sample
from shards.format.schema import sample_key
from shards.media.rates import FPS, SAMPLES_PER_FRAME
from shards.people.consent import ConsentRecord
from shards.tar.shardfile import ShardSet

log = logging.getLogger("headstart.build")
Message = tuple[Any, ...]


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A video to be built: its name in keys, where it is, and the consent record that speaks of it."""

    name: str
    path: str
    bytes: int
    modified: int
    consent: ConsentRecord
    known: bool = True  # a consent file names it

    def as_dict(self) -> dict[str, Any]:
        """What the build report keeps of it; the path is reduced to the file's name."""
        record = {
            "clip": self.name,
            "file": storage.basename(self.path),
            "bytes": self.bytes,
            "modified": self.modified,
        }
        return {**record, **self.consent.for_meta(), "identity": self.consent.identity, "in_consent_file": self.known}


@dataclass(frozen=True, kw_only=True)
class BuildSettings:
    """What every worker needs to know."""

    out: str
    features: tuple[str, ...] = ("logmel",)
    size: int = 512
    samples_per_shard: int = 32
    tracker: str = "shards.tracking:track_video"
    thumbnails: int = 3


@dataclass(frozen=True, kw_only=True)
class Task:
    """Clips for one worker, and the prefix of the shards that it writes."""

    prefix: str
    clips: tuple[Clip, ...]


@dataclass
class ClipRecord:
    """What became of a clip; one entry of the build report."""

    seconds: float = 0.0
    frames: int = 0
    segments: int = 0
    takes: int = 0
    tracked_fraction: float = 0.0
    sha256: str = ""
    quality: float = 0.0
    jitter: dict[str, float] = field(default_factory=dict)
    refused: list[dict[str, Any]] = field(default_factory=list)
    thumbnail: str | None = None

    def refuse(self, reason: str, start: float | None = None, end: float | None = None) -> None:
        """Note a part (seconds) or, without times, the whole clip as refused."""
        self.refused.append({"start": start, "end": end, "reason": reason})


def run_task(task: Task, settings: BuildSettings) -> Iterator[Message]:
    """Build all clips of a task into shards of their own."""
    records: list[dict[str, Any]] = []
    shards = None
    try:
        _check_shared(settings.out)
        shards = ShardSet(settings.out, task.prefix, samples_per_shard=settings.samples_per_shard)
        for clip in task.clips:
            yield ("start", clip.name)
            record = ClipRecord()
            yield from _build_clip(clip, settings, shards, record)
            shards.end_clip()
            records.append({**clip.as_dict(), **asdict(record), "prefix": task.prefix})
            entries = shards.take()
            if entries:
                yield ("commit", entries, records)
                records = []
        yield ("commit", shards.close(), records)
    except storage.StorageError as error:
        yield ("fatal", str(error))
    finally:
        if shards is not None:
            shards.abort()


def _build_clip(clip: Clip, settings: BuildSettings, shards: ShardSet, record: ClipRecord) -> Iterator[Message]:
    """Add a clip's samples to the shards; whatever is wrong with the video ends in the record, not in an error."""
    writer = _ClipWriter(clip, settings, shards, record)
    try:
        path = writer.path = storage.cached(clip.path)
        record.sha256 = storage.sha256(path)
        writer.source_sha256 = record.sha256
        with _tracker(settings.tracker)(path, _options(settings)) as video:
            record.seconds = video.frames / FPS
            for part in video.refusals:
                record.refuse(part.reason, part.start / FPS, part.end / FPS)
            for take in video:
                record.takes += 1
                for segment in take:
                    writer.push(segment)
                    yield ("progress", clip.name, min(1.0, record.frames / video.frames))
                writer.end_take()
                record.jitter = dict(getattr(take, "jitter", None) or record.jitter)
    except _OutputError as error:
        raise error.args[0] from None
    except ImportError as error:
        # The installation is incomplete, which is not the clip's fault: stop instead of refusing every clip.
        raise storage.StorageError(
            f"tracking needs {error.name or error}, which is absent; install headstart[track]"
        ) from None
    except InputError as error:
        record.refuse(str(error).removeprefix(f"{writer.path}: "))
    except Exception as error:  # a decoder that fails on one video must not end a build of thousands
        log.exception("clip %s", clip.name)
        record.refuse(f"tracking failed ({type(error).__name__}: {error}); report it with this clip")
    record.tracked_fraction = round(record.frames / FPS / record.seconds, 4) if record.seconds else 0.0
    if not record.frames and not record.refused:
        record.refuse("no usable frames were found")
    yield from _thumbnail(clip, settings, writer, record)


def _check_shared(out: str) -> None:
    """The builder made ``dataset.json`` before the first task: a worker that misses it writes to another disk."""
    if not storage.exists(storage.join(out, FILE)):
        raise storage.StorageError(
            f"{out}: a worker does not see this folder; with several machines use a shared file system or s3://"
        )


class _OutputError(Exception):
    """Carries a storage error of the output past the handlers that are about the input."""


class _ClipWriter:
    """Holds the segments of a take until their feature rows are final, then encodes and adds them."""

    def __init__(self, clip: Clip, settings: BuildSettings, shards: ShardSet, record: ClipRecord) -> None:
        self.clip, self.settings, self.shards, self.record = clip, settings, shards, record
        self.path: str | Path = clip.path
        self.source_sha256 = ""
        self.pictures: list[tuple[np.ndarray, np.ndarray]] = []
        self._streams: dict[str, FeatureStream] = {}
        self._held: deque[Any] = deque()

    def push(self, segment: Any) -> None:
        """Take a segment in; those before it may become final."""
        if not self._streams:
            self._streams = {name: FeatureStream(name) for name in self.settings.features}
            self._rows = {name: [] for name in self.settings.features}
        audio = np.asarray(segment.audio, np.float32)
        for name, stream in self._streams.items():
            self._rows[name].append(stream.push(audio))
        self._held.append(segment)
        self._emit()

    def end_take(self) -> None:
        """The last rows of a take are final: everything held goes out."""
        for name, stream in self._streams.items():
            self._rows[name].append(stream.finish())
        self._emit()
        self._streams = {}

    def _emit(self) -> None:
        while self._held:
            length = len(self._held[0].frames)
            rows = {name: np.concatenate(parts) for name, parts in self._rows.items()}
            if any(len(part) < length for part in rows.values()):
                return
            self._rows = {name: [part[length:]] for name, part in rows.items()}
            self._add(self._held.popleft(), {parse_feature(n)[0]: part[:length] for n, part in rows.items()})

    def _add(self, segment: Any, features: dict[str, np.ndarray]) -> None:
        clip, record, length = self.clip, self.record, len(segment.frames)
        key = sample_key(clip.consent.identity, clip.name, record.segments)
        meta = {
            **clip.consent.for_meta(),
            "first_frame": int(segment.first_frame),
            "take": record.takes - 1,
            "crop_box": [round(float(x), 3) for x in segment.crop_box],
            "has_audio": bool(segment.has_audio),
            "source_file": storage.basename(clip.path),
            "source_sha256": self.source_sha256,
            "tools": tool_versions(),
            "rig": default_rig(),
        }
        encoded = encode_sample(
            key,
            meta,
            frames=segment.frames,
            matte=segment.matte,
            track=segment.track,
            audio=np.asarray(segment.audio, np.float32)[: length * SAMPLES_PER_FRAME],
            features=features,
        )
        try:
            self.shards.add(key, encoded)
        except storage.StorageError as error:
            raise _OutputError(error) from None
        total = record.quality * record.frames + float(np.sum(segment.track["quality"]))
        record.frames, record.segments = record.frames + length, record.segments + 1
        record.quality = total / record.frames
        self._keep_picture(segment)

    def _keep_picture(self, segment: Any) -> None:
        """A frame now and then for the thumbnails: pictures are thinned to every second one when there are many."""
        self._stride = getattr(self, "_stride", 1)
        if (self.record.segments - 1) % self._stride == 0:
            middle = len(segment.frames) // 2
            self.pictures.append((segment.frames[middle].copy(), segment.track["landmarks"][middle].copy()))
        if len(self.pictures) > 2 * self.settings.thumbnails:
            self.pictures, self._stride = self.pictures[::2], self._stride * 2


def _thumbnail(clip: Clip, settings: BuildSettings, writer: _ClipWriter, record: ClipRecord) -> Iterator[Message]:
    from shards.build.report import overlay_strip

    if writer.pictures:
        chosen = np.linspace(0, len(writer.pictures) - 1, settings.thumbnails).round().astype(int)
        name = f"report/{clip.name}.jpg"
        data = overlay_strip([writer.pictures[i] for i in dict.fromkeys(chosen.tolist())])
        storage.write_bytes(storage.join(settings.out, name), data)
        record.thumbnail = name
    yield ("progress", clip.name, 1.0)


def _tracker(target: str) -> Any:
    from importlib import import_module

    module, _, name = target.partition(":")
    return getattr(import_module(module), name)


def _options(settings: BuildSettings) -> Any:
    if settings.tracker != BuildSettings.tracker:
        return settings
    from shards.tracking import TrackOptions

    return TrackOptions(size=settings.size)


@lru_cache
def tool_versions() -> dict[str, str]:
    """Versions of what shapes a sample."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for package in ("headstart", "mediapipe", "av", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found


@lru_cache
def default_rig() -> dict[str, str]:
    """Name and sha256 of the rig whose coefficients the tracker gives."""
    from heads.rig import load_rig

    rig = load_rig("mediapipe")
    return {"name": rig.name, "sha256": rig.sha256}


def task_prefix(clips: Sequence[Clip]) -> str:
    """Start of the names of a task's shards: the same for the same clips, so a repeated task overwrites its rests."""
    text = "\n".join(f"{clip.name} {clip.bytes} {clip.modified}" for clip in clips)
    return hashlib.sha256(text.encode()).hexdigest()[:12] + "-"
