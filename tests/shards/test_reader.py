"""The reader: exactly once, resumable in mid-epoch, the same batches whoever reads and from wherever."""

from __future__ import annotations

import shutil
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.training.views import SequenceView
from configs import InputError
from shards import PairView, Reader, open_dataset
from shards.read.plan import EpochPlan
from shards.read.view import PlainView
from tests.support.samples import make_dataset

VIEW = SequenceView(window=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """23 samples of three people in several shards."""
    path = tmp_path_factory.mktemp("reader") / "data"
    make_dataset(path, {"ann": 9, "bob": 3, "cyd": 11}, per_shard=3, length=5)
    return path


@pytest.fixture
def dataset(folder):
    return open_dataset(folder)


def keys_of(batches) -> list[str]:
    return [key for batch in batches for key in batch["keys"]]


def global_steps(dataset, ranks: int, state, steps: int | None, **options) -> tuple[list[list[str]], dict]:
    """The batches of all ranks of one world, put together step by step, and the state after them."""
    readers = [Reader(dataset, VIEW, batch_size=6, seed=3, rank=r, world_size=ranks, **options) for r in range(ranks)]
    for reader in readers:
        if state is not None:
            reader.load_state_dict(state)
    parts = [list(islice(reader, steps)) for reader in readers]
    assert len({str(reader.state_dict()) for reader in readers}) == 1
    return [sorted(keys_of(batches)) for batches in zip(*parts)], readers[0].state_dict()


@pytest.mark.parametrize(("ranks", "workers"), [(1, 0), (3, 0), (2, 2)])
def test_an_epoch_holds_every_sample_exactly_once_over_ranks_and_workers(dataset, ranks, workers):
    readers = [
        Reader(dataset, VIEW, batch_size=6, seed=1, rank=r, world_size=ranks, workers=workers, epochs=1)
        for r in range(ranks)
    ]
    seen = Counter(key for reader in readers for key in keys_of(reader))
    assert seen == Counter(row.key for row in dataset.samples)


def test_two_epochs_are_each_exactly_once_and_differ_in_order(dataset):
    keys = keys_of(Reader(dataset, VIEW, batch_size=4, seed=1, epochs=2))
    first, second = keys[: len(dataset)], keys[len(dataset) :]
    assert sorted(first) == sorted(second) == sorted(row.key for row in dataset.samples)
    assert first != second


def test_a_run_that_goes_from_one_rank_to_three_to_two_loses_and_repeats_nothing(dataset):
    undisturbed, _ = global_steps(dataset, 1, None, 9)
    resumed, state = global_steps(dataset, 1, None, 2)
    more, state = global_steps(dataset, 3, state, 4)
    last, _ = global_steps(dataset, 2, state, 3)
    assert resumed + more + last == undisturbed


def test_resuming_in_mid_epoch_gives_the_same_tensors(dataset):
    reader = Reader(dataset, PairView(size=16), batch_size=4, seed=5)
    batches = iter(reader)
    for _ in range(3):
        next(batches)
    state, expected = reader.state_dict(), next(batches)
    again = Reader(dataset, PairView(size=16), batch_size=4, seed=5, workers=1)
    again.load_state_dict(state)
    got = next(iter(again))
    assert got["keys"] == expected["keys"]
    for name, value in expected.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(got[name], value), name


def test_the_state_is_a_few_integers_and_a_foreign_one_is_refused(dataset):
    reader = Reader(dataset, VIEW, batch_size=4)
    next(iter(reader))
    assert reader.state_dict() == {"epoch": 0, "step": 1, "offset": 4}
    for state in ({}, {"epoch": 0, "step": 1, "offset": 10**6}, {"epoch": "x", "step": 0, "offset": 0}):
        with pytest.raises(InputError, match="reader state"):
            reader.load_state_dict(state)


def test_workers_do_not_change_the_batches(dataset):
    alone = keys_of(islice(Reader(dataset, VIEW, batch_size=5, seed=2), 7))
    helped = keys_of(islice(Reader(dataset, VIEW, batch_size=5, seed=2, workers=2), 7))
    assert alone == helped


def test_another_seed_gives_another_order(dataset):
    orders = {tuple(keys_of(Reader(dataset, VIEW, batch_size=4, seed=seed, epochs=1))) for seed in range(3)}
    assert len(orders) == 3


def test_balanced_weights_show_every_identity_equally_often(dataset):
    counts = Counter()
    for epoch in range(8):
        plan = EpochPlan(dataset, 0, epoch, "balanced")
        counts.update(dataset.sample(*plan.locate(p)).identity for p in range(len(plan)))
    share = sum(counts.values()) / 3
    assert all(abs(count - share) < 0.1 * share for count in counts.values()), counts
    # Repeats are dealt evenly: no sample of the rare person comes twice before each came once.
    plan = EpochPlan(dataset, 0, 0, {"bob": 2.0, "ann": 0.0})
    copies = Counter(dataset.sample(*plan.locate(p)).key for p in range(len(plan)))
    assert {key: n for key, n in copies.items() if key.startswith("bob")} == {
        row.key: 2 for row in dataset.samples if row.identity == "bob"
    }
    assert not any(key.startswith("ann") for key in copies)


def test_weights_that_name_nobody_are_refused(dataset):
    with pytest.raises(InputError, match="did you mean 'bob'"):
        Reader(dataset, VIEW, batch_size=4, weights={"bop": 2.0})
    with pytest.raises(InputError, match="expected 0 or more"):
        Reader(dataset, VIEW, batch_size=4, weights={"bob": -1.0})


def test_a_split_shares_no_identity_and_identity_index_counts_in_the_view(dataset):
    train, held = dataset.split(["bob"])
    assert train.identities == ["ann", "cyd"]
    assert held.identities == ["bob"]
    batch = next(iter(Reader(held, VIEW, batch_size=3)))
    assert set(batch["identity_index"].tolist()) == {0}
    assert sorted(keys_of(Reader(train, VIEW, batch_size=4, epochs=1))) == [
        row.key for row in dataset.samples if row.identity != "bob"
    ]
    assert dataset.split(0.4)[1].identities == dataset.split(0.4)[1].identities
    with pytest.raises(InputError, match="none is left"):
        dataset.split(["ann", "bob", "cyd"])


def test_a_pair_view_reads_only_the_members_it_uses(dataset, monkeypatch):
    asked = []
    fetch = dataset._store.fetch
    monkeypatch.setattr(dataset._store, "fetch", lambda *a: asked.extend(a[2]) or fetch(*a))
    PairView(size=16, across=0.0)(dataset.read(0), np.random.default_rng(0))
    assert sum(name.endswith(".jpg") for name in asked) <= 2
    assert not any(name.startswith("audio") for name in asked)


def test_a_wide_pair_draws_the_widest_mouths_and_the_farthest_turned_heads():

    count, shown = 40, []
    turned = np.radians(np.arange(count))  # farthest from frame 0: the last ones
    rotation = np.tile(np.eye(3, dtype=np.float32), (count, 1, 1))
    rotation[:, 0, 0] = rotation[:, 2, 2] = np.cos(turned)
    rotation[:, 0, 2], rotation[:, 2, 0] = np.sin(turned), -np.sin(turned)
    landmarks = np.zeros((count, 478, 3), np.float32)
    landmarks[:, 263, 0] = 100
    landmarks[:, 14, 1] = np.arange(count)[::-1]  # widest open: the first ones
    track = {"rotation": rotation, "landmarks": landmarks}
    rng = np.random.default_rng(0)
    for _ in range(60):
        shown += PairView(wide=1.0)._widened(np.array([20, 21]), rotation[0], track, rng).tolist()
    assert set(shown) <= {*range(10), *range(30, 40)}
    assert {*range(10)} & set(shown)
    assert {*range(30, 40)} & set(shown)
    few = [PairView(wide=0.25)._widened(np.array([20]), rotation[0], track, rng)[0] for _ in range(200)]
    assert 0.65 < np.mean(np.array(few) == 20) < 0.85


def test_views_return_what_they_promise(dataset):
    sample = dataset.read("cyd/cyd_clip0-00001")
    rng = np.random.default_rng(0)
    sequence = SequenceView(window=8)(sample, rng)
    assert sequence["features"].shape == (8, 160)
    assert sequence["mask"].tolist() == [True] * 5 + [False] * 3
    assert sequence["expression"][:, 0].tolist() == [0, 1, 2, 3, 4, 4, 4, 4]
    pair = PairView(size=16)(sample, rng)
    assert pair["source_image"].shape == (16, 16, 3)
    assert pair["source_image"].dtype == np.float32
    assert 0 <= pair["source_image"].min() <= pair["source_image"].max() <= 1
    np.testing.assert_allclose(pair["source_intrinsics"][:2], sample.track["intrinsics"][:2] / 2)
    # The blue channel of the fixture says which frame it is: image and track must be of the same one.
    assert abs(pair["source_image"][..., 2].mean() * 255 - 4 * pair["source_expression"][0]) < 3


def test_features_that_were_not_built_are_refused_before_the_first_step(dataset):
    with pytest.raises(InputError, match="no audio features 'hubert'"):
        Reader(dataset, SequenceView(features="hubert"), batch_size=4)


def test_a_view_that_does_not_say_what_it_needs_is_refused_when_the_reader_is_made(dataset):
    with pytest.raises(TypeError, match="has no features and no window and no needs_sound"):
        Reader(dataset, lambda sample, rng: {}, batch_size=4)
    keys = keys_of(Reader(dataset, PlainView(lambda sample, rng: {"n": sample.length}), batch_size=4, epochs=1))
    assert len(keys) == len(dataset)


def test_a_window_longer_than_a_segment_is_refused(dataset):
    with pytest.raises(InputError, match="window 51: a segment has at most 50 frames"):
        Reader(dataset, SequenceView(window=51), batch_size=4)


@pytest.mark.parametrize(("size", "rank", "world"), [(2, 0, 3), (4, 3, 3)])
def test_impossible_shares_are_refused(dataset, size, rank, world):
    with pytest.raises(InputError):
        Reader(dataset, VIEW, batch_size=size, rank=rank, world_size=world)


# ---------------------------------------------------------------------------------------------------- damage


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(bytes(data))


@pytest.fixture
def copy(folder, tmp_path):
    """A dataset to be damaged."""
    shutil.copytree(folder, tmp_path / "copy")
    return tmp_path / "copy"


def test_a_flipped_byte_is_skipped_counted_and_named_until_the_limit(copy):
    dataset = open_dataset(copy)
    index = dataset._store.index(0)
    row = index.rows(1)["audio.logmel.npy"]
    flip(copy / "shards" / f"{dataset.table.names[0]}.tar", int(index.offset[row]) + 200)
    reader = Reader(dataset, VIEW, batch_size=4, epochs=1, max_broken=1)
    keys = keys_of(reader)
    assert len(keys) == len(dataset) - 1
    assert index.keys[1] not in keys
    assert reader.broken[0]["key"] == index.keys[1]
    assert reader.broken[0]["member"] == "audio.logmel.npy"
    assert "checksum" in reader.broken[0]["reason"]
    with pytest.raises(InputError, match=r"2 broken samples, at most 1 .*audio.logmel.npy"):
        keys_of(Reader(dataset, VIEW, batch_size=4, epochs=2, max_broken=1))


def test_broken_samples_in_worker_processes_reach_the_limit_too(copy):
    dataset = open_dataset(copy)
    (copy / "shards" / f"{dataset.table.names[0]}.tar").write_bytes(b"")
    with pytest.raises(InputError, match="broken samples"):
        keys_of(Reader(dataset, VIEW, batch_size=4, epochs=1, max_broken=0, workers=2))


def test_a_rank_whose_whole_share_is_broken_still_gets_a_batch(copy):
    dataset = open_dataset(copy)
    healthy = len(keys_of(Reader(dataset, VIEW, batch_size=1, epochs=1)))
    index = dataset._store.index(0)
    row = index.rows(0)["track.npz"]
    flip(copy / "shards" / f"{dataset.table.names[0]}.tar", int(index.offset[row]) + 100)
    reader = Reader(open_dataset(copy), VIEW, batch_size=1, epochs=1)
    assert len(keys_of(reader)) == healthy
    assert reader.n_broken == 1


def test_an_index_that_lies_is_found_out(copy):
    dataset = open_dataset(copy)
    path = copy / "index" / f"{dataset.table.names[0]}.npz"
    flip(path, 60)
    with pytest.raises(InputError, match=r"sha256 differs .*--repair"):
        dataset.read(0)


def test_an_index_that_lies_with_a_matching_checksum_is_found_out_at_the_member(copy):
    import dataclasses

    from shards.format.catalogue import read_catalogue, write_catalogue
    from shards.format.index import digest

    dataset = open_dataset(copy)
    index = dataset._store.index(0)
    lying = dataclasses.replace(index, offset=index.offset + 512).to_bytes()
    (copy / "index" / f"{dataset.table.names[0]}.npz").write_bytes(lying)
    catalogue = read_catalogue(str(copy))
    catalogue.shards[0]["index_sha256"] = digest(lying)
    write_catalogue(str(copy), catalogue)
    with pytest.raises(InputError, match="something else where the index says"):
        _ = open_dataset(copy).read(0).track
