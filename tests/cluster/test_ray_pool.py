"""Which processes train after Ray Train has started other workers, with stand-ins for Ray and its actors."""

from __future__ import annotations

import asyncio
import itertools
import signal
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

from cluster.engine import process_group
from cluster.launch import ray_pool
from cluster.launch.ray_pool import Pool, Seat


class Actor:
    """A process that trains until it is told how its attempt ends; ``places`` are rank and world of all attempts."""

    def __init__(self, node: str) -> None:
        self.node, self.places, self.attempt, self.alive = node, [], 0, True
        self.end: asyncio.Future | None = None
        self.sound = True
        self.listen = self.method(lambda host: _now((host, 7)))
        self.is_sound = self.method(lambda: _now(self.sound))
        self.work = self.method(self._work)

    def method(self, call):
        return SimpleNamespace(remote=call)

    def _work(self, payload, place):
        assert (place.host, place.port) == ("first", 7)
        self.places.append((place.rank, place.world))
        self.attempt = payload["attempt"]
        self.end = asyncio.get_running_loop().create_future()
        return self.end


async def _now(value):
    return value


async def _fail(error):
    raise error


@pytest.fixture
def pool(monkeypatch) -> Pool:
    """A pool whose actors are stand-ins; ``pool.actors`` has all that it started."""
    monkeypatch.setattr(ray_pool, "AFTER", 0.01)
    context = SimpleNamespace(current_actor=None)
    ray = SimpleNamespace(kill=lambda actor: setattr(actor, "alive", False), get_runtime_context=lambda: context)
    monkeypatch.setitem(sys.modules, "ray", ray)  # the real one, once imported, could not be confined by later tests
    pool = Pool({}, {}, patience=60, workers=2)  # type: ignore[typeddict-item]
    pool.actors, pool.imports = [], map(_now, itertools.repeat(1))  # type: ignore[attr-defined]

    def start(seat):
        actor = Actor(seat.node)
        pool.actors.append(actor)  # type: ignore[attr-defined]
        imports = asyncio.ensure_future(next(pool.imports))  # type: ignore[attr-defined]
        process = ray_pool._Process(actor, seat.node, seat.environment, imports)  # type: ignore[arg-type]
        pool._processes.append(process)
        return process

    monkeypatch.setattr(pool, "_start", start)
    return pool


def seats(group: str, *nodes: str) -> list[Seat]:
    """The workers of a group, rank by rank, one at each node."""
    world = len(nodes)
    hosts = ["first", *nodes[1:]]
    return [
        Seat(group=group, place=process_group.Place(rank=rank, world=world), node=node, host=host, environment={})
        for rank, (node, host) in enumerate(zip(nodes, hosts, strict=True))
    ]


async def come(pool: Pool, *group: Seat) -> list[asyncio.Task]:
    """Workers come to the pool, one after the other."""
    tasks = []
    for seat in group:
        tasks.append(asyncio.ensure_future(pool.train(seat)))
        await asyncio.sleep(0.002)
    return tasks


def test_one_worker_trains_on_until_a_second_is_ready_and_its_process_stays(pool):
    async def story() -> None:
        await come(pool, *seats("one", "a"))
        first = pool.actors[0]
        assert pool.read(first.attempt) == (False, None)
        waiting = await come(pool, *seats("two", "a", "b")[:1])
        assert not pool.read(first.attempt)[0], "the other is not there yet"
        waiting += await come(pool, *seats("two", "a", "b")[1:])
        assert pool.read(first.attempt)[0], "now it saves and ends"
        assert not any(task.done() for task in waiting)
        first.end.set_result("saved")
        assert [(await task)[0] for task in waiting] == [1, 1]
        assert [actor.places for actor in pool.actors] == [[(0, 1), (0, 2)], [(1, 2)]]
        assert not pool.read(first.attempt)[0]

    asyncio.run(story())


def test_when_a_machine_is_lost_the_process_on_the_other_stays(pool):
    async def story() -> None:
        answers = await come(pool, *seats("two", "a", "b"))
        a, b = pool.actors
        a.end.set_exception(RuntimeError("connection closed by peer"))  # and nothing is heard of b
        await come(pool, *seats("one", "a"))
        await asyncio.sleep(0.05)
        assert a.places == [(0, 2), (0, 1)]
        assert (a.alive, b.alive) == (True, False)
        with pytest.raises(RuntimeError, match="closed by peer"):
            await (await answers[0])[1][0]

    asyncio.run(story())


