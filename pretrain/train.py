"""``headstart pretrain``: from a prior's name and a dataset to a registered version of the prior."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from cluster.checkpoint import latest_checkpoint
from cluster.launch.launch import launch
from cluster.launch.worker import Context
from cluster.registry import registry
from cluster.registry.run_log import RunLog
from cluster.storage import storage
from cluster.storage.staging import alone
from configs import InputError, load_config, to_dict
from configs.progress import say
from pretrain.config import PretrainConfig, renamed
from pretrain.data.split import open_split
from pretrain.finish import RESULT, finish
from pretrain.loop import Trainer, read_state
from pretrain.prior import find_prior
from pretrain.report import RunResult
from pretrain.task import Task


def pretrain(
    prior: str,
    data: str | Path,
    config: str | Path | Mapping[str, object] | None = None,
    out: str | Path | None = None,
    workers: int | str | None = None,
    address: str | None = None,
    ray: bool = True,
    resume: bool | str = False,
    overrides: Sequence[str] = (),
    cluster: str | Path | Mapping[str, Any] | None = None,
) -> dict[str, object]:
    """Train a prior and register it; returns the object that ``--json`` prints.

    Args:
        prior: its name, see :func:`pretrain.names.prior_names`.
        data: dataset folder or ``s3://`` URL.
        config: a YAML file, a shipped size (``tiny``, ``base``, ``large``), a mapping, or None for ``tiny``, or
            for what the checkpoint was written with that ``resume`` chooses.
        out: the run's folder or URL; ``runs/PRIOR-TIME`` by default.
        workers: number of training processes, or a range such as ``"2-4"``; by default what ``cluster`` says, else one.
        address: a Ray cluster's address.
        ray: False trains in this process (one worker).
        resume: False starts fresh (and refuses a folder that holds a run); True or ``"latest-or-fresh"`` continues the
            newest checkpoint of ``out`` if there is one; ``"latest"`` requires one; a path or URL names it.
        overrides: ``["steps=100", "model.layers=2"]``.
        cluster: a shipped name such as ``cluster/single-node-8gpu``, a YAML file or a mapping; see ``cluster.launch.launch``.

    Raises:
        InputError: bad configuration, dataset or checkpoint, or a run that another command is training.
    """
    run = str(out) if out else f"runs/{prior}-{time.strftime('%Y%m%d-%H%M%S')}"
    with alone(run):
        kind = find_prior(prior)
        checkpoint = choose_checkpoint(run, resume)
        if config is None and checkpoint is not None:
            config = renamed(read_state(checkpoint, checkpoint, prior)["config"])
        typed = load_config(kind.config_class, kind.source(config), overrides)
        if not ray and workers not in (None, 1, "1"):
            raise InputError(
                f"workers={workers} without Ray: one process has one worker; leave out --no-ray or --workers"
            )
        check_data(kind.task, typed, str(data))
        job: dict[str, object] = {
            "prior": prior,
            "data": str(data),
            "config": to_dict(typed),
            "run": run,
            "checkpoint": checkpoint,
        }
        result = launch(
            "pretrain.train:work",
            job,
            workers=workers,
            address=address,
            ray=ray,
            run=run,
            gpus_per_worker=_gpus(typed) if ray and cluster is None else None,
            resume=resume is not False,
            cluster=cluster,
        )
        return result or storage.read_json(storage.join(run, RESULT))


def _gpus(config: PretrainConfig) -> int:
    return int(
        config.engine.device.startswith("cuda") or (config.engine.device == "auto" and torch.cuda.is_available())
    )


def choose_checkpoint(run: str, resume: bool | str) -> str | None:
    """The checkpoint that a resume mode selects (see :func:`pretrain`), or None for a fresh start.

    Raises:
        InputError: a fresh start into an existing run, or no checkpoint where one is required.
    """
    if resume is False:
        if latest_checkpoint(run) is not None:
            raise InputError(f"{run}: already contains a run; add --resume to continue it, or choose another --out")
        return None
    if resume is True or resume == "latest-or-fresh":
        return latest_checkpoint(run)
    if resume == "latest":
        found = latest_checkpoint(run)
        if found is None:
            raise InputError(
                f"{run}: contains no complete checkpoint to resume from; start a new run, or use latest-or-fresh"
            )
        return found
    if not storage.exists(storage.join(resume, "state.json")):
        raise InputError(
            f"{resume}: no checkpoint there (state.json is missing); give a folder such as RUN/checkpoints/step-00000100"
        )
    return str(resume)


def check_data(task: type[Task], config: PretrainConfig, data: str) -> None:
    """Open the dataset once in the caller's process, so that wrong input is reported before workers start."""
    train, held = open_split(task, config, data)
    task(config, train, held)


def work(job: dict[str, Any], context: Context) -> RunResult | None:
    """What each worker runs: train, evaluate, export, register. Returns the result on rank 0."""
    started = time.perf_counter()
    kind = find_prior(job["prior"])
    config = load_config(kind.config_class, job["config"])
    task = kind.task(config, *open_split(kind.task, config, job["data"]))
    tracker = _tracker(job, context) if context.rank == 0 else None
    status = "FAILED"
    trainer: Trainer | None = None
    try:
        trainer = Trainer(task, context.run, context, tracker)
        # After a failure the workers restart from the run's newest checkpoint, not from where the call began.
        trainer.begin(context.latest_checkpoint() or job["checkpoint"])
        finished = trainer.run()
        result = finish(trainer, job["prior"], finished, started) if trainer.engine.is_main else None
        trainer.engine.barrier()
        status = "FINISHED" if finished else "KILLED"
        return result
    finally:
        if trainer is not None:
            trainer.close()
        if tracker is not None:
            tracker.close(status)


def _tracker(job: dict[str, Any], context: Context) -> RunLog:
    """The run's log, after a check that the registry will accept the prior at the end.

    Raises:
        InputError: it will not.
    """
    if away := registry.check():
        say(away)
    name = str(context.run).rstrip("/").rsplit("/", 1)[-1]
    return RunLog(name, {"prior": job["prior"], "data": job["data"], **job["config"]}, run=context.run)
