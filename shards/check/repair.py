"""``headstart shards verify --repair``: planning what it would do before anything is written, and doing it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from cluster.storage import storage
from configs import InputError, progress
from configs.words import counted, shortened
from shards.build.journal import Journal
from shards.build.report import PAGE, write_report
from shards.check.findings import Findings
from shards.check.proofs import check_members
from shards.format.catalogue import Catalogue, base_name, index_url, shard_url, write_catalogue
from shards.format.index import ShardIndex, checksums_of, digest, index_of
from shards.format.schema import BrokenSample, frame_name, split_key
from shards.read.dataset import Dataset
from shards.tar.rewrite import first_keys, remove_unlisted, rewrite_shard
from shards.tar.salvage import Salvage

INDEX, REWRITE = "index rebuilt", "rewritten with every sample that can be read"


@dataclass(frozen=True)
class Repair:
    """What a repair does with one shard.

    Attributes:
        shard: name of the shard.
        action: ``INDEX`` or ``REWRITE``.
        kept: keys of the samples that stay; empty for ``INDEX``.
        lost: keys of the samples that the dataset loses.
    """

    shard: str
    action: str
    kept: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """What ``shards verify --json`` prints about it."""
        return {"shard": self.shard, "action": self.action, "samples_lost": len(self.lost), "lost": list(self.lost)}


def plan_repairs(dataset: Dataset, catalogue: Catalogue, findings: Sequence[Findings]) -> list[Repair]:
    """One repair for each shard with faults; writes nothing."""
    # A key that is in several shards stays in one of them.
    taken = {key for found in findings if not found.broken for key in found.keys}
    repairs = []
    for found in findings:
        if not found.broken:
            continue
        if found.index_only and not found.damaged:
            taken.update(found.keys)
            repairs.append(Repair(found.name, INDEX))
            continue
        kept = [key for key in _readable(dataset, found.name) if key not in taken]
        taken.update(kept)
        lost = sorted(set(_promised(dataset, found)) - set(kept))
        repairs.append(Repair(found.name, REWRITE, tuple(kept), tuple(lost)))
    return repairs


def _readable(dataset: Dataset, name: str) -> Iterator[str]:
    """Keys of the samples of a tar that are whole, wherever their members lie in it."""
    try:
        tar = Salvage(storage.cached(shard_url(dataset.url, name)))
    except (storage.StorageError, OSError):
        return
    index = usable_index(dataset, name)
    for sample in tar.samples():
        key = sample.pop("__key__")
        if index is not None and index.changed(key, checksums_of(sample)) is not None:
            continue
        try:
            check_members(dataset, name, key, sample, _length(sample))
        except BrokenSample:
            continue
        yield key


def usable_index(dataset: Dataset, name: str) -> ShardIndex | None:
    """The index of a shard as ``dataset.json`` lists it; None if it is damaged or missing."""
    try:
        return dataset.index(name)
    except InputError:
        return None


def _length(members: dict[str, bytes]) -> int:
    """Number of consecutive frames from the first on."""
    count = 0
    while frame_name(count) in members:
        count += 1
    return count


def _promised(dataset: Dataset, found: Findings) -> list[str]:
    """Keys that the shard's index lists and those found in the tar."""
    index = usable_index(dataset, found.name)
    return [*(index.keys if index is not None else ()), *found.keys]


def carry_out(url: str, catalogue: Catalogue, repairs: Sequence[Repair]) -> None:
    """Rewrite shards and rebuild indexes; ``dataset.json`` is replaced atomically at the end.

    Rewritten shards have new names. A rebuilt index replaces the faulty one, which ``dataset.json`` may still name: that
    comes last, right before ``dataset.json``. Wherever it stops, all samples are there, and another repair finishes it.

    Raises:
        InputError: storage failed. ``dataset.json`` is then unchanged; run the repair again.
    """
    rewritten = [one for one in repairs if one.action == REWRITE]
    indexes = {one.shard: _rebuilt_index(url, one.shard) for one in repairs if one.action == INDEX}
    old = [one.shard for one in rewritten]
    starts = first_keys([key for one in rewritten for key in one.kept])
    entries = [entry for one in rewritten if (entry := _rewrite(url, one, starts)) is not None]
    for name, data in indexes.items():
        storage.write_bytes(index_url(url, name), data)
        next(shard for shard in catalogue.shards if shard["name"] == name)["index_sha256"] = digest(data)
    catalogue.add(entries)
    catalogue.remove(old)
    write_catalogue(url, catalogue)
    remove_unlisted(url, catalogue, old)


def release_clips(url: str, catalogue: Catalogue, repairs: Sequence[Repair]) -> list[str]:
    """Have the next build take up the clips that lost all of their samples to a repair; returns their names.

    Clips that keep some of their samples are named, and stay as they are: built again, they would be there twice.
    """
    shards = {base_name(one.shard) for one in repairs if one.action == REWRITE}
    journal = Journal.read(url)
    held = {name: record for name, record in journal.clips.items() if shards.intersection(record.get("shards", ()))}
    left: Counter[str] = Counter()
    if held and catalogue.shards:
        with closing(Dataset(url, catalogue)) as dataset:
            left.update(split_key(row.key)[1] for row in dataset.samples)
    gone = sorted(name for name in held if not left[name])
    short = sorted(name for name, record in held.items() if 0 < left[name] < record["segments"])
    listed = {base_name(name) for name in catalogue.names()}
    for name in gone:
        del journal.clips[name]
    for name in short:  # a clip whose record names a shard that is no more would be built again
        journal.clips[name]["shards"] = [shard for shard in held[name]["shards"] if shard in listed]
    if gone or short:
        journal.write()
        if storage.exists(storage.join(url, PAGE)):
            write_report(url, journal, catalogue, 0.0)
    if gone:
        progress.say(
            f"{counted(len(gone), 'clip')} lost all samples ({shortened(', '.join(gone))}); shards build with the same videos "
            "builds them again"
        )
    if short:
        progress.say(
            f"{counted(len(short), 'clip')} lost some samples ({shortened(', '.join(short))}); to get those back, build the "
            "dataset again in another folder"
        )
    return gone


def _rewrite(url: str, one: Repair, starts: set[str]) -> Any:
    kept = set(one.kept)
    if not kept:
        return None
    return rewrite_shard(
        url,
        one.shard,
        lambda key, members: members if key in kept else None,
        starts,
        index=None,  # the samples that are kept were compared with it
        read=lambda where: Salvage(storage.cached(where)).samples(),
    )


def _rebuilt_index(url: str, name: str) -> bytes:
    """The index of a shard, made from its tar."""
    with storage.open_read(shard_url(url, name)) as stream:
        return index_of(stream, name).to_bytes()
