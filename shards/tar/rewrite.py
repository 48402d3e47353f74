"""New revisions of shards, with fewer samples or more members; the other members are copied byte for byte."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Any

from cluster.storage import storage
from shards.format.catalogue import Catalogue, ShardEntry, index_url, next_revision, shard_url
from shards.format.index import ShardIndex, checksums_of
from shards.format.schema import BrokenSample, split_key
from shards.tar.shardfile import ShardFile
from shards.tar.tars import stream_samples

Edit = Callable[[str, dict[str, bytes]], "dict[str, bytes] | None"]


def rewrite_shard(
    url: str,
    name: str,
    edit: Edit,
    starts: set[str],
    *,
    index: ShardIndex | None,
    rename: Callable[[str], str] = str,
    read: Callable[[str], Iterator[dict[str, Any]]] = stream_samples,
) -> ShardEntry | None:
    """Publish a new revision of a shard and return its entry; None if no sample is left.

    The old files are kept: readers use them until ``dataset.json`` lists the new revision.

    Args:
        url: the dataset.
        name: of the shard.
        edit: called as ``edit(key, members)`` for every sample; returns the members to keep, None to leave the sample out.
        starts: keys of the first sample of each clip, so that clips are counted once over all shards.
        index: of the shard; what it does not describe is refused, because the new index would describe damaged bytes as
            they are, and no check would find them any more. None: the samples were checked by the caller.
        rename: the key of a sample in the new revision, by its key in the old one.
        read: how samples are read from the tar's URL, as :func:`shards.tar.tars.stream_samples` gives them.

    Raises:
        InputError: the tar cannot be read, or the new one cannot be written.
        BrokenSample: a sample that stays is not as the index describes it, or missing.
    """
    scratch = storage.scratch(url)
    shard = None
    missing = dict.fromkeys(index.keys if index is not None else ())
    try:
        for sample in read(shard_url(url, name)):
            key = sample["__key__"]
            stored = {k: v for k, v in sample.items() if not k.startswith("__")}
            missing.pop(key, None)
            damaged = index.changed(key, checksums_of(stored)) if index is not None else None
            members = _edited(edit, key, stored, damaged is not None)
            if members is None:
                continue
            if damaged is not None:
                raise _broken(name, key, damaged, "checksum differs: bytes were changed")
            if shard is None:
                shard = ShardFile(url, next_revision(name), scratch)
            shard.add(rename(key), members, key in starts)
        if missing:
            raise _broken(name, next(iter(missing)), "meta.json", "the index lists it, the tar does not have it")
        return shard.publish() if shard is not None else None
    except BaseException:
        if shard is not None:
            shard.abort()
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _edited(edit: Edit, key: str, members: dict[str, bytes], damaged: bool) -> dict[str, bytes] | None:
    """What ``edit`` makes of a sample; of a damaged one, which it may be unable to read, whether it is left out."""
    try:
        return edit(key, members)
    except Exception:
        if not damaged:
            raise
        return members


def _broken(shard: str, key: str, member: str, reason: str) -> BrokenSample:
    cure = "drop the sample (headstart shards verify DATASET --repair), then run the same command again"
    return BrokenSample(key, member, f"{reason}; {cure}", shard)


def first_keys(keys: list[str]) -> set[str]:
    """The first key of each clip, in the order of the list."""
    seen: set[tuple[str, str]] = set()
    starts = set()
    for key in keys:
        clip = split_key(key)[:2]
        if clip not in seen:
            seen.add(clip)
            starts.add(key)
    return starts


def remove_old_revisions(url: str, catalogue: Catalogue) -> None:
    """Delete what the catalogue does not list, also what a crash left."""
    found = [name.removesuffix(".tar") for name in storage.listdir(storage.join(url, "shards"))]
    found += [name.removesuffix(".npz") for name in storage.listdir(storage.join(url, "index"))]
    remove_unlisted(url, catalogue, sorted(set(found)))


def remove_unlisted(url: str, catalogue: Catalogue, names: list[str]) -> None:
    """Delete the tars and indexes of those ``names`` that the catalogue does not list."""
    listed = catalogue.names()
    for name in names:
        if name not in listed:
            storage.remove(shard_url(url, name))
            storage.remove(index_url(url, name))
