"""Which processes stay when a worker fails, with a stand-in for Ray whose actors are told how each attempt ends."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from cluster.engine import process_group
from cluster.launch.failures import Preempted
from cluster.launch.ray_group import Group, WorkersFailed
from cluster.launch.ray_member import Member
from cluster.launch.settings import ClusterConfig


class RayError(Exception):
    """Any error of Ray."""


class Died(RayError):
    """The actor's process is gone."""


class Raised(RayError):
    """A worker's own error."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


class Method:
    """``actor.method.remote(...)``; the answer is computed when it is asked for."""

    def __init__(self, call) -> None:
        self.remote = lambda *arguments: SimpleNamespace(call=lambda: call(*arguments))


class Actor:
    """One process; ``script`` says how each of its attempts ends: a result, an error, or ``"hangs"``."""

    def __init__(self, number: int, script: list) -> None:
        self.number, self.script, self.places, self.alive = number, script, [], True
        self.listen, self.work, self.is_sound = Method(lambda: ("host", 1)), Method(self._work), Method(self._sound)
        self.prepare, self.prepared = Method(self._prepare), False
        self.sound = True

    def _work(self, payload, place):
        self.places.append(place.rank)
        end = self.script.pop(0)
        self.sound = end != "unsound"
        self.alive = not isinstance(end, Died)
        if isinstance(end, Exception):
            raise end
        return end

    def _prepare(self, job):
        self.prepared = True
        return self.number

    def _sound(self):
        if not self.alive:
            raise Died()
        return self.sound


class FakeRay:
    """The part of Ray that a group uses; the n-th actor follows the n-th script."""

    exceptions = SimpleNamespace(RayError=RayError, RayActorError=Died)

    def __init__(self, *scripts: list) -> None:
        self.scripts, self.actors, self.error = list(scripts), [], None
        self.quiet = 0  # how often waiting for results ends without any

    def remote(self, kind):
        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=self._start))

    def _start(self):
        self.actors.append(Actor(len(self.actors), self.scripts.pop(0)))
        return self.actors[-1]

    def wait(self, refs, num_returns, timeout):
        if self.quiet and timeout is not None and timeout > 0:
            self.quiet -= 1
            return [], refs
        for ref in refs:
            if not hasattr(ref, "outcome"):
                try:
                    ref.outcome = ref.call()
                except RayError as error:
                    ref.outcome = error
            if isinstance(ref.outcome, Died):  # a death is noticed first, as its peers' errors follow from it
                return [ref], [other for other in refs if other is not ref]
        ended = next((ref for ref in refs if ref.outcome != "hangs"), None)
        return ([ended], [other for other in refs if other is not ended]) if ended else ([], refs)

    def get(self, ref, timeout=None):
        outcome = ref.outcome if hasattr(ref, "outcome") else ref.call()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def kill(self, actor):
        actor.alive = False

    def cluster_resources(self):
        return {}


def run(*scripts: list, workers: int = 2, quiet: int = 0, **budgets: int) -> tuple[object, list[Actor]]:
    ray = FakeRay(*scripts)
    ray.quiet = quiet
    board = SimpleNamespace(read=Method(lambda: (False, None)))
    group = Group(ray, {"board": board, "job": {}}, ClusterConfig(workers=workers, **budgets))  # type: ignore[arg-type]
    try:
        return group.run(), ray.actors
    finally:
        group.end()
        assert not any(actor.alive for actor in ray.actors)


def broken() -> Raised:
    return Raised(RuntimeError("connection closed by peer"))


def test_when_a_worker_dies_the_others_processes_stay_at_their_ranks():
    result, actors = run([broken(), "done"], [Died()], [broken(), None], [None], workers=3)
    assert result == "done"
    assert [actor.places for actor in actors] == [[0, 0], [1], [2, 2], [1]]


def test_the_first_rank_may_be_the_one_that_dies():
    result, actors = run([Died()], [broken(), None], ["done"])
    assert result == "done"
    assert [actor.places for actor in actors] == [[0], [1, 1], [0]]


def test_a_worker_that_was_told_to_go_is_replaced_and_one_that_saved_with_it_stays():
    result, actors = run(["saved", "done"], [Raised(Preempted("asked to go"))], [None], max_failures=0)
    assert result == "done"
    assert [actor.places for actor in actors] == [[0, 0], [1], [1]]


@pytest.mark.parametrize("end", ["hangs", "unsound"])
def test_a_worker_that_does_not_end_or_may_not_go_on_is_replaced_too(end):
    _, actors = run([end], [Died()], [None], ["done"])  # the successor of the dead one starts first
    assert [actor.places for actor in actors] == [[0], [1], [1], [0]]


def test_after_an_error_of_the_training_function_every_process_is_new():
    _, actors = run([Raised(OSError("no file"))], [broken()], ["done"], [None])
    assert [actor.places for actor in actors] == [[0], [1], [0], [1]]


def test_once_a_run_is_under_way_a_prepared_process_waits_and_takes_a_dead_workers_place():
    result, actors = run([broken(), "done"], [Died()], [None], quiet=1)
    assert result == "done"
    assert [actor.places for actor in actors] == [[0, 0], [1], [1]]
    assert [actor.prepared for actor in actors] == [False, False, True]


def test_a_spare_process_that_died_is_not_taken(monkeypatch):
    prepare = Actor._prepare
    monkeypatch.setattr(Actor, "_prepare", lambda self, job: prepare(self, job) and setattr(self, "alive", False))
    result, actors = run([broken(), "done"], [Died()], ["never asked"], [None], quiet=1, max_failures=1)
    assert result == "done"
    assert [actor.places for actor in actors] == [[0, 0], [1], [], [1]]


@pytest.mark.parametrize("settings", [{"spare": False}, {"max_failures": 0}])
def test_no_spare_process_starts_where_it_is_switched_off_or_could_not_be_used(settings):
    _, actors = run(["done"], [None], quiet=1, **settings)
    assert len(actors) == 2


def test_no_spare_process_starts_where_memory_is_short(monkeypatch):
    import psutil

    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=10**9))
    _, actors = run(["done"], [None], quiet=1)
    assert len(actors) == 2


def test_more_deaths_than_allowed_end_the_run():
    with pytest.raises(WorkersFailed, match="rank 1"):
        run([broken()], [Died()], [], max_failures=0)


def test_a_process_goes_on_after_a_broken_connection_and_not_after_an_error_of_its_own(monkeypatch):
    from cluster.launch import ray_worker

    monkeypatch.setattr(ray_worker, "listen_for_sigterm", lambda: None)
    ends = iter([RuntimeError("connection reset by peer"), MemoryError("no memory"), None])

    def work_at(payload, place, listener):
        if error := next(ends):
            raise error

    monkeypatch.setattr(ray_worker, "work_at", work_at)
    member, place = Member(), process_group.Place()
    for sound in (True, False):
        with pytest.raises((RuntimeError, MemoryError)):
            member.work({}, place)  # type: ignore[typeddict-item]
        assert member._sound is sound
    member.work({}, place)  # type: ignore[typeddict-item]
    monkeypatch.delitem(sys.modules, "deepspeed", raising=False)
    assert member.is_sound()
    monkeypatch.setitem(sys.modules, "deepspeed", SimpleNamespace())
    assert not member.is_sound(), "DeepSpeed keeps the process group of its first run"
