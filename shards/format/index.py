"""The index of a shard: the offset of each member in the tar, so that members are read by ranged reads.

One small NPZ beside each tar (``index/NAME.npz``); ``dataset.json`` holds its sha256. It is never trusted: the checksum
is compared when it is opened, ranges must lie inside the tar, and every member that is read must carry the tar header
and the CRC-32 that the index promises.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np

from configs import InputError
from shards.format import codecs as members
from shards.format.schema import MAX_FRAMES, MAX_NAME, frame_name, is_member, split_key

BLOCK = 512  # bytes of a tar header, which lies just before its member
MAX_MEMBER = 1 << 26  # bytes; the largest honest member is a 4096 px frame
OnSample = Callable[[str, dict[str, bytes], int], None]


@dataclass(frozen=True)
class ShardIndex:
    """Members of one tar, in file order.

    Attributes:
        keys: sample keys, n of them.
        frames: ``[n]`` int32, frames of each sample.
        sound: ``[n]`` uint8, 0 where the clip had no sound and the sample's audio is all zeros.
        first: ``[n + 1]`` int64, rows ``first[i]:first[i + 1]`` below are the members of sample i.
        suffixes: the distinct member names (``f000.jpg``, ...).
        suffix: ``[m]`` uint16, position in ``suffixes`` of each member.
        offset: ``[m]`` int64, byte offset of the member's data in the tar.
        length: ``[m]`` int64, bytes of the data.
        crc: ``[m]`` uint32, CRC-32 of the data.
    """

    keys: list[str]
    frames: np.ndarray
    sound: np.ndarray
    first: np.ndarray
    suffixes: list[str]
    suffix: np.ndarray
    offset: np.ndarray
    length: np.ndarray
    crc: np.ndarray

    def rows(self, sample: int) -> dict[str, int]:
        """Member name → row, for one sample."""
        start, stop = int(self.first[sample]), int(self.first[sample + 1])
        return {self.suffixes[name]: row for row, name in enumerate(self.suffix[start:stop].tolist(), start)}

    @cached_property
    def people(self) -> dict[str, np.ndarray]:
        """Identity → positions ``[k]`` of its samples."""
        names = np.array([key.partition("/")[0] for key in self.keys])
        return {str(name): np.flatnonzero(names == name) for name in np.unique(names)}

    @cached_property
    def _position(self) -> dict[str, int]:
        return {key: i for i, key in enumerate(self.keys)}

    def checksums(self, key: str) -> dict[str, int]:
        """Member name → CRC-32 for one sample; empty if it is not in the index."""
        if key not in self._position:
            return {}
        return {name: int(self.crc[row]) for name, row in self.rows(self._position[key]).items()}

    def changed(self, key: str, checksums: Mapping[str, int]) -> str | None:
        """The first member of a sample that has another CRC-32 now, or none; None if all are as they were, or the sample is new."""
        return next((name for name, crc in self.checksums(key).items() if checksums.get(name) != crc), None)

    def to_bytes(self) -> bytes:
        """The file's content; the same bytes for the same tar."""
        values = {
            "keys": np.frombuffer("\n".join(self.keys).encode(), np.uint8),
            "frames": self.frames,
            "sound": self.sound,
            "first": self.first,
            "suffixes": np.frombuffer("\n".join(self.suffixes).encode(), np.uint8),
            "suffix": self.suffix,
            "offset": self.offset,
            "length": self.length,
            "crc": self.crc,
        }
        return members.encode_npz(values, compress=True)

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> ShardIndex:
        """Read and check an index.

        Raises:
            InputError: not an index, or its tables contradict each other.
        """
        try:
            values = members.decode_npz(data)
            keys = values["keys"].tobytes().decode("ascii").split("\n") if len(values["keys"]) else []
            suffixes = values["suffixes"].tobytes().decode("ascii").split("\n") if len(values["suffixes"]) else []
            numbers = [values[name] for name in ("suffix", "offset", "length", "crc")]
            index = cls(keys, values["frames"], values["sound"], values["first"], suffixes, *numbers)
            index._check()
        except (members.BadMember, KeyError, ValueError, IndexError) as error:
            raise bad_index(where, str(error)) from None
        return index

    def _check(self) -> None:
        rows = len(self.suffix)
        kinds = {
            name: getattr(self, name).dtype.kind
            for name in ("frames", "sound", "first", "suffix", "offset", "length", "crc")
        }
        if any(kind not in "iu" for kind in kinds.values()):
            raise ValueError(f"its tables are of kinds {kinds}, expected whole numbers")
        if not len(self.offset) == len(self.length) == len(self.crc) == rows or not len(self.frames) == len(
            self.sound
        ) == len(self.keys):
            raise ValueError("its tables have different lengths")
        steps = np.diff(self.first)
        if len(self.first) != len(self.keys) + 1 or self.first[0] != 0 or self.first[-1] != rows or (steps < 1).any():
            raise ValueError("its sample table does not cover its members")
        if rows and (
            self.offset.min() < BLOCK or self.length.min() < 0 or int(self.suffix.max()) >= len(self.suffixes)
        ):
            raise ValueError("a member lies outside the tar")
        if len(self.keys) and not (self.frames.min() >= 1 and self.frames.max() <= MAX_FRAMES):
            raise ValueError(f"a sample has not 1 to {MAX_FRAMES} frames")
        for key in self.keys:
            split_key(key)