@pytest.mark.parametrize("error", [None, MemoryError("no memory")])
def test_a_process_that_cannot_train_again_is_replaced(pool, error):
    async def story() -> None:
        await come(pool, *seats("first", "a"))
        old = pool.actors[0]
        old.sound = False
        old.end.set_exception(error) if error else old.end.set_result("used DeepSpeed")
        await come(pool, *seats("second", "a"))
        assert [actor.places for actor in pool.actors] == [[(0, 1)], [(0, 1)]]
        assert [actor.alive for actor in pool.actors] == [False, True]

    asyncio.run(story())


def test_a_process_that_sees_other_devices_or_that_nobody_needs_is_ended(pool):
    async def story() -> None:
        here = {"CUDA_VISIBLE_DEVICES": "0"}
        seat = Seat(group="first", place=process_group.Place(), node="a", host="first", environment=here)
        await come(pool, seat)
        pool.actors[0].end.set_result("saved")
        await come(pool, *seats("second", "a"))
        assert [actor.alive for actor in pool.actors] == [False, True]

    asyncio.run(story())


def test_workers_that_ray_train_has_ended_before_they_were_complete_make_way(pool):
    async def story() -> None:
        early = await come(pool, *seats("two", "a", "b")[:1])
        await come(pool, *seats("one", "a"))
        with pytest.raises(RuntimeError, match="another group"):
            await early[0]
        assert [actor.places for actor in pool.actors] == [[(0, 1)]]

    asyncio.run(story())


def test_an_attempt_without_signs_of_life_from_ray_trains_workers_saves_and_ends(pool, monkeypatch):
    async def story() -> None:
        await come(pool, *seats("one", "a"))
        now = ray_pool.time.monotonic()
        monkeypatch.setattr(ray_pool.time, "monotonic", lambda: now + 61)
        assert pool.read(1)[0]
        pool.hold()
        assert not pool.read(1)[0]

    asyncio.run(story())


def test_a_process_that_dies_while_a_group_begins_is_an_error_of_its_workers(pool):
    async def story() -> None:
        await come(pool, *seats("one", "a"))
        pool.actors[0].end.set_result("saved")

        def gone(host):
            raise RuntimeError("the actor died")

        pool.actors[0].listen = pool.actors[0].method(gone)
        again = await come(pool, *seats("again", "a"))
        with pytest.raises(RuntimeError, match="the actor died"):
            await again[0]
        await come(pool, *seats("once more", "a"))
        assert [actor.alive for actor in pool.actors] == [False, True]

    asyncio.run(story())


def test_a_process_that_dies_while_it_imports_is_not_taken_again(pool):
    async def story() -> None:
        pool.imports = iter([_fail(MemoryError("no memory")), _now(1)])
        first = await come(pool, *seats("one", "a"))
        with pytest.raises(MemoryError):
            await first[0]
        await come(pool, *seats("two", "a"))
        assert [actor.alive for actor in pool.actors] == [False, True]

    asyncio.run(story())


def test_a_worker_that_is_told_to_go_tells_its_process_and_hands_on_its_error(monkeypatch):
    class TaskError(Exception):
        cause = ValueError("the training's own")

    process = subprocess.Popen(["sleep", "60"])
    lives = []
    pool = SimpleNamespace(hold=SimpleNamespace(remote=lambda: lives.append(1)))
    ray = SimpleNamespace(
        wait=lambda refs, timeout: (refs if process.poll() is not None else [], []),
        get=lambda ref: (_ for _ in ()).throw(TaskError()),
        exceptions=SimpleNamespace(RayTaskError=TaskError, RayActorError=OSError),
    )
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setattr(ray_pool, "asked_to_stop", lambda: True)
    with pytest.raises(ValueError, match="the training's own"):
        ray_pool._waited(pool, "answer", process.pid)  # type: ignore[arg-type]
    assert process.wait() == -signal.SIGTERM
    assert lives


def test_a_process_that_reserves_no_gpu_sees_those_of_its_place(pool):
    seat = replace(seats("one", "a")[0], environment={"CUDA_VISIBLE_DEVICES": "2,3"})
    variables = pool._variables(seat)
    assert variables["CUDA_VISIBLE_DEVICES"] == "2,3"
    assert variables["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] == "0", "else older Ray hides all GPUs from it"
