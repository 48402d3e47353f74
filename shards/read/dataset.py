"""Opening a dataset: the table of shards at once, indexes and members of samples on demand.

Opening costs one read of ``dataset.json`` whatever the number of samples; 100,000 shards open in under two seconds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, overload

import numpy as np

from cluster.storage import storage
from configs import InputError, nearest
from shards.format.catalogue import Catalogue, index_url, known_people, read_catalogue
from shards.format.index import ShardIndex, bad_index
from shards.format.schema import SCHEMA, Sample, split_key
from shards.media.rates import FPS
from shards.read.store import CLIPS, FRAMES, IDENTITY, SAMPLES, SOUND, ShardTable, Store

NONE = np.zeros(0, np.int64)  # positions of a person who is not in a shard


@dataclass(frozen=True)
class SampleRow:
    """One row of the sample table."""

    key: str
    identity: str
    clip: str
    frames: int
    shard: str


class Dataset:
    """A dataset, or the part of it that belongs to some identities (see :meth:`split`).

    Attributes:
        url: its folder or URL.
        features: name → width of the audio features.
        feature_records: name → record with which :func:`shards.features.open_feature` opens the feature.
        rig: ``{"name", "sha256", "source"}`` of the rig, or None; version 0.1 kept no source.
        track: coefficient counts ``{"identity", "expression"}``.
        identities: names of the people in this view; ``identity_index`` of samples and batches counts in this list.
    """

    def __init__(
        self,
        url: str,
        catalogue: Catalogue,
        *,
        cache_dir: str | None = None,
        cache_limit: int = 20 * 10**9,
    ) -> None:
        self.url, self.rig = url, catalogue.rig
        self.features, self.track = dict(catalogue.features), dict(catalogue.track)
        self.feature_records = {name: catalogue.feature_record(name) for name in self.features}
        self.withdrawn = catalogue.withdrawn
        self.table = ShardTable(catalogue)
        self._people = catalogue.identities
        self._allowed = np.ones(len(self._people), bool)
        self._sound_only = False
        self._store = Store(url, self.table, cache_dir, cache_limit)

    def __repr__(self) -> str:
        return f"Dataset({self.url!r}, {len(self)} samples of {len(self.identities)} identities)"

    def __len__(self) -> int:
        return int(self.table.people[self.chosen, SAMPLES].sum())

    @property
    def identities(self) -> list[str]:
        """Names of the people in this view, sorted."""
        return [person["name"] for person, allowed in zip(self._people, self._allowed) if allowed]

    @property
    def licences(self) -> dict[str, list[str]]:
        """Identity → licences recorded for it; ``["unknown"]`` if none was stated."""
        return {p["name"]: list(p["licences"]) for p, allowed in zip(self._people, self._allowed) if allowed}

    @property
    def consents(self) -> dict[str, list[str]]:
        """Identity → consents recorded for it."""
        return {p["name"]: list(p["consents"]) for p, allowed in zip(self._people, self._allowed) if allowed}

    @property
    def info(self) -> dict[str, Any]:
        """Counts, hours, licences, rig, features and fingerprint of this view; keys as in :func:`shards.check.info.info`."""
        rows = self.table.people[self.chosen]
        shards = np.unique(self.table.shard_of[self.chosen])
        frames = int(rows[:, FRAMES].sum())
        licences: dict[str, int] = {}
        for names in self.licences.values():
            for name in names:
                licences[name] = licences.get(name, 0) + 1
        return {
            "identities": len(self.identities),
            "clips": int(rows[:, CLIPS].sum()),
            "segments": int(rows[:, SAMPLES].sum()),
            "frames": frames,
            "frames_with_sound": int(rows[rows[:, SOUND] == 1, FRAMES].sum()),
            "hours": round(frames / FPS / 3600, 6),
            "bytes": int(self.table.bytes[shards].sum()),
            "schema": SCHEMA,
            "shards": len(shards),
            "features": self.features,
            "feature_records": self.feature_records,
            "rig": self.rig,
            "licences": licences,
            "withdrawn": self.withdrawn,
            "fingerprint": self.fingerprint,
        }

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over schema, rig, features, all shards' checksums, this view's identities and whether silent clips are out."""
        hasher = hashlib.sha256()
        head = [SCHEMA, self.rig, self.features, self.identities, self._sound_only]
        hasher.update(json.dumps(head, sort_keys=True).encode())
        for name, checksum in zip(self.table.names, self.table.sha256):
            hasher.update(f"{name} {checksum}\n".encode())
        return hasher.hexdigest()

    @property
    def samples(self) -> SampleTable:
        """All samples in file order; shard indexes are read as they are needed."""
        return SampleTable(self)

    def read(self, which: str | int) -> Sample:
        """One sample by key or by position in :attr:`samples`; decodes nothing yet.

        Raises:
            InputError: no such key, or an index that does not belong to its shard.
        """
        shard, row = self._locate(which)
        return self.sample(shard, row)

    def sample(self, shard: int, row: int, epoch: Sequence[int] = ()) -> Sample:
        """The sample at position ``row`` of shard number ``shard``, with its :attr:`Sample.epoch`; decodes nothing yet."""
        index = self._store.index(shard)
        key = index.keys[row]
        number = self._identity_number(key)
        return Sample(
            key,
            int(index.frames[row]),
            partial(self._store.fetch, shard, row),
            index.rows(row),
            shard=self.table.names[shard],
            identity_index=int(self._position[number]),
            siblings=partial(self._siblings, shard, number, epoch),
            epoch=epoch,
        )

    def index(self, shard: int | str) -> ShardIndex:
        """The index of a shard, by number or name.

        Raises:
            InputError: it is missing or does not belong to its shard.
        """
        return self._store.index(self.table.names.index(shard) if isinstance(shard, str) else shard)

    @property
    def chosen(self) -> np.ndarray:
        """Mask ``[rows]`` bool of the rows of the table of people that belong to this view."""
        return self._chosen(self.table.people)

    def _chosen(self, people: np.ndarray) -> np.ndarray:
        return self._allowed[people[:, IDENTITY]] & (people[:, SOUND] >= int(self._sound_only))

    def rows_of(self, shard: int) -> list[tuple[int, np.ndarray]]:
        """``(row of the table of people, positions of their samples in the shard)`` for the people in this view.

        Raises:
            InputError: the index disagrees with ``dataset.json`` about who is in the shard.
        """
        index = self._store.index(shard)
        positions = {self._identity_number(name): lines for name, lines in index.people.items()}
        first, last = self.table.first[shard], self.table.first[shard + 1]
        people, found = self.table.people[first:last], []
        for row, ((number, sound, samples, *_), chosen) in enumerate(zip(people.tolist(), self._chosen(people))):
            lines = positions.get(number, NONE)
            lines = lines[index.sound[lines] == sound]
            if len(lines) != samples:
                where = index_url(self.url, self.table.names[shard])
                raise bad_index(where, f"{len(lines)} samples of person {number}, dataset.json says {samples}")
            if chosen:
                found.append((int(first) + row, lines))
        return found

    def with_sound(self) -> Dataset:
        """A view of the samples whose clip had sound; identities and their positions stay as they are."""
        view = self._copy()
        view._sound_only = True
        return view

    def subset(self, identities: Sequence[str]) -> Dataset:
        """A view of these people's samples only; it shares files and caches.

        Raises:
            InputError: an identity that is not in the dataset.
        """
        names = self.identities
        for name in identities:
            if name not in set(names):
                raise InputError(f"identity '{name}' is not in {self.url}{known_people(name, names)}")
        wanted = set(identities)
        view = self._copy()
        view._allowed = np.array([p["name"] in wanted for p in self._people], bool)
        return view

    def _copy(self) -> Dataset:
        view = object.__new__(Dataset)
        view.__dict__.update(self.__dict__)
        for name in ("fingerprint", "_position", "_number"):
            view.__dict__.pop(name, None)
        return view

    def split(self, holdout: float | int | Sequence[str]) -> tuple[Dataset, Dataset]:
        """Views (train, held-out) that share no identity.

        Args:
            holdout: a fraction in [0, 1) of the identities (above 0 at least one, if there are two), chosen by a hash of the
                name so that few people change sides as a dataset grows; or the names themselves.

        Raises:
            InputError: unknown names, or no person left to train on.
        """
        names = self.identities
        if isinstance(holdout, int | float) and not isinstance(holdout, bool):
            if not 0 <= holdout < 1:
                raise InputError(f"holdout {holdout}: expected a fraction in [0, 1) or a list of identities")
            count = 0 if holdout == 0 or len(names) < 2 else max(1, round(holdout * len(names)))
            held = sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())[: min(count, len(names) - 1)]
        else:
            held = [str(name) for name in holdout]  # type: ignore[union-attr]
        rest = sorted(set(names) - set(held))
        if names and not rest:
            raise InputError(
                f"holdout: all {len(names)} identities are held out, none is left for training; hold out fewer"
            )
        return self.subset(rest), self.subset(held)

    def stored_features(self, name: str) -> int:
        """Width C of an audio feature of the dataset.

        Raises:
            InputError: the dataset was built without it.
        """
        if name not in self.features:
            raise InputError(
                f"{self.url} has no audio features '{name}'{nearest(name, self.features)}; "
                f"add them: headstart shards build --out {self.url} --features {name}"
            )
        return self.features[name]

    @property
    def remote(self) -> bool:
        """Whether it lies in an object store."""
        return self._store.remote

    @property
    def direct(self) -> bool:
        """Whether members are read by requests to a store, not from files on this machine."""
        return self._store.direct

    def close(self) -> None:
        """Close files held open."""
        self._store.close()

    @cached_property
    def _position(self) -> np.ndarray:
        return np.cumsum(self._allowed) - 1

    @cached_property
    def _number(self) -> dict[str, int]:
        return {person["name"]: i for i, person in enumerate(self._people)}

    def _identity_number(self, key: str) -> int:
        name = key.partition("/")[0]
        if name not in self._number:
            raise InputError(
                f"{self.url}: an index lists '{key}', which dataset.json does not contain; run shards verify"
            )
        return self._number[name]

    def _siblings(self, shard: int, number: int, epoch: Sequence[int]) -> list[Callable[[], Sample]]:
        people = self.table.people
        lines = [line for row, lines in self.rows_of(shard) if people[row, IDENTITY] == number for line in lines]
        return [partial(self.sample, shard, int(line), epoch) for line in sorted(lines)]

    def _locate(self, which: str | int) -> tuple[int, int]:
        if isinstance(which, int | np.integer):
            return self.samples.locate(int(which))
        identity, _, _ = split_key(which)
        if identity in self._number and self._allowed[self._number[identity]]:
            here = self.table.people[:, IDENTITY] == self._number[identity]
            for shard in np.unique(self.table.shard_of[here]):
                keys = self._store.index(int(shard)).keys
                if which in keys:
                    return int(shard), keys.index(which)
        raise InputError(f"{self.url}: no sample '{which}'; headstart shards info lists the identities")


