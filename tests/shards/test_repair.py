"""Repairs lose nothing that another reader of WebDataset tars can read; what they would lose is named first."""

from __future__ import annotations

import io
import json
import random
import shutil
import tarfile
from pathlib import Path

import pytest

import shards.check.verify as verify_module
from configs import InputError
from shards.check import repair
from shards.check.verify import verify
from shards.format.schema import sample_key
from shards.people.forget import forget
from shards.read.dataset import open_dataset
from shards.tar.tars import TarFile, stream_samples
from shards.tar.writer import DatasetWriter
from tests.support.samples import RIG, make_dataset, parts

KEYS = 11


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("repair") / "data"
    make_dataset(path, {"ann": 5, "bob": 3, "cyd": 3}, per_shard=4, per_clip=2, length=4)
    return path


@pytest.fixture
def copy(folder, tmp_path) -> Path:
    shutil.copytree(folder, tmp_path / "copy")
    return tmp_path / "copy"


def shard(folder: Path, number: int = 0) -> Path:
    return folder / "shards" / f"{open_dataset(folder).table.names[number]}.tar"


def files_of(path: Path) -> list[tuple[str, bytes]]:
    with tarfile.open(path) as archive:
        return [(info.name, archive.extractfile(info).read()) for info in archive if info.isreg()]


def write(path: Path, files: list[tuple[str, bytes]], *, folders: bool = False, kind: int = tarfile.GNU_FORMAT) -> None:
    with tarfile.open(path, "w", format=kind) as archive:
        for folder in sorted({name.rpartition("/")[0] for name, _ in files}) if folders else ():
            info = tarfile.TarInfo(folder)
            info.type = tarfile.DIRTYPE
            archive.addfile(info)
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def in_other_order(files):
    return random.Random(3).sample(files, len(files))


@pytest.mark.parametrize(
    ("change", "folders"),
    [
        (in_other_order, False),  # as GNU tar meets them in a folder
        (lambda files: [(f"./{name}", data) for name, data in files], False),
        (lambda files: files, True),
        (lambda files: in_other_order([(f"./{name}", data) for name, data in files]), True),
        (lambda files: [*files, ("README.txt", b"hello"), ("ann/notes.txt", b"x")], False),
    ],
    ids=["order", "prefix", "folders", "all", "strays"],
)
def test_a_tar_of_another_tool_is_repaired_without_losing_a_sample(copy, change, folders):
    before = {row.key: open_dataset(copy).read(row.key).raw("f002.jpg") for row in open_dataset(copy).samples}
    write(shard(copy), change(files_of(shard(copy))), folders=folders)
    report = verify(str(copy))
    assert not report["ok"]
    assert [one["lost"] for one in report["repairable"]] == [[]]
    assert verify(str(copy), repair=True)["repaired"][0]["samples_lost"] == 0
    assert verify(str(copy)) == {"ok": True, "samples": KEYS, "broken": []}
    assert {row.key: open_dataset(copy).read(row.key).raw("f002.jpg") for row in open_dataset(copy).samples} == before


def test_what_a_repair_would_lose_is_named_before_anything_is_written(copy):
    files = files_of(shard(copy))
    lost = files[0][0].partition(".")[0]
    write(shard(copy), [(n, d) for n, d in files if n != f"{lost}.f001.jpg"])
    state = (copy / "dataset.json").read_bytes()
    (plan,) = verify(str(copy))["repairable"]
    assert (plan["samples_lost"], plan["lost"]) == (1, [lost])
    assert (copy / "dataset.json").read_bytes() == state
    assert verify(str(copy), repair=True)["repaired"] == [plan]
    assert lost not in [row.key for row in open_dataset(copy).samples]


