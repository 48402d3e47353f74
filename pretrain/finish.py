"""After the last step: evidence, prior folder, registration, result. All of it is idempotent.

A second attempt with the same weights reuses the first one's prior folder and registered version and ends with the same
result. A longer training replaces the folder and registers a new version.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

import torch

from cluster.checkpoint import latest_checkpoint
from cluster.registry import registry
from cluster.registry.prior_folder import ARTIFACT, WEIGHTS, PriorInfo
from cluster.storage import storage
from cluster.storage.tensors import save_tensors
from configs import InputError
from configs.progress import say
from configs.scratch import ScratchFolder
from pretrain.folder import read_info, write_prior
from pretrain.loop import Trainer
from pretrain.report import Registration, RunResult, end_of_run, write_report
from pretrain.task import Evidence

log = logging.getLogger("headstart.run")
RESULT = "result.json"


def finish(trainer: Trainer, prior: str, finished: bool, started: float) -> RunResult:
    """Finish a run, on rank 0; returns, and writes to ``RUN/result.json``, what ``--json`` prints.

    Args:
        prior: the prior's name.
        finished: False after a request to stop; then nothing is published.
        started: ``time.perf_counter()`` when the worker began.
    """
    speed = trainer.speed()
    result: RunResult = {
        "prior": prior,
        "run": trainer.run_url,
        "checkpoint": latest_checkpoint(trainer.run_url),
        "weights_sha256": None,
        "steps": trainer.step,
        "samples": trainer.samples,
        "seconds": round(time.perf_counter() - started, 3),
        "samples_per_second": round(speed["samples_per_second"], 3),
        "wait_share": round(speed["wait_share"], 4),
        "peak_memory_mb": round(speed["peak_memory_mb"], 1),
        "validation": {},
        "registered": None,
        "finished": finished,
    }
    if finished:
        publish(trainer, prior, result)
        result["seconds"] = round(time.perf_counter() - started, 3)
    storage.write_json(storage.join(trainer.run_url, RESULT), result)
    log.info("%s", end_of_run(result))
    return result


def publish(trainer: Trainer, prior: str, result: RunResult) -> None:
    """Score the averaged weights on the held-out people, write the prior folder and register it."""
    with torch.no_grad():
        trainer.task.conclude(trainer.average)
    with ScratchFolder("prior") as scratch:
        folder = _published(trainer, scratch) or _publish(trainer, result, scratch / ARTIFACT)
        info = read_info(folder)
        result["weights_sha256"], result["validation"] = info["weights_sha256"], info["metrics"]
        if trainer.tracker is not None:
            trainer.tracker.flush()  # so that the version can be linked to the training's MLflow run
        result["registered"] = _register(prior, folder, info, trainer.run_url, postpone=True)


def _published(trainer: Trainer, scratch: Path) -> Path | None:
    """The run's prior folder, verified, if an earlier attempt published these weights; else None."""
    url = storage.join(trainer.run_url, ARTIFACT)
    if not storage.is_committed(url):
        return None
    save_tensors(trainer.task.weights(trainer.average), scratch / WEIGHTS)
    if storage.checksum_of(storage.read_mark(url), WEIGHTS) != storage.sha256(scratch / WEIGHTS):
        return None
    try:
        return registry.resolve(url, scratch / "cache")
    except InputError:  # damaged since then: written again
        return None


def _publish(trainer: Trainer, result: RunResult, folder: Path) -> Path:
    """Write the prior folder into the run, replacing an earlier one."""
    with torch.no_grad():
        evidence = trainer.task.evidence(trainer.average)
    if missing := evidence.missing():
        say(missing)
    info = write_prior(folder, trainer.task, trainer.average, evidence.summary)
    write_report(folder, evidence, info, result, trainer.loss_text())
    if trainer.tracker is not None:
        _track(trainer, evidence, folder)
    storage.upload_tree(folder, storage.join(trainer.run_url, ARTIFACT), replace=True)
    return folder


def _track(trainer: Trainer, evidence: Evidence, folder: Path) -> None:
    trainer.tracker.log({f"evidence/{name}": value for name, value in evidence.summary.items()}, trainer.step)
    for name, picture in evidence.pictures.items():
        trainer.tracker.image(name, picture, trainer.step)
    trainer.tracker.artifact(folder / "report.md")


def _register(prior: str, folder: Path, info: PriorInfo, run: str, *, postpone: bool) -> Registration:
    done = registry.register(prior, folder, metrics=info["metrics"], config=info["config"], run=run, postpone=postpone)
    return Registration(name=done["name"], version=done["version"], champion=done["champion"], misfit=done["misfit"])


def register_run(run: str) -> Registration:
    """Register the prior of a finished run, for example after a registry outage; no effect if it is registered already.

    Raises:
        InputError: a run without a finished prior, or a registry that is unreachable or refuses.
    """
    url = storage.join(run, ARTIFACT)
    if not storage.is_committed(url):
        raise InputError(
            f"{run}: contains no finished prior; give a finished run of 'headstart pretrain', or continue it with --resume"
        )
    folder = registry.resolve(url)
    storage.check_tree(folder, storage.read_mark(url))
    info = read_info(folder)
    registered = _register(info["prior"], folder, info, run, postpone=False)
    at = storage.join(run, RESULT)
    if storage.exists(at):
        storage.write_json(at, storage.read_json(at) | {"registered": registered})
    return registered
