"""Meters and the doctor: what they say about a slow rank, and about a machine."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from cluster.engine import rank_times
from cluster.engine.engine import Engine
from cluster.launch.launch import ClusterConfig
from configs import load_config


def rows(*triples: tuple[float, float, float]) -> list[rank_times.RankTimes]:
    return [rank_times.RankTimes(rank, *triple, 1.0) for rank, triple in enumerate(triples)]


def test_a_rank_that_waits_for_data_is_named_with_a_cure():
    assert rank_times.describe(rows((1, 9, 0), (5, 4, 1))).sentence.startswith(
        "rank 1 waits for data 50 % of its time; raise"
    )


def test_a_rank_that_computes_longer_than_the_others_is_named():
    assert "rank 2 computes 1.5 times" in rank_times.describe(rows((0, 10, 5), (0, 10, 5), (0, 15, 0))).sentence


def test_even_ranks_are_left_in_peace():
    assert rank_times.describe(rows((0.1, 10, 0), (0.2, 10.5, 0))) is None


def test_a_meter_splits_the_time_into_data_work_and_the_rest():
    def slow():
        for number in range(3):
            time.sleep(0.02)
            yield number

    meter = rank_times.Meter()
    for _ in meter.data(slow()):
        with meter.computing():
            time.sleep(0.01)
    (row,) = meter.table(Engine())
    assert row.data >= 0.06
    assert row.compute >= 0.03
    assert row.seconds == pytest.approx(row.data + row.compute + row.others)
    assert rank_times.metrics([row])["rank0/data"] == row.data


@pytest.mark.parametrize("name", ["local", "single-node-8gpu", "multi-node"])
def test_every_shipped_cluster_file_is_valid(name):
    config = load_config(ClusterConfig, f"cluster/{name}")
    assert 1 <= config.least_workers <= config.workers


def test_the_cluster_room_loads_no_engine_until_it_is_used():
    script = (
        "import sys, cluster.launch.launch, cluster.storage.storage, cluster.registry.registry;"
        "import cluster.registry.run_log, cluster.engine.config, cluster.engine.rank_times;"
        "import benchmarks.training.simulate;"
        "print([n for n in ('ray', 'mlflow', 'deepspeed', 'accelerate', 'fsspec', 'torch') if n in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"
