"""``headstart shards info`` and ``verify``: what a dataset holds, and a proof that all of it is right.

``verify`` reads every byte once: checksum and structure of each tar, the index against the tar, every member decoded
and checked, audio features recomputed from the sound they claim to describe, the head's pose against the landmarks, and
the counts in ``dataset.json``. Nothing stops at the first fault: each broken sample is named with shard, key, member,
and what to do.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from cluster.storage import storage
from configs import InputError
from shards.build.lock import locked
from shards.features import logmel
from shards.format.catalogue import Catalogue, index_url, read_catalogue, shard_url, write_catalogue
from shards.format.index import ShardIndex, digest, index_of
from shards.format.schema import BrokenSample, Sample, check_sample
from shards.read.dataset import Dataset, open_dataset
from shards.tar.rewrite import first_keys, remove_unlisted, rewrite_shard

Broken = dict[str, str]
DRIFT = 0.05  # mean difference of log-mel rows that rounding to 16-bit sound and float16 can explain
MISFIT = 0.5  # eye distances between landmarks and the posed head; a track of another clip is several off


def info(dataset: str) -> dict[str, Any]:
    """Counts, hours, licences and identity of a dataset, from ``dataset.json`` alone.

    Returns:
        ``identities, clips, segments, frames, hours, bytes, schema, shards, features, rig, licences, withdrawn,
        fingerprint``.

    Raises:
        InputError: no dataset there, or damaged.
    """
    return open_dataset(dataset).info


def verify(dataset: str, *, repair: bool = False, workers: int | None = None) -> dict[str, Any]:
    """Prove a dataset, or name everything that is wrong with it.

    Args:
        repair: rebuild indexes that do not belong to their tars, and rewrite damaged shards without their broken
            samples; what could not be read is then gone from the dataset.
        workers: threads; one per core by default.

    Returns:
        ``ok, samples`` (checked), ``broken: [{shard, key, member, reason}]`` and, after repairs, ``repaired: [...]``.

    Raises:
        InputError: no dataset there, or it cannot be written for the repair.
    """
    url = str(dataset) if storage.is_remote(dataset) else str(storage.local_path(dataset))
    catalogue = read_catalogue(url)
    opened = Dataset(url, catalogue)
    threads = max(1, min(workers or os.cpu_count() or 1, len(opened.table.names)))
    with closing(opened), ThreadPoolExecutor(threads) as pool:
        findings = list(pool.map(partial(_check_shard, opened, catalogue), range(len(opened.table.names))))
    _check_across(findings)
    broken = [entry for found in findings for entry in found.broken]
    result = {"ok": not broken, "samples": sum(found.samples for found in findings), "broken": broken}
    if repair and broken:
        with locked(url):
            result["repaired"] = _repair(url, catalogue, findings)
    return result


# ---------------------------------------------------------------------------------------------------- one shard


@dataclass
class Findings:
    """What the proof of one shard found."""

    name: str
    samples: int = 0
    keys: list[str] = field(default_factory=list)
    broken: list[Broken] = field(default_factory=list)
    damaged: set[str] = field(default_factory=set)  # keys that cannot be kept
    index_only: bool = False  # the tar is what dataset.json says, its index is not

    def note(self, reason: str, key: str = "", member: str = "") -> None:
        """Name a fault."""
        self.broken.append({"shard": self.name, "key": key, "member": member, "reason": reason})
        if key:
            self.damaged.add(key)


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
    elif index is None or index.to_bytes() != true_index.to_bytes():
        found.index_only = True
        if index is not None:
            found.note("the index does not describe its tar; verify with --repair", member=f"index/{entry['name']}.npz")
    _check_people(catalogue, entry, found)
    return found


def _open_index(dataset: Dataset, entry: dict[str, Any], found: Findings) -> ShardIndex | None:
    where = index_url(dataset.url, entry["name"])
    try:
        data = storage.read_bytes(where)
        if digest(data) != entry["index_sha256"]:
            raise InputError("its sha256 differs from dataset.json; verify with --repair")
        return ShardIndex.from_bytes(data, where)
    except InputError as error:
        found.note(str(error), member=f"index/{entry['name']}.npz")
        return None


def _read_tar(dataset: Dataset, entry: dict[str, Any], found: Findings) -> tuple[ShardIndex, str, int]:
    """Decode and check every sample of a tar while its checksum is computed; its true index, sha256 and length."""
    with _hashed(shard_url(dataset.url, entry["name"])) as stream:
        index = index_of(stream, entry["name"], partial(_check_members, dataset, found))
        while stream.read(1 << 20):
            pass  # what follows the last member counts for the checksum
        return index, stream.hasher.hexdigest(), stream.length


class _Hashed:
    """A stream that remembers the sha256 of what was read."""

    def __init__(self, stream: Any) -> None:
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


def _check_members(dataset: Dataset, found: Findings, key: str, members: dict[str, bytes], frames: int) -> None:
    """Everything about one sample that can be wrong."""
    found.samples += 1
    found.keys.append(key)
    fetch = lambda names: {name: members[name] for name in names}  # noqa: E731
    sample = Sample(key, max(1, frames), fetch, members, shard=found.name)
    try:
        sizes = check_sample(sample, dataset.features)
        if dataset.track and sizes != dataset.track:
            raise sample.broken("track.npz", f"has coefficients {sizes}, the dataset {dataset.track}")
        _check_sound(sample)
        _check_pose(sample)
    except BrokenSample as error:
        found.note(
            f"{error.reason}; build the clip again, or verify with --repair to drop the sample", key, error.member
        )


def _check_sound(sample: Sample) -> None:
    """The stored log-mel must be that of the stored sound, frame by frame, away from the segment's ends."""
    stored = sample.features("logmel")[1:-1]
    drift = np.abs(stored - logmel(sample.audio)[1:-1])
    if len(drift) and float(drift.mean()) > DRIFT:
        reason = (
            f"differs from the sound by {drift.mean():.2f} on average, at most {DRIFT}: audio and features disagree"
        )
        raise sample.broken("audio.logmel.npy", reason)


