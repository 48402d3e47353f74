"""Writes the segments of one clip into shards: aligns features, encodes members, keeps thumbnails for the report."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from cluster.storage import storage
from configs import InputError
from shards.build.task import BuildSettings, ClipRecord, SourceClip
from shards.features.base import RowStream
from shards.features.registry import open_feature
from shards.format.codecs import encode_jpeg
from shards.format.encode import encode_sample
from shards.format.schema import sample_key
from shards.media.rates import SAMPLES_PER_FRAME
from shards.tar.shardfile import ShardSet


class OutputError(Exception):
    """Carries a storage error of the output past the handlers that are about the input."""


@dataclass(frozen=True)
class _Waiting:
    """A segment whose feature rows are not final yet; its frames are JPEGs, which take a twentieth of the memory."""

    pictures: list[bytes]
    middle: np.ndarray  # the frame [H, W, 3] uint8 in the middle, for the report
    segment: Any  # as the tracker gave it, without its frames

    @classmethod
    def of(cls, segment: Any) -> _Waiting:
        """Encode the frames of a segment and drop the arrays."""
        if np.shape(segment.frames)[:3] != np.shape(segment.matte):
            raise InputError(f"frames {np.shape(segment.frames)} and matte {np.shape(segment.matte)} disagree")
        pictures = [encode_jpeg(frame) for frame in segment.frames]
        middle = segment.frames[len(pictures) // 2].copy()
        return cls(pictures, middle, replace(segment, frames=None))


class ClipWriter:
    """Holds the segments of a shot until their feature rows are final, then encodes and adds them."""

    def __init__(self, clip: SourceClip, settings: BuildSettings, shards: ShardSet, record: ClipRecord) -> None:
        self.clip, self.settings, self.shards, self.record = clip, settings, shards, record
        self.path: str | Path = clip.path
        self.source_sha256 = ""
        self.pictures: list[tuple[np.ndarray, np.ndarray]] = []
        self._features = [open_feature(record) for record in settings.features]
        self._streams: dict[str, RowStream] = {}
        self._rows: dict[str, list[np.ndarray]] = {}
        self._held: deque[_Waiting] = deque()
        self._stride = 1  # every _stride-th segment gives a picture

    def push(self, segment: Any) -> None:
        """Take a segment in; those before it may become final."""
        if not self._streams:
            self._streams = {feature.name: feature.stream() for feature in self._features}
            self._rows = {feature.name: [] for feature in self._features}
        audio = np.asarray(segment.audio, np.float32)
        for name, stream in self._streams.items():
            self._rows[name].append(stream.push(audio))
        self._held.append(_Waiting.of(segment))
        self._emit()

    def end_shot(self) -> None:
        """End the shot: its last rows are final, and everything held is written."""
        for name, stream in self._streams.items():
            self._rows[name].append(stream.finish())
        self._emit()
        self._streams = {}

    def _emit(self) -> None:
        while self._held:
            length = len(self._held[0].pictures)
            rows = {name: np.concatenate(parts) for name, parts in self._rows.items()}
            if any(len(part) < length for part in rows.values()):
                return
            self._rows = {name: [part[length:]] for name, part in rows.items()}
            self._add(self._held.popleft(), {name: part[:length] for name, part in rows.items()})

    def _add(self, waiting: _Waiting, features: dict[str, np.ndarray]) -> None:
        clip, record, segment = self.clip, self.record, waiting.segment
        length = len(waiting.pictures)
        key = sample_key(clip.consent.identity, clip.name, record.segments)
        meta = {
            **clip.consent.for_meta(),
            "first_frame": int(segment.first_frame),
            "shot": record.shots - 1,
            "crop_box": [round(float(x), 3) for x in segment.crop_box],
            "has_audio": bool(segment.has_audio),
            **_offset_entries(segment),
            "source_file": clip.file,
            "source_sha256": self.source_sha256,
            "tools": tool_versions(),
            "rig": dict(self.settings.rig),
        }
        encoded = encode_sample(
            key,
            meta,
            frames_jpeg=waiting.pictures,
            matte=segment.matte,
            track=segment.track,
            audio=np.asarray(segment.audio, np.float32)[: length * SAMPLES_PER_FRAME],
            features=features,
        )
        try:
            self.shards.add(key, encoded)
        except storage.StorageError as error:
            raise OutputError(error) from None
        total = record.quality * record.frames + float(np.sum(segment.track["quality"]))
        record.frames, record.segments = record.frames + length, record.segments + 1
        record.quality = total / record.frames
        self._keep_picture(waiting)

    def _keep_picture(self, waiting: _Waiting) -> None:
        """A frame now and then for the thumbnails: pictures are thinned to every second one when there are many."""
        if (self.record.segments - 1) % self._stride == 0:
            middle = len(waiting.pictures) // 2
            self.pictures.append((waiting.middle, waiting.segment.track["landmarks"][middle].copy()))
        if len(self.pictures) > 2 * self.settings.thumbnails:
            self.pictures, self._stride = self.pictures[::2], self._stride * 2


def _offset_entries(segment: object) -> dict[str, float]:
    """Entries of ``meta.json`` about the offset by which the sound was moved; none if the tracker gives none."""
    offset = getattr(segment, "av_offset", None)
    return {} if offset is None else {"av_offset": offset.seconds, "av_offset_confidence": offset.confidence}


@lru_cache
def tool_versions() -> dict[str, str]:
    """Versions of the packages that shape a sample."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for package in ("headstart", "mediapipe", "av", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found
