"""The names inside Ray that are not its public interface, all in one place, with a public way round each.

Checked with Ray 2.50 to 2.60 (``pyproject.toml`` has the upper bound). When a newer Ray lacks one of them,
``tests/cluster/test_ray_private.py`` says which, and trainings start some seconds later.
"""

from __future__ import annotations

import importlib
import inspect
import logging
from typing import Any

log = logging.getLogger("headstart.launch")
TRAINER = "ray.train.v2.api.data_parallel_trainer:DataParallelTrainer"
POLICY = "ray.train.v2._internal.execution.scaling_policy:FixedScalingPolicy"
# What the trainer without helpers overrides: class, method.
OVERRIDDEN = (
    (POLICY, "_send_resource_request"),
    (POLICY, "_maybe_send_resource_request"),
    (POLICY, "_cancel_resource_request"),
    (TRAINER, "_initialize_and_run_controller"),
    (TRAINER, "_create_default_callbacks"),
)
UNWANTED = ("PlacementGroupCleanerCallback", "DatasetsCallback")


def missing() -> list[str]:
    """Private names of Ray that are used here and that the installed Ray lacks, as sentences; best empty."""
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


def _load(where: str) -> object:
    module, _, name = where.partition(":")
    return getattr(importlib.import_module(module), name)


def data_parallel_trainer() -> Any:
    """Ray Train's trainer that leaves the process group to us; found by the public ``TorchTrainer`` where it moved."""
    try:
        return _load(TRAINER)
    except (ImportError, AttributeError):
        from ray.train.torch import TorchTrainer

        return next(kind for kind in TorchTrainer.__mro__ if kind.__name__ == "DataParallelTrainer")


def private_trainer() -> Any:
    """A trainer without the helpers that only serve a shared cluster: each is an actor that costs seconds to start.

    With a Ray that lacks the names for it, the plain trainer: it does the same work.
    """
    trouble = missing()
    if trouble:
        log.warning("this Ray is newer than the one that Headstart knows (%s); starting takes longer", trouble[0])
        return data_parallel_trainer()
    policy, trainer = _load(POLICY), _load(TRAINER)

    class AllHere(policy):  # type: ignore[misc, valid-type]
        def _send_resource_request(self) -> None:
            """Nothing: no other job competes for this Ray's cores, and no autoscaler listens."""

        _maybe_send_resource_request = _send_resource_request

        def _cancel_resource_request(self) -> None:
            """Nothing was requested."""

    class Trainer(trainer):  # type: ignore[misc, valid-type]
        def _initialize_and_run_controller(self, **arguments: object) -> object:
            arguments["scaling_policy"] = AllHere(scaling_config=self.scaling_config)
            return super()._initialize_and_run_controller(**arguments)

        def _create_default_callbacks(self) -> list[object]:
            # The cleaner looks for a dead driver in a dashboard, which a private Ray has not; we use no Ray Data.
            each = super()._create_default_callbacks()
            return [callback for callback in each if type(callback).__name__ not in UNWANTED]

    return Trainer
