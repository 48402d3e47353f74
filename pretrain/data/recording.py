"""Sequences that are read from the dataset once and iterated several times."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterable, Iterator

import numpy as np
from numpy.lib import format as npy

from pretrain.data.sequences import Sequence

MEMORY = 256 * 2**20  # bytes that stay in memory; more go to a temporary file


class Recording:
    """A repeatable iterable over sequences; ``source`` is read once, at the start of the first pass.

    Args:
        source: sequences, as from :func:`pretrain.data.sequences.sequences`.
        fields: track fields to keep.
        memory: bytes above which the rows are kept in a temporary file.
    """

    def __init__(self, source: Iterable[Sequence], fields: Collection[str], memory: int = MEMORY) -> None:
        self._source: Iterator[Sequence] | None = iter(source)
        self._fields = tuple(fields)
        self._file = tempfile.SpooledTemporaryFile(memory, prefix="headstart-recording-")  # noqa: SIM115 - kept
        self._heads: list[Sequence] = []

    def __iter__(self) -> Iterator[Sequence]:
        self._read()
        self._file.seek(0)
        for head in self._heads:
            features, *values = (npy.read_array(self._file, allow_pickle=False) for _ in (None, *self._fields))
            track = dict(zip(self._fields, values))
            yield Sequence(identity=head.identity, clip=head.clip, features=features, track=track, keys=head.keys)

    def _read(self) -> None:
        """Read the source; the heads keep only names and keys."""
        if self._source is None:
            return
        for run in self._source:
            for array in (run.features, *(run.track[name] for name in self._fields)):
                npy.write_array(self._file, np.ascontiguousarray(array), allow_pickle=False)
            self._heads.append(
                Sequence(identity=run.identity, clip=run.clip, features=run.features[:0], track={}, keys=run.keys)
            )
        self._source = None
