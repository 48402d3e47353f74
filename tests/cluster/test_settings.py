"""Settings of a cluster as users write them."""

from __future__ import annotations

import pytest

from cluster.engine.engine import Engine, EngineConfig
from cluster.launch import settings
from cluster.launch.launch import _settings, launch
from cluster.launch.settings import ClusterConfig, worker_range
from configs import InputError
from headstart.cli.app import parser


def test_one_machine_starts_as_many_workers_of_a_range_as_it_has_room_for(monkeypatch):
    monkeypatch.setattr(settings, "cores", lambda: 3)
    ranged = ClusterConfig(workers=4, min_workers=2)
    assert ranged.on_one_machine(gpus=0).workers == 3
    assert ranged.on_one_machine(gpus=0).cpus == 1
    assert ClusterConfig(workers=4, min_workers=2, cpus_per_worker=3).on_one_machine(gpus=0).workers == 2
    assert ClusterConfig(workers=4, min_workers=1, gpus_per_worker=1).on_one_machine(gpus=2).workers == 2
    assert ClusterConfig(workers=4, min_workers=1, gpus_per_worker=1).on_one_machine(gpus=8).workers == 4
    assert ClusterConfig(workers=4).on_one_machine(gpus=0).workers == 4, "a number is no range"


def test_a_range_of_workers_is_the_fewest_and_the_most():
    assert worker_range("4") == (None, 4)
    assert worker_range("2-4") == (2, 4)
    for wrong in ("", "0", "4-2", "two", "1-2-3", "-1", "2-"):
        with pytest.raises(InputError, match="expected a number, such as 4, or a range"):
            worker_range(wrong)


def test_the_number_of_a_cluster_file_holds_unless_another_is_given():
    words = ["pretrain", "sync-expert", "--data", "d", "--cluster", "multi-node"]
    given = parser().parse_args(words)
    assert _settings("cluster/multi-node", workers=given.workers).workers == 32
    given = parser().parse_args([*words, "--workers", "8-24"])
    found = _settings("cluster/multi-node", workers=given.workers)
    assert (found.min_workers, found.workers) == (8, 24)


def test_budgets_below_no_limit_are_refused():
    for name in ("max_failures", "max_preemptions"):
        with pytest.raises(InputError, match=f"'{name}' is -2, expected a whole number from -1 on"):
            _settings({name: -2})


@pytest.mark.parametrize(
    ("given", "words"),
    [({"workers": 0}, "'workers' is 0"), ({"cluster": ClusterConfig(max_failures=-2)}, "'max_failures' is -2")],
)
def test_numbers_that_cannot_work_are_refused_from_python_too(tmp_path, given, words):
    with pytest.raises(InputError, match=words):
        launch("tests.support.toy_training:train", {}, run=str(tmp_path / "run"), **given)
    with pytest.raises(InputError, match="'accumulate' is 0, expected a whole number from 1 on"):
        Engine(EngineConfig(accumulate=0))
