"""Ray: places the workers and restarts them after a failure, on a cluster by Ray Train.

Ray is used for placement and restarts only. Checkpoints are ours (:mod:`cluster.checkpoint`), so a restart by Ray, a
manual rerun and a rerun on another cluster follow the same path: rank 0 looks for the newest good checkpoint.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import platform
import sys
import threading
import uuid
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

from cluster.launch import ray_group, ray_pool, ray_private, ray_worker
from cluster.launch.board import Board, Replay
from cluster.launch.failures import Preempted, causes
from cluster.launch.ray_start import connect
from cluster.launch.settings import ClusterConfig
from cluster.launch.worker import stop_signals
from cluster.registry.mlflow_client import is_secret, without_password
from cluster.storage.retry import brief
from configs import InputError
from configs.scratch import ScratchFolder

if TYPE_CHECKING:
    from ray.actor import ActorHandle
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

# Variables, or their prefixes, that workers on other machines need and that are no secrets.
_FORWARDED = (
    "HEADSTART_",
    "MLFLOW_TRACKING_URI",
    "MLFLOW_EXPERIMENT",
    "AWS_ENDPOINT_URL",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
)
POLL = 0.2  # seconds between two readings of the board
log = logging.getLogger("headstart.launch")
__all__ = ["connect", "fit"]


def fit(target: str, config: dict[str, object], run: str, settings: ClusterConfig) -> object:
    """Run ``target`` on the workers; see :func:`cluster.launch.launch.launch`."""
    ray, owned = connect(settings)
    try:
        with stop_signals() as asked, ScratchFolder("ray") as scratch:
            here = ray_group.fits(ray, settings)
            if here:
                settings = settings.on_one_machine(int(ray.cluster_resources().get("GPU", 0)))
            job = ray_worker.Job(
                target=target,
                config=config,
                run=run,
                threads=settings.cpus,
                machine=platform.node(),
                path=sys.path,
            )
            board = _board(ray, job, settings, here)
            payload = ray_worker.Payload(job=job, board=board, attempt=0)
            if here:
                group = ray_group.Group(ray, payload, settings)
                try:
                    outcome = _wait(ray, group.run, asked, board)
                finally:
                    group.end()
            else:
                trainer = _trainer(payload, settings, str(scratch))
                try:
                    outcome = _wait(ray, lambda: trainer.fit().return_value, asked, board)
                finally:
                    ray.kill(board)  # and with it the processes that it started
    finally:
        if owned:
            ray.shutdown()
    if isinstance(outcome, dict) and "input_error" in outcome:
        raise InputError(outcome["input_error"])
    return outcome


def _board(ray: ModuleType, job: ray_worker.Job, settings: ClusterConfig, here: bool) -> ActorHandle:
    """The board of a run, on the driver's machine; that of a cluster's run starts the processes that train, too."""
    options = {"num_cpus": 0, "scheduling_strategy": _here(ray)}
    if here:
        return ray.remote(Board).options(**options).remote(settings.workers)
    pool = ray.remote(ray_pool.Pool).options(**options, max_concurrency=2 * settings.workers + ray_pool.OTHER_CALLS)
    return pool.remote(job, _forwarded() if settings.address else {}, settings.start_timeout, settings.workers)


def _here(ray: ModuleType) -> NodeAffinitySchedulingStrategy:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


def _trainer(payload: ray_worker.Payload, settings: ClusterConfig, scratch: str) -> Any:
    import ray.train

    api: Any = ray.train  # its annotations are those of the first generation, whose classes it no longer gives

    elastic = settings.least_workers < settings.workers
    resources: dict[str, float] = {"CPU": settings.cpus}
    if settings.gpus_per_worker:
        resources["GPU"] = settings.gpus_per_worker

    trainer = ray_private.trainer(max_preemptions=settings.max_preemptions)
    return trainer(
        ray_pool.hold_place,
        train_loop_config=dict(payload),
        backend_config=ray_worker.backend_config(),
        scaling_config=api.ScalingConfig(
            num_workers=(settings.least_workers, settings.workers) if elastic else settings.workers,
            use_gpu=settings.gpus_per_worker > 0,
            resources_per_worker=resources,
            elastic_resize_monitor_interval_s=settings.resize_every,
        ),
        run_config=api.RunConfig(
            name=uuid.uuid4().hex,  # a used name would make Ray resume by its own records
            storage_path=scratch,
            failure_config=_budgets(api.FailureConfig, settings),
        ),
    )


def _budgets(kind: type, settings: ClusterConfig) -> object:
    """Ray's own two restart budgets; older versions have one, and count a machine whose preemption was announced as a failure."""
    known = {field.name for field in dataclasses.fields(kind)}
    apart = {"max_preemption_failures": settings.max_preemptions} if "max_preemption_failures" in known else {}
    return kind(max_failures=settings.max_failures, **apart)


def _forwarded() -> dict[str, str]:
    """Settings for the workers' machines, without credentials: Ray stores and shows a runtime environment."""
    settings = {name: value for name, value in os.environ.items() if name.startswith(_FORWARDED)}
    return {name: without_password(value) for name, value in settings.items() if not is_secret(name)}


def _wait(ray: ModuleType, run: Callable[[], object], asked: threading.Event, board: ActorHandle) -> object:
    """``run()`` in a thread, so that SIGTERM and Ctrl-C reach us and not Ray, which would drop steps."""
    returned: list[object] = []
    failed: list[BaseException] = []

    def fit() -> None:
        try:
            returned.append(run())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=fit, daemon=True, name="ray-train")
    thread.start()
    stopping, replay = False, Replay()
    try:
        while thread.is_alive():
            thread.join(POLL)
            if asked.is_set() and not stopping:
                board.stop.remote()
                stopping = True
            replay.show(_messages(ray, board))
        replay.show(_messages(ray, board))
    finally:
        replay.close()
    if failed:
        raise _explain(failed[0]) from failed[0]
    return returned[0]


def _messages(ray: ModuleType, board: ActorHandle) -> list[tuple[object, ...]]:
    """What the workers have left on the board.

    Raises:
        InputError: the board could not start, or has ended.
    """
    try:
        return list(ray.get(board.take.remote()))
    except ray.exceptions.RayActorError as error:
        last = [line for line in str(error).splitlines() if line.strip()][-1].strip()
        if "import on the worker" in str(error):
            raise InputError(
                f"the Ray cluster's processes have another headstart than this command, or none ({last}); start Ray on "
                "every machine in an environment with the same version, and run the command outside other checkouts"
            ) from error
        raise InputError(
            f"Ray has ended the run's own process on this machine ({last}); add --resume to go on"
        ) from error


def _explain(error: BaseException) -> Exception:
    """The workers' own error where there is one, rather than the broken connections of their peers."""
    if isinstance(error, InputError):
        return error
    found = causes(error)
    for cause in found:
        if isinstance(cause, InputError):
            return type(cause)(str(cause))
    last = "; ".join(map(brief, found)) or error
    if any(isinstance(cause, Preempted) for cause in found):
        return RuntimeError(f"workers were preempted more often than max_preemptions allows; last: {last}")
    return RuntimeError(f"the workers failed more often than max_failures allows; last: {last}")
