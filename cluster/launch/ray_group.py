"""The workers of one machine: Ray actors that the driver starts, watches and restarts by itself.

Ray Train does this on a cluster. On one machine it would add two processes, and each process would import its libraries for
data sets: half of the processor time of a start. What a worker does is the same (:mod:`cluster.launch.ray_member`).
When a worker dies, the others lose their connection to it; their processes stay, join the new one and load the newest
checkpoint, as it does. The new one is the spare process, if there is one by then: it has imported what training needs.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Iterable
from dataclasses import replace
from types import ModuleType
from typing import TYPE_CHECKING

from cluster.engine import process_group
from cluster.launch.failures import Preempted, causes
from cluster.launch.ray_member import Member
from cluster.launch.ray_worker import Payload
from cluster.launch.settings import ClusterConfig
from cluster.storage.retry import brief
from configs import InputError

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.actor import ActorHandle

AFTER = 0.5  # seconds in which the errors of other workers are collected after the first
WHILE_STARTING = 3.0  # the same after a death: a new process takes longer to start, and nothing is lost meanwhile
ANSWERS = 5.0  # seconds for a worker without work to answer; it is replaced if it does not
SPARE_AFTER = 20.0  # seconds of training before the spare starts, which takes 5 s of CPU: short runs never pay for it
SPARE_MEMORY = 4 * 2**30  # bytes that must be free for it; it takes 0.3 GB
log = logging.getLogger("headstart.launch")


class WorkersFailed(RuntimeError):
    """A group of workers ended with errors.

    Attributes:
        worker_failures: rank → error, of the workers that failed before the group was ended.
    """

    def __init__(self, failures: dict[int, BaseException]) -> None:
        super().__init__("; ".join(f"rank {rank}: {brief(error)}" for rank, error in failures.items()))
        self.worker_failures = failures


def fits(ray: ModuleType, settings: ClusterConfig) -> bool:
    """Whether all workers belong on this machine: no address is given and Ray has no other machine."""
    return not settings.address and sum(bool(node["Alive"]) for node in ray.nodes()) == 1


class Group:
    """The workers, started again after failures and preemptions until a budget is used up."""

    def __init__(self, ray: ModuleType, payload: Payload, settings: ClusterConfig) -> None:
        self._ray, self._payload, self._settings = ray, payload, settings
        self._members: list[ActorHandle | None] = [None] * settings.workers
        self._spare: tuple[ActorHandle, ObjectRef] | None = None  # and the answer when it is prepared
        self._ended = False

    def run(self) -> object:
        """What rank 0 returned.

        Raises:
            InputError: fewer GPUs than the workers need.
            WorkersFailed: more failures, or more preemptions, than allowed.
        """
        settings = self._settings
        self._check_gpus()
        failures, preemptions = (n if n >= 0 else math.inf for n in (settings.max_failures, settings.max_preemptions))
        while True:
            try:
                return self._attempt()
            except WorkersFailed as error:
                given_up: str | None = self._ray.get(self._payload["board"].read.remote())[1]
                if given_up is not None:
                    return {"input_error": given_up}
                preempted = any(isinstance(cause, Preempted) for cause in causes(error))
                failures, preemptions = failures - (not preempted), preemptions - preempted
                if self._ended or min(failures, preemptions) < 0:
                    raise
                log.warning("starting the workers again: %s", error)

    def end(self) -> None:
        """Kill the workers that are left."""
        self._ended = True
        self._kill(range(len(self._members)))
        if self._spare is not None:
            (member, _), self._spare = self._spare, None
            self._ray.kill(member)

    def _attempt(self) -> object:
        members = self._complete()
        world = len(members)
        try:
            host, port = self._ray.get(members[0].listen.remote()) if world > 1 else ("", 0)
            here = process_group.Place(world=world, local_world=world, host=host, port=port)
            places = [replace(here, rank=rank, local_rank=rank) for rank in range(world)]
            refs: list[ObjectRef] = [
                member.work.remote(self._payload, place) for member, place in zip(members, places, strict=True)
            ]
            return self._results(refs)[0]
        except self._ray.exceptions.RayError as error:  # it died before it was told what to do
            self._kill(range(world))
            raise WorkersFailed({0: error}) from error

    def _complete(self) -> list[ActorHandle]:
        """One actor for each rank: those that are left of the last attempt, and new ones."""
        members = [member or self._start() for member in self._members]
        self._members = list(members)
        return members

    def _start(self) -> ActorHandle:
        """The spare, or a new process."""
        return self._taken_spare() or self._new()

    def _new(self) -> ActorHandle:
        return self._ray.remote(Member).options(num_cpus=self._settings.cpus).remote()

    def _start_spare(self) -> None:
        """Start a process that imports what training needs, where there is memory for it."""
        import psutil  # Ray has it among its own requirements

        if not self._ended and psutil.virtual_memory().available >= SPARE_MEMORY:
            member = self._new()
            self._spare = member, member.prepare.remote(self._payload["job"])

    def _taken_spare(self) -> ActorHandle | None:
        """The spare, if there is one and it lives; from then on it is none."""
        if self._spare is None:
            return None
        (member, prepared), self._spare = self._spare, None
        if not self._ray.wait([prepared], num_returns=1, timeout=0)[0]:
            return member  # it still imports, which a new process would begin with
        with contextlib.suppress(self._ray.exceptions.RayError):
            if self._ray.get(member.is_sound.remote(), timeout=ANSWERS):
                return member
        self._ray.kill(member)
        return None

    def _results(self, refs: list[ObjectRef]) -> list[object]:
        ray, waiting = self._ray, list(refs)
        failed: dict[int, BaseException] = {}
        results: dict[int, object] = {}
        wanted = self._settings.spare and self._settings.max_failures != 0 and self._spare is None
        due = time.monotonic() + SPARE_AFTER if wanted else None
        while waiting:
            ready, waiting = ray.wait(waiting, num_returns=1, timeout=self._patience(failed, due))
            if not ready and not failed:
                self._start_spare()
                due = None
                continue
            if not ready:
                break
            rank = refs.index(ready[0])
            try:
                results[rank] = ray.get(ready[0])
            except ray.exceptions.RayError as error:
                failed[rank] = getattr(error, "cause", None) or error
                if self._died(failed[rank]) and not self._ended:
                    self._members[rank] = self._start()  # while the others end
        if failed:
            left = self._left(failed, busy={refs.index(ref) for ref in waiting})
            self._kill(rank for rank in range(len(refs)) if rank not in left)
            raise WorkersFailed(dict(sorted(failed.items())))
        return [results[rank] for rank in range(len(refs))]

    def _died(self, error: BaseException) -> bool:
        return isinstance(error, self._ray.exceptions.RayActorError)

    def _patience(self, failed: dict[int, BaseException], due: float | None) -> float | None:
        """Seconds to wait for another result: until the spare is due, or for ever; after a failure, for the others to end."""
        if failed:
            return WHILE_STARTING if any(map(self._died, failed.values())) else AFTER
        return None if due is None else max(0.0, due - time.monotonic())

    def _left(self, failed: dict[int, BaseException], busy: set[int]) -> set[int]:
        """Ranks whose actors stay for the next attempt when others died or were told to go; none after any other failure."""
        errors = self._ray.exceptions
        died = {rank for rank, error in failed.items() if self._died(error)}
        gone = died | {rank for rank, error in failed.items() if isinstance(error, Preempted)}
        if not gone:
            return set()
        asked: dict[int, ObjectRef] = {
            rank: member.is_sound.remote()
            for rank, member in enumerate(self._members)
            if member is not None and rank not in gone | busy
        }
        left = died  # their successors are starting
        for rank, answer in asked.items():
            with contextlib.suppress(errors.RayError):
                if self._ray.get(answer, timeout=ANSWERS):
                    left.add(rank)
        return left

    def _kill(self, ranks: Iterable[int]) -> None:
        for rank in ranks:
            member, self._members[rank] = self._members[rank], None
            if member is not None:
                self._ray.kill(member)

    def _check_gpus(self) -> None:
        """Workers see every GPU and take the one of their rank, so they are counted here and not reserved."""
        needed = self._settings.gpus_per_worker * self._settings.workers
        here = int(self._ray.cluster_resources().get("GPU", 0))
        if needed > here:
            raise InputError(
                f"{self._settings.workers} workers with {self._settings.gpus_per_worker} GPUs each need {needed} GPUs, this "
                f"machine has {here}; use fewer workers, or gpus_per_worker=0 to train on the CPU"
            )