def _check_pose(sample: Sample) -> None:
    """Rotations must be rotations, and the head's stable points must lie where the landmarks are."""
    track = sample.track
    rotation = track["rotation"].astype(np.float64)
    error = np.abs(rotation @ rotation.transpose(0, 2, 1) - np.eye(3)).max()
    if error > 1e-3 or (np.linalg.det(rotation) < 0).any():
        raise sample.broken("track.npz", f"'rotation' is no rotation (off by {error:.3f})")
    if (track["translation"][:, 2] <= 0).any():
        raise sample.broken("track.npz", "'translation' puts the head behind the camera")
    # The origin of head space lies about between the eyes: seen through the camera it must be near the landmarks there.
    focus = track["translation"] @ track["intrinsics"].T
    focus = focus[:, :2] / focus[:, 2:]
    left, right = (track["landmarks"][:, [a, b], :2].mean(axis=1) for a, b in ((263, 362), (33, 133)))
    eyes = np.maximum(np.linalg.norm(left - right, axis=1), 1.0)
    misfit = np.linalg.norm(focus - (left + right) / 2, axis=1) / eyes
    if float(np.median(misfit)) > 4 * MISFIT:
        raise sample.broken("track.npz", f"the pose is {np.median(misfit):.1f} eye distances from the landmarks")


def _check_people(catalogue: Catalogue, entry: dict[str, Any], found: Findings) -> None:
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
    """No key may come twice in a dataset."""
    where: dict[str, str] = {}
    for found in findings:
        for key in found.keys:
            if key in where:
                found.note(f"is in shard {where[key]} too; verify with --repair to drop it here", key, "meta.json")
            where.setdefault(key, found.name)


# ---------------------------------------------------------------------------------------------------- repair


def _repair(url: str, catalogue: Catalogue, findings: list[Findings]) -> list[dict[str, Any]]:
    """Rebuild indexes, rewrite damaged shards without what is broken; committed in one piece at the end."""
    starts = first_keys([key for found in findings for key in found.keys if key not in found.damaged])
    done, old, entries = [], [], []
    for found in findings:
        if not found.broken:
            continue
        if found.index_only and not found.damaged:
            _renew_index(url, catalogue, found.name)
            done.append({"shard": found.name, "action": "index rebuilt", "samples_lost": 0})
            continue
        before = next(s["samples"] for s in catalogue.shards if s["name"] == found.name)
        good = set(found.keys) - found.damaged
        entry = rewrite_shard(url, found.name, lambda key, _, good=good: key in good, starts)
        old.append(found.name)
        entries += [entry] if entry is not None else []
        lost = before - (entry.samples if entry is not None else 0)
        done.append({"shard": found.name, "action": "rewritten without its broken samples", "samples_lost": lost})
    catalogue.add(entries)
    catalogue.remove(old)
    write_catalogue(url, catalogue)
    remove_unlisted(url, catalogue, old)
    return done


def _renew_index(url: str, catalogue: Catalogue, name: str) -> None:
    with storage.open_read(shard_url(url, name)) as stream:
        data = index_of(stream, name).to_bytes()
    storage.write_bytes(index_url(url, name), data)
    next(shard for shard in catalogue.shards if shard["name"] == name)["index_sha256"] = digest(data)
