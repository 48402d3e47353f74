"""The index of a shard: where each member of each sample lies in the tar, so that reading is a ranged read.

One small NPZ beside each tar (``index/NAME.npz``); ``dataset.json`` holds its sha256. It is never trusted: the checksum
is compared when it is opened, ranges must lie inside the tar, and every member that is read must carry the tar header
and the CRC-32 that the index promises.
"""

from __future__ import annotations

import hashlib
import tarfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from configs import InputError
from shards import members
from shards.schema import MAX_FRAMES, MAX_NAME, frame_name, is_member, split_key

BLOCK = 512  # bytes of a tar header, which lies just before its member


@dataclass(frozen=True)
class ShardIndex:
    """Members of one tar, in file order.

    Attributes:
        keys: sample keys, n of them.
        frames: (n,) int32, frames of each sample.
        first: (n + 1,) int64, rows ``first[i]:first[i + 1]`` below are the members of sample i.
        suffixes: the different member names (``f000.jpg``, ...).
        suffix: (m,) uint16 into ``suffixes``.
        offset, length: (m,) int64, bytes of the member's data in the tar.
        crc: (m,) uint32, CRC-32 of the data.
    """

    keys: list[str]
    frames: np.ndarray
    first: np.ndarray
    suffixes: list[str]
    suffix: np.ndarray
    offset: np.ndarray
    length: np.ndarray
    crc: np.ndarray

    def rows(self, sample: int) -> dict[str, int]:
        """Member name → row, for one sample."""
        start, stop = int(self.first[sample]), int(self.first[sample + 1])
        return {self.suffixes[self.suffix[row]]: row for row in range(start, stop)}

    def to_bytes(self) -> bytes:
        """The file's content; the same bytes for the same tar."""
        values = {
            "keys": np.frombuffer("\n".join(self.keys).encode(), np.uint8),
            "frames": self.frames,
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
            index = cls(keys, values["frames"], values["first"], suffixes, *numbers)
            index._check()
        except (members.BadMember, KeyError, ValueError, IndexError) as error:
            raise bad_index(where, str(error)) from None
        return index

    def _check(self) -> None:
        rows = len(self.suffix)
        kinds = {
            name: getattr(self, name).dtype.kind for name in ("frames", "first", "suffix", "offset", "length", "crc")
        }
        if any(kind not in "iu" for kind in kinds.values()):
            raise ValueError(f"its tables are of kinds {kinds}, expected whole numbers")
        if not len(self.offset) == len(self.length) == len(self.crc) == rows or len(self.frames) != len(self.keys):
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


def bad_index(where: str, reason: str) -> InputError:
    """The one sentence about an index that cannot be used, with the command that makes it anew."""
    return InputError(
        f"{where}: not a usable index ({reason}); rebuild it with headstart shards verify DATASET --repair"
    )


def header_matches(header: bytes, name: str, length: int) -> bool:
    """Whether a tar header belongs to a regular file of this name and length."""
    try:
        stored = tarfile.TarInfo.frombuf(header, "utf-8", "strict")
    except (tarfile.HeaderError, UnicodeDecodeError):
        return False
    return stored.isreg() and stored.name == name and stored.size == length


def build_index(tar: Path) -> ShardIndex:
    """Index a tar by reading it once, member by member.

    Raises:
        InputError: not a tar, truncated, a member that is no plain file, has a name outside the schema (``../x``), or
            samples that are not contiguous.
    """
    table = _Table(str(tar))
    try:
        with tarfile.open(tar, "r:") as archive:
            for info in archive:
                table.add(info, archive.extractfile(info) if info.isreg() else None)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise InputError(f"{tar}: not a readable tar ({error}); fetch or build this shard again") from None
    return table.finish()


class _Table:
    """Collects members in file order."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.keys: list[str] = []
        self.names: list[list[tuple[str, int, int, int]]] = []
        self.seen: set[str] = set()

    def add(self, info: tarfile.TarInfo, stream) -> None:
        key, _, suffix = info.name.partition(".")
        if stream is None or not is_member(suffix) or len(info.name) > MAX_NAME:
            raise InputError(f"{self.where}: member '{info.name}' does not belong in a shard; do not use this file")
        split_key(key)
        if not self.keys or self.keys[-1] != key:
            if key in self.seen:
                raise InputError(f"{self.where}: members of sample '{key}' are not contiguous; build this shard again")
            self.seen.add(key)
            self.keys.append(key)
            self.names.append([])
        self.names[-1].append((suffix, info.offset_data, info.size, _crc(stream)))

    def finish(self) -> ShardIndex:
        rows = [row for sample in self.names for row in sample]
        suffixes = sorted({row[0] for row in rows})
        number = {name: i for i, name in enumerate(suffixes)}
        return ShardIndex(
            keys=self.keys,
            frames=np.array([_length(sample) for sample in self.names], np.int32),
            first=np.cumsum([0, *map(len, self.names)], dtype=np.int64),
            suffixes=suffixes,
            suffix=np.array([number[row[0]] for row in rows], np.uint16),
            offset=np.array([row[1] for row in rows], np.int64),
            length=np.array([row[2] for row in rows], np.int64),
            crc=np.array([row[3] for row in rows], np.uint32),
        )


def _crc(stream) -> int:
    crc = 0
    while block := stream.read(1 << 20):
        crc = zlib.crc32(block, crc)
    return crc


def _length(sample: Sequence[tuple[str, int, int, int]]) -> int:
    """Frames of a sample: how many of f000, f001, ... follow each other."""
    present = {row[0] for row in sample}
    return next((i for i in range(MAX_FRAMES + 1) if frame_name(i) not in present), MAX_FRAMES + 1)


def runs(index: ShardIndex, rows: Iterable[int], gap: int) -> list[list[int]]:
    """Rows grouped so that each group is one ranged read: neighbours at most ``gap`` bytes apart, by offset."""
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