def checksums_of(members: Mapping[str, bytes]) -> dict[str, int]:
    """Member name → CRC-32 of its bytes."""
    return {name: zlib.crc32(data) for name, data in members.items()}


def bad_index(where: str, reason: str) -> InputError:
    """The error for an index that cannot be used, with the command that rebuilds it."""
    return InputError(
        f"{where}: not a usable index ({reason}); rebuild it with headstart shards verify DATASET --repair"
    )


def header_matches(header: bytes, name: bytes, length: int) -> bool:
    """Whether a tar header belongs to a regular file of this name and length.

    tarfile's own parser takes twenty times as long. The header's checksum is not needed: the fields that matter are
    compared here, and the data has its own CRC.
    """
    if len(header) != BLOCK or header[:MAX_NAME].rstrip(b"\0") != name or header[156:157] not in (b"0", b"\0"):
        return False
    size = header[124:136].strip(b" \0")
    octal = size and not size.strip(b"01234567")
    return bool(octal) and int(size, 8) == length and header[345:500].strip(b"\0") == b""


def build_index(tar: Path) -> ShardIndex:
    """Index a local tar by reading it once; raises as :func:`index_of`."""
    with open(tar, "rb") as stream:
        return index_of(stream, str(tar))


def index_of(stream: Readable, where: str, on_sample: OnSample | None = None) -> ShardIndex:
    """Index a tar by reading it once from a stream; memory holds one sample.

    Args:
        on_sample: called as ``on_sample(key, members, frames)`` for every sample, with its members' bytes.

    Raises:
        InputError: not a tar, truncated, a member that is no plain file, is absurdly large or has a name outside the
            schema (``../x``), or samples that are not contiguous. ``on_sample`` has been called for the samples before.
    """
    table, whole = _Table(where, on_sample), WholeTar(stream, where)
    try:
        with tarfile.open(fileobj=whole, mode="r|") as archive:  # type: ignore[call-overload]
            for info in archive:
                table.check(info)
                table.add(info, archive.extractfile(info).read())  # type: ignore[union-attr]
                archive.members = []  # type: ignore[assignment]  # tarfile would remember every header
    except (tarfile.TarError, EOFError) as error:
        raise InputError(f"{where}: not a readable tar ({error}); fetch or build this shard again") from None
    whole.check_end()
    return table.finish()


class Readable(Protocol):
    """Anything that bytes are read from."""

    def read(self, size: int = -1, /) -> bytes: ...


class WholeTar:
    """A stream of a tar that can check whether the tar was read to its true end.

    A tar that is truncated between two members, or inside a header, looks complete to tarfile: only the two empty blocks
    that end every tar are missing.
    """

    def __init__(self, stream: Readable, where: str) -> None:
        self._stream, self._where, self._tail = stream, where, b""

    def read(self, size: int = -1) -> bytes:
        """Bytes of the stream."""
        data = self._stream.read(size)
        self._tail = data[-2 * BLOCK :] if len(data) >= 2 * BLOCK else (self._tail + data)[-2 * BLOCK :]
        return data

    def check_end(self) -> None:
        """Read the rest and check that it ends with two empty blocks.

        Raises:
            InputError: the tar is truncated.
        """
        while self.read(1 << 20):
            pass
        if self._tail != bytes(2 * BLOCK):
            raise InputError(
                f"{self._where}: the tar ends without its end mark, so it was cut and its last sample may be "
                "incomplete; fetch or build this shard again"
            )


