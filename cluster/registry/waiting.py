"""Registrations kept on this machine while their MLflow server is unreachable or refuses."""

from __future__ import annotations

import logging
import shutil
from dataclasses import asdict
from pathlib import Path

from cluster.registry import mlflow_client
from cluster.registry.prior_folder import ARTIFACT, check_prior
from cluster.registry.publish import Job, Registered, publish
from cluster.storage import storage
from cluster.storage.retry import brief
from configs.progress import say

log = logging.getLogger("headstart.registry")


def folders() -> list[Path]:
    """Folders of the registrations that wait, for any server."""
    return sorted(path.parent for path in (storage.home() / "registrations").glob("*/job.json"))


def postpone(source: Path, job: Job, why: str) -> Registered:
    """Keep a copy of the prior and of the job; doing it twice keeps one copy."""
    folder = storage.home() / "registrations" / job.id
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, folder / ARTIFACT)
    # Written last: a copy without it is incomplete and is ignored.
    storage.write_json(folder / "job.json", asdict(job) | {"uri": mlflow_client.shown_uri()})
    say(
        f"MLflow at {mlflow_client.shown_uri()} {why}; {job.name} is kept in {folder} and registered by the next "
        "training, or by 'headstart priors register RUN'"
    )
    return {
        "name": job.name,
        "version": None,
        "uri": None,
        "waiting": str(folder),
        "champion": False,
        "misfit": None,
    }


def forget(job: Job) -> None:
    """Remove what was kept for a registration that is done."""
    shutil.rmtree(storage.home() / "registrations" / job.id, ignore_errors=True)


def register_waiting() -> list[Registered]:
    """Register what waits for the server that this process uses; returns the registrations that succeeded.

    One that fails is logged and kept, and does not hold up the others.
    """
    done = []
    for folder in folders():
        record = storage.read_json(folder / "job.json")
        if record.pop("uri", None) != mlflow_client.shown_uri():
            continue
        job = Job(**record | {"aliases": tuple(record["aliases"])})
        try:
            done.append(publish(folder / ARTIFACT, check_prior(folder / ARTIFACT), job))
        except Exception as error:
            log.warning("%s waits further: %s", folder, brief(error))
            continue
        forget(job)
    return done
