"""Ray Train: place the workers, join them, start them again after a failure. The only module that knows Ray.

Ray is used for placement and restarts alone. Checkpoints are ours (:mod:`cluster.checkpoint`), so a restart by Ray, a
rerun by hand and a rerun on another cluster are the same thing: each worker looks for the newest good checkpoint.
"""

from __future__ import annotations

import logging
import os
import platform
import secrets
import signal
import socket
import sys
import tempfile
import threading
import traceback
import uuid
from typing import Any

from cluster.engine import process_group
from cluster.launch.launch import ClusterConfig, find_target
from cluster.launch.worker import Context, check_shared, stop_signals
from cluster.registry.mlflow_client import is_secret, without_password
from cluster.storage.errors import StorageError
from cluster.storage.retry import brief
from configs import InputError

# Variables that workers on other machines need and that are no secrets.
_FORWARDED = (
    "HEADSTART_",
    "MLFLOW_TRACKING_URI",
    "MLFLOW_EXPERIMENT",
    "AWS_ENDPOINT_URL",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
)
STARTS = 3
log = logging.getLogger("headstart.launch")
_asked_to_stop = threading.Event()  # set by SIGTERM in a worker process


class Preempted(RuntimeError):
    """This worker was told to go; its state is saved, and the others should go on without it."""


def fit(target: str, config: dict[str, Any], run: str, settings: ClusterConfig) -> Any:
    """Run ``target`` on the workers; see :func:`cluster.launch.launch.launch`."""
    ray, owned = connect(settings)
    try:
        with stop_signals() as asked, tempfile.TemporaryDirectory(prefix="headstart-ray-") as scratch:
            board = ray.remote(Board).options(num_cpus=0, scheduling_strategy=_here(ray)).remote()
            job = {
                "target": target,
                "config": config,
                "run": run,
                "threads": settings.cpus,
                "machine": platform.node(),
                "path": sys.path,
            }
            outcome = _wait(_trainer(job, board, settings, scratch), asked, board)
    finally:
        if owned:
            ray.shutdown()
    if isinstance(outcome, dict) and "input_error" in outcome:
        raise InputError(outcome["input_error"])
    return outcome


# ------------------------------------------------------------------------------------------------ Ray itself


def connect(settings: ClusterConfig) -> tuple[Any, bool]:
    """``(ray, owned)``: a private Ray of this process, or the cluster at ``settings.address``.

    A Ray that this process is connected to already is used as it is.

    Raises:
        InputError: Ray is not installed, or nobody answers at the address.
    """
    already = sys.modules.get("ray")
    if already is not None and already.is_initialized():
        return already, False
    _environment(settings, imported=already is not None)
    try:
        import ray
    except ImportError as error:
        raise InputError(f"several workers need Ray, which is absent ({error}); install headstart[cluster]") from None
    try:
        if settings.address:
            _check_reachable(settings.address)
            ray.init(address=settings.address, logging_level="WARNING")
        else:
            _start_private(ray, settings)
    except InputError:
        raise
    except Exception as error:
        where = settings.address or "this machine"
        first = str(error).strip().splitlines()[0]
        raise InputError(
            f"no Ray at {where} ({type(error).__name__}: {first}); check the address and RAY_AUTH_TOKEN"
        ) from error
    return ray, not settings.address


