"""``headstart shards verify``: checks all of a dataset.

It reads every byte once: checksum and structure of each tar, the index against the tar, every member decoded
and checked, audio features recomputed from the sound they claim to describe, the head's pose against the landmarks, and
the counts in ``dataset.json``. It does not stop at the first fault: each broken sample is reported with shard, key,
member, and what to do.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from typing import IO, Any

from cluster.storage import storage
from configs import InputError, progress
from shards.build.lock import edited
from shards.check.findings import Findings
from shards.check.proofs import check_members
from shards.check.repair import carry_out, plan_repairs, release_clips
from shards.format.catalogue import Catalogue, ShardRow, index_url, read_catalogue, shard_url
from shards.format.index import ShardIndex, digest, index_of
from shards.format.schema import BrokenSample
from shards.read.dataset import Dataset


def verify(dataset: str, *, repair: bool = False, workers: int | None = None) -> dict[str, Any]:
    """Check a dataset and report everything that is wrong with it.

    Args:
        dataset: folder or ``s3://`` URL.
        repair: rebuild indexes that do not match their tars, and rewrite damaged shards with every sample that can still
            be read and verified.
        workers: threads; one per core by default.

    Returns:
        ``ok, samples`` (checked), ``broken: [{shard, key, member, reason}]``, and for a dataset with faults
        ``repairable`` or, after the repair, ``repaired``: ``[{shard, action, samples_lost, lost: [key]}]``, and
        ``build_again``: clips that lost all samples, which the next build of their videos takes up again.

    Raises:
        InputError: no dataset there, or it cannot be written for the repair.
    """
    url = str(dataset) if storage.is_remote(dataset) else str(storage.local_path(dataset))
    if not repair:
        return _verified(url, read_catalogue(url), workers, repair=False)
    with edited(url) as catalogue:
        return _verified(url, catalogue, workers, repair=True)


def _verified(url: str, catalogue: Catalogue, workers: int | None, *, repair: bool) -> dict[str, object]:
    opened = Dataset(url, catalogue)
    threads = max(1, min(workers or os.cpu_count() or 1, len(opened.table.names)))
    with closing(opened), ThreadPoolExecutor(threads) as pool:
        checked = pool.map(partial(_check_shard, opened, catalogue), range(len(opened.table.names)))
        findings = list(progress.tracked(checked, "verifying", len(opened.table.names), "shards"))
        _check_across(findings)
        repairs = plan_repairs(opened, catalogue, findings)
    broken = [entry for found in findings for entry in found.broken]
    result = {"ok": not broken, "samples": sum(found.samples for found in findings), "broken": broken}
    if repairs and repair:
        carry_out(url, catalogue, repairs)
        result["build_again"] = release_clips(url, catalogue, repairs)
    if repairs:
        result["repaired" if repair else "repairable"] = [one.as_dict() for one in repairs]
    return result


# ---------------------------------------------------------------------------------------------------- one shard


def _check_shard(dataset: Dataset, catalogue: Catalogue, number: int) -> Findings:
    entry = catalogue.shards[number]
    found = Findings(entry["name"])
    index = _open_index(dataset, entry, found)
    try:
        true_index, checksum, length = _read_tar(dataset, entry, found)
    except InputError as error:
        found.note(f"{error}", member="shards/" + entry["name"] + ".tar")
        return found
    if (checksum, length) != (entry["sha256"], entry["bytes"]):
        what = f"{length} bytes, sha256 {checksum[:12]}; dataset.json says {entry['bytes']}, {entry['sha256'][:12]}"
        found.note(
            f"the tar has {what}; fetch or build it again, or verify with --repair", member=f"{entry['name']}.tar"
        )
        _check_bytes(index, true_index, found)
    elif index is None or index.to_bytes() != true_index.to_bytes():
        found.index_only = True
        if index is not None:
            found.note("the index does not describe its tar; verify with --repair", member=f"index/{entry['name']}.npz")
    _check_people(catalogue, entry, found)
    return found


def _open_index(dataset: Dataset, entry: ShardRow, found: Findings) -> ShardIndex | None:
    where = index_url(dataset.url, entry["name"])
    try:
        data = storage.read_bytes(where)
        if digest(data) != entry["index_sha256"]:
            raise InputError("its sha256 differs from dataset.json; verify with --repair")
        return ShardIndex.from_bytes(data, where)
    except InputError as error:
        found.note(str(error), member=f"index/{entry['name']}.npz")
        return None


def _read_tar(dataset: Dataset, entry: ShardRow, found: Findings) -> tuple[ShardIndex, str, int]:
    """Decode and check every sample of a tar while hashing it; returns its true index, sha256 and length."""
    with _hashed(shard_url(dataset.url, entry["name"])) as stream:
        index = index_of(stream, entry["name"], partial(_check_sample, dataset, found))
        return index, stream.hasher.hexdigest(), stream.length


class _Hashed:
    """A stream that computes the sha256 of what is read."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self.hasher, self.length = stream, hashlib.sha256(), 0

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self.hasher.update(data)
        self.length += len(data)
        return data


@contextmanager
def _hashed(url: str) -> Iterator[_Hashed]:
    with storage.open_read(url) as stream:
        yield _Hashed(stream)


def _check_sample(dataset: Dataset, found: Findings, key: str, members: dict[str, bytes], frames: int) -> None:
    found.samples += 1
    found.keys.append(key)
    try:
        check_members(dataset, found.name, key, members, frames)
    except BrokenSample as error:
        found.note(
            f"{error.reason}; build the clip again, or verify with --repair to drop the sample", key, error.member
        )


def _check_bytes(index: ShardIndex | None, true_index: ShardIndex, found: Findings) -> None:
    """Samples that can be decoded, but not from the bytes that were written."""
    for key in true_index.keys if index is not None else ():
        member = index.changed(key, true_index.checksums(key))  # type: ignore[union-attr]
        if member is not None and key not in found.damaged:
            reason = (
                "checksum differs: bytes were changed; build the clip again, or verify with --repair to drop the sample"
            )
            found.note(reason, key, member)


def _check_people(catalogue: Catalogue, entry: ShardRow, found: Findings) -> None:
    counted = Counter(key.partition("/")[0] for key in found.keys)
    listed: Counter[str] = Counter()
    for row in entry["people"]:
        listed[catalogue.identities[row[0]]["name"]] += row[2]
    if counted != listed:
        found.note(
            f"the tar holds {dict(counted)}, dataset.json lists {dict(listed)}; verify with --repair",
            member="dataset.json",
        )


def _check_across(findings: list[Findings]) -> None:
    """Report keys that occur twice in the dataset."""
    where: dict[str, str] = {}
    for found in findings:
        for key in found.keys:
            if key in where:
                found.note(f"is in shard {where[key]} too; verify with --repair to drop it here", key, "meta.json")
            where.setdefault(key, found.name)
