"""Datasets in a bucket: the same batches as on disk, ranged reads, a bounded cache, and no harm from a bad network."""

from __future__ import annotations

import shutil
from collections import Counter
from itertools import chain, islice
from pathlib import Path

import pytest
import torch

from benchmarks.training.views import SequenceView
from configs import InputError
from shards import PairView, Reader, open_dataset
from shards.build.build import build
from shards.check.info import info
from shards.check.verify import verify
from shards.people.forget import forget
from tests.support.fake_tracker import TRACKER, write_video
from tests.support.s3_faults import BUCKET, s3_server
from tests.support.samples import make_dataset

VIEW = SequenceView(window=4)
URL = f"s3://{BUCKET}/data"
PEOPLE = {"ann": 9, "bob": 3, "cyd": 11}


@pytest.fixture(scope="module")
def server():
    with s3_server() as server:
        make_dataset(URL, PEOPLE, per_shard=3, length=5)
        yield server


@pytest.fixture(scope="module")
def local(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("local") / "data"
    make_dataset(path, PEOPLE, per_shard=3, length=5)
    return path


@pytest.fixture
def s3(server):
    server.heal()
    server.requests.clear()
    return server


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(value, other[name]) if isinstance(value, torch.Tensor) else value == other[name]
        for name, value in one.items()
    )


@pytest.mark.parametrize("view", [VIEW, PairView(size=16), PairView(size=16, targets=2, grouped=True)])
def test_batches_from_a_bucket_are_those_from_disk(s3, local, view):
    remote, disk = open_dataset(URL), open_dataset(local)
    assert remote.fingerprint == disk.fingerprint
    for one, other in zip(*(islice(Reader(d, view, batch_size=5, seed=2), 6) for d in (remote, disk))):
        assert same(one, other)


def test_one_rank_then_three_then_two_over_s3_lose_and_repeat_nothing(s3, local):
    dataset, disk = open_dataset(URL), open_dataset(local)
    expected = [batch["keys"] for batch in islice(Reader(disk, VIEW, batch_size=6, seed=3), 8)]
    got, state = [], None
    for ranks, steps in ((1, 2), (3, 4), (2, 2)):
        readers = [Reader(dataset, VIEW, batch_size=6, seed=3, rank=r, world_size=ranks) for r in range(ranks)]
        for reader in readers:
            if state is not None:
                reader.load_state_dict(state)
        parts = [[batch["keys"] for batch in islice(reader, steps)] for reader in readers]
        got += [sorted(chain(*keys)) for keys in zip(*parts)]
        state = readers[0].state_dict()
    assert got == [sorted(keys) for keys in expected]


def test_worker_processes_read_from_s3_exactly_once(s3):
    reader = Reader(open_dataset(URL), VIEW, batch_size=4, epochs=1, workers=2)
    assert Counter(key for batch in reader for key in batch["keys"]) == Counter(
        row.key for row in open_dataset(URL).samples
    )


def test_a_sample_costs_one_ranged_request_and_an_index_one_for_all_ranks_of_a_machine(s3, tmp_path, monkeypatch):
    monkeypatch.setenv("HEADSTART_HOME", str(tmp_path))
    ranks = [open_dataset(URL) for _ in range(2)]
    s3.requests.clear()
    for rank, dataset in enumerate(ranks):
        list(Reader(dataset, VIEW, batch_size=4, epochs=1, rank=rank, world_size=2))
    paths = Counter(path for method, path in s3.requests if method == "GET")
    assert sum(count for path, count in paths.items() if ".tar" in path) == len(ranks[0])
    indexes = [count for path, count in paths.items() if ".npz" in path]
    assert indexes == [1] * len(ranks[0].table.names)


def test_a_group_of_pictures_is_fetched_once_for_all_samples_and_ranks_that_show_it(s3, tmp_path, monkeypatch):
    monkeypatch.setenv("HEADSTART_HOME", str(tmp_path))
    view = PairView(size=16, targets=2, across=1.0, grouped=True)
    ranks = [open_dataset(URL) for _ in range(2)]
    s3.requests.clear()
    for rank, dataset in enumerate(ranks):
        list(Reader(dataset, view, batch_size=4, epochs=1, rank=rank, world_size=2))
    asked = sum(method == "GET" and ".tar" in path for method, path in s3.requests)
    assert asked == len(ranks[0]), "each of these segments has one group, which is one range"


