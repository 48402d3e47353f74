"""Start a training function: in this process, on a private Ray of this machine, or on a Ray cluster.

A training function is ``target(config, context)``, named as ``"module:function"`` so that every worker can import it.
Its result on rank 0 (JSON-able, or None) is what :func:`launch` returns. It must continue from
``context.latest_checkpoint()``: after a failure the workers are restarted, perhaps fewer of them, and the function is
called again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cluster import checkpoint
from cluster.launch import ray_train, worker
from cluster.launch.settings import ClusterConfig, worker_range
from cluster.launch.worker import find_target
from cluster.storage import storage
from configs import InputError, load_config
from configs.loading import validated


def launch(
    target: str,
    config: dict[str, object],
    *,
    run: str,
    workers: int | str | None = None,
    address: str | None = None,
    ray: bool = True,
    gpus_per_worker: int | None = None,
    resume: bool = False,
    max_failures: int | None = None,
    cluster: ClusterConfig | str | Path | Mapping[str, object] | None = None,
) -> Any:
    """Run ``target(config, context)`` on every worker and return what rank 0 returned.

    Args:
        target: ``"module:function"``, importable on every machine.
        config: JSON-able; reaches every worker as it is.
        run: the run's folder, or ``s3://``; it must be visible to every machine.
        ray: False calls the function in this process, which is the only worker.
        resume: continue from the run's newest checkpoint; without it a run that has one is refused.
        cluster: a :class:`ClusterConfig`, a YAML path or shipped name such as ``cluster/single-node-8gpu``.
        workers, address, gpus_per_worker, max_failures: override the same keys of ``cluster`` where given; workers may
            be a range, ``"2-4"``, whose lower end is ``min_workers``.

    Raises:
        InputError: a target, cluster or run that cannot be used, or one that a worker raised.
        RuntimeError: more failures than ``max_failures``, or more preemptions than ``max_preemptions``.
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
        return worker.run_here(function, config, _absolute(run))
    return ray_train.fit(target, config, _absolute(run), settings)


def _settings(source: ClusterConfig | str | Path | Mapping[str, object] | None, **overrides: Any) -> ClusterConfig:
    if isinstance(overrides.get("workers"), str):
        overrides["min_workers"], overrides["workers"] = worker_range(overrides["workers"])
    settings = source if isinstance(source, ClusterConfig) else load_config(ClusterConfig, source)
    return validated(replace(settings, **{key: value for key, value in overrides.items() if value is not None}))


def _check_config(config: dict[str, object]) -> None:
    try:
        json.dumps(config)
    except TypeError as error:
        raise InputError(f"the training configuration is not plain data ({error}); pass numbers and texts") from None


def _check_run(run: str, resume: bool) -> None:
    found = checkpoint.latest_checkpoint(run)
    if found and not resume:
        raise InputError(
            f"{run}: already contains a run ({storage.basename(found)}); add --resume, or choose another --out"
        )


def _absolute(run: str) -> str:
    return str(run) if storage.is_remote(run) else str(storage.local_path(run).absolute())
