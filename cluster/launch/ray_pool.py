"""The processes in which the workers of a cluster train. They outlive Ray Train's groups of workers.

Ray Train decides how many workers a run has, reserves what they need and notices failures; to change their number it ends
all their processes and starts others. So its workers here only hold a place (:func:`hold_place`), and beside each of them
a process of the :class:`Pool` trains. While Ray Train starts another group, the processes of the one before train on; when
a process waits at every place of the new group, they save their state, and all continue from it together.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
import uuid
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

from cluster.engine import process_group
from cluster.launch.board import Board
from cluster.launch.ray_member import Member
from cluster.launch.ray_worker import Job, Payload, asked_to_stop
from cluster.storage.retry import brief

if TYPE_CHECKING:
    from types import ModuleType

    from ray import ObjectRef
    from ray.actor import ActorHandle

AFTER = 0.5  # seconds in which the workers of an attempt end after the first has failed
LAST_STEP = 300.0  # seconds for the workers of an attempt to finish a step and save, before they are ended
ANSWERS = 5.0  # seconds for a process without work to answer; it is replaced if it does not
EVERY = 1.0  # seconds between two signs of life of a worker that holds a place
OTHER_CALLS = 100  # calls of the board at a time, beside two of each worker
# In older Ray (2.50) an actor that reserves no GPU sees none, whatever its variables say, unless this one says otherwise.
KEEP_DEVICES = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
log = logging.getLogger("headstart.launch")


@dataclass(frozen=True, kw_only=True)
class Seat:
    """What one of Ray Train's workers reserves.

    Attributes:
        group: the same for all workers that Ray Train started together.
        place: the worker's among them; without rank 0's address.
        node: Ray's name of the machine.
        host: address of the machine.
        environment: variables of the worker's process that say which devices and threads are its own.
    """

    group: str
    place: process_group.Place
    node: str
    host: str
    environment: dict[str, str]


@dataclass(eq=False)
class _Process:
    """One process that trains: its actor, where it is, and its number there once its imports are done."""

    actor: ActorHandle
    node: str
    environment: dict[str, str]
    pid: ObjectRef


@dataclass(eq=False)
class _Group:
    """The workers that Ray Train started together: by rank, who has come and which process trains for it."""

    seats: dict[int, Seat] = field(default_factory=dict)
    processes: dict[int, _Process] = field(default_factory=dict)
    waiting: int = 0
    begun: asyncio.Future[list[ObjectRef]] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Pool(Board):
    """The board of a run on a cluster, an asynchronous actor on the driver's machine, which owns the processes that train.

    Args:
        job: of the run.
        environment: variables for every process.
        patience: seconds without a sign of life from Ray Train's workers after which the processes save and end.
        workers: how many the run was asked to have.
    """

    def __init__(self, job: Job, environment: dict[str, str], patience: float, workers: int) -> None:
        import ray

        super().__init__(workers)
        self._ray: ModuleType = ray
        self._job, self._environment, self._patience = job, environment, patience
        self._attempt, self._held = 0, time.monotonic()
        self._processes: list[_Process] = []
        self._groups: dict[str, _Group] = {}  # the newest alone
        self._running: list[tuple[_Process, ObjectRef]] = []
        self._turn = asyncio.Lock()

    def read(self, attempt: int = 0) -> tuple[bool, str | None]:
        """(Whether an attempt should stop, the final error or None): all, or one for which no place is held any more."""
        deserted = time.monotonic() - self._held > self._patience
        return self.stopping or attempt < self._attempt or deserted, self.error

    def hold(self) -> None:
        """A worker that holds a place lives."""
        self._held = time.monotonic()

    async def train(self, seat: Seat) -> tuple[int, list[ObjectRef]]:
        """Train at a place; returns, when all of its group do, the process's number on its machine and its result to be.

        Raises:
            RuntimeError: Ray Train has started another group meanwhile.
        """
        if seat.group not in self._groups:
            for group in self._groups.values():
                group.begun.cancel()
            self._groups = {seat.group: _Group()}
        group, rank = self._groups[seat.group], seat.place.rank
        group.seats[rank] = seat
        process = group.processes[rank] = self._process_for(seat, group)
        try:
            pid = await process.pid
        except Exception:
            self._end({process})  # else the next group would take it
            raise
        group.waiting += 1
        if group.waiting == seat.place.world:
            async with self._turn:
                await self._begin(group)
        try:
            return pid, [(await group.begun)[rank]]
        except asyncio.CancelledError:
            raise RuntimeError("another group of workers has taken the place of this one") from None

    def _process_for(self, seat: Seat, group: _Group) -> _Process:
        taken = group.processes.values()
        fit = (
            p for p in self._processes if (p.node, p.environment) == (seat.node, seat.environment) and p not in taken
        )
        return next(fit, None) or self._start(seat)

    def _variables(self, seat: Seat) -> dict[str, str]:
        return {**self._environment, **seat.environment, **KEEP_DEVICES}

    def _start(self, seat: Seat) -> _Process:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        actor: ActorHandle = (
            self._ray.remote(Member)
            .options(
                num_cpus=0,  # its worker of Ray Train has reserved them
                scheduling_strategy=NodeAffinitySchedulingStrategy(seat.node, soft=False),
                runtime_env={"env_vars": self._variables(seat)},
            )
            .remote()
        )
        process = _Process(actor, seat.node, seat.environment, actor.prepare.remote(self._job))
        self._processes.append(process)
        return process

    async def _begin(self, group: _Group) -> None:
        """End the attempt that runs, if any, and start that of a group whose processes are ready."""
        if group.begun.done():
            return  # another group has come meanwhile
        try:
            self._attempt += 1
            await self._end_running()
            if group.begun.done():
                return
            for rank, process in group.processes.items():
                if process not in self._processes:
                    group.processes[rank] = self._start(group.seats[rank])
            self._end({process for process in self._processes if process not in group.processes.values()})
            host, port = await group.processes[0].actor.listen.remote(group.seats[0].host)
            payload = Payload(job=self._job, board=self._ray.get_runtime_context().current_actor, attempt=self._attempt)
            answers = [
                group.processes[rank].actor.work.remote(payload, replace(seat.place, host=host, port=port))
                for rank, seat in sorted(group.seats.items())
            ]
        except Exception as error:  # for instance, a process died before it was told what to do
            self._end(set(group.processes.values()))
            if not group.begun.done():
                group.begun.set_exception(RuntimeError(f"the workers did not start: {brief(error)}"))
            return
        self._running = [(group.processes[rank], answer) for rank, answer in enumerate(answers)]
        if not group.begun.done():
            group.begun.set_result(answers)

    async def _end_running(self) -> None:
        """Wait until the attempt that runs has ended; processes that cannot train again are killed."""
        running, self._running = self._running, []
        if not running:
            return
        tasks = {asyncio.ensure_future(_result(answer)): process for process, answer in running}
        _, busy = await asyncio.wait(tasks, timeout=LAST_STEP, return_when=asyncio.FIRST_EXCEPTION)
        if busy:
            _, busy = await asyncio.wait(busy, timeout=AFTER)
        for task in busy:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)  # errors are raised by the workers that hold the places
        sound = await asyncio.gather(*(_is_sound(process, task in busy) for task, process in tasks.items()))
        self._end({process for process, good in zip(tasks.values(), sound, strict=True) if not good})

    def _end(self, processes: set[_Process]) -> None:
        for process in processes:
            self._ray.kill(process.actor)
        self._processes = [process for process in self._processes if process not in processes]


async def _result(answer: ObjectRef) -> object:
    return await answer


async def _is_sound(process: _Process, busy: bool) -> bool:
    with contextlib.suppress(Exception):  # it is dead, or does not answer
        return not busy and bool(await asyncio.wait_for(process.actor.is_sound.remote(), ANSWERS))
    return False


def hold_place(payload: Payload) -> object:
    """What each of Ray Train's workers does: reserve a place, and return what the process that trains there returns.

    Raises:
        Exception: that of the training.
        RuntimeError: the process died.
    """
    import ray.train
    from ray.train.collective import broadcast_from_rank_zero

    context, pool = ray.train.get_context(), payload["board"]
    place = process_group.Place(
        rank=context.get_world_rank(),
        world=context.get_world_size(),
        local_rank=context.get_local_rank(),
        local_world=context.get_local_world_size(),
    )
    seat = Seat(
        group=broadcast_from_rank_zero(uuid.uuid4().hex if place.rank == 0 else None),
        place=place,
        node=ray.get_runtime_context().get_node_id(),
        host=ray.util.get_node_ip_address(),  # 127.0.0.1 in a private Ray
        environment=_own_devices(),
    )
    pid, answers = cast("tuple[int, list[ObjectRef]]", _waited(pool, pool.train.remote(seat)))
    return _waited(pool, answers[0], pid)


def _own_devices() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if name == "OMP_NUM_THREADS" or name.endswith("_VISIBLE_DEVICES")
    }


def _waited(pool: ActorHandle, answer: ObjectRef, pid: int | None = None) -> object:
    """The answer, once it is there; until then this worker shows that it lives, and hands SIGTERM on to the process."""
    import ray

    while not ray.wait([answer], timeout=EVERY)[0]:
        pool.hold.remote()
        if pid is not None and asked_to_stop():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            pid = None
    try:
        return ray.get(answer)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayActorError as error:
        raise RuntimeError(f"a worker's process ended: {brief(error)}") from None