class SampleTable(Sequence[SampleRow]):
    """The samples of a dataset view in file order; reads shard indexes lazily."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        table = dataset.table
        chosen = dataset.chosen
        counts = np.bincount(table.shard_of[chosen], table.people[chosen, SAMPLES], len(table.names)).astype(np.int64)
        self._ends = np.cumsum(counts)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    @overload
    def __getitem__(self, position: int) -> SampleRow: ...

    @overload
    def __getitem__(self, position: slice) -> list[SampleRow]: ...

    def __getitem__(self, position: int | slice) -> SampleRow | list[SampleRow]:
        if isinstance(position, slice):
            return [self[i] for i in range(*position.indices(len(self)))]
        return self._row(*self.locate(position))

    def __iter__(self) -> Iterator[SampleRow]:
        for shard in range(len(self._ends)):
            for row in self._lines(shard):
                yield self._row(shard, row)

    def locate(self, position: int) -> tuple[int, int]:
        """Shard number, and position in the shard, of a position in the table."""
        if not -len(self) <= position < len(self):
            raise IndexError(f"sample {position} of {len(self)}")
        position %= len(self)
        shard = int(np.searchsorted(self._ends, position, side="right"))
        before = int(self._ends[shard - 1]) if shard else 0
        return shard, self._lines(shard)[position - before]

    def _lines(self, shard: int) -> list[int]:
        before = int(self._ends[shard - 1]) if shard else 0
        if self._ends[shard] == before:
            return []
        return sorted(int(row) for _, rows in self._dataset.rows_of(shard) for row in rows)

    def _row(self, shard: int, row: int) -> SampleRow:
        index = self._dataset.index(shard)
        identity, clip, _ = split_key(index.keys[row])
        return SampleRow(index.keys[row], identity, clip, int(index.frames[row]), self._dataset.table.names[shard])


def open_dataset(url: str | Path, *, cache_dir: str | Path | None = None, cache_limit: int = 20 * 10**9) -> Dataset:
    """Open a dataset folder or ``s3://`` URL; reads ``dataset.json`` only.

    Args:
        cache_dir: folder that caches whole shards of a remote dataset; without it members are read by ranged requests.
        cache_limit: most bytes in the cache.

    Raises:
        InputError: no dataset there, damaged, of another schema, or the store does not answer.
    """
    text = str(url)
    where = text if storage.is_remote(text) else str(storage.local_path(text))
    cache = None if cache_dir is None else str(cache_dir)
    return Dataset(where, read_catalogue(where), cache_dir=cache, cache_limit=cache_limit)
