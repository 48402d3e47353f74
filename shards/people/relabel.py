"""``headstart shards relabel``: correct identity, licence, consent and source of clips by a consent file, without tracking again.

The samples are the truth: their keys and ``meta.json`` say what is to be changed. Order: new revisions of the shards that hold
such samples are written; ``dataset.json`` is replaced atomically; then the build records, and the old tars are deleted. Run
again after a crash, it finishes. Priors trained earlier keep the licences that were stated when they were trained.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field

from cluster.storage import storage
from configs import InputError, progress
from shards.build.journal import Journal
from shards.build.lock import edited
from shards.build.report import PAGE, write_report
from shards.format.catalogue import Catalogue, write_catalogue
from shards.format.schema import sample_key, split_key
from shards.people.consent import UNKNOWN, ConsentFile, ConsentRecord, read_consent
from shards.people.copies import people_of_one_video
from shards.people.withdrawn import withdrawn_people
from shards.read.dataset import Dataset
from shards.tar.rewrite import first_keys, remove_old_revisions, rewrite_shard

Name = tuple[str, str]  # identity, clip


@dataclass
class _Clip:
    """A clip of the dataset: its shards, the numbers of its segments, and the record and file that its samples state."""

    stated: ConsentRecord
    file: str
    shards: set[str] = field(default_factory=set)
    numbers: list[int] = field(default_factory=list)


def relabel(dataset: str, consent: str) -> dict[str, object]:
    """Change what the samples of clips state to what the rows of a consent file state; other clips stay as they are.

    A row names a clip (``001``), one of an identity (``ann/001``), or its file (``001.mp4``), as a name or a pattern.

    Args:
        dataset: folder or ``s3://`` URL.
        consent: CSV of :mod:`shards.people.consent`.

    Returns:
        ``relabelled: [{clip, was, now}], samples, shards_rewritten, unused`` (rows that fit no clip) and the dataset's totals.

    Raises:
        InputError: no dataset there, a wrong consent file, no row that fits, a person who was withdrawn, two clips that would get
            one key, a damaged sample, another writer at work, or storage that fails.
    """
    url = str(dataset) if storage.is_remote(dataset) else str(storage.local_path(dataset))
    rows = read_consent(str(consent))
    with edited(url) as catalogue:
        with closing(Dataset(url, catalogue)) as opened:
            clips = _clips(opened)
            wanted = _wanted(url, rows, clips)
            changed = {name: record for name, record in wanted.items() if _differs(clips[name].stated, record)}
            _check(url, clips, changed)
            rewritten = _rewrite(opened, catalogue, clips, changed)
        _restate(catalogue, clips, changed)
        if changed:
            write_catalogue(url, catalogue)
        remove_old_revisions(url, catalogue)
        _relabel_report(url, catalogue, wanted)
    used = {record.clip for record in wanted.values()}
    return {
        "relabelled": [
            {"clip": name[1], "was": clips[name].stated.sentence(), "now": record.sentence()}
            for name, record in sorted(changed.items())
        ],
        "samples": sum(len(clips[name].numbers) for name in changed),
        "shards_rewritten": rewritten,
        "unused": [record.clip for record in rows.rows.values() if record.clip not in used],
        "dataset": {**catalogue.totals(), "schema": 1},
    }


def _clips(dataset: Dataset) -> dict[Name, _Clip]:
    """All clips, with what the first sample of each says."""
    clips: dict[Name, _Clip] = {}
    for number, shard in enumerate(dataset.table.names):
        for row, key in enumerate(dataset.index(number).keys):
            identity, clip, segment = split_key(key)
            if (identity, clip) not in clips:
                meta = dataset.sample(number, row).meta
                stated = {name: str(meta.get(name) or UNKNOWN) for name in ("licence", "consent")}
                record = ConsentRecord(clip=clip, identity=identity, source=str(meta.get("source") or ""), **stated)
                clips[identity, clip] = _Clip(record, str(meta.get("source_file") or ""))
            found = clips[identity, clip]
            found.shards.add(shard)
            found.numbers.append(segment)
    return clips


def _wanted(url: str, rows: ConsentFile, clips: Mapping[Name, _Clip]) -> dict[Name, ConsentRecord]:
    """The row of each clip that has one.

    A clip's name has precedence over its file's, a name over patterns, an earlier row over a later one.
    """
    by_name = rows.assign(["/".join(name) for name in clips])
    by_file = rows.assign([_place(name, clip) for name, clip in clips.items() if clip.file])
    order = {record.clip: i for i, record in enumerate(rows.rows.values())}
    wanted = {}
    for name, clip in clips.items():
        fits = [by_name.get("/".join(name)), by_file.get(_place(name, clip))]
        if found := sorted((row for row in fits if row), key=lambda row: (*_rank(row.clip, name), order[row.clip])):
            wanted[name] = found[0]
    if not wanted:
        raise InputError(
            f"{rows.path}: none of the {len(rows)} rows fits a clip of {url}; name clips as a dataset does, which keeps no "
            "folders: the clip (001), the clip of an identity (ann/001, ann/*), or its file (001.mp4)"
        )
    return wanted


def _rank(row: str, name: Name) -> tuple[bool, bool]:
    exact = row in (name[1], "/".join(name))
    return not exact, any(sign in row for sign in "*?[")


def _place(name: Name, clip: _Clip) -> str:
    # Files of one name stay apart, and a row can tell them apart: CLIP/FILE.
    return f"{name[0]}/{name[1]}/{clip.file}"


def _differs(stated: ConsentRecord, wanted: ConsentRecord) -> bool:
    return (stated.identity, stated.for_meta()) != (wanted.identity, wanted.for_meta())


def _check(url: str, clips: Mapping[Name, _Clip], changed: Mapping[Name, ConsentRecord]) -> None:
    """Refuse what cannot be written before anything is."""
    gone = withdrawn_people(url)
    for (_, clip), record in changed.items():
        if gone.covers(record.identity):
            raise InputError(
                f"clip '{clip}': '{record.identity}' was withdrawn from {url} (headstart shards forget); nothing was changed"
            )
    after = Counter((changed[name].identity if name in changed else name[0], name[1]) for name in clips)
    if twice := [name for name, count in after.items() if count > 1]:
        raise InputError(
            f"{url}: identity '{twice[0][0]}' would have {after[twice[0]]} clips of the name '{twice[0][1]}'; "
            "nothing was changed, build one of them under another name"
        )
    for (_, clip), record in changed.items():
        sample_key(record.identity, clip, 0)  # a key that is too long is refused here


def _rewrite(
    dataset: Dataset, catalogue: Catalogue, clips: Mapping[Name, _Clip], changed: Mapping[Name, ConsentRecord]
) -> int:
    """New revisions of the shards that hold changed clips; the catalogue lists them instead."""
    old = sorted({shard for name in changed for shard in clips[name].shards})
    starts = first_keys([row.key for row in dataset.samples]) if old else set()

    def edit(key: str, members: dict[str, bytes]) -> dict[str, bytes]:
        record = changed.get(split_key(key)[:2])
        if record is None:
            return members
        meta = {**json.loads(members["meta.json"]), **record.for_meta(), "identity": record.identity}
        return {**members, "meta.json": json.dumps(meta, sort_keys=True).encode()}

    def rename(key: str) -> str:
        identity, clip, number = split_key(key)
        record = changed.get((identity, clip))
        return key if record is None else sample_key(record.identity, clip, number)

    entries = [
        rewrite_shard(dataset.url, name, edit, starts, index=dataset.index(name), rename=rename)
        for name in progress.tracked(iter(old), "relabelling", len(old), "shards")
    ]
    catalogue.add([entry for entry in entries if entry is not None])
    catalogue.remove(old)
    return len(entries)


def _restate(catalogue: Catalogue, clips: Mapping[Name, _Clip], changed: Mapping[Name, ConsentRecord]) -> None:
    """Licences and consents of the people concerned, without those that none of their clips states any more."""
    concerned = {identity for identity, _ in changed} | {record.identity for record in changed.values()}
    now = [changed.get(name, clip.stated) for name, clip in clips.items()]
    for person in catalogue.identities:
        if person["name"] in concerned:
            records = [record for record in now if record.identity == person["name"]]
            person["licences"] = sorted({record.licence for record in records})
            person["consents"] = sorted({record.consent for record in records})


def _relabel_report(url: str, catalogue: Catalogue, wanted: Mapping[Name, ConsentRecord]) -> None:
    """Build records of the clips that rows name, also where a crash left them behind the samples."""
    journal = Journal.read(url)
    late = list(_late(journal, wanted))
    for clip, record in late:
        journal.clips[clip] |= {**record.for_meta(), "identity": record.identity, "in_consent_file": True}
    if late:
        journal.write()
        if storage.exists(storage.join(url, PAGE)):
            write_report(url, journal, catalogue, 0.0)
    for sentence in people_of_one_video(journal.done(catalogue)):
        progress.say(sentence)


def _late(journal: Journal, wanted: Mapping[Name, ConsentRecord]) -> Iterator[tuple[str, ConsentRecord]]:
    for (_, clip), record in wanted.items():
        held = journal.clips.get(clip)
        now = {**record.for_meta(), "identity": record.identity}
        if held is not None and held["frames"] and any(held.get(name) != value for name, value in now.items()):
            yield clip, record
