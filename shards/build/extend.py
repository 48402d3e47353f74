"""Adds audio features, lips, motion and groups of pictures to existing shards from what they hold, without tracking again.

Rows of an earlier revision of a feature are replaced in the same way.

Rows are those that a build with these features would have stored, from the same stream: the segments of one shot, one
after the other. The sound can be put in step as well, by lips and rows of a speech encoder as they are stored.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import groupby
from pathlib import Path

import numpy as np
import torch

from cluster.storage import storage
from configs import InputError
from configs.records import FeatureRecord
from heads.measures.lips import lip_shape
from shards.build.task import BuildSettings, FeatureTask, Message
from shards.features.base import Feature
from shards.features.registry import open_feature
from shards.format import codecs
from shards.format.catalogue import read_catalogue
from shards.format.schema import Sample, check_features, feature_name, split_key
from shards.format.small import EXTRAS, small_members, with_loudness
from shards.media.rates import MOST_OFFSET, SAMPLE_RATE, SAMPLES_PER_FRAME
from shards.read.dataset import Dataset
from shards.tar.rewrite import first_keys, rewrite_shard
from shards.tracking.av_offset import HEARD, LEAST_FRAMES, AvOffset, LipFilters, filters_for, has_filters, offset_of

Segments = list[Sample]


def feature_tasks(dataset: Dataset, records: Sequence[FeatureRecord], extras: bool = False) -> list[FeatureTask]:
    """The shards that lack features (or members of :mod:`shards.format.small`), in groups of which no two share a clip.

    They are all shards if the dataset has one of the features in an earlier revision.
    """
    names = [*(feature_name(record["name"]) for record in records), *(EXTRAS if extras else ())]
    number_of = {name: i for i, name in enumerate(dataset.table.names)}
    again = any(record["name"] in dataset.features for record in records)
    lacking = [
        group
        for group in _groups(dataset)
        if again or any(not set(names).issubset(dataset.index(number_of[name]).suffixes) for name in group)
    ]
    return [FeatureTask(shards=tuple(group)) for group in lacking]


def step_tasks(dataset: Dataset, records: Sequence[FeatureRecord]) -> list[FeatureTask]:
    """All shards, in groups of which no two share a clip, to put their sound in step.

    Raises:
        InputError: no feature of the dataset tells offsets to a fraction of a frame.
    """
    if not any(has_filters(record) for record in records):
        raise InputError(
            f"{dataset.url}: sound is put in step by rows of Whisper tiny.en, which this dataset does not have; add them "
            f"(headstart shards build --out {dataset.url} --features whisper=FOLDER)"
        )
    return [FeatureTask(shards=tuple(group)) for group in _groups(dataset)]


def _groups(dataset: Dataset) -> list[list[str]]:
    """Names of the dataset's shards, in groups of which no two share a clip."""
    groups: list[list[str]] = []
    last: set[tuple[str, str]] = set()
    for number, name in enumerate(dataset.table.names):
        index = dataset.index(number)
        clips = {split_key(key)[:2] for key in index.keys}
        if not clips & last:
            groups.append([])
        groups[-1].append(name)
        last = clips
    return groups