def _check_reachable(address: str) -> None:
    """One connection before Ray's own, which goes on trying for minutes and logs every attempt.

    Raises:
        InputError: nobody listens there.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return  # "auto" and the like: Ray looks for itself, and is quick about it
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise InputError(
            f"address '{address}': nobody answers ({why}); start one with 'ray start --head', or correct the address"
        ) from None


def _environment(settings: ClusterConfig, imported: bool) -> None:
    private = not settings.address
    if private and imported and os.environ.get("RAY_AUTH_MODE") != "token":
        raise InputError(
            "Ray was imported before this launch, too late to confine it to the loopback with a token; "
            "launch first, or call ray.init yourself and that Ray is used"
        )
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")  # else every failure is noticed 2 s later
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", str(settings.start_timeout))
    os.environ.setdefault("RAY_TRAIN_METRICS_ENABLED", "0")
    os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")  # it prints what goes to stderr twice
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")  # relative paths mean what they meant to the user
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # inherited by the workers, which import torch early
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if private:
        # Without this Ray advertises the machine's address and several of its servers listen on all interfaces.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")  # one machine: SIGTERM reaches the driver
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def _start_private(ray: Any, settings: ClusterConfig) -> None:
    for attempt in range(STARTS):
        before = _children()
        try:
            return _start_once(ray, settings)
        except Exception as error:
            # Ray gives its own processes 30 s, too little for a machine that is busy just now, and leaves them running.
            ray.shutdown()
            for process in _children() - before:
                process.kill()
            if attempt + 1 == STARTS or "timed out" not in str(error).lower():
                raise
            log.warning("Ray did not start in time (%s); trying again", brief(error))


def _children() -> set[Any]:
    """Processes below this one; Ray has psutil among its own requirements."""
    import psutil

    return set(psutil.Process().children(recursive=True))


def _start_once(ray: Any, settings: ClusterConfig) -> None:
    ray.init(
        address="local",
        num_cpus=max(os.cpu_count() or 1, settings.workers * settings.cpus),
        include_dashboard=settings.dashboard,
        dashboard_host=process_group.LOOPBACK,
        object_store_memory=settings.object_store_mb * 2**20,
        logging_level="WARNING",
        _node_ip_address=process_group.LOOPBACK,
        # Our few actors start when they are asked for; idle workers would take the cores meanwhile.
        _system_config={"enable_worker_prestart": False, "prestart_worker_first_driver": False},
    )


def _here(ray: Any) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


def _trainer(job: dict[str, Any], board: Any, settings: ClusterConfig, scratch: str) -> Any:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    elastic = settings.least_workers < settings.workers
    resources: dict[str, float] = {"CPU": settings.cpus}
    if settings.gpus_per_worker:
        resources["GPU"] = settings.gpus_per_worker

    trainer = DataParallelTrainer if settings.address else _private_trainer()
    return trainer(
        work,
        train_loop_config={"job": job, "board": board},
        backend_config=_backend_config(),
        scaling_config=ScalingConfig(
            num_workers=(settings.least_workers, settings.workers) if elastic else settings.workers,
            use_gpu=settings.gpus_per_worker > 0,
            resources_per_worker=resources,
            elastic_resize_monitor_interval_s=settings.resize_every,
        ),
        run_config=RunConfig(
            name=uuid.uuid4().hex,  # a used name would make Ray resume by its own records
            storage_path=scratch,
            failure_config=FailureConfig(max_failures=settings.max_failures),
            worker_runtime_env={"env_vars": _forwarded()} if settings.address else None,
        ),
    )


def _private_trainer() -> type:
    """A trainer without the helpers that only serve a shared cluster: each is an actor that costs seconds to start."""
    from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    class AllHere(FixedScalingPolicy):
        def _send_resource_request(self) -> None:
            """Nobody else competes for this Ray's cores, and no autoscaler listens."""

        _maybe_send_resource_request = _send_resource_request

        def _cancel_resource_request(self) -> None:
            """Nothing was requested."""

    class Trainer(DataParallelTrainer):
        def _initialize_and_run_controller(self, **arguments: Any) -> Any:
            arguments["scaling_policy"] = AllHere(scaling_config=self.scaling_config)
            return super()._initialize_and_run_controller(**arguments)

        def _create_default_callbacks(self) -> list[Any]:
            # The cleaner looks for a dead driver in a dashboard, which a private Ray has not; we use no Ray Data.
            each = super()._create_default_callbacks()
            unwanted = ("PlacementGroupCleanerCallback", "DatasetsCallback")
            return [callback for callback in each if type(callback).__name__ not in unwanted]

    return Trainer


def _forwarded() -> dict[str, str]:
    """Settings for the workers' machines; not credentials, for Ray stores and shows a runtime environment."""
    settings = {name: value for name, value in os.environ.items() if name.startswith(_FORWARDED)}
    return {name: without_password(value) for name, value in settings.items() if not is_secret(name)}


def _wait(trainer: Any, asked: threading.Event, board: Any) -> Any:
    """``trainer.fit()`` in a thread, so that SIGTERM and Ctrl-C reach us and not Ray, which would drop steps."""
    outcome: dict[str, Any] = {}

    def fit() -> None:
        try:
            outcome["value"] = trainer.fit().return_value
        except BaseException as error:
            outcome["error"] = error

    thread = threading.Thread(target=fit, daemon=True, name="ray-train")
    thread.start()
    told = False
    while thread.is_alive():
        thread.join(0.1)
        if asked.is_set() and not told:
            board.stop.remote()
            told = True
    if "error" in outcome:
        raise _explain(outcome["error"]) from outcome["error"]
    return outcome["value"]


