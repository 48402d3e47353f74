"""Start a training function: in this process, on a private Ray of this machine, or on a Ray cluster.

A training function is ``target(config, context)``, named as ``"module:function"`` so that every worker can import it.
Its result on rank 0 (JSON-able, or None) is what :func:`launch` returns. It must go on from
``context.latest_checkpoint()``: after a failure the workers are started again, perhaps fewer of them, and the function
runs from its beginning.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from cluster import checkpoint
from cluster.storage import storage
from configs import InputError, load_config


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """Where a run's workers live (``configs/cluster/*.yaml``)."""

    workers: int = 1
    min_workers: int | None = None  # go on with so few after losing machines; None: all here, half of them on a cluster
    gpus_per_worker: int = 0
    cpus_per_worker: int | None = None  # None: this machine's cores shared out; 1 on a cluster
    address: str | None = None  # a Ray cluster, "auto" or host:port; None starts a private one on the loopback
    max_failures: int = 3  # restarts before the run is given up; -1 for ever
    object_store_mb: int = 80  # shared memory of the private Ray; the batches do not go through it
    dashboard: bool = False  # Ray's dashboard of the private Ray, on 127.0.0.1:8265
    start_timeout: float = 30.0  # seconds to wait for all workers before going on with fewer
    resize_every: float = 60.0  # seconds between looks for machines that came back

    def check(self) -> None:
        """Refuse numbers that contradict each other, naming both."""
        if self.workers < 1:
            raise InputError(f"workers is {self.workers}, expected one or more")
        if self.min_workers is not None and not 1 <= self.min_workers <= self.workers:
            raise InputError(f"min_workers is {self.min_workers}, expected 1 to workers ({self.workers})")
        if self.address and self.dashboard:
            raise InputError("dashboard belongs to a private Ray, address names a running one; leave one out")

    @property
    def least_workers(self) -> int:
        """The number of workers below which the run waits."""
        if self.min_workers is not None:
            return self.min_workers
        return max(1, self.workers // 2) if self.address else self.workers

    @property
    def cpus(self) -> int:
        """Cores that each worker reserves and its torch threads use."""
        if self.cpus_per_worker is not None:
            return self.cpus_per_worker
        return 1 if self.address else max(1, (os.cpu_count() or 1) // self.workers)


def launch(
    target: str,
    config: dict[str, Any],
    *,
    run: str,
    workers: int | None = None,
    address: str | None = None,
    ray: bool = True,
    gpus_per_worker: int | None = None,
    resume: bool = False,
    max_failures: int | None = None,
    cluster: ClusterConfig | str | dict[str, Any] | None = None,
) -> Any:
    """Run ``target(config, context)`` on every worker and return what rank 0 returned.

    Args:
        target: ``"module:function"``, importable on every machine.
        config: JSON-able; reaches every worker as it is.
        run: the run's folder, or ``s3://``; it must be visible to every machine.
        ray: False calls the function in this process, which is one worker.
        resume: go on from the run's newest checkpoint; without it a run that has one is refused.
        cluster: a :class:`ClusterConfig`, a YAML path or shipped name such as ``cluster/single-node-8gpu``.
        workers, address, gpus_per_worker, max_failures: override the same keys of ``cluster`` where given.

    Raises:
        InputError: a target, cluster or run that cannot be used, or one that a worker raised.
        RuntimeError: the workers failed more often than ``max_failures``.
    """
    settings = _settings(
        cluster, workers=workers, address=address, gpus_per_worker=gpus_per_worker, max_failures=max_failures
    )
    function = find_target(target)
    _check_config(config)
    _check_run(run, resume)
    if not ray:
        if settings.workers != 1:
            raise InputError(
                f"workers={settings.workers} without Ray: this process is one worker; leave out --no-ray or --workers"
            )
        return run_here(function, config, run)
    from cluster.launch import ray_train

    return ray_train.fit(target, config, _absolute(run), settings)


def run_here(function: Callable[..., Any], config: dict[str, Any], run: str) -> Any:
    """The training function in this process, as the only worker."""
    from cluster.launch import worker as context

    return context.run_here(function, config, _absolute(run))


def find_target(target: str) -> Callable[..., Any]:
    """The function that ``"module:function"`` names.

    Raises:
        InputError: no such module or function.
    """
    module, _, name = target.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"target '{target}': {error}; expected module:function, importable on every worker") from error


def _settings(source: ClusterConfig | str | dict[str, Any] | None, **overrides: Any) -> ClusterConfig:
    settings = source if isinstance(source, ClusterConfig) else load_config(ClusterConfig, source)
    settings = replace(settings, **{key: value for key, value in overrides.items() if value is not None})
    settings.check()
    return settings


def _check_config(config: dict[str, Any]) -> None:
    try:
        json.dumps(config)
    except TypeError as error:
        raise InputError(f"the training configuration is not plain data ({error}); pass numbers and texts") from None


def _check_run(run: str, resume: bool) -> None:
    found = checkpoint.latest_checkpoint(run)
    if found and not resume:
        raise InputError(f"{run}: holds a run already ({storage.basename(found)}); add --resume, or name another --out")


def _absolute(run: str) -> str:
    return str(run) if storage.is_remote(run) else str(storage.local_path(run).absolute())