class _Table:
    """Collects members in file order."""

    def __init__(self, where: str, on_sample: OnSample | None) -> None:
        self._where, self._on_sample = where, on_sample
        self._keys: list[str] = []
        self._rows: list[list[tuple[str, int, int, int]]] = []
        self._seen: set[str] = set()
        self._members: dict[str, bytes] = {}
        self._sound: list[int] = []

    def check(self, info: tarfile.TarInfo) -> None:
        """Refuse what does not belong in a shard before a byte of it is read."""
        key, _, suffix = info.name.partition(".")
        if not info.isreg() or not is_member(suffix) or len(info.name) > MAX_NAME:
            raise InputError(f"{self._where}: member '{info.name}' does not belong in a shard; do not use this file")
        split_key(key)
        if info.size > MAX_MEMBER:
            raise InputError(f"{self._where}: member '{info.name}' claims {info.size} bytes; do not use this file")

    def add(self, info: tarfile.TarInfo, data: bytes) -> None:
        key, _, suffix = info.name.partition(".")
        if not self._keys or self._keys[-1] != key:
            self._hand_out()
            if key in self._seen:
                raise InputError(f"{self._where}: members of sample '{key}' are not contiguous; build this shard again")
            self._seen.add(key)
            self._keys.append(key)
            self._rows.append([])
            self._sound.append(1)
        self._rows[-1].append((suffix, info.offset_data, info.size, zlib.crc32(data)))
        if suffix == "meta.json":
            self._sound[-1] = int(_has_sound(data))
        if self._on_sample is not None:
            self._members[suffix] = data

    def _hand_out(self) -> None:
        if self._on_sample is not None and self._members:
            self._on_sample(self._keys[-1], self._members, _length(self._rows[-1]))
            self._members = {}

    def finish(self) -> ShardIndex:
        self._hand_out()
        rows = [row for sample in self._rows for row in sample]
        suffixes = sorted({row[0] for row in rows})
        number = {name: i for i, name in enumerate(suffixes)}
        return ShardIndex(
            keys=self._keys,
            frames=np.array([_length(sample) for sample in self._rows], np.int32),
            sound=np.array(self._sound, np.uint8),
            first=np.cumsum([0, *map(len, self._rows)], dtype=np.int64),
            suffixes=suffixes,
            suffix=np.array([number[row[0]] for row in rows], np.uint16),
            offset=np.array([row[1] for row in rows], np.int64),
            length=np.array([row[2] for row in rows], np.int64),
            crc=np.array([row[3] for row in rows], np.uint32),
        )


def _has_sound(meta: bytes) -> bool:
    try:
        value = json.loads(meta)
    except ValueError:
        return True  # the sample is refused when its meta.json is read
    return not isinstance(value, dict) or bool(value.get("has_audio", True))


def _length(sample: Sequence[tuple[str, int, int, int]]) -> int:
    """Frames of a sample: how many of f000, f001, ... follow each other."""
    present = {row[0] for row in sample}
    return next((i for i in range(MAX_FRAMES + 1) if frame_name(i) not in present), MAX_FRAMES + 1)


def runs(index: ShardIndex, rows: Iterable[int], gap: int) -> list[list[int]]:
    """Rows grouped so that each group is one ranged read: members at most ``gap`` bytes apart, in order of offset."""
    groups: list[list[int]] = []
    end = None
    for row in sorted(rows, key=lambda row: index.offset[row]):
        if end is None or index.offset[row] - BLOCK - end > gap:
            groups.append([])
        groups[-1].append(row)
        end = index.offset[row] + index.length[row]
    return groups


def digest(data: bytes) -> str:
    """sha256 of an index file."""
    return hashlib.sha256(data).hexdigest()
