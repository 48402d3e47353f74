"""Writing datasets: a shard is valid once ``dataset.json`` lists it, and that file is replaced atomically.

So a writer that dies at any point leaves the dataset at its last commit; other files are not in the catalogue.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from cluster.storage import storage
from configs import InputError
from heads.rig import Rig
from shards.format.catalogue import FILE, Catalogue, ShardEntry, read_catalogue, write_catalogue
from shards.format.encode import encode_sample
from shards.format.schema import split_key
from shards.people.withdrawn import withdrawn_people
from shards.read.dataset import open_dataset
from shards.tar.shardfile import SAMPLES_PER_SHARD, ShardSet


class DatasetWriter:
    """Adds samples to a dataset, new or existing; use it as a context manager.

    Args:
        url: folder or ``s3://`` URL.
        samples_per_shard: a shard is closed at the first clip boundary after this many samples.
        rig: ``{"name", "sha256"}`` or a :class:`heads.rig.Rig`: the rig that the coefficients belong to.

    Every commit (when a shard is full, and :meth:`close`) leaves a valid dataset. A new writer continues from there;
    :meth:`has` tells what need not be added again.

    Raises:
        InputError: the output cannot be written, the disk is full, a key exists, or sizes differ from the dataset's.
    """

    def __init__(
        self, url: str | Path, *, samples_per_shard: int = SAMPLES_PER_SHARD, rig: Rig | Mapping[str, str] | None = None
    ) -> None:
        self.url = str(url)
        new = not storage.exists(storage.join(self.url, FILE))
        self._catalogue = Catalogue.empty() if new else read_catalogue(self.url)
        if new:
            write_catalogue(self.url, self._catalogue)  # an output that cannot be written is found now, not in an hour
        self._catalogue.adopt_rig(rig_record(rig))
        self._keys: set[str] | None = None
        self._withdrawn = withdrawn_people(self.url)
        number = len(self._catalogue.shards)
        while f"part{number:05d}-00000" in self._catalogue.names():
            number += 1
        self._set = ShardSet(self.url, f"part{number:05d}-", samples_per_shard=samples_per_shard)

    def has(self, key: str) -> bool:
        """Whether the dataset holds this sample already."""
        if self._keys is None:
            self._keys = {row.key for row in open_dataset(self.url).samples}
        return key in self._keys

    def add(self, key: str, meta: Mapping[str, Any], **parts: Any) -> None:
        """Check, encode and append one sample; the arguments are those of :func:`encode_sample`.

        Samples of one clip must follow each other. Raises as the class.
        """
        if self.has(key):
            raise InputError(f"sample '{key}' is in {self.url} already; choose another clip name or another folder")
        if self._withdrawn.covers(split_key(key)[0]):
            raise InputError(f"sample '{key}': this person was withdrawn from {self.url}; leave them out")
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
        """Discard what was added since the last commit."""
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


def rig_record(rig: Rig | Mapping[str, str] | None) -> dict[str, str] | None:
    """Name, sha256 and source of a rig, given as a mapping, as a rig object, or not at all."""
    return rig.record if isinstance(rig, Rig) else None if rig is None else dict(rig)