def _explain(error: BaseException) -> Exception:
    """The workers' own error where there is one, rather than the broken connections of their peers."""
    failures = list(getattr(error, "worker_failures", {}).values())
    causes = [getattr(failure, "_base_exc", failure) for failure in failures]
    for cause in causes:
        if isinstance(cause, InputError):
            return type(cause)(str(cause))
    last = "; ".join(map(brief, causes)) or error
    return RuntimeError(f"the workers failed more often than max_failures allows; last: {last}")


class Board:
    """A small actor on the driver's machine: whether to stop, and an error that no restart can cure."""

    def __init__(self) -> None:
        self.stopping, self.error = False, None

    def stop(self) -> None:
        """Ask every worker to save and end."""
        self.stopping = True

    def give_up(self, error: str) -> None:
        """Record the first error that a restart cannot cure."""
        self.error = self.error or error

    def read(self) -> tuple[bool, str | None]:
        """(whether to stop, the final error or None)."""
        return self.stopping, self.error


# ------------------------------------------------------------------------------------------------ on a worker


def _backend_config() -> Any:
    from ray.train.backend import Backend, BackendConfig

    class Signals(Backend):
        def on_start(self, worker_group: Any, backend_config: Any) -> None:
            worker_group.execute(listen_for_sigterm)

    class SignalsConfig(BackendConfig):
        @property
        def backend_cls(self) -> type:
            return Signals

    return SignalsConfig()


def listen_for_sigterm() -> None:
    """Make SIGTERM a polite request. Runs in the worker's main thread; the training function runs in another."""
    _asked_to_stop.clear()
    signal.signal(signal.SIGTERM, lambda number, frame: _asked_to_stop.set())


def work(payload: dict[str, Any]) -> Any:
    """One worker from joining the others to the result; Ray Train calls it on each."""
    import ray

    job, board = payload["job"], payload["board"]
    if job["machine"] == platform.node():  # what the driver can import, workers beside it can
        sys.path.extend(entry for entry in job["path"] if entry not in sys.path)
    error = ray.get(board.read.remote())[1]
    if error is not None:
        return {"input_error": error}
    context = _join(job, board)
    try:
        check_shared(job["run"], context)
        result = find_target(job["target"])(job["config"], context)
        if _asked_to_stop.is_set():
            raise Preempted(f"rank {context.rank} was told to go (SIGTERM); its state is saved")
        return result if context.is_main else None
    except Exception as error:
        if not _worth_a_restart(error):
            print(traceback.format_exc(), file=sys.stderr)
            sentence = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
            ray.get(board.give_up.remote(sentence))
        raise
    finally:
        context.close()
        process_group.disconnect()


def _worth_a_restart(error: Exception) -> bool:
    """A dead peer or a store that was away may be better next time; wrong input stays wrong."""
    if isinstance(error, InputError) and not isinstance(error, StorageError):
        return False
    return getattr(error, "retry", True)


def _join(job: dict[str, Any], board: Any) -> Context:
    import ray
    import torch

    seat = ray.train.get_context()
    torch.set_num_threads(max(1, job["threads"]))
    rank, world = seat.get_world_rank(), seat.get_world_size()
    if world > 1:
        _join_group(seat)
    return Context(
        job["run"],
        rank=rank,
        world_size=world,
        local_rank=seat.get_local_rank(),
        stop=_Watch(board).asked,
    )


def _join_group(seat: Any) -> None:
    import ray
    import torch
    from ray.train.collective import broadcast_from_rank_zero

    rank, listener, meeting = seat.get_world_rank(), None, None
    if rank == 0:
        host = ray.util.get_node_ip_address()  # 127.0.0.1 in a private Ray
        listener = process_group.listen(host)
        meeting = (host, listener.getsockname()[1])
    host, port = broadcast_from_rank_zero(meeting)
    place = process_group.Place(
        rank=rank,
        world=seat.get_world_size(),
        local_rank=seat.get_local_rank(),
        local_world=seat.get_local_world_size(),
        host=host,
        port=port,
    )
    process_group.connect(place, "nccl" if torch.cuda.is_available() else "gloo", listener)


class _Watch:
    """Looks at the board now and then, so that asking at every step costs nothing."""

    def __init__(self, board: Any, every: float = 1.0) -> None:
        self._board, self._every, self._stop = board, every, threading.Event()
        threading.Thread(target=self._look, daemon=True, name="stop-watch").start()

    def asked(self) -> bool:
        return self._stop.is_set() or _asked_to_stop.is_set()

    def _look(self) -> None:
        import ray

        while not self._stop.wait(self._every):
            try:
                if ray.get(self._board.read.remote(), timeout=30)[0]:
                    self._stop.set()
            except Exception:
                return  # the driver is gone, and this process soon will be