@pytest.mark.parametrize("stop", ["rewrite_shard", "write_catalogue", "remove_unlisted"])
def test_a_repair_that_is_killed_loses_nothing_and_is_finished_by_the_next_one(copy, monkeypatch, stop):
    index = copy / "index" / f"{shard(copy).stem}.npz"
    index.write_bytes(index.read_bytes()[:-5])
    write(shard(copy, 1), in_other_order(files_of(shard(copy, 1))))
    faulty, state = index.read_bytes(), (copy / "dataset.json").read_bytes()

    def killed(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(repair, stop, killed)
        with pytest.raises(KeyboardInterrupt):
            verify(str(copy), repair=True)
    if stop != "remove_unlisted":
        assert (copy / "dataset.json").read_bytes() == state
    assert (index.read_bytes() == faulty) == (stop == "rewrite_shard")  # it changes just before dataset.json
    again = verify(str(copy), repair=True)
    assert sum(one["samples_lost"] for one in again.get("repaired", [])) == 0
    assert verify(str(copy)) == {"ok": True, "samples": KEYS, "broken": []}


@pytest.mark.parametrize("where", ["between two members", "inside a header", "between two samples"])
def test_a_tar_that_was_cut_says_so_wherever_it_is_streamed(copy, where):
    path = shard(copy)
    with tarfile.open(path) as archive:
        infos = archive.getmembers()
    last_key = infos[-1].name.partition(".")[0]
    first = next(info for info in infos if info.name.startswith(f"{last_key}."))
    cut = {"between two members": infos[-3].offset, "inside a header": infos[-3].offset + 200}.get(where, first.offset)
    path.write_bytes(path.read_bytes()[:cut])
    keys: list[str] = []
    with pytest.raises(InputError, match=r"the tar ends without its end mark|not a readable shard"):
        keys.extend(sample["__key__"] for sample in stream_samples(str(path)))
    assert last_key not in keys  # not even a part of it
    reasons = [entry["reason"] for entry in verify(str(copy))["broken"]]
    assert any("it was cut" in reason or "not a readable tar" in reason for reason in reasons)
    (repaired,) = verify(str(copy), repair=True)["repaired"]
    assert repaired["lost"] == [last_key]
    assert verify(str(copy))["ok"]


def test_a_member_costs_one_header_and_shards_of_before_stay_readable(copy, tmp_path):
    tar = TarFile(tmp_path / "new.tar")
    for i in range(10):
        tar.write(f"ann/a-{i:05d}", {"meta.json": b"{}"})
    tar.close()
    assert (tmp_path / "new.tar").stat().st_size < 10 * 1024 + 10_240 + 1024
    # Version 0.1 gave every member a PAX header, because its time was a fraction.
    path = shard(copy)
    files = files_of(path)
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 0.5
            archive.addfile(info, io.BytesIO(data))
    assert verify(str(copy), repair=True)["repaired"][0]["samples_lost"] == 0
    assert verify(str(copy))["ok"]


def test_reading_a_dataset_of_version_0_1(copy):
    """Its dataset.json has neither records of features nor the rig's source."""
    value = json.loads((copy / "dataset.json").read_text())
    del value["feature_records"]
    value["rig"].pop("source", None)
    (copy / "dataset.json").write_text(json.dumps(value))
    dataset = open_dataset(copy)
    assert dataset.feature_records == {"logmel": {"name": "logmel", "size": 160, "weights": None}}
    assert verify(str(copy))["ok"]


# ---------------------------------------------------------------------------------------------------- changed bytes


def flip_feature(path: Path, key: str) -> None:
    """Change one number of a sample's log-mel: it still decodes, finite and close to that of the sound."""
    with tarfile.open(path) as archive:
        info = archive.getmember(f"{key}.audio.logmel.npy")
    data = bytearray(path.read_bytes())
    data[info.offset_data + info.size - 2] ^= 1
    path.write_bytes(bytes(data))


def test_a_changed_byte_that_still_decodes_is_named_and_not_taken_over_by_a_repair(copy):
    key = open_dataset(copy).samples[1].key
    flip_feature(shard(copy), key)
    report = verify(str(copy))
    assert [(one["key"], one["member"]) for one in report["broken"] if one["key"]] == [(key, "audio.logmel.npy")]
    assert [one["lost"] for one in report["repairable"]] == [[key]]
    verify(str(copy), repair=True)
    assert verify(str(copy)) == {"ok": True, "samples": KEYS - 1, "broken": []}
    assert key not in [row.key for row in open_dataset(copy).samples]


@pytest.mark.parametrize("damage", ["byte", "member", "sample"])
def test_a_rewrite_does_not_make_damage_look_right(copy, damage):
    """``ann`` and ``bob`` share shard 1; bob is removed, a sample of ann is damaged."""
    key, path = "ann/ann_clip2-00000", shard(copy, 1)
    assert {name.partition("/")[0] for name, _ in files_of(path)} == {"ann", "bob"}
    if damage == "byte":
        flip_feature(path, key)
    else:
        gone = f"{key}.m001.png" if damage == "member" else f"{key}."
        write(path, [(name, data) for name, data in files_of(path) if not name.startswith(gone)])
    with pytest.raises(InputError, match=f"sample '{key}'.*verify DATASET --repair.*run the same command again"):
        forget(str(copy), "bob")
    assert not verify(str(copy))["ok"]  # it is still found
    verify(str(copy), repair=True)
    assert forget(str(copy), "bob")["samples"] == 3
    assert verify(str(copy)) == {"ok": True, "samples": KEYS - 4, "broken": []}


def test_a_damaged_sample_of_the_person_to_be_removed_does_not_stop_the_removal(copy):
    key = next(row.key for row in open_dataset(copy).samples if row.identity == "bob")
    path = copy / "shards" / f"{open_dataset(copy).read(key).shard}.tar"
    flip_feature(path, key)
    assert forget(str(copy), "bob")["samples"] == 3
    assert verify(str(copy)) == {"ok": True, "samples": KEYS - 3, "broken": []}


def test_nothing_is_written_between_the_check_of_a_repair_and_its_writing(copy, monkeypatch):
    """A build in between would lose its shards: the repair writes the list of shards that it has checked."""
    flip_feature(shard(copy), open_dataset(copy).samples[1].key)
    refused: list[str] = []

    def others(*arguments):
        with pytest.raises(InputError, match="another build is writing here") as error:
            forget(str(copy), "cyd")
        refused.append(str(error.value))
        return plan(*arguments)

    plan = verify_module.plan_repairs
    monkeypatch.setattr(verify_module, "plan_repairs", others)
    verify(str(copy), repair=True)
    assert len(refused) == 1
    monkeypatch.undo()
    assert verify(str(copy)) == {"ok": True, "samples": KEYS - 1, "broken": []}


def test_a_withdrawal_keeps_what_was_built_until_it_held_the_dataset(copy, monkeypatch):
    """Between the first look at the dataset and the lock another writer finishes."""
    from shards.build import lock

    original = lock.locked

    def after_another(url):
        with original(url), DatasetWriter(url, rig=RIG) as writer:
            writer.add(sample_key("dan", "dan_clip", 0), {"licence": "test"}, **parts(7, 4))
        return original(url)

    monkeypatch.setattr(lock, "locked", after_another)
    forget(str(copy), "bob")
    assert open_dataset(copy).identities == ["ann", "cyd", "dan"]
