"""``headstart shards forget``: withdraw a person. Only the shards that hold them are rewritten; a hashed record remains.

Order: the withdrawal is recorded first, so that no build adds the person again; new revisions of the shards are written;
``dataset.json`` is replaced atomically; then the old tars, the thumbnails and the build records are deleted. Run again
after a crash, it finishes. It does not affect copies elsewhere (reader caches, priors already trained).
"""

from __future__ import annotations

import json
import time

from cluster.storage import storage
from configs import InputError
from shards.build.journal import Journal
from shards.build.lock import edited
from shards.build.report import PAGE, write_report
from shards.format.catalogue import Catalogue, known_people, write_catalogue
from shards.format.schema import clean_name, split_key
from shards.people.withdrawn import Withdrawal, name_hash, withdrawn_people, write_withdrawn
from shards.read.dataset import Dataset
from shards.tar.rewrite import first_keys, remove_old_revisions, rewrite_shard


def forget(dataset: str, identity: str) -> dict[str, object]:
    """Remove every sample of a person, and every sample of the same video files under other names.

    Args:
        dataset: folder or ``s3://`` URL.
        identity: the person's name, as the consent file or ``shards info`` writes it.

    Returns:
        ``identity, also_as`` (other names of the same videos), ``samples, clips, shards_rewritten, shards_removed`` and
        the dataset's new totals.

    Raises:
        InputError: no such person (and none withdrawn under this name), another writer is at work, or storage fails.
    """
    url = str(dataset) if storage.is_remote(dataset) else str(storage.local_path(dataset))
    with edited(url) as catalogue:
        names = [person["name"] for person in catalogue.identities]
        withdrawn = withdrawn_people(url)
        if identity not in names and not withdrawn.covers(identity):
            if (clean := clean_name(identity)) not in names and not withdrawn.covers(clean):
                raise InputError(f"{url}: no identity '{identity}'{known_people(identity, names)}")
            identity = clean
        before = withdrawn.entry(identity)
        videos = _videos(url, identity) if before is None else before.get("videos", [])
        copies = _copies(url, identity, videos)
        counts = _counts(catalogue, identity, copies)
        if before is None:
            date = time.strftime("%Y-%m-%d", time.gmtime())
            samples, clips = counts["samples"], counts["clips"]
            withdrawn.people.append(
                Withdrawal(person=name_hash(identity), date=date, samples=samples, clips=clips, videos=videos)
            )
        write_withdrawn(url, withdrawn)
        catalogue.withdrawn = len(withdrawn.people)
        rewritten, removed = _rewrite(url, catalogue, identity, videos, copies)
        write_catalogue(url, catalogue)
        remove_old_revisions(url, catalogue)
        _forget_report(url, catalogue, identity, videos)
    done = {
        "also_as": sorted({name for name, _ in copies}),
        "shards_rewritten": rewritten,
        "shards_removed": removed,
    }
    return {"identity": identity, **counts, **done, "dataset": {**catalogue.totals(), "schema": 1}}


def _videos(url: str, identity: str) -> list[str]:
    """sha256 of the person's videos that the build report lists."""
    records = [record for record in Journal.read(url).clips.values() if record["identity"] == identity]
    return sorted({record["sha256"] for record in records if record.get("sha256")})


def _copies(url: str, identity: str, videos: list[str]) -> list[tuple[str, int]]:
    """Names and segments of clips whose file is one of the person's videos, byte for byte, under another name."""
    return [
        (record["identity"], int(record.get("segments", 0)))
        for record in Journal.read(url).clips.values()
        if record["identity"] != identity and record.get("sha256") in videos
    ]


def _counts(catalogue: Catalogue, identity: str, copies: list[tuple[str, int]]) -> dict[str, int]:
    number = next((i for i, p in enumerate(catalogue.identities) if p["name"] == identity), None)
    rows = [row for shard in catalogue.shards for row in shard["people"] if row[0] == number]
    samples = sum(row[2] for row in rows) + sum(segments for _, segments in copies)
    return {"samples": samples, "clips": sum(row[4] for row in rows) + len(copies)}


def _rewrite(
    url: str, catalogue: Catalogue, identity: str, videos: list[str], copies: list[tuple[str, int]]
) -> tuple[int, int]:
    """New revisions of the shards that hold the person; the catalogue lists them instead."""
    names = {name for name, _ in copies}
    numbers = {i for i, person in enumerate(catalogue.identities) if person["name"] in {identity, *names}}
    old = [s["name"] for s in catalogue.shards if any(row[0] in numbers for row in s["people"])]
    opened = Dataset(url, catalogue)
    starts = first_keys([row.key for row in opened.samples]) if old else set()

    def others(key: str, members: dict[str, bytes]) -> dict[str, bytes] | None:
        name = split_key(key)[0]
        copy = name in names and json.loads(members["meta.json"]).get("source_sha256") in videos
        return None if name == identity or copy else members

    found = [rewrite_shard(url, name, others, starts, index=opened.index(name)) for name in old]
    entries = [entry for entry in found if entry is not None]
    opened.close()
    catalogue.add(entries)
    catalogue.remove(old)
    return len(entries), len(old) - len(entries)


def _forget_report(url: str, catalogue: Catalogue, identity: str, videos: list[str]) -> None:
    journal = Journal.read(url)
    clips = journal.clips.items()
    gone = [name for name, record in clips if record["identity"] == identity or record.get("sha256") in videos]
    for name in gone:
        if journal.clips[name].get("thumbnail"):
            storage.remove(storage.join(url, journal.clips[name]["thumbnail"]))
    if gone:
        journal.forget(gone)
        journal.write()
        if storage.exists(storage.join(url, PAGE)):
            write_report(url, journal, catalogue, 0.0)