def test_a_cache_holds_whole_shards_within_its_limit(s3, tmp_path, local):
    largest = max(path.stat().st_size for path in (local / "shards").iterdir())
    dataset = open_dataset(URL, cache_dir=tmp_path / "cache", cache_limit=3 * largest)
    keys = [key for batch in Reader(dataset, VIEW, batch_size=4, epochs=1) for key in batch["keys"]]
    assert sorted(keys) == [row.key for row in dataset.samples]
    used = sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*") if path.is_file())
    assert 0 < used <= 3 * largest
    roomy = open_dataset(URL, cache_dir=tmp_path / "roomy", cache_limit=10**9)
    list(Reader(roomy, VIEW, batch_size=4, epochs=1))
    s3.requests.clear()
    list(Reader(open_dataset(URL, cache_dir=tmp_path / "roomy"), VIEW, batch_size=4, epochs=1))
    assert not any(method == "GET" and ".tar" in path for method, path in s3.requests)


@pytest.mark.parametrize("fault", ["503", "reset", "cut"])
def test_a_network_that_breaks_changes_nothing(s3, local, fault):
    expected = list(Reader(open_dataset(local), VIEW, batch_size=6, epochs=1))
    s3.plan = lambda method, path, number: fault if number % 5 == 0 else None
    got = list(Reader(open_dataset(URL), VIEW, batch_size=6, epochs=1))
    assert all(same(one, other) for one, other in zip(got, expected, strict=True))


def test_a_store_that_is_down_is_one_sentence(s3, monkeypatch):
    monkeypatch.setenv("HEADSTART_STORAGE_RETRIES", "2")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(InputError, match=r"s3://bucket/data/dataset.json: .*check AWS_ENDPOINT_URL"):
        open_dataset(URL)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_store_that_goes_away_in_mid_epoch_is_one_sentence_and_no_broken_sample(s3, monkeypatch, workers):
    monkeypatch.setenv("HEADSTART_STORAGE_RETRIES", "2")
    reader = Reader(open_dataset(URL), VIEW, batch_size=4, workers=workers, max_broken=0)
    batches = iter(reader)
    next(batches)
    s3.plan = lambda method, path, number: "503"
    with pytest.raises(InputError, match=r"^cannot read s3://bucket/data/\S+: [^\n]*$"):
        list(batches)
    assert reader.n_broken == 0


def test_a_bucket_without_a_dataset_says_so(s3):
    with pytest.raises(InputError, match="no dataset here"):
        open_dataset(f"s3://{BUCKET}/nothing")


def test_building_verifying_and_forgetting_in_a_bucket(s3, tmp_path):
    url = f"s3://{BUCKET}/{tmp_path.name}"
    for name in ("ann", "bob"):
        write_video(tmp_path / "v", name)
    options = {"tracker": TRACKER, "workers": 0, "samples_per_shard": 2}
    assert build(tmp_path / "v", url, **options)["segments"] == 4
    write_video(tmp_path / "v", "cyd")
    assert build(tmp_path / "v", url, **options)["built_clips"] == 1
    assert verify(url) == {"ok": True, "samples": 6, "broken": []}
    forget(url, "bob")
    assert info(url)["identities"] == 2
    assert verify(url)["ok"]
    assert build(tmp_path / "v", url, **options)["segments"] == 4


def test_damage_in_a_bucket_is_found_and_repaired(s3, local, tmp_path):
    import boto3

    shutil.copytree(local, tmp_path / "d")
    url = f"s3://{BUCKET}/{tmp_path.name}"
    client = boto3.client("s3", endpoint_url=s3.url)
    tar = sorted((tmp_path / "d" / "shards").iterdir())[0]
    tar.write_bytes(tar.read_bytes()[:-30_000])
    for path in (tmp_path / "d").rglob("*"):
        if path.is_file():
            client.upload_file(str(path), BUCKET, f"{tmp_path.name}/{path.relative_to(tmp_path / 'd')}")
    assert not verify(url, repair=True)["ok"]
    assert verify(url)["ok"]
