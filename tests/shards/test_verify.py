"""verify finds every kind of damage and says where; repair leaves a dataset that verifies; forget leaves no trace."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

from configs import InputError
from shards import DatasetWriter, open_dataset, sample_key
from shards.check.info import info
from shards.check.verify import verify
from shards.people.forget import forget
from shards.people.withdrawn import withdrawn_people
from tests.support.samples import RIG, make_dataset, parts


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("audit") / "data"
    make_dataset(path, {"ann": 5, "bob": 3, "cyd": 3}, per_shard=4, per_clip=2, length=4)
    return path


@pytest.fixture
def copy(folder, tmp_path) -> Path:
    shutil.copytree(folder, tmp_path / "copy")
    return tmp_path / "copy"


def tar_of(folder: Path, number: int = 0) -> Path:
    return folder / "shards" / f"{open_dataset(folder).table.names[number]}.tar"


def flip_member(folder: Path, key: str, member: str, at: int = 60) -> None:
    """Change one byte inside a member."""
    dataset = open_dataset(folder)
    for number, name in enumerate(dataset.table.names):
        index = dataset._store.index(number)
        if key in index.keys:
            row = index.rows(index.keys.index(key))[member]
            path = folder / "shards" / f"{name}.tar"
            data = bytearray(path.read_bytes())
            data[int(index.offset[row]) + at] ^= 0x5A
            path.write_bytes(bytes(data))


def test_a_whole_dataset_verifies(folder):
    assert verify(str(folder)) == {"ok": True, "samples": 11, "broken": []}


def test_info_needs_dataset_json_only(copy):
    shutil.rmtree(copy / "shards")
    assert info(str(copy))["segments"] == 11


@pytest.mark.parametrize("member", ["f002.jpg", "track.npz", "audio.flac", "audio.logmel.npy", "meta.json"])
def test_a_flipped_byte_is_found(copy, member):
    flip_member(copy, "bob/bob_clip0-00001", member)
    result = verify(str(copy))
    assert not result["ok"]
    named = [e for e in result["broken"] if e["key"]]
    assert all((e["key"], e["member"]) == ("bob/bob_clip0-00001", member) for e in named), named
    assert any("sha256" in entry["reason"] for entry in result["broken"])


def test_a_truncated_tar_is_found_and_repair_keeps_what_can_be_read(copy):
    path = tar_of(copy)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3 // 512 * 512 + 700])
    result = verify(str(copy), repair=True)
    assert "not a readable tar" in result["broken"][0]["reason"]
    assert result["repaired"][0]["samples_lost"] >= 1
    after = verify(str(copy))
    assert after["ok"], after
    assert after["samples"] == 11 - result["repaired"][0]["samples_lost"] > 0
    assert info(str(copy))["segments"] == after["samples"]


def test_repair_drops_the_broken_sample_and_nothing_else(copy):
    flip_member(copy, "bob/bob_clip0-00001", "f001.jpg", at=2)
    assert verify(str(copy), repair=True)["repaired"][0]["samples_lost"] == 1
    keys = [row.key for row in open_dataset(copy).samples]
    assert "bob/bob_clip0-00001" not in keys
    assert len(keys) == 10
    assert verify(str(copy))["ok"]


@pytest.mark.parametrize("first", [False, True])
def test_a_damaged_header_costs_its_own_sample_and_none_behind_it(copy, first):
    dataset = open_dataset(copy)
    name, keys = dataset.table.names[0], dataset._store.index(0).keys
    path = copy / "shards" / f"{name}.tar"
    with tarfile.open(path) as archive:
        member = next(one for one in archive if first or one.name == f"{keys[1]}.f001.jpg")
    data = bytearray(path.read_bytes())
    data[member.offset + 3] ^= 0x5A
    path.write_bytes(bytes(data))
    repaired = verify(str(copy), repair=True)["repaired"]
    assert [one["lost"] for one in repaired] == [[keys[0 if first else 1]]]
    assert verify(str(copy)) == {"ok": True, "samples": 10, "broken": []}


@pytest.mark.parametrize("damage", ["missing", "flipped", "of another shard"])
def test_a_lying_index_is_found_and_rebuilt(copy, damage):
    first, second = sorted((copy / "index").glob("*.npz"))[:2]
    if damage == "missing":
        first.unlink()
    elif damage == "flipped":
        first.write_bytes(first.read_bytes()[:-9] + b"xxxxxxxxx")
    else:
        shutil.copy(second, first)
    result = verify(str(copy), repair=True)
    assert result["broken"][0]["member"] == f"index/{first.name}"
    assert result["repaired"][0]["action"] == "index rebuilt"
    assert verify(str(copy)) == {"ok": True, "samples": 11, "broken": []}


def test_an_index_whose_checksum_was_adapted_to_the_lie_is_found(copy):
    from shards.format.index import digest

    first, second = sorted((copy / "index").glob("*.npz"))[:2]
    shutil.copy(second, first)
    value = json.loads((copy / "dataset.json").read_text())
    value["shards"][0]["index_sha256"] = digest(first.read_bytes())
    (copy / "dataset.json").write_text(json.dumps(value))
    assert any("does not describe its tar" in entry["reason"] for entry in verify(str(copy))["broken"])


def add_spoilt(folder: Path, spoil) -> None:
    """A sample that is well-formed but untrue."""
    value = parts(5)
    spoil(value)
    with DatasetWriter(folder, rig=RIG) as writer:
        writer.add(sample_key("eve", "eve", 0), {}, **value)


def test_features_that_are_late_by_a_frame_are_found(copy):
    add_spoilt(copy, lambda v: v.update(features={"logmel": np.roll(v["features"]["logmel"], 1, axis=0)}))
    (entry,) = verify(str(copy))["broken"]
    assert (entry["key"], entry["member"]) == ("eve/eve-00000", "audio.logmel.npy")
    assert "disagree" in entry["reason"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda t: t["rotation"].__imul__(-1), "no rotation"),
        (lambda t: t["translation"].__imul__(-1), "behind the camera"),
        (lambda t: t["translation"].__iadd__(np.float32([9, 0, 0])), "eye distances from the landmarks"),
    ],
)
def test_a_pose_that_does_not_fit_the_landmarks_is_found(copy, spoil, message):
    def apply(value):
        value["track"]["landmarks"][:, [263, 362]] = (20.0, 16.0, 0.0)
        value["track"]["landmarks"][:, [33, 133]] = (12.0, 16.0, 0.0)
        spoil(value["track"])

    add_spoilt(copy, apply)
    assert message in verify(str(copy))["broken"][0]["reason"]


def test_counts_in_dataset_json_that_lie_are_found(copy):
    value = json.loads((copy / "dataset.json").read_text())
    shard = next(s for s in value["shards"] if len(s["people"]) > 1)
    shard["people"][0][2] += 1
    shard["people"][1][2] -= 1
    (copy / "dataset.json").write_text(json.dumps(value))
    assert any(entry["member"] == "dataset.json" for entry in verify(str(copy))["broken"])
    verify(str(copy), repair=True)
    assert verify(str(copy))["ok"]


# ---------------------------------------------------------------------------------------------------- forget


def test_forgetting_removes_every_byte_of_a_person_and_touches_no_other_shard(copy):
    dataset = open_dataset(copy)
    untouched = {
        name: (copy / "shards" / f"{name}.tar").read_bytes()
        for number, name in enumerate(dataset.table.names)
        if not any(key.startswith("bob/") for key in dataset._store.index(number).keys)
    }
    assert untouched
    result = forget(str(copy), "bob")
    assert (result["samples"], result["clips"]) == (3, 2)
    after = open_dataset(copy)
    assert after.identities == ["ann", "cyd"]
    assert after.info["clips"] == dataset.info["clips"] - 2
    assert len(after) == 8
    assert after.withdrawn == 1
    assert verify(str(copy))["ok"]
    assert all((copy / "shards" / f"{name}.tar").read_bytes() == data for name, data in untouched.items())
    for path in copy.rglob("*"):
        if path.is_file():
            assert b"bob" not in path.read_bytes(), path
    listed = {f"{name}.tar" for name in after.table.names}
    assert {path.name for path in (copy / "shards").iterdir()} == listed


def test_samples_of_others_are_the_same_bytes_after_forgetting(copy):
    before = {
        key: open_dataset(copy).read(key).raw("f001.jpg") for key in ("ann/ann_clip1-00001", "cyd/cyd_clip0-00000")
    }
    forget(str(copy), "bob")
    after = open_dataset(copy)
    assert {key: after.read(key).raw("f001.jpg") for key in before} == before


def test_a_withdrawn_person_cannot_be_written_again(copy):
    forget(str(copy), "bob")
    with DatasetWriter(copy, rig=RIG) as writer, pytest.raises(InputError, match="was withdrawn"):
        writer.add(sample_key("bob", "bob_again", 0), {}, **parts(0))


def test_forgetting_twice_is_fine_and_an_unknown_person_is_refused(copy):
    forget(str(copy), "bob")
    assert forget(str(copy), "bob")["samples"] == 0
    assert len(withdrawn_people(str(copy)).people) == 1
    with pytest.raises(InputError, match="no identity 'cid'; did you mean 'cyd'"):
        forget(str(copy), "cid")


def test_a_withdrawal_that_was_cut_off_is_finished_by_the_next(copy, monkeypatch):
    import shards.people.forget as module

    monkeypatch.setattr(module, "write_catalogue", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        forget(str(copy), "bob")
    monkeypatch.undo()
    assert verify(str(copy)) == {"ok": True, "samples": 11, "broken": []}
    assert withdrawn_people(str(copy)).covers("bob")
    assert forget(str(copy), "bob")["samples"] == 3
    assert verify(str(copy))["ok"]
    assert not any(b"bob" in path.read_bytes() for path in copy.rglob("*") if path.is_file())


def test_everybody_can_be_forgotten(copy):
    for name in ("ann", "bob", "cyd"):
        forget(str(copy), name)
    assert info(str(copy))["segments"] == 0
    assert verify(str(copy)) == {"ok": True, "samples": 0, "broken": []}
