"""The private names of Ray that are used here: which are there, and that trainings run without them."""

from __future__ import annotations

import logging
import os
from types import SimpleNamespace

import pytest

from cluster.launch import ray_group, ray_private
from cluster.launch.failures import Preempted
from cluster.launch.launch import ClusterConfig, launch
from configs import InputError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ray_here():
    """One private Ray for this file."""
    from cluster.launch import ray_train

    ray, owned = ray_train.connect(ClusterConfig(workers=1, cpus_per_worker=1))
    yield ray
    if owned:
        ray.shutdown()


@pytest.mark.parametrize(
    "names",
    [ray_private.OVERRIDDEN, ray_private.RESIZED, ray_private.LEFT_OUT],
    ids=["trainer", "elastic", "quick start"],
)
def test_the_installed_ray_has_every_private_name_that_is_used(ray_here, names):
    assert ray_private.missing(names) == [], "raise the bound of ray in pyproject.toml only when this list is empty"


def test_lost_machines_are_not_counted_and_a_group_that_ran_waits_less_for_them(ray_here, monkeypatch):
    from ray.train import ScalingConfig

    monkeypatch.setenv(ray_private.START_TIMEOUT, "7")
    policy = ray_private.present_machines()(ScalingConfig(num_workers=(1, 2), resources_per_worker={"CPU": 1}))
    monkeypatch.setattr(policy, "_maybe_send_resource_request", lambda: None)
    monkeypatch.setattr(policy, "_get_reserved_resources", lambda: {"here": {"CPU": 1}, "lost": {"CPU": 1}})
    monkeypatch.setattr(
        ray_here, "nodes", lambda: [{"NodeID": "here", "Alive": True}, {"NodeID": "lost", "Alive": False}]
    )
    waits = []
    for attempt in range(4):
        assert policy.make_decision_for_non_running_worker_group().num_workers == 1
        waits.append(float(os.environ[ray_private.START_TIMEOUT]))
        if attempt == 0:
            policy._latest_monitor_time = float("inf")  # it is not time to look for machines that came back
            policy.make_decision_for_running_worker_group(SimpleNamespace(start_time=0.0, num_workers=2), None)
    assert waits == [7, 2, 4, 7], "the start's timeout first, then little and ever more up to it"


def test_a_ray_that_only_starts_otherwise_keeps_the_two_budgets(ray_here, monkeypatch):
    monkeypatch.setattr(ray_private, "NODE", "ray.nowhere:Node")
    monkeypatch.setattr(ray_private, "LEFT_OUT", [("ray.nowhere:Node", "start_monitor")])
    assert ray_private.missing(ray_private.LEFT_OUT)
    assert "_initialize_and_run_controller" in vars(ray_private.trainer(max_preemptions=1))


def test_a_ray_without_those_names_trains_by_its_public_interface(ray_here, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(ray_group, "fits", lambda *_: False)  # as on a cluster
    monkeypatch.setattr(ray_private, "TRAINER", "ray.train.nowhere:Trainer")
    gone = [("ray.train.nowhere:Policy", "make_decision")]
    monkeypatch.setattr(ray_private, "OVERRIDDEN", gone)
    caplog.set_level(logging.WARNING, "headstart.launch")
    found = launch(
        "tests.support.toy_training:seat",
        {},
        run=str(tmp_path / "run"),
        cluster=ClusterConfig(workers=1, cpus_per_worker=1),
    )
    assert found["world"] == 1
    assert "ray.train.nowhere:Policy is gone" in caplog.text
    assert "preempted workers count as failures" in caplog.text


def test_what_a_private_ray_leaves_out_is_back_afterwards_and_unknown_names_change_nothing(ray_here, monkeypatch):
    from ray._private import utils
    from ray._private.node import Node

    def names():
        return Node.start_monitor, Node.start_api_server, Node.start_log_monitor, utils.get_dashboard_dependency_error

    before = names()
    with ray_private.few_processes(dashboard=True, logs=True):
        assert names()[0] is not before[0]
        assert names()[1:] == before[1:]
    with ray_private.few_processes(dashboard=False, logs=False):
        assert not set(names()) & set(before)
    assert names() == before
    monkeypatch.setattr(ray_private, "NODE", "ray.nowhere:Node")
    with ray_private.few_processes(dashboard=False, logs=False):
        assert names() == before


def test_a_worker_that_saved_and_went_is_charged_to_its_own_budget():
    from ray.train import FailureConfig
    from ray.train.v2._internal.execution.failure_handling import FailureDecision
    from ray.train.v2.api.exceptions import WorkerGroupError

    policy = ray_private._two_budgets()(FailureConfig(max_failures=1), 2)
    gone = WorkerGroupError("gone", {0: ConnectionError("peer"), 1: Preempted("asked to go")})
    broken = WorkerGroupError("broken", {1: ConnectionError("peer")})
    decided = [policy.make_decision(training_failed_error=error) for error in (gone, broken, gone, gone, broken)]
    again, end = FailureDecision.RETRY, FailureDecision.RAISE
    assert decided == [again, again, again, end, end]


class Elsewhere:
    """A Ray whose workers do what a list says; nothing starts."""

    def __init__(self) -> None:
        self.read = self
        self.remote = self.get = lambda *_: (False, None)

    def cluster_resources(self):
        return {"CPU": 2.0}


def test_one_machines_workers_have_the_same_two_budgets(monkeypatch):
    gone, broken = Preempted("asked to go"), ConnectionError("peer")
    settings = ClusterConfig(workers=2, max_failures=1, max_preemptions=2)

    def attempts(*errors):
        left = list(errors)

        def attempt(group):
            if left:
                raise ray_group.WorkersFailed({1: left.pop(0)})
            return "done"

        monkeypatch.setattr(ray_group.Group, "_attempt", attempt)
        ray = Elsewhere()
        return ray_group.Group(ray, {"job": {}, "board": ray}, settings).run()

    assert attempts(gone, broken, gone) == "done"
    for errors in ((broken, broken), (gone, gone, gone)):
        with pytest.raises(ray_group.WorkersFailed, match="rank 1"):
            attempts(*errors)


def test_more_gpus_than_the_machine_has_are_refused():
    group = ray_group.Group(Elsewhere(), {}, ClusterConfig(workers=2, gpus_per_worker=1))
    with pytest.raises(InputError, match="need 2 GPUs, this machine has 0"):
        group.run()


def test_workers_run_at_the_niceness_of_the_command_and_their_words_reach_it(ray_here, tmp_path, capfd):
    from configs import progress

    said: list[object] = []

    class Ear:
        def say(self, text):
            said.append(text)

        def start(self, label, total, unit):
            said.append((label, total, unit))
            return self

        def stop(self, task):
            said.append("stop")

        def update(self, done=None, *, total=None, note=None):
            said.append(done)

        def advance(self, by=1):
            raise AssertionError("updates are absolute")

    with progress.listen(Ear()):
        found = launch(
            "tests.support.toy_training:seat",
            {"say": "hello from rank 0"},
            run=str(tmp_path / "run"),
            cluster=ClusterConfig(workers=1, cpus_per_worker=1),
        )
    assert found["niceness"] == os.nice(0)
    assert said[:2] == ["hello from rank 0", ("counting", 3, "steps")]
    assert said[-2:] == [3.0, "stop"]
    printed = capfd.readouterr()
    assert "chatter" not in printed.out + printed.err
    assert "Member" not in printed.err
