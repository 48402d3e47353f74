"""Datasets to which a later version has added fields and members are read, checked and rewritten without loss."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from configs import InputError
from shards.build.build import build
from shards.check.verify import verify
from shards.format import codecs
from shards.format.catalogue import read_catalogue, write_catalogue
from shards.format.encode import encode_sample
from shards.format.fields import TRACK_SHAPES
from shards.format.schema import BrokenSample, is_member, sample_key
from shards.people.forget import forget
from shards.read.dataset import open_dataset
from shards.tar.rewrite import first_keys, rewrite_shard
from tests.shards.features.models import whisper
from tests.support.samples import make_dataset, parts

HAIR = codecs.encode_npy(np.arange(5, dtype=np.int16))


def of_later_version(key: str, members: dict[str, bytes]) -> dict[str, bytes]:
    """A sample with additions everywhere, of types and lengths that this version has no idea of."""
    added = {"strands": np.arange(7, dtype=np.int16), "scan": np.float64(2)}
    tracks = [name for name in members if name in ("lips.npz", "motion.npz") or name.startswith("track.")]
    grown = {name: codecs.encode_npz({**codecs.decode_npz(members[name]), **added}) for name in tracks}
    meta = json.dumps({**json.loads(members["meta.json"]), "room": {"light": "window"}}).encode()
    return {**members, **grown, "meta.json": meta, "hair.tips.npy": HAIR}


@pytest.fixture
def folder(tmp_path) -> Path:
    path = tmp_path / "data"
    make_dataset(path, {"ann": 5, "bob": 3}, per_shard=4, per_clip=2, length=12)
    dataset, catalogue = open_dataset(path), read_catalogue(str(path))
    starts = first_keys([row.key for row in dataset.samples])
    names = sorted(catalogue.names())
    entries = [rewrite_shard(str(path), name, of_later_version, starts, index=dataset.index(name)) for name in names]
    catalogue.remove(names)
    catalogue.add(entry for entry in entries if entry is not None)
    catalogue.others["hair"] = {"model": "strands/3"}
    write_catalogue(str(path), catalogue)
    return path


def test_it_verifies(folder):
    assert verify(str(folder)) == {"ok": True, "samples": 8, "broken": []}


def test_samples_have_what_this_version_knows(folder, tmp_path):
    make_dataset(tmp_path / "plain", {"ann": 5, "bob": 3}, per_shard=4, per_clip=2, length=12)
    later, plain = open_dataset(folder), open_dataset(tmp_path / "plain")
    for row in plain.samples:
        sample, wanted = later.read(row.key), plain.read(row.key)
        assert sample.track.keys() == TRACK_SHAPES.keys()
        for name in ("track", "motion", "lips"):
            found, expected = getattr(sample, name), getattr(wanted, name)
            assert found.keys() == expected.keys()
            assert all(np.array_equal(found[field], expected[field]) for field in expected)
        assert [sample.group(k).keys() for k in range(len(sample.groups))] == [
            wanted.group(k).keys() for k in range(len(wanted.groups))
        ]


def test_what_it_does_not_know_survives_a_removal_and_new_features(folder, tmp_path):
    forget(str(folder), "bob")
    build([], folder, features=[f"whisper={whisper(tmp_path / 'encoder')}"], workers=0)
    dataset = open_dataset(folder)
    assert verify(str(folder))["ok"]
    assert read_catalogue(str(folder)).others == {"hair": {"model": "strands/3"}}
    for row in dataset.samples:
        sample = dataset.read(row.key)
        assert sample.raw("hair.tips.npy") == HAIR
        assert sample.meta["room"] == {"light": "window"}
        assert codecs.decode_npz(sample.raw("track.npz"))["strands"].tolist() == list(range(7))
        assert "audio.whisper.npy" in sample.members


def test_extras_are_made_of_the_fields_that_it_knows(folder):
    def without(key: str, members: dict[str, bytes]) -> dict[str, bytes]:
        return {name: data for name, data in members.items() if name == "track.npz" or not name.endswith(".npz")}

    dataset, catalogue = open_dataset(folder), read_catalogue(str(folder))
    starts, names = first_keys([row.key for row in dataset.samples]), sorted(catalogue.names())
    entries = [rewrite_shard(str(folder), name, without, starts, index=dataset.index(name)) for name in names]
    catalogue.remove(names)
    catalogue.add(entry for entry in entries if entry is not None)
    write_catalogue(str(folder), catalogue)
    build([], folder, extras=True, workers=0)
    assert verify(str(folder))["ok"]
    dataset = open_dataset(folder)
    assert all("motion.npz" in dataset.read(row.key).members for row in dataset.samples)


def test_a_field_that_no_track_has_is_not_written():
    sample = parts(seed=1)
    sample["track"] = {**sample["track"], "roation": sample["track"]["rotation"]}
    with pytest.raises(BrokenSample, match="unknown field 'roation'"):
        encode_sample(sample_key("ann", "walk", 0), {}, **sample)


@pytest.mark.parametrize(
    "name", ["hair.pkl", "hair.pt", "run.sh", "../x.npy", "a/b.npy", ".npy", "HAIR.npy", "hair.npy "]
)
def test_a_member_that_is_no_data_is_refused(name):
    assert not is_member(name)


def test_a_dataset_of_a_later_schema_is_refused(folder):
    text = (folder / "dataset.json").read_text().replace('"schema": 1,', '"schema": 2,')
    (folder / "dataset.json").write_text(text)
    with pytest.raises(InputError, match="schema 2, this version reads 1"):
        open_dataset(folder)
