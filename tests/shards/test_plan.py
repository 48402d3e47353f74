"""The order of samples over shards of any sizes: a permutation, found by arithmetic, mixed, and cheap at scale."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.format.catalogue import Catalogue
from shards.format.index import ShardIndex
from shards.read.dataset import Dataset
from shards.read.deal import deal
from shards.read.plan import STREAMS, EpochPlan


def simulated(shards: list[dict[int, int]]) -> Dataset:
    """A dataset of shards with so many samples per person; its indexes are made up when they are asked for."""
    people = max((number for shard in shards for number in shard), default=0) + 1
    catalogue = Catalogue(identities=[{"name": f"p{i:03d}", "licences": [], "consents": []} for i in range(people)])
    for i, shard in enumerate(shards):
        rows = [[number, 1, count, count, 1] for number, count in sorted(shard.items())]
        entry = {"name": f"s{i:05d}", "sha256": "", "index_sha256": "", "bytes": 1, "people": rows}
        catalogue.shards.append({**entry, "samples": sum(shard.values()), "frames": 1})
    dataset = Dataset("nowhere", catalogue)
    dataset._store.index = lambda number: made_up(number, shards[number])
    return dataset


def made_up(number: int, shard: dict[int, int]) -> ShardIndex:
    keys = [f"p{person:03d}/c{number}-{i:05d}" for person, count in sorted(shard.items()) for i in range(count)]
    ones = np.ones(len(keys), np.int64)
    return ShardIndex(keys, ones, ones, np.arange(len(keys) + 1), ["meta.json"], 0 * ones, 512 * ones, ones, ones)


def order(plan: EpochPlan) -> list[tuple[int, int]]:
    return [plan.locate(position) for position in range(len(plan))]


SHARDS = st.lists(
    st.dictionaries(st.integers(0, 5), st.integers(1, 7), min_size=1, max_size=3), min_size=1, max_size=30
)


@settings(max_examples=60, deadline=None)
@given(SHARDS, st.integers(0, 9), st.integers(0, 9))
def test_an_epoch_is_a_permutation_of_all_samples(shards, seed, epoch):
    dataset = simulated(shards)
    found = order(EpochPlan(dataset, seed, epoch))
    assert Counter(found) == Counter((s, line) for s, shard in enumerate(shards) for line in range(sum(shard.values())))


@settings(max_examples=40, deadline=None)
@given(SHARDS, st.dictionaries(st.integers(0, 5), st.sampled_from([0.0, 0.5, 1.0, 2.0, 2.5]), max_size=4))
def test_weights_deal_copies_evenly(shards, weights):
    dataset = simulated(shards)
    factors = {f"p{n:03d}": weight for n, weight in weights.items() if f"p{n:03d}" in dataset.identities}
    copies = Counter(dataset.sample(*place).key for place in order(EpochPlan(dataset, 0, 0, factors)))
    for row in dataset.samples:
        factor = factors.get(row.identity, 1.0)
        assert np.floor(factor) <= copies[row.key] <= np.ceil(factor), row.key


def test_samples_of_one_shard_do_not_come_in_a_row():
    plan = EpochPlan(simulated([{i % 6: 20} for i in range(60)]), 0, 0)
    shards = [shard for shard, _ in order(plan)]
    assert len(set(shards[:60])) == 60
    assert all(a != b for a, b in pairwise(shards))


def test_streams_of_a_rank_stay_its_own():
    dataset = simulated([{0: 4}] * (2 * STREAMS))
    plan = EpochPlan(dataset, 0, 0)
    seen = [{plan.shard_at(p) for p in range(rank, len(plan), 4)} for rank in range(4)]
    assert sum(map(len, seen)) == 2 * STREAMS, "no shard is read by two ranks"


def test_a_position_deep_in_a_large_epoch_is_found_without_reading_what_came_before():
    dataset = simulated([{i % 50: 30} for i in range(5000)])
    asked = []
    make = dataset._store.index
    dataset._store.index = lambda number: asked.append(number) or make(number)
    plan = EpochPlan(dataset, 0, 0)
    plan.locate(len(plan) * 2 // 3)
    assert len(set(asked)) == 1


@pytest.mark.parametrize("change", [{"seed": 1}, {"epoch": 1}])
def test_seed_and_epoch_change_the_order(change):
    dataset = simulated([{i % 3: 5} for i in range(9)])
    assert order(EpochPlan(dataset, **{"seed": 0, "epoch": 0, **change})) != order(EpochPlan(dataset, 0, 0))


@pytest.mark.parametrize(
    ("count", "world"), [(4096, 512), (64, 16), (64, 64), (100, 9), (17, 16), (33, 24), (5, 12), (40, 8)]
)
def test_a_step_is_dealt_out_whole_and_evenly(count, world):
    streams = np.random.default_rng(count).integers(0, 40, count)
    owners = deal(streams, world)
    numbers = np.bincount(owners, minlength=world)
    assert len(owners) == count
    assert len(numbers) == world
    if count >= world:
        assert numbers.min() >= 1
    if count % world == 0:
        assert set(numbers) == {count // world}
    assert numbers.max() - numbers.min() <= 2
    if world <= 8:
        assert list(owners) == [i % world for i in range(count)]


def test_many_ranks_keep_to_few_streams_and_still_mix_several():
    plan = EpochPlan(simulated([{i // 5: 32} for i in range(2400)]), 0, 0)
    before, touched = [set() for _ in range(512)], [set() for _ in range(512)]
    for step in range(8):
        positions = np.arange(step * 4096, (step + 1) * 4096)
        for position, rank in zip(positions, deal(plan.streams(positions), 512)):
            touched[rank].add(plan.shard_at(int(position)))
        for position in positions:
            before[position % 512].add(plan.shard_at(int(position)))
    assert np.mean([len(shards) for shards in touched]) < 0.5 * np.mean([len(shards) for shards in before])
    mixed = [
        len(set(plan.streams(np.flatnonzero(deal(plan.streams(np.arange(4096)), 512) == rank)))) for rank in range(512)
    ]
    assert min(mixed) >= 3


def test_streams_of_many_positions_are_those_of_each():
    plan = EpochPlan(simulated([{0: count} for count in (5, 1, 9, 3, 3, 7)]), 0, 0)
    positions = np.arange(len(plan))
    assert list(plan.streams(positions)) == [plan._turn(int(position))[0] for position in positions]