def extend_shards(task: FeatureTask, settings: BuildSettings) -> Message:
    """Publish new revisions of a task's shards; returns the message ``("replace", old names, entries, offsets)``.

    The offsets, s by clip, are those that were found and removed (``settings.put_in_step``).

    Raises:
        InputError: a sample that cannot be read (``shards verify --repair`` drops it), or a storage failure.
    """
    if settings.put_in_step:
        return _step_shards(task, settings)
    features = [open_feature(record) for record in settings.features]
    scratch = storage.scratch(settings.out)
    try:
        with closing(Dataset(settings.out, read_catalogue(settings.out))) as dataset:
            samples = _samples(dataset, task.shards)
            starts = first_keys([sample.key for sample in samples])
            indexes = {name: dataset.index(name) for name in task.shards}
            for shot in _shots(samples) if features else ():
                _write_rows(shot, features, scratch)

        def edit(key: str, members: dict[str, bytes]) -> dict[str, bytes]:
            extended = _with_rows(key, members, features, scratch)
            return _with_extras(extended) if settings.extras else extended

        entries = [rewrite_shard(settings.out, name, edit, starts, index=indexes[name]) for name in task.shards]
        return ("replace", list(task.shards), [entry for entry in entries if entry is not None], {})
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _step_shards(task: FeatureTask, settings: BuildSettings) -> Message:
    """Move the sound of clips that is out of step, and extract their features again; other clips are copied."""
    features = [open_feature(record) for record in settings.features]
    speech = next(feature for feature in features if has_filters(feature.record))
    filters = filters_for(speech)
    scratch = storage.scratch(settings.out)
    found: dict[str, AvOffset] = {}
    sound: dict[str, np.ndarray] = {}
    try:
        with closing(Dataset(settings.out, read_catalogue(settings.out))) as dataset:
            samples = _samples(dataset, task.shards)
            starts = first_keys([sample.key for sample in samples])
            indexes = {name: dataset.index(name) for name in task.shards}
            for clip, parts in groupby(samples, key=lambda sample: sample.clip):
                segments = list(parts)
                offset = _offset(segments, filters, speech.name)
                if not offset.seconds:
                    continue
                found[clip] = offset
                moved = _moved(segments, round(offset.seconds * SAMPLE_RATE))
                sound |= moved
                for shot in _shots(segments):
                    _write_rows(shot, features, scratch, moved)

        def edit(key: str, members: dict[str, bytes]) -> dict[str, bytes]:
            if key not in sound:
                return members
            stepped = _with_sound(members, sound[key], found[split_key(key)[1]])
            return _with_rows(key, stepped, features, scratch)

        entries = (
            [rewrite_shard(settings.out, name, edit, starts, index=indexes[name]) for name in task.shards]
            if found
            else []
        )
        seconds = {clip: offset.seconds for clip, offset in found.items()}
        return ("replace", list(task.shards) if found else [], [e for e in entries if e is not None], seconds)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _offset(segments: Segments, filters: LipFilters, feature: str) -> AvOffset:
    """What the stored lips and rows of a clip's segments say; nothing if the sound was moved too far already."""
    parts, left = [], HEARD
    for shot in _shots(sample for sample in segments if sample.meta.get("has_audio", True)):
        lips = np.concatenate([_lips(sample) for sample in shot])[:left]
        rows = np.concatenate([sample.features(feature) for sample in shot])
        if len(lips) >= LEAST_FRAMES:
            parts.append((lips, rows[: len(lips)].astype(np.float32)))
            left -= len(lips)
    found = offset_of(parts, filters) if parts else AvOffset()
    total = float(segments[0].meta.get("av_offset", 0.0)) + found.seconds
    return found if abs(total) <= MOST_OFFSET else AvOffset()


def _lips(sample: Sample) -> np.ndarray:
    lips = lip_shape(torch.tensor(sample.track["landmarks"])).numpy()
    sample.forget()
    return lips


def _moved(segments: Segments, by: int) -> dict[str, np.ndarray]:
    """Sound ``[T * 640]`` of a clip's samples by key, taken ``by`` samples later; silence where the dataset has none."""
    first = [int(sample.meta.get("first_frame", 0)) for sample in segments]
    spans = [(start * SAMPLES_PER_FRAME, sample.audio) for start, sample in zip(first, segments, strict=True)]
    moved = {}
    for sample, (start, own) in zip(segments, spans, strict=True):
        sound = np.zeros(len(own), np.float32)
        for at, audio in spans:
            low, high = max(start + by, at), min(start + by + len(own), at + len(audio))
            if low < high:
                sound[low - start - by : high - start - by] = audio[low - at : high - at]
        moved[sample.key] = sound
        sample.forget()
    return moved


def _with_sound(members: Mapping[str, bytes], sound: np.ndarray, found: AvOffset) -> dict[str, bytes]:
    """A sample's members with other sound; its features remain as they were."""
    meta = json.loads(members["meta.json"])
    meta["av_offset"] = round(meta.get("av_offset", 0.0) + found.seconds, 4)
    meta["av_offset_confidence"] = found.confidence
    stepped = {"audio.flac": codecs.encode_flac(sound), "meta.json": json.dumps(meta, sort_keys=True).encode()}
    return with_loudness({**members, **stepped}, sound)


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


def _write_rows(
    shot: Segments, features: Sequence[Feature], scratch: Path, sound: Mapping[str, np.ndarray] | None = None
) -> None:
    """One file of rows for each sample and feature, of its own sound or another by key; memory holds the rows of one block."""
    for feature in features:
        stream, waiting, rows = feature.stream(), list(reversed(shot)), np.zeros((0, feature.size), np.float32)
        for sample in shot:
            rows = np.concatenate([rows, stream.push(sample.audio if sound is None else sound[sample.key])])
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
