"""Writing datasets: samples into tars, tars into a folder or bucket, and ``dataset.json`` as the only truth.

A shard counts from the moment ``dataset.json`` lists it, and that file is replaced in one piece. So a writer that dies
at any point leaves the dataset as it was at its last commit; the rest is files that nobody lists.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from cluster import storage
from configs import InputError
from shards import members
from shards.catalogue import Catalogue, ShardEntry, index_url, read_catalogue, shard_url, write_catalogue
from shards.index import build_index, digest
from shards.schema import (
    FPS,
    MAX_FRAMES,
    SAMPLES_PER_FRAME,
    SCHEMA,
    BrokenSample,
    check_features,
    check_meta,
    check_track,
    feature_name,
    frame_name,
    matte_name,
    split_key,
)
from shards.tars import TarFile

SAMPLES_PER_SHARD = 32  # about a minute of video, 50 to 100 MB at 512 px
MAX_SHARD_BYTES = 1 << 28


def encode_sample(
    key: str,
    meta: Mapping[str, Any],
    *,
    frames: np.ndarray | None = None,
    frames_jpeg: Sequence[bytes] | None = None,
    matte: np.ndarray,
    track: Mapping[str, np.ndarray],
    audio: np.ndarray,
    features: Mapping[str, np.ndarray],
) -> dict[str, bytes]:
    """Check one segment and encode its members.

    Args:
        key: ``IDENTITY/CLIP-00007``.
        meta: entries for ``meta.json``; schema, identity, clip, frames, fps and size are filled in.
        frames: (T, H, W, 3) uint8 RGB, or ``frames_jpeg``: T JPEG files of quality 95 or better.
        matte: (T, H, W) uint8 person alpha.
        track: float32 fields of :data:`shards.schema.TRACK_SHAPES`.
        audio: (T * 640,) float32 in [-1, 1], 16 kHz.
        features: name → (T, C); stored as float16.

    Raises:
        BrokenSample: lengths that disagree, wrong shapes, values that are not finite.
    """
    identity, clip, _ = split_key(key)
    if (frames is None) == (frames_jpeg is None):
        raise InputError(f"sample '{key}': pass either frames or frames_jpeg")
    pictures = [members.encode_jpeg(f) for f in frames] if frames is not None else list(frames_jpeg or ())
    height, width = np.asarray(matte).shape[1:3] if np.ndim(matte) == 3 else (0, 0)
    filled = {
        "licence": "unknown",
        "consent": "unknown",
        "source": "",
        "first_frame": 0,
        **meta,
        "schema": SCHEMA,
        "identity": identity,
        "clip": clip,
        "frames": len(pictures),
        "fps": FPS,
        "size": [int(width), int(height)],
    }
    _check_lengths(key, pictures, frames, matte, audio)
    check_meta(key, filled)
    check_track(key, track, len(pictures))
    encoded = {
        "audio.flac": members.encode_flac(np.asarray(audio, np.float32)),
        "meta.json": json.dumps(filled, sort_keys=True).encode(),
        "track.npz": members.encode_npz({name: np.ascontiguousarray(track[name]) for name in sorted(track)}),
    }
    for name, value in features.items():
        half = np.ascontiguousarray(value, np.float16)
        check_features(key, name, half, len(pictures))
        encoded[feature_name(name)] = members.encode_npy(half)
    for i, picture in enumerate(pictures):
        encoded[frame_name(i)] = picture
        encoded[matte_name(i)] = members.encode_png(np.asarray(matte[i], np.uint8))
    return encoded


def _check_lengths(key: str, pictures: list[bytes], frames: Any, matte: Any, audio: Any) -> None:
    length = len(pictures)
    if not 1 <= length <= MAX_FRAMES:
        raise BrokenSample(key, "f000.jpg", f"{length} frames, expected 1 to {MAX_FRAMES}")
    if np.ndim(matte) != 3 or len(matte) != length:
        raise BrokenSample(key, "m000.png", f"matte has shape {np.shape(matte)}, expected ({length}, H, W)")
    if frames is not None and tuple(np.shape(frames)) != (*np.shape(matte), 3):
        raise BrokenSample(key, "f000.jpg", f"frames have shape {np.shape(frames)}, the matte {np.shape(matte)}")
    expected = (length * SAMPLES_PER_FRAME,)
    if np.shape(audio) != expected:
        raise BrokenSample(key, "audio.flac", f"audio has shape {np.shape(audio)}, expected {expected}")
    if not np.isfinite(audio).all():
        raise BrokenSample(key, "audio.flac", "audio holds values that are not finite")


@contextmanager
def _writing(url: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        cure = "free some space and run the same command again" if full else "check the folder's owner and mode"
        raise storage.StorageError(f"cannot write {url}: {error.strerror}; {cure}") from error


class ShardSet:
    """Samples into tars of about ``samples_per_shard``, published but not yet listed anywhere.

    A clip is never left half in a finished set: when a clip had to continue in another shard, that shard ends with the
    clip. So a commit after :meth:`take` holds whole clips only.

    Args:
        url: the dataset's folder or ``s3://`` URL.
        prefix: start of the shards' names; unique in the dataset.
    """

    def __init__(self, url: str, prefix: str, *, samples_per_shard: int = SAMPLES_PER_SHARD) -> None:
        self.url, self.prefix, self.samples_per_shard = str(url), prefix, samples_per_shard
        self._number = 0
        self._scratch = storage.scratch(self.url)
        self._tar: TarFile | None = None
        self._people: dict[str, list[Any]] = {}
        self._clip: tuple[str, str] | None = None
        self._spanning = False
        self._count = self._frames = 0
        self._published: list[ShardEntry] = []
        self._whole: list[ShardEntry] = []

    def add(self, key: str, encoded: Mapping[str, bytes]) -> None:
        """Append the members of one sample (see :func:`encode_sample`); a new clip may start a new shard."""
        identity, clip, _ = split_key(key)
        new_clip = (identity, clip) != self._clip
        if new_clip:
            self.end_clip()
        elif self._full(2):  # only a long clip is cut: shards of many short clips end where a clip ends
            self._finish_shard()
            self._spanning = True
        with _writing(self.url):
            self._write(key, encoded)
        self._note(identity, json.loads(encoded["meta.json"]), new_clip)
        self._clip = (identity, clip)

    def end_clip(self) -> None:
        """The current clip is complete; the shard ends here when it is full or continues a clip from another one."""
        self._clip = None
        if self._tar is not None and (self._spanning or self._full()):
            self._finish_shard()
        if self._tar is None:
            self._whole += self._published
            self._published, self._spanning = [], False

    def take(self) -> list[ShardEntry]:
        """Entries of published shards that hold whole clips only, each given once."""
        taken, self._whole = self._whole, []
        return taken

    def close(self) -> list[ShardEntry]:
        """End the last clip and shard; the entries not yet taken."""
        try:
            self._clip = None
            if self._tar is not None:
                self._finish_shard()
            self._whole += self._published
            self._published = []
            return self.take()
        finally:
            self.abort()

    def abort(self) -> None:
        """Throw away the open shard and temporary files."""
        if self._tar is not None:
            self._tar.close()
            self._tar = None
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _full(self, times: int = 1) -> bool:
        if self._tar is None:
            return False
        return self._count >= times * self.samples_per_shard or self._tar.tell() >= times * MAX_SHARD_BYTES

    def _write(self, key: str, encoded: Mapping[str, bytes]) -> None:
        if self._tar is None:
            self._tar = TarFile(self._scratch / "open.tar")
        length = sum(name.endswith(".jpg") for name in encoded)
        pairs = [{name(i): encoded[name(i)] for name in (frame_name, matte_name)} for i in range(length)]
        small = {name: data for name, data in encoded.items() if not name.endswith((".jpg", ".png"))}
        for part in (small, *pairs):  # a frame beside its matte, and what every view needs in one piece in front
            self._tar.write(key, part)

    def _note(self, identity: str, meta: Mapping[str, Any], new_clip: bool) -> None:
        person = self._people.setdefault(identity, [0, 0, 0, set(), set()])
        person[0] += 1
        person[1] += meta["frames"]
        person[2] += new_clip
        person[3].add(str(meta.get("licence") or "unknown"))
        person[4].add(str(meta.get("consent") or "unknown"))
        self._count += 1
        self._frames += meta["frames"]

    def _finish_shard(self) -> None:
        name = f"{self.prefix}{self._number:05d}"
        path = self._scratch / "open.tar"
        with _writing(self.url):
            self._tar.close()  # type: ignore[union-attr]
        self._tar = None
        index = build_index(path).to_bytes()
        storage.publish(path, shard_url(self.url, name))
        storage.write_bytes(index_url(self.url, name), index)
        people = {k: [*v[:3], sorted(v[3]), sorted(v[4])] for k, v in self._people.items()}
        self._published.append(
            ShardEntry(
                name=name,
                sha256=storage.sha256(path),
                bytes=path.stat().st_size,
                samples=self._count,
                frames=self._frames,
                index_sha256=digest(index),
                people=people,
            )
        )
        os.unlink(path)
        self._number += 1
        self._people, self._count, self._frames = {}, 0, 0


class DatasetWriter:
    """Adds samples to a dataset, new or existing; use it as a context manager.

    Args:
        url: folder or ``s3://`` URL.
        samples_per_shard: a shard is closed at the first clip boundary after so many samples.
        rig: ``{"name", "sha256"}`` or a :class:`heads.rig.Rig`: the rig that the coefficients belong to.

    Every commit (a full shard, :meth:`close`) leaves a valid dataset. Opening it again and adding more goes on from
    there; :meth:`has` tells what need not be added again.

    Raises:
        InputError: the output cannot be written, the disk is full, a key exists, or sizes differ from the dataset's.
    """

    def __init__(self, url: str | Path, *, samples_per_shard: int = SAMPLES_PER_SHARD, rig: Any = None) -> None:
        self.url = str(url)
        self._catalogue = read_catalogue(self.url) if storage.exists(storage.join(self.url, "dataset.json")) else None
        if self._catalogue is None:
            self._catalogue = Catalogue.empty()
            write_catalogue(self.url, self._catalogue)  # an output that cannot be written is found now, not in an hour
        self._catalogue.adopt_rig(rig_record(rig))
        self._keys: set[str] | None = None
        number = len(self._catalogue.shards)
        while f"part{number:05d}-00000" in self._catalogue.names():
            number += 1
        self._set = ShardSet(self.url, f"part{number:05d}-", samples_per_shard=samples_per_shard)

    def has(self, key: str) -> bool:
        """Whether the dataset holds this sample already."""
        if self._keys is None:
            from shards.dataset import open_dataset

            self._keys = {row.key for row in open_dataset(self.url).samples}
        return key in self._keys

    def add(self, key: str, meta: Mapping[str, Any], **parts: Any) -> None:
        """Check, encode and append one sample; the arguments are those of :func:`encode_sample`.

        Samples of one clip must follow each other.
        """
        if self.has(key):
            raise InputError(f"sample '{key}' is in {self.url} already; choose another clip name or another folder")
        encoded = encode_sample(key, {**self._catalogue.rig_entry(), **meta}, **parts)
        track, features = parts["track"], parts["features"]
        self._catalogue.adopt_sizes(
            {name: int(np.shape(value)[1]) for name, value in features.items()},
            {"identity": len(track["identity"]), "expression": np.shape(track["expression"])[1]},
        )
        self._set.add(key, encoded)
        self._keys.add(key)  # type: ignore[union-attr]
        self._commit(self._set.take())

    def close(self) -> None:
        """Publish the last shard and commit."""
        self._commit(self._set.close())

    def abort(self) -> None:
        """Forget what was added since the last commit."""
        self._set.abort()

    def _commit(self, entries: list[ShardEntry]) -> None:
        if entries:
            self._catalogue.add(entries)
            write_catalogue(self.url, self._catalogue)

    def __enter__(self) -> DatasetWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()


def rig_record(rig: Any) -> dict[str, str] | None:
    """Name and sha256 of a rig, given as a mapping, as a rig object, or not at all."""
    if rig is None or isinstance(rig, Mapping):
        return dict(rig) if rig is not None else None
    return {"name": str(rig.name), "sha256": str(rig.sha256)}
