"""``dataset.json``: the valid shards, their checksums, and the people in them. It holds nothing per sample."""

from __future__ import annotations

import difflib
import gc
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypedDict, cast

from cluster.storage import storage
from configs import InputError, nearest
from configs.records import FeatureRecord, revision_of
from shards.format.schema import SCHEMA
from shards.media.rates import FPS

FORMAT = "headstart-dataset"
FILE = "dataset.json"
_DERIVED = ("format", "schema", "totals", "feature_records")  # entries that are written from others
_NAME = re.compile(r"[A-Za-z0-9_-]{1,80}")
_SHA = re.compile(r"[0-9a-f]{64}")


def known_people(name: str, names: list[str]) -> str:
    """The end of a sentence about an unknown person: the nearest name, or all of them when they are few."""
    if len(names) > 12 and not difflib.get_close_matches(name, names, n=1):
        return f"; headstart shards info counts {len(names)} people"
    return nearest(name, names)


def shard_url(url: str, name: str) -> str:
    """URL of the tar ``name`` of the dataset at ``url``."""
    return storage.join(url, "shards", f"{name}.tar")


def index_url(url: str, name: str) -> str:
    """URL of the index of the tar ``name``."""
    return storage.join(url, "index", f"{name}.npz")


def base_name(shard: str) -> str:
    """A shard's name without the suffix of a revision (``_r1``)."""
    return shard.partition("_")[0]


def next_revision(name: str) -> str:
    """The name after a rewrite: ``abc-00001`` → ``abc-00001_r1`` → ``abc-00001_r2``."""
    match = re.fullmatch(r"(.*)_r(\d+)", name)
    return f"{match[1]}_r{int(match[2]) + 1}" if match else f"{base_name(name)}_r1"


@dataclass(frozen=True, kw_only=True)
class ShardEntry:
    """One shard as its writer reports it.

    Attributes:
        people: ``[identity, sound, samples, frames, clips, licences, consents]`` each; ``sound`` is 1, or 0 for clips
            without sound; ``clips`` counts those that begin in this shard.
    """

    name: str
    sha256: str
    bytes: int
    samples: int
    frames: int
    index_sha256: str
    people: list[list[Any]]


class PersonRow(TypedDict):
    """A person of a dataset; shards refer to people by position."""

    name: str
    licences: list[str]
    consents: list[str]


class ShardRow(TypedDict):
    """A shard of a dataset; ``people``: ``[position in identities, sound, samples, frames, clips]`` each."""

    name: str
    sha256: str
    bytes: int
    samples: int
    frames: int
    index_sha256: str
    people: list[list[int]]


class Totals(TypedDict):
    """What a dataset holds in total."""

    identities: int
    clips: int
    segments: int
    frames: int
    hours: float
    bytes: int


@dataclass
class Catalogue:
    """``dataset.json`` in memory, as plain JSON values.

    Attributes:
        rig: ``{"name", "sha256", "source"}``; datasets of version 0.1 have no source.
        features: name → width of the audio features that every sample has.
        feature_records: name → its record; version 0.1 kept none.
        track: numbers of coefficients, ``{"identity", "expression"}``.
        identities: people, sorted by name, so that the order of the build does not matter.
        shards: sorted by name.
        withdrawn: number of withdrawn people.
        others: entries of a later version, which are written back as they were.
    """

    rig: dict[str, str] | None = None
    features: dict[str, int] = field(default_factory=dict)
    track: dict[str, int] = field(default_factory=dict)
    identities: list[PersonRow] = field(default_factory=list)
    shards: list[ShardRow] = field(default_factory=list)
    withdrawn: int = 0
    feature_records: dict[str, FeatureRecord] = field(default_factory=dict)
    others: dict[str, object] = field(default_factory=dict)

    @classmethod
    def empty(cls) -> Catalogue:
        """A dataset without samples."""
        return cls()

    def names(self) -> set[str]:
        """Names of the listed shards."""
        return {shard["name"] for shard in self.shards}

    def rig_entry(self) -> dict[str, object]:
        """What ``meta.json`` says of the rig."""
        return {"rig": self.rig} if self.rig else {}

    def feature_record(self, name: str) -> FeatureRecord:
        """The record of a feature of the dataset; in version 0.1, which kept none, name and size without weights."""
        return self.feature_records.get(name) or {"name": name, "size": self.features[name], "weights": None}

    def has_rows_of(self, record: FeatureRecord) -> bool:
        """Whether every sample has this feature, in the same revision."""
        name = record["name"]
        return name in self.features and revision_of(self.feature_record(name)) == revision_of(record)

    def adopt_rig(self, rig: dict[str, str] | None) -> None:
        """Take over the rig of a new dataset, or prove that it is the dataset's.

        Raises:
            InputError: the dataset was made with another rig.
        """
        if rig is None:
            return
        ours, theirs = ({name: (r or {}).get(name) for name in ("name", "sha256")} for r in (self.rig, rig))
        if self.rig is not None and ours != theirs:
            raise InputError(
                f"the dataset was made with rig {ours['name']} ({str(ours['sha256'])[:12]}), now it is "
                f"{theirs['name']} ({str(theirs['sha256'])[:12]}); use the same rig (--rig) or another folder"
            )
        self.rig = {**(self.rig or {}), **rig}

    def adopt_sizes(self, features: Mapping[str, int], track: Mapping[str, int]) -> None:
        """Take over feature and coefficient sizes of the first sample, or prove that they are the dataset's.

        Raises:
            InputError: naming both sizes.
        """
        for what, ours, theirs in (("features", self.features, features), ("track", self.track, track)):
            if ours and dict(ours) != dict(theirs):
                raise InputError(
                    f"{what} of this sample {dict(theirs)} differ from the dataset's {ours}; build both with the same options"
                )
            ours.update(theirs)

    def add(self, entries: Iterable[ShardEntry]) -> None:
        """List new shards; an entry of the same name is replaced."""
        entries = list(entries)
        replaced = {entry.name for entry in entries}
        number = {person["name"]: i for i, person in enumerate(self.identities)}
        self.shards = [shard for shard in self.shards if shard["name"] not in replaced]
        for entry in entries:
            people = [[self._person(number, row), *row[1:5]] for row in sorted(entry.people)]
            self.shards.append(cast(ShardRow, {**vars(entry), "people": people}))
        self._sort()

    def remove(self, names: Iterable[str]) -> None:
        """Unlist shards, and people who are in no shard any more."""
        gone = set(names)
        self.shards = [shard for shard in self.shards if shard["name"] not in gone]
        self._sort()

    def totals(self) -> Totals:
        """``identities, clips, segments, frames, hours, bytes``."""
        frames = sum(shard["frames"] for shard in self.shards)
        return {
            "identities": len(self.identities),
            "clips": sum(row[4] for shard in self.shards for row in shard["people"]),
            "segments": sum(shard["samples"] for shard in self.shards),
            "frames": frames,
            "hours": round(frames / FPS / 3600, 6),
            "bytes": sum(shard["bytes"] for shard in self.shards),
        }

    def _person(self, number: dict[str, int], row: list[Any]) -> int:
        name, licences, consents = row[0], *row[5:]
        if name not in number:
            number[name] = len(self.identities)
            self.identities.append({"name": name, "licences": [], "consents": []})
        person = self.identities[number[name]]
        person["licences"] = sorted({*person["licences"], *licences})
        person["consents"] = sorted({*person["consents"], *consents})
        return number[name]

    def _sort(self) -> None:
        # Shards and people by name: the same samples give the same file whichever worker was first.
        present = {row[0] for shard in self.shards for row in shard["people"]}
        order = sorted(present, key=lambda i: self.identities[i]["name"])
        number = {old: new for new, old in enumerate(order)}
        self.identities = [self.identities[i] for i in order]
        for shard in self.shards:
            shard["people"] = sorted([number[row[0]], *row[1:]] for row in shard["people"])
        self.shards.sort(key=lambda shard: shard["name"])


