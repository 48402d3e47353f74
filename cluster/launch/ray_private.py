"""The private names of Ray that are used here, all in one place, each with a public fallback.

Checked with Ray 2.50 to 2.60 (``pyproject.toml`` has the upper bound). When a newer Ray lacks one of them,
``tests/cluster/test_ray_private.py`` says which; until then training starts some seconds later and preempted workers count
as failures.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import math
import operator
from typing import Any

from cluster.launch.failures import Preempted, causes

log = logging.getLogger("headstart.launch")
TRAINER = "ray.train.v2.api.data_parallel_trainer:DataParallelTrainer"
POLICY = "ray.train.v2._internal.execution.scaling_policy:FixedScalingPolicy"
FAILURES = "ray.train.v2._internal.execution.failure_handling:DefaultFailurePolicy"
DECISION = "ray.train.v2._internal.execution.failure_handling:FailureDecision"
# What our trainers override: class, method.
OVERRIDDEN = (
    (FAILURES, "make_decision"),
    (POLICY, "_send_resource_request"),
    (POLICY, "_maybe_send_resource_request"),
    (POLICY, "_cancel_resource_request"),
    (TRAINER, "_initialize_and_run_controller"),
    (TRAINER, "_create_default_callbacks"),
)
UNWANTED = ("PlacementGroupCleanerCallback", "DatasetsCallback")


def missing() -> list[str]:
    """Sentences about the private names used here that the installed Ray lacks; empty when it has all of them."""
    trouble = []
    for where, method in OVERRIDDEN:
        try:
            owner = _load(where)
        except (ImportError, AttributeError) as error:
            trouble.append(f"{where} is gone ({error})")
            continue
        if not inspect.isfunction(getattr(owner, method, None)):
            trouble.append(f"{where}.{method} is gone")
    return list(dict.fromkeys(trouble))


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


def trainer(alone: bool, max_preemptions: int) -> Any:
    """A class of Ray Train trainer with two restart budgets and, on a private Ray, a faster start.

    A worker that saved its state after SIGTERM has not failed: it counts against ``max_preemptions``, as Ray itself counts
    machines whose preemption was announced. With a Ray that lacks the private names this is Ray's own class, which
    counts such a worker as a failure.

    Args:
        alone: on a private Ray, without the helpers that only serve a shared cluster: each is an actor that costs
            seconds to start.
        max_preemptions: restarts after preemptions; -1 for no limit.
    """
    base, trouble = data_parallel_trainer(), missing()
    if trouble:
        log.warning(
            "this Ray is newer than the one that Headstart knows (%s); "
            "starting takes longer, and preempted workers count as failures",
            trouble[0],
        )
        return base
    here, budgets = _everything_here(), _two_budgets()

    class Trainer(base):  # type: ignore[misc, valid-type]
        def _initialize_and_run_controller(self, **arguments: object) -> object:
            arguments["failure_policy"] = budgets(self.run_config.failure_config, max_preemptions)
            if alone:
                arguments["scaling_policy"] = here(scaling_config=self.scaling_config)
            return super()._initialize_and_run_controller(**arguments)

        def _create_default_callbacks(self) -> list[object]:
            # The cleaner looks for a dead driver in a dashboard, which a private Ray has not; we use no Ray Data.
            each = super()._create_default_callbacks()
            return [callback for callback in each if not alone or type(callback).__name__ not in UNWANTED]

    return Trainer


def _everything_here() -> type:
    policy = _load(POLICY)

    class AllHere(policy):  # type: ignore[misc, valid-type]
        def _send_resource_request(self) -> None:
            """Nothing: no other job competes for this Ray's cores, and no autoscaler listens."""

        _maybe_send_resource_request = _send_resource_request

        def _cancel_resource_request(self) -> None:
            """Nothing was requested."""

    return AllHere


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
