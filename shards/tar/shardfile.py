"""Writing samples into tars: one shard, and sets of shards that hold whole clips."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster.storage import storage
from cluster.storage.errors import sentence
from shards.format.catalogue import ShardEntry, index_url, shard_url
from shards.format.groups import group_name, is_group, stated_groups
from shards.format.index import build_index, digest
from shards.format.schema import frame_name, matte_name, split_key
from shards.format.small import LIPS, MOTION
from shards.tar.tars import TarFile

SAMPLES_PER_SHARD = 32  # about a minute of video, 50 to 100 MB at 512 px
MAX_SHARD_BYTES = 1 << 28  # 256 MiB, after which a shard ends at the next clip


@contextmanager
def _writing(url: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise sentence(url, "write", error) from error


class ShardFile:
    """One shard being written in a scratch folder and then published with its index.

    Args:
        url: the dataset.
        name: of the shard, without folder and ending.
        scratch: local folder for the growing tar.
    """

    def __init__(self, url: str, name: str, scratch: Path) -> None:
        self.url, self.name = url, name
        self.samples = self.frames = 0
        self._path = scratch / f"{name}.tar"
        self._people: dict[tuple[str, int], list[Any]] = {}
        with _writing(url):
            self._tar = TarFile(self._path)

    def full(self, samples: int, times: int = 1) -> bool:
        """Whether it has reached ``times`` the given number of samples, or ``times`` ``MAX_SHARD_BYTES``."""
        return self.samples >= times * samples or self._tar.tell() >= times * MAX_SHARD_BYTES

    def add(self, key: str, encoded: Mapping[str, bytes], new_clip: bool) -> None:
        """Append one sample; ``new_clip``: it is the first of its clip, which is counted in this shard."""
        length = sum(name.endswith(".jpg") for name in encoded)
        with _writing(self.url):
            for part in (*_in_front(encoded), *_pictures(encoded, length)):
                if part:
                    self._tar.write(key, part)
        meta = json.loads(encoded["meta.json"])
        who = (split_key(key)[0], int(bool(meta.get("has_audio", True))))
        person = self._people.setdefault(who, [0, 0, 0, set(), set()])
        person[0] += 1
        person[1] += length
        person[2] += new_clip
        person[3].add(str(meta.get("licence") or "unknown"))
        person[4].add(str(meta.get("consent") or "unknown"))
        self.samples, self.frames = self.samples + 1, self.frames + length

    def publish(self) -> ShardEntry:
        """Finish the tar, publish it and its index, and return the entry for ``dataset.json``."""
        with _writing(self.url):
            self._tar.close()
        index = build_index(self._path).to_bytes()
        storage.publish(self._path, shard_url(self.url, self.name))
        storage.write_bytes(index_url(self.url, self.name), index)
        entry = ShardEntry(
            name=self.name,
            sha256=storage.sha256(self._path),
            bytes=self._path.stat().st_size,
            samples=self.samples,
            frames=self.frames,
            index_sha256=digest(index),
            people=[[*who, *row[:3], sorted(row[3]), sorted(row[4])] for who, row in sorted(self._people.items())],
        )
        os.unlink(self._path)
        return entry

    def abort(self) -> None:
        """Discard the tar."""
        self._tar.abandon()
        self._path.unlink(missing_ok=True)


def _in_front(encoded: Mapping[str, bytes]) -> list[dict[str, bytes]]:
    """The members that are no pictures, with what one prior reads side by side: lips and features, features and motion."""
    rest = {name: data for name, data in encoded.items() if not name.endswith((".jpg", ".png")) and not is_group(name)}
    lips, motion = ({name: rest.pop(name)} if name in rest else {} for name in (LIPS, MOTION))
    features = {name: rest.pop(name) for name in list(rest) if name.startswith("audio.") and name.endswith(".npy")}
    return [rest, lips, features, motion]


def _pictures(encoded: Mapping[str, bytes], length: int) -> list[dict[str, bytes]]:
    """A frame beside its matte, in groups behind the rows of their track, or in the order of time where there are none."""
    pairs = [{name(i): encoded[name(i)] for name in (frame_name, matte_name)} for i in range(length)]
    if not (groups := stated_groups(encoded, length)):
        return [{name: data for name, data in encoded.items() if is_group(name)}, *pairs]
    parts = []
    for number, frames in enumerate(groups):
        name = group_name(number)
        parts += [{name: encoded[name]}, *(pairs[i] for i in frames)]
    return parts


class ShardSet:
    """Writes samples into tars of about ``samples_per_shard``, which are published but not yet listed anywhere.

    :meth:`take` never returns half a clip: a shard in which a clip continues ends with that clip. So a commit holds whole
    clips only.

    Args:
        url: the dataset's folder or ``s3://`` URL.
        prefix: start of the shards' names; unique in the dataset.
    """

    def __init__(self, url: str, prefix: str, *, samples_per_shard: int = SAMPLES_PER_SHARD) -> None:
        self.url, self.prefix, self.samples_per_shard = str(url), prefix, samples_per_shard
        self._number = 0
        self._scratch = storage.scratch(self.url)
        self._open: ShardFile | None = None
        self._clip: tuple[str, str] | None = None
        self._spanning = False
        self._published: list[ShardEntry] = []
        self._whole: list[ShardEntry] = []

    def add(self, key: str, encoded: Mapping[str, bytes]) -> None:
        """Append the members of one sample (see :func:`encode_sample`); a new clip may start a new shard."""
        identity, clip, _ = split_key(key)
        new_clip = (identity, clip) != self._clip
        if new_clip:
            self.end_clip()
        elif self._open is not None and self._open.full(self.samples_per_shard, times=2):
            self._finish()  # only a long clip is cut: shards of many short clips end where a clip ends
            self._spanning = True
        if self._open is None:
            self._open = ShardFile(self.url, f"{self.prefix}{self._number:05d}", self._scratch)
            self._number += 1
        self._open.add(key, encoded, new_clip)
        self._clip = (identity, clip)

    def end_clip(self) -> None:
        """The current clip is complete; the shard ends here when it is full or continues a clip from another one."""
        self._clip = None
        if self._open is not None and (self._spanning or self._open.full(self.samples_per_shard)):
            self._finish()
        if self._open is None:
            self._whole += self._published
            self._published, self._spanning = [], False

    def take(self) -> list[ShardEntry]:
        """Entries of published shards that hold whole clips only, each given once."""
        taken, self._whole = self._whole, []
        return taken

    def close(self) -> list[ShardEntry]:
        """End the last clip and shard; the entries not yet taken."""
        try:
            if self._open is not None:
                self._finish()
            self.end_clip()
            return self.take()
        finally:
            self.abort()

    def abort(self) -> None:
        """Discard the open shard and temporary files."""
        if self._open is not None:
            self._open.abort()
            self._open = None
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _finish(self) -> None:
        shard, self._open = self._open, None
        self._published.append(shard.publish())  # type: ignore[union-attr]
