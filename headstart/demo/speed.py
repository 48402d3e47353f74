"""How many steps of each prior fit into the demo's minutes, from a measurement on this machine before training."""

from __future__ import annotations

import time
from typing import Any

from cluster.launch.launch import launch
from configs import load_config
from configs.scratch import ScratchFolder
from pretrain.data.split import open_split
from pretrain.loop import Trainer
from pretrain.names import prior_names
from pretrain.prior import find_prior

WARM_UP, TIMED = 1, 3  # steps
FEWEST = 30  # steps of a prior, however slow the machine is


def plan_steps(dataset: str, minutes: float, overrides: list[str]) -> dict[str, int]:
    """Steps of each prior (size ``tiny``) that fit into its share of the minutes; a few steps of each are run and timed."""
    shares = {name: find_prior(name).budget_share for name in prior_names()}
    return {
        name: steps_that_fit(60 * minutes * share / sum(shares.values()), **_measured(name, dataset, overrides))
        for name, share in shares.items()
    }


def steps_that_fit(seconds: float, step_seconds: float, most: int) -> int:
    """Steps of ``step_seconds`` in ``seconds``, at least ``FEWEST`` and at most ``most``: more would overfit few people."""
    return int(min(most, max(FEWEST, seconds / max(step_seconds, 1e-4))))


def _measured(prior: str, dataset: str, overrides: list[str]) -> dict[str, Any]:
    with ScratchFolder("demo") as scratch:
        job: dict[str, object] = {"prior": prior, "dataset": dataset, "overrides": overrides, "run": str(scratch)}
        return launch("headstart.demo.speed:measure", job, ray=False, run=str(scratch))


def measure(job: dict[str, Any], context: Any) -> dict[str, Any]:
    """Seconds of a training step (median of three) and the configuration's number of steps; nothing is kept.

    Called by :mod:`cluster.launch`.
    """
    prior = find_prior(job["prior"])
    task_type = prior.task
    config = load_config(prior.config_class, prior.source("tiny"), job["overrides"])
    trainer = Trainer(task_type(config, *open_split(task_type, config, job["dataset"])), job["run"], context)
    try:
        trainer.begin(None)
        times = []
        for _ in range(WARM_UP + TIMED):
            began = time.perf_counter()
            trainer.train_step()
            times.append(time.perf_counter() - began)
        return {"step_seconds": sorted(times[WARM_UP:])[TIMED // 2], "most": config.steps}
    finally:
        trainer.close()
