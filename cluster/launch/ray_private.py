"""The private names of Ray that are used here, all in one place, each with a public fallback.

Checked with Ray 2.50 to 2.60 (``pyproject.toml`` has the upper bound). When a newer Ray lacks one of them,
``tests/cluster/test_ray_private.py`` says which; until then a private Ray starts some seconds later, and on a cluster preempted
workers count as failures.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import math
import operator
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from cluster.launch.failures import Preempted, causes

log = logging.getLogger("headstart.launch")
TRAINER = "ray.train.v2.api.data_parallel_trainer:DataParallelTrainer"
FAILURES = "ray.train.v2._internal.execution.failure_handling:DefaultFailurePolicy"
DECISION = "ray.train.v2._internal.execution.failure_handling:FailureDecision"
ELASTIC = "ray.train.v2._internal.execution.scaling_policy:ElasticScalingPolicy"
RESIZE = "ray.train.v2._internal.execution.scaling_policy:ResizeDecision"
NODE = "ray._private.node:Node"
UTILITIES = "ray._private.utils"
# What our trainers override: class, method.
OVERRIDDEN = ((FAILURES, "make_decision"), (TRAINER, "_initialize_and_run_controller"))
RESIZED = tuple(
    (ELASTIC, name)
    for name in (
        "_count_possible_workers",
        "make_decision_for_non_running_worker_group",
        "make_decision_for_running_worker_group",
    )
)
# What a private Ray leaves out.
LEFT_OUT = ((NODE, "start_monitor"), (NODE, "start_api_server"), (NODE, "start_log_monitor"))


START_TIMEOUT = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"
AGAIN = 2.0  # seconds to wait for all workers of a group that ran before; doubled at every attempt that fails


def missing(names: Iterable[tuple[str, str]]) -> list[str]:
    """Sentences about those of the private ``names``, class and method, that the installed Ray lacks."""
    trouble = []
    for where, method in names:
        try:
            owner = _load(where)
        except (ImportError, AttributeError) as error:
            trouble.append(f"{where} is gone ({error})")
            continue
        if not inspect.isfunction(getattr(owner, method, None)):
            trouble.append(f"{where}.{method} is gone")
    return list(dict.fromkeys(trouble))


@contextmanager
def few_processes(dashboard: bool, logs: bool) -> Iterator[None]:
    """While a private Ray starts: without the processes that serve a shared cluster only, a fifth of the start's CPU time.

    These are the autoscaler's monitor, the dashboard's server with most of its agent, and the one that copies logs to the
    driver. With a Ray that lacks the private names all of them start.

    Args:
        dashboard: whether the dashboard is wanted.
        logs: whether the workers' logs are shown by the driver.
    """
    try:
        node, utilities = _load(NODE), importlib.import_module(UTILITIES)
    except (ImportError, AttributeError):
        yield
        return
    unwanted = [(node, "start_monitor")]
    unwanted += [] if logs else [(node, "start_log_monitor")]
    # A dependency that is absent makes the agent the small one of Ray's minimal installation.
    unwanted += [] if dashboard else [(node, "start_api_server"), (utilities, "get_dashboard_dependency_error")]
    before = {(owner, name): getattr(owner, name) for owner, name in unwanted if hasattr(owner, name)}
    for owner, name in before:
        setattr(owner, name, _left_out)
    try:
        yield
    finally:
        for (owner, name), function in before.items():
            setattr(owner, name, function)


def _left_out(*arguments: object, **named: object) -> str:
    """Stands for what is not started; as an answer it means that a dependency is absent."""
    return "left out of a private Ray"


def _load(where: str) -> Any:
    module, _, name = where.partition(":")
    return operator.attrgetter(name)(importlib.import_module(module))


def data_parallel_trainer() -> Any:
    """The base class of Ray's trainers, which leaves the process group to us; found through ``TorchTrainer`` if it moved."""
    try:
        return _load(TRAINER)
    except (ImportError, AttributeError):
        from ray.train.torch import TorchTrainer

        return next(kind for kind in TorchTrainer.__mro__ if kind.__name__ == "DataParallelTrainer")


def trainer(max_preemptions: int) -> Any:
    """A class of Ray Train trainer with two restart budgets.

    A worker that saved its state after SIGTERM has not failed: it counts against ``max_preemptions``, as Ray itself counts
    machines whose preemption was announced. With a Ray that lacks the private names this is Ray's own class, which
    counts such a worker as a failure.

    Args:
        max_preemptions: restarts after preemptions; -1 for no limit.
    """
    base, trouble = data_parallel_trainer(), missing(OVERRIDDEN)
    if trouble:
        log.warning(
            "this Ray is newer than the one that Headstart knows (%s); preempted workers count as failures", trouble[0]
        )
        return base
    budgets = _two_budgets()

    class Trainer(base):  # type: ignore[misc, valid-type]
        def _initialize_and_run_controller(self, **arguments: object) -> object:
            arguments["failure_policy"] = budgets(self.run_config.failure_config, max_preemptions)
            if getattr(self.scaling_config, "elasticity_enabled", False) and not missing(RESIZED):
                arguments["scaling_policy"] = present_machines()(self.scaling_config)
            return super()._initialize_and_run_controller(**arguments)

    return Trainer


def _two_budgets() -> type:
    policy, retry, end = _load(FAILURES), _load(f"{DECISION}.RETRY"), _load(f"{DECISION}.RAISE")

    class TwoBudgets(policy):  # type: ignore[misc, valid-type]
        def __init__(self, failure_config: object, max_preemptions: int) -> None:
            super().__init__(failure_config)
            self._left: float = max_preemptions if max_preemptions >= 0 else math.inf

        def make_decision(self, training_failed_error: Exception) -> object:
            if not any(isinstance(cause, Preempted) for cause in causes(training_failed_error)):
                return super().make_decision(training_failed_error)
            self._left -= 1
            return retry if self._left >= 0 else end

    return TwoBudgets


def present_machines() -> type:
    """A class of Ray's elastic policy that counts present machines alone, and goes on soon with those that are left.

    Ray lists the machines every 20 s. After the loss of one it therefore asks for as many workers as before, and waits for
    them until the start's timeout, which is minutes on a large cluster, before it starts fewer.
    """
    policy, resize = _load(ELASTIC), _load(RESIZE)

    class PresentMachines(policy):  # type: ignore[misc, valid-type]
        def __init__(self, scaling_config: object) -> None:
            super().__init__(scaling_config)
            self._longest = float(os.environ.get(START_TIMEOUT, 60))
            self._attempts = -1  # since a group ran; none has

        def _count_possible_workers(self, reserved: Any) -> int:
            if isinstance(reserved, dict):
                import ray

                alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
                reserved = {node: resources for node, resources in reserved.items() if node in alive}
            return int(super()._count_possible_workers(reserved))

        def make_decision_for_running_worker_group(self, *arguments: object, **named: object) -> object:
            self._attempts = 0
            return super().make_decision_for_running_worker_group(*arguments, **named)

        def make_decision_for_non_running_worker_group(self, *arguments: object, **named: object) -> object:
            decision = super().make_decision_for_non_running_worker_group(*arguments, **named)
            if isinstance(decision, resize) and self._attempts >= 0:
                # Read by the group that is started next, in this process.
                os.environ[START_TIMEOUT] = str(min(self._longest, AGAIN * 2**self._attempts))
                self._attempts += 1
            return decision

    return PresentMachines
