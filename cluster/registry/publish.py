"""From a prior's folder to a version of the registry. Every step can be repeated: a second call finds what the first made."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from cluster.registry import mlflow_client, spool
from cluster.registry.compatibility import misfit
from cluster.registry.mlmodel import write_mlmodel
from cluster.registry.prior_folder import ARTIFACT, PriorInfo
from cluster.registry.versions import CHAMPION, INFO_TAG, LATEST, MANIFEST_TAG, champion, champions, missing, short_info
from cluster.storage import storage
from configs.progress import say
from configs.scratch import ScratchFolder

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger("headstart.registry")
ID_TAG = "headstart.registration"


class Role(TypedDict):
    """Whether a version is its name's champion, and a sentence if it does not fit the champions of the other names."""

    champion: bool
    misfit: str | None


class _Registered(Role):
    name: str
    version: int | None
    uri: str | None


class Registered(_Registered, total=False):
    """A registration; if it is postponed, ``version`` is ``None`` and ``waiting`` the folder that is kept."""

    waiting: str


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is to be registered, and under which name.

    Attributes:
        name: of the registered model.
        id: the same for every attempt at the same registration.
        metrics: figures for the MLflow run.
        config: parameters for the MLflow run.
        aliases: to point at the new version.
        key: of the training's MLflow run, if there is one.
    """

    name: str
    id: str
    metrics: dict[str, float]
    config: dict[str, object]
    aliases: tuple[str, ...] = ()
    key: str | None = None


def publish(source: Path, info: PriorInfo, job: Job) -> Registered:
    """Register a checked prior folder, or finish what an earlier attempt began.

    Args:
        source: the prior's folder.
        info: its ``prior.json``.
        job: what to register it as.

    Raises:
        InputError: no server, or an experiment that was deleted.
        MlflowException: whatever else the server refuses.
    """
    client = mlflow_client.client()
    version = _version_of(client, job)
    if version is None:
        version = _new_version(client, source, info, job)
    role = set_aliases(client, job.name, version, job.aliases, info)
    return {"name": job.name, "version": version, "uri": f"models:/{job.name}/{version}", **role}


def set_aliases(client: MlflowClient, name: str, version: int, wanted: Iterable[str], info: PriorInfo) -> Role:
    """Point the wanted aliases at a version, and ``champion`` where the name has none and the version fits the others."""
    trouble = misfit(champions(client, leave_out=name) | {name: info})
    aliases = {alias for alias in wanted if alias != LATEST}
    now = champion(client, name)
    if trouble is None and now is None:
        aliases.add(CHAMPION)
    for alias in sorted(aliases):
        client.set_registered_model_alias(name, alias, str(version))
    is_champion = CHAMPION in aliases or (now is not None and int(now.version) == version)
    if trouble is not None:
        say(
            f"{name}/{version} {'is champion, as asked, though' if is_champion else 'does not become champion:'} {trouble}"
        )
    return {"champion": is_champion, "misfit": trouble}


def _version_of(client: MlflowClient, job: Job) -> int | None:
    """The version that an earlier attempt made, unless its files are gone."""
    for found in client.search_model_versions(f"name='{job.name}'"):
        if found.tags.get(ID_TAG) == job.id and missing(client, found) is None:
            return int(found.version)
    return None


def _new_version(client: MlflowClient, source: Path, info: PriorInfo, job: Job) -> int:
    run_id, owned = _run_of(client, job)
    try:
        path = _artifact_path(client, run_id, info)
        manifest = _upload(client, run_id, source, info, path)
        _log_metrics(client, run_id, job.metrics)
        if owned:
            _log_config(client, run_id, job.config)
        version = _create_version(client, run_id, info, job, manifest, path)
    except BaseException:
        if owned:
            client.set_terminated(run_id, status="FAILED")
        raise
    if owned:
        client.set_terminated(run_id)
    return version


def _run_of(client: MlflowClient, job: Job) -> tuple[str, bool]:
    """(MLflow run id, whether it was made for this registration): the training's own where it is known."""
    if job.key:
        spool.send_all()  # the training may not have been announced yet
        found = spool.find_run(client, job.key)
        if found is not None:
            return found.info.run_id, False
    experiment = mlflow_client.experiment(client)
    earlier = client.search_runs([experiment], filter_string=f"tags.`{ID_TAG}` = '{job.id}'", max_results=1)
    if earlier:
        return earlier[0].info.run_id, True
    tags = {"headstart.kind": "registration", ID_TAG: job.id}
    return client.create_run(experiment, run_name=f"register {job.name}", tags=tags).info.run_id, True


def _artifact_path(client: MlflowClient, run_id: str, info: PriorInfo) -> str:
    """``prior``, or another name if the run has a registered prior already, which a longer training must not replace."""
    taken = client.search_model_versions(f"run_id='{run_id}'")
    return f"{ARTIFACT}-{str(info['weights_sha256'])[:12]}" if taken else ARTIFACT


def _upload(client: MlflowClient, run_id: str, source: Path, info: PriorInfo, path: str) -> str:
    """Put the folder with its manifest and MLmodel into the run; returns the manifest's sha256."""
    with ScratchFolder("register") as scratch:
        folder = scratch / path
        shutil.copytree(source, folder, ignore=shutil.ignore_patterns(storage.COMMIT_MARK))
        write_mlmodel(folder, info, run_id, path)
        storage.seal(folder)
        client.log_artifacts(run_id, str(folder), artifact_path=path)
        return storage.sha256(folder / storage.COMMIT_MARK)


def _create_version(client: MlflowClient, run_id: str, info: PriorInfo, job: Job, manifest: str, path: str) -> int:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(job.name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    source = f"{client.get_run(run_id).info.artifact_uri}/{path}"
    tags = {
        MANIFEST_TAG: manifest,
        INFO_TAG: short_info(info),
        ID_TAG: job.id,
        "weights_sha256": str(info["weights_sha256"]),
    }
    return int(client.create_model_version(job.name, source=source, run_id=run_id, tags=tags).version)


def _log_metrics(client: MlflowClient, run_id: str, metrics: dict[str, float]) -> None:
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    client.log_batch(run_id, metrics=[Metric(k, float(v), now, 0) for k, v in metrics.items() if _is_number(v)])


def _log_config(client: MlflowClient, run_id: str, config: dict[str, object]) -> None:
    from mlflow.entities import Param

    items: Sequence[Any] = [Param(key, value) for key, value in sorted(mlflow_client.flatten(config).items())]
    for start in range(0, len(items), 100):
        client.log_batch(run_id, params=items[start : start + 100])


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