def write_catalogue(url: str, catalogue: Catalogue) -> None:
    """Replace ``dataset.json`` atomically: this is the commit."""
    head = {
        "format": FORMAT,
        "schema": SCHEMA,
        "totals": catalogue.totals(),
        "rig": catalogue.rig,
        "features": catalogue.features,
        "feature_records": catalogue.feature_records,
        "track": catalogue.track,
        "withdrawn": catalogue.withdrawn,
        **catalogue.others,
    }
    lines = [f" {json.dumps(name)}: {json.dumps(value, sort_keys=True)}," for name, value in head.items()]
    # One shard a line: readable, and a diff of two versions shows the shards that changed.
    text = "{\n" + "\n".join(lines) + "\n" + _rows("identities", catalogue.identities) + ",\n"
    text += _rows("shards", catalogue.shards) + "\n}\n"
    storage.write_bytes(storage.join(url, FILE), text.encode())


def _rows(name: str, values: Sequence[Mapping[str, object]]) -> str:
    return f' "{name}": [' + ",".join(f"\n  {json.dumps(value)}" for value in values) + "\n ]"


@contextmanager
def without_collection() -> Iterator[None]:
    """Suspend the garbage collector while a million small objects are made, which halves the time."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


def read_catalogue(url: str) -> Catalogue:
    """Read and check ``dataset.json``.

    Raises:
        InputError: no dataset there, a newer schema, or a file that is not ours or was damaged.
    """
    where = storage.join(url, FILE)
    if not storage.exists(where):
        raise InputError(f"{url}: no dataset here ({FILE} is missing); build one with headstart shards build")
    try:
        text = storage.read_bytes(where).decode()
        with without_collection():
            value = json.loads(text)
    except ValueError as error:
        raise InputError(f"{where}: not readable as JSON ({error}); the file is damaged, restore it") from None
    del text
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise InputError(f"{where}: not a headstart dataset; check the folder")
    if value.get("schema") != SCHEMA:
        raise InputError(
            f"{where}: schema {value.get('schema')!r}, this version reads {SCHEMA}; use the version that built it"
        )
    try:
        fields = {name: value[name] for name in ("rig", "features", "track", "identities", "shards", "withdrawn")}
        records = dict(value.get("feature_records") or {})
        others = {name: value[name] for name in value if name not in {*fields, *_DERIVED}}
        catalogue = Catalogue(**fields, feature_records=records, others=others)
        for shard in catalogue.shards:
            _check_shard(shard, len(catalogue.identities))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"{where}: damaged entry ({error!r}); restore the file") from None
    return catalogue


def _check_shard(shard: ShardRow, people: int) -> None:
    # A name becomes a path: nothing but letters, digits, _ and - may pass.
    checksums = (shard["sha256"], shard["index_sha256"])
    if not _NAME.fullmatch(shard["name"]) or not all(map(_SHA.fullmatch, checksums)):
        raise ValueError(f"shard {shard['name']!r}")
    if sum(row[2] for row in shard["people"]) != shard["samples"] or shard["bytes"] < 0:
        raise ValueError(f"shard {shard['name']}: counts of its people do not add up")
    for row in shard["people"]:
        if not 0 <= row[0] < people:
            raise ValueError(f"shard {shard['name']}: person {row[0]} of {people}")
