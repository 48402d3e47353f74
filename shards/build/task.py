"""What travels between the builder and its workers: clips, settings, tasks and results."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from cluster.storage import storage
from configs.records import FeatureRecord
from shards.format.schema import clean_name
from shards.people.consent import ConsentRecord
from shards.people.stated import Statements

Message = tuple[Any, ...]


@dataclass(frozen=True, kw_only=True)
class SourceClip:
    """A video to be built.

    Attributes:
        name: in sample keys.
        path: file or URL; for a clip of a tar a temporary file.
        bytes: length of the video.
        modified: modification time, ns; 0: unknown.
        consent: the record of the person in it.
        known: whether a consent file, or stated keys of a tar's JSON, say who is in it.
        tar: name of the tar that holds it, if any.
        member: ``TAR/KEY.ENDING`` of a clip of a tar.
        sound: file of its sound, if that is not in the video.
    """

    name: str
    path: str
    bytes: int
    modified: int
    consent: ConsentRecord
    known: bool = True
    tar: str = ""
    member: str = ""
    sound: str = ""

    @property
    def file(self) -> str:
        """Name of the video in messages and reports."""
        return self.member or storage.basename(self.path)

    def as_dict(self) -> dict[str, object]:
        """What the build report keeps of it; the path is reduced to the file's name."""
        record: dict[str, object] = {
            "clip": self.name,
            "file": self.file,
            "bytes": self.bytes,
            "modified": self.modified,
            **({"tar": self.tar} if self.tar else {}),
        }
        return {**record, **self.consent.for_meta(), "identity": self.consent.identity, "in_consent_file": self.known}


@dataclass(frozen=True, kw_only=True)
class BuildSettings:
    """What every worker needs to know.

    Attributes:
        out: folder or URL of the dataset.
        features: records of the audio features that every sample gets, see :attr:`shards.features.Feature.record`.
        rig: ``{"name", "sha256", "source"}`` of the rig whose coefficients the tracker gives.
        size: largest side of the frames, px.
        samples_per_shard: segments after which a shard ends at the next clip.
        tracker: ``module:function``.
        thumbnails: pictures per clip in the report.
        extras: whether shards that lack lips, motion or groups of pictures get them.
        in_step: whether sound that is late or early with confidence is moved into step with the lips.
        put_in_step: whether a :class:`FeatureTask` moves the sound of its shards instead of adding what they lack.
    """

    out: str
    features: tuple[FeatureRecord, ...] = ()
    rig: Mapping[str, str] = field(default_factory=dict)
    size: int = 512
    samples_per_shard: int = 32
    tracker: str = "shards.tracking:track_video"
    thumbnails: int = 3
    extras: bool = False
    in_step: bool = True
    put_in_step: bool = False


@dataclass(frozen=True, kw_only=True)
class TrackTask:
    """Clips for one worker, and the prefix of the shards that it writes."""

    prefix: str
    clips: tuple[SourceClip, ...]


def track_tasks(clips: list[SourceClip], workers: int) -> list[TrackTask]:
    """Several clips per task, so that shards are full, but enough tasks to keep all workers busy to the end."""
    each = max(1, min(16, len(clips) // (3 * max(1, workers)))) if workers > 1 else 16
    groups = [tuple(clips[at : at + each]) for at in range(0, len(clips), each)]
    return [TrackTask(prefix=task_prefix(group), clips=group) for group in groups]


@dataclass(frozen=True, kw_only=True)
class FeatureTask:
    """Shards that share no clip with other shards; they get the features that they lack, or their sound is put in step."""

    shards: tuple[str, ...]


@dataclass(frozen=True)
class SourceTar:
    """A tar of another tool: its name in keys, its path or URL, bytes and modification time in ns (0: unknown)."""

    name: str
    url: str
    bytes: int
    modified: int

    @property
    def file(self) -> str:
        """Name of the tar in messages and reports."""
        return tar_file(self.url)

    def clip_name(self, key: str) -> str:
        """Name of the clip of a sample, unique over all samples of all tars."""
        return f"{clean_name(key.rpartition('/')[2])[:27]}-{short_hash(f'{self.name}/{key}')}"


def tar_file(url: str) -> str:
    """File name of a tar by path or URL, without the query of a signed URL, which is a secret."""
    return PurePosixPath(urlsplit(url).path if storage.is_remote(url) else url).name


@dataclass(frozen=True, kw_only=True, eq=False)
class TarTask:
    """A tar for one worker, and the prefix of the shards that it writes.

    Attributes:
        done: records of its clips that were built before.
        held: SHA-256 of every video that is built → (clip, identity).
    """

    prefix: str
    tar: SourceTar
    statements: Statements
    done: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    held: Mapping[str, tuple[str, str]] = field(default_factory=dict)


Task = TrackTask | FeatureTask | TarTask


@dataclass
class ClipRecord:
    """The result for a clip: one entry of the build report.

    ``seconds`` is the length of the video, ``tracked_fraction`` (0 to 1) the part in samples, ``quality`` (0 to 1) the mean
    over frames, ``jitter`` in px per frame squared.
    """

    seconds: float = 0.0
    frames: int = 0
    segments: int = 0
    shots: int = 0
    tracked_fraction: float = 0.0
    sha256: str = ""
    quality: float = 0.0
    jitter: dict[str, float] = field(default_factory=dict)
    av_offset: float = 0.0  # s by which the sound was late and was moved back
    refused: list[dict[str, object]] = field(default_factory=list)
    thumbnail: str | None = None

    def refuse(self, reason: str, start: float | None = None, end: float | None = None) -> None:
        """Record a part (``start`` to ``end`` s) or, without times, the whole clip as refused."""
        self.refused.append({"start": start, "end": end, "reason": reason})


def same_video(record: Mapping[str, object], clip: SourceClip) -> bool:
    """A touched or copied file is the same one when its content is."""
    return bool(record["sha256"]) and storage.sha256(storage.cached(clip.path)) == record["sha256"]


def short_hash(text: str) -> str:
    """Eight hex digits of a text's sha256."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def task_prefix(clips: Sequence[SourceClip]) -> str:
    """Prefix of the names of a task's shards; equal clips give equal names, so a repeated task overwrites what it left."""
    text = "\n".join(f"{clip.name} {clip.bytes} {clip.modified}" for clip in clips)
    return hashlib.sha256(text.encode()).hexdigest()[:12] + "-"
