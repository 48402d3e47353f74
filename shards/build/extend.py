"""Adds audio features, lips, motion and groups of pictures to existing shards from what they hold, without tracking again.

Rows are those that a build with these features would have stored, from the same stream: the segments of one shot, one
after the other.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from cluster.storage import storage
from configs.records import FeatureRecord
from shards.build.task import BuildSettings, FeatureTask, Message
from shards.features.base import Feature
from shards.features.registry import open_feature
from shards.format import codecs
from shards.format.catalogue import read_catalogue
from shards.format.schema import Sample, check_features, feature_name, split_key
from shards.format.small import EXTRAS, small_members
from shards.read.dataset import Dataset
from shards.tar.rewrite import first_keys, rewrite_shard

Segments = list[Sample]


def feature_tasks(dataset: Dataset, records: Sequence[FeatureRecord], extras: bool = False) -> list[FeatureTask]:
    """The shards that lack features (or members of :mod:`shards.format.small`), in groups of which no two share a clip."""
    names = [*(feature_name(record["name"]) for record in records), *(EXTRAS if extras else ())]
    groups: list[list[str]] = []
    last: set[tuple[str, str]] = set()
    for number, name in enumerate(dataset.table.names):
        index = dataset.index(number)
        clips = {split_key(key)[:2] for key in index.keys}
        if not clips & last:
            groups.append([])
        groups[-1].append(name)
        last = clips
    number_of = {name: i for i, name in enumerate(dataset.table.names)}
    lacking = [
        group
        for group in groups
        if any(not set(names).issubset(dataset.index(number_of[name]).suffixes) for name in group)
    ]
    return [FeatureTask(shards=tuple(group)) for group in lacking]


def extend_shards(task: FeatureTask, settings: BuildSettings) -> Message:
    """Publish new revisions of a task's shards; returns the message ``("replace", old names, entries)``.

    Raises:
        InputError: a sample that cannot be read (``shards verify --repair`` drops it), or a storage failure.
    """
    features = [open_feature(record) for record in settings.features]
    scratch = storage.scratch(settings.out)
    try:
        with closing(Dataset(settings.out, read_catalogue(settings.out))) as dataset:
            samples = _samples(dataset, task.shards)
            starts = first_keys([sample.key for sample in samples])
            for shot in _shots(samples) if features else ():
                _write_rows(shot, features, scratch)

        def edit(key: str, members: dict[str, bytes]) -> dict[str, bytes]:
            extended = _with_rows(key, members, features, scratch)
            return _with_extras(extended) if settings.extras else extended

        entries = [rewrite_shard(settings.out, name, edit, starts) for name in task.shards]
        return ("replace", list(task.shards), [entry for entry in entries if entry is not None])
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _samples(dataset: Dataset, names: Sequence[str]) -> Segments:
    """The samples of some shards in the order of their clips."""
    numbers = [i for i, name in enumerate(dataset.table.names) if name in names]
    found = [dataset.sample(i, row) for i in numbers for row in range(len(dataset.index(i).keys))]
    return sorted(found, key=lambda sample: split_key(sample.key))


def _shots(samples: Iterable[Sample]) -> Iterator[Segments]:
    """Runs of samples that follow each other without a gap in the video."""
    shot: Segments = []
    for sample in samples:
        if shot and not _follows(shot[-1], sample):
            yield shot
            shot = []
        shot.append(sample)
    if shot:
        yield shot


def _follows(first: Sample, second: Sample) -> bool:
    if (first.identity, first.clip) != (second.identity, second.clip):
        return False
    a, b = first.meta, second.meta
    # Version 0.1 called a shot a take.
    same = all(a.get(name) == b.get(name) for name in ("shot", "take"))
    return same and b.get("first_frame") == a.get("first_frame", 0) + first.length


def _write_rows(shot: Segments, features: Sequence[Feature], scratch: Path) -> None:
    """One file of rows for each sample and feature; memory holds the rows of one block."""
    for feature in features:
        stream, waiting, rows = feature.stream(), list(reversed(shot)), np.zeros((0, feature.size), np.float32)
        for sample in shot:
            rows = np.concatenate([rows, stream.push(sample.audio)])
            rows = _drain(rows, waiting, feature, scratch)
            sample.forget()
        rows = np.concatenate([rows, stream.finish()])
        _drain(rows, waiting, feature, scratch)


def _drain(rows: np.ndarray, waiting: Segments, feature: Feature, scratch: Path) -> np.ndarray:
    """Write the rows of the samples that are complete; returns the remaining rows."""
    while waiting and len(rows) >= waiting[-1].length:
        sample = waiting.pop()
        half = np.ascontiguousarray(rows[: sample.length], np.float16)
        check_features(sample.key, feature.name, half, sample.length, feature.size)
        _place(scratch, sample.key, feature.name).write_bytes(codecs.encode_npy(half))
        rows = rows[sample.length :]
    return rows


def _with_rows(key: str, members: dict[str, bytes], features: Sequence[Feature], scratch: Path) -> dict[str, bytes]:
    rows = {feature_name(f.name): _place(scratch, key, f.name).read_bytes() for f in features}
    return {**members, **rows}


def _with_extras(members: dict[str, bytes]) -> dict[str, bytes]:
    if set(EXTRAS).issubset(members):
        return members
    meta = json.loads(members["meta.json"])
    width, height = meta["size"]
    return {**members, **small_members(members, meta["frames"], (width, height))}


def _place(scratch: Path, key: str, feature: str) -> Path:
    return scratch / f"{key.replace('/', ' ')} {feature}.npy"
