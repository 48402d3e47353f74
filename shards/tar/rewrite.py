"""A shard again without some of its samples, byte for byte otherwise: for withdrawing people and for repair."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from cluster.storage import storage
from configs import InputError
from shards.build.journal import base_name
from shards.format.catalogue import Catalogue, ShardEntry, index_url, shard_url
from shards.format.schema import split_key
from shards.tar.shardfile import ShardFile
from shards.tar.tars import stream_samples


def rewrite_shard(
    url: str, name: str, keep: Callable[[str, dict[str, Any]], bool], starts: set[str]
) -> ShardEntry | None:
    """Publish a new revision of a shard with the samples that ``keep(key, members)`` accepts; None when none is left.

    The old files stay: readers use them until ``dataset.json`` lists the new revision.

    Args:
        starts: keys of the samples with which a clip begins, so that clips are counted once over all shards.

    Raises:
        InputError: nothing of the tar can be read, or the new one cannot be written.
    """
    scratch = storage.scratch(url)
    shard = None
    try:
        for sample in _readable(shard_url(url, name)):
            key = sample["__key__"]
            members = {k: v for k, v in sample.items() if not k.startswith("__")}
            if not keep(key, members):
                continue
            if shard is None:
                shard = ShardFile(url, next_revision(name), scratch)
            shard.add(key, members, key in starts)
        return shard.publish() if shard is not None else None
    except BaseException:
        if shard is not None:
            shard.abort()
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _readable(url: str) -> Iterator[dict[str, Any]]:
    """The samples of a tar up to where it is damaged."""
    with suppress(InputError):
        yield from stream_samples(url)


def next_revision(name: str) -> str:
    """``abc-00001`` → ``abc-00001_r1`` → ``abc-00001_r2``."""
    match = re.fullmatch(r"(.*)_r(\d+)", name)
    return f"{match[1]}_r{int(match[2]) + 1}" if match else f"{base_name(name)}_r1"


def first_keys(keys: list[str]) -> set[str]:
    """The keys of a list with which a clip begins."""
    seen: set[tuple[str, str]] = set()
    starts = set()
    for key in keys:
        clip = split_key(key)[:2]
        if clip not in seen:
            seen.add(clip)
            starts.add(key)
    return starts


def remove_unlisted(url: str, catalogue: Catalogue, names: list[str]) -> None:
    """Delete tars and indexes that ``dataset.json`` no longer lists."""
    listed = catalogue.names()
    for name in names:
        if name not in listed:
            storage.remove(shard_url(url, name))
            storage.remove(index_url(url, name))
