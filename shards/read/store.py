"""Bytes of a dataset's shards: the table of all shards, their indexes, and verified ranged reads of members."""

from __future__ import annotations

import os
import threading
import zlib
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from cluster.storage import storage
from configs import InputError
from shards.format.catalogue import Catalogue, ShardRow, index_url, shard_url, without_collection
from shards.format.index import BLOCK, ShardIndex, bad_index, digest, header_matches, runs
from shards.format.schema import BrokenSample

INDEXES_HELD = 600  # per process, about 60 kB each; more than the streams of a reader use at a time
FILES_HELD = 256  # open tars per process
REMOTE_GAP = 1 << 17  # bytes between members up to which one larger read is cheaper than two requests
LOCAL_GAP = 1 << 14  # the same for local files


IDENTITY, SOUND, SAMPLES, FRAMES, CLIPS = range(5)  # columns of the table of people


class ShardTable:
    """Columns of all shards; people of shard s are the rows ``first[s]:first[s + 1]`` of ``people``."""

    def __init__(self, catalogue: Catalogue) -> None:
        with without_collection():
            self._fill(catalogue.shards)

    def _fill(self, shards: list[ShardRow]) -> None:
        self.names = [shard["name"] for shard in shards]
        self.sha256 = [shard["sha256"] for shard in shards]
        self.index_sha256 = [shard["index_sha256"] for shard in shards]
        self.bytes = np.array([shard["bytes"] for shard in shards], np.int64)
        self.frames = np.array([shard["frames"] for shard in shards], np.int64)
        self.first = np.cumsum([0, *(len(shard["people"]) for shard in shards)], dtype=np.int64)
        rows = [row for shard in shards for row in shard["people"]]
        self.people = np.array(rows, np.int64).reshape(-1, 5)  # columns as above: IDENTITY to CLIPS
        self.shard_of = np.repeat(np.arange(len(shards)), np.diff(self.first))


class Store:
    """Ranged reads from the shards of a dataset; each member is verified against the index before it is returned."""

    def __init__(self, url: str, table: ShardTable, cache_dir: str | None, cache_limit: int) -> None:
        self.url, self.table = url, table
        self.cache_dir, self.cache_limit = cache_dir, cache_limit
        self.remote = storage.is_remote(url)
        self._reset()

    def __getstate__(self) -> dict[str, object]:
        return {k: v for k, v in self.__dict__.items() if not k.startswith("_")}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._indexes: OrderedDict[int, ShardIndex] = OrderedDict()
        self._files: OrderedDict[int, int] = OrderedDict()
        self._lock = threading.Lock()

    def index(self, shard: int) -> ShardIndex:
        """The index of a shard, checked against ``dataset.json``.

        Raises:
            InputError: missing, another checksum, or tables that contradict each other or the tar's size.
        """
        if self._pid != os.getpid():
            self._reset()  # a forked reader must not share file positions or locks with its parent
        with self._lock:
            if shard in self._indexes:
                self._indexes.move_to_end(shard)
                return self._indexes[shard]
        index = self._load_index(shard)
        with self._lock:
            self._indexes[shard] = index
            while len(self._indexes) > INDEXES_HELD:
                self._indexes.popitem(last=False)
        return index

    def _load_index(self, shard: int) -> ShardIndex:
        where = index_url(self.url, self.table.names[shard])
        checksum = self.table.index_sha256[shard]
        data = storage.shared_bytes(where, checksum) if self.remote else storage.read_bytes(where)
        if digest(data) != checksum:
            raise bad_index(where, "its sha256 differs from dataset.json")
        index = ShardIndex.from_bytes(data, where)
        if len(index.offset) and int((index.offset + index.length).max()) > self.table.bytes[shard]:
            raise bad_index(where, "a member lies behind the end of the tar")
        return index

    def fetch(self, shard: int, row: int, names: Sequence[str], within: Sequence[str] = ()) -> dict[str, bytes]:
        """Bytes of some members of one sample, in as few reads as possible.

        Args:
            within: members that lie side by side, ``names`` among them, and that other samples of this machine will want
                soon: where members come from a store, all of them are fetched at once and once for the machine.

        Raises:
            BrokenSample: the tar header or the checksum of a member is not what the index says.
            InputError: the shard cannot be read at all.
        """
        index = self.index(shard)
        key, rows = index.keys[row], index.rows(row)
        wanted = {rows[name]: name for name in names}
        shared = sorted(rows[name] for name in within if name in rows) if self.direct else []
        result = {}
        for group in [shared] if shared else runs(index, wanted, REMOTE_GAP if self.direct else LOCAL_GAP):
            start = int(index.offset[group[0]]) - BLOCK
            stop = int(index.offset[group[-1]] + index.length[group[-1]])
            data = self._read_shared(shard, start, stop) if shared else self._read(shard, start, stop)
            for member in sorted(wanted) if shared else group:
                at = int(index.offset[member]) - start
                header, piece = data[at - BLOCK : at], data[at : at + int(index.length[member])]
                name = wanted[member]
                reason = _damage(
                    header, piece, f"{key}.{name}".encode(), int(index.length[member]), int(index.crc[member])
                )
                if reason:
                    raise BrokenSample(key, name, reason, self.table.names[shard])
                result[name] = piece
        return result

    @property
    def direct(self) -> bool:
        """Whether members are read by requests to a store, not from files on this machine."""
        return self.remote and self.cache_dir is None

    def _read_shared(self, shard: int, start: int, stop: int) -> bytes:
        url = shard_url(self.url, self.table.names[shard])
        return storage.shared_range(url, self.table.index_sha256[shard], start, stop)

    def _read(self, shard: int, start: int, stop: int) -> bytes:
        url = shard_url(self.url, self.table.names[shard])
        if self.direct:
            return storage.read_bytes(url, start, stop)
        return os.pread(self._file(shard, url), stop - start, start)

    def _file(self, shard: int, url: str) -> int:
        with self._lock:
            if shard in self._files:
                self._files.move_to_end(shard)
                return self._files[shard]
        path = storage.cached(url, self.cache_dir, self.cache_limit) if self.remote else storage.local_path(url)
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror}; run headstart shards verify") from None
        with self._lock:
            if shard in self._files:  # another thread was faster
                os.close(descriptor)
                return self._files[shard]
            self._files[shard] = descriptor
            while len(self._files) > FILES_HELD:
                os.close(self._files.popitem(last=False)[1])
        return descriptor

    def close(self) -> None:
        """Close the tars held open."""
        with self._lock:
            while self._files:
                os.close(self._files.popitem()[1])


def _damage(header: bytes, piece: bytes, name: bytes, length: int, crc: int) -> str | None:
    if len(piece) != length:
        return f"{len(piece)} of {length} bytes are there: the tar is truncated; fetch or build it again"
    if not header_matches(header, name, length):
        return "the tar has something else where the index says it lies; run headstart shards verify"
    if zlib.crc32(piece) != crc:
        return "checksum differs: bytes were changed; fetch or build the shard again"
    return None
