"""Looking up registered versions, their records and aliases."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, TypedDict, TypeVar, cast

from cluster.registry import mlflow_client
from cluster.registry.prior_folder import WEIGHTS, PriorInfo
from cluster.storage.retry import brief
from configs import InputError, nearest

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.store.entities import PagedList

Entity = TypeVar("Entity")


class NotRegistered(InputError):
    """The registry answers, and holds no such prior, version or alias."""


log = logging.getLogger("headstart.registry")
CHAMPION = "champion"
LATEST = "latest"  # reserved by MLflow; here it means the newest version
INFO_TAG = "headstart.info"
MANIFEST_TAG = "headstart.manifest"
MOST_TAG = 4900  # characters, below the 5000 that older MLflow stores keep of a tag


def find(client: MlflowClient, name: str, version: str) -> ModelVersion:
    """MLflow's record of a version, given by number or alias.

    Raises:
        NotRegistered: no such model, version or alias; the sentence lists those that exist.
    """
    from mlflow.exceptions import MlflowException

    try:
        if version == LATEST:
            numbers = [int(v.version) for v in client.search_model_versions(f"name='{name}'")]
            version = str(max(numbers)) if numbers else version
        if version.isdigit():
            return client.get_model_version(name, version)
        return client.get_model_version_by_alias(name, version)
    except MlflowException as error:
        if not mlflow_client.is_absent(error):
            raise
        raise NotRegistered(_not_found(client, name, version)) from None


def names_of_priors(client: MlflowClient) -> list[str]:
    """Names of the models of which Headstart registered a version, sorted; a server may hold many others."""
    found = every(client.search_model_versions)
    return sorted({str(version.name) for version in found if MANIFEST_TAG in version.tags})


def every(search: Callable[..., PagedList[Entity]]) -> list[Entity]:
    """All pages of one of MLflow's searches."""
    found: list[Entity] = []
    token = None
    while True:
        page = search(page_token=token)
        found += page
        token = page.token
        if not token:
            return found


def _not_found(client: MlflowClient, name: str, version: str) -> str:
    names = [str(model.name) for model in every(client.search_registered_models)]
    if name not in names:
        if not names:
            return empty(name)
        return f"prior '{name}': not in the registry{nearest(name, names)}"
    have = [f"{v['version']} {' '.join('@' + a for a in v['aliases'])}".strip() for v in records(client, name)]
    return f"prior '{name}': no version or alias '{version}' (it has {', '.join(have) or 'none'})"


def empty(name: str) -> str:
    """The sentence for a registry that holds nothing."""
    return f"prior '{name}': the registry at {mlflow_client.shown_uri()} is empty; use 'headstart pretrain'"


class VersionRecord(TypedDict):
    """One version of a prior in the registry.

    Attributes:
        name: of the prior.
        version: number.
        aliases: that point at it, sorted.
        created: ms since 1970.
        run_id: of its MLflow run.
        metrics: last values of that run.
        config: flattened parameters of that run.
        weights_sha256: of its weights.
        uri: ``models:/NAME/VERSION``.
        missing: a sentence if it has an alias and cannot be pulled, since its files are gone or are not ours; else None.
    """

    name: str
    version: int
    aliases: list[str]
    created: int
    run_id: str | None
    metrics: dict[str, float]
    config: dict[str, str]
    weights_sha256: str | None
    uri: str
    missing: str | None


def records(client: MlflowClient, name: str) -> list[VersionRecord]:
    """Every version of a name, oldest first; see :func:`record`."""
    found = sorted(client.search_model_versions(f"name='{name}'"), key=lambda v: int(v.version))
    return [record(client, version) for version in found]


def record(client: MlflowClient, found: ModelVersion) -> VersionRecord:
    """One version as plain data."""
    # Searches leave the aliases out on some stores; asking for the version itself never does.
    whole = client.get_model_version(found.name, str(found.version))
    metrics, config, wrong = _run_data(client, found)
    if wrong is None and whole.aliases:
        wrong = missing(client, found)
    return {
        "name": found.name,
        "version": int(found.version),
        "aliases": sorted(whole.aliases),
        "created": int(found.creation_timestamp),
        "run_id": found.run_id,
        "metrics": metrics,
        "config": config,
        "weights_sha256": whole.tags.get("weights_sha256"),
        "uri": f"models:/{found.name}/{found.version}",
        "missing": wrong if whole.aliases else None,
    }


def _run_data(client: MlflowClient, found: ModelVersion) -> tuple[dict[str, float], dict[str, str], str | None]:
    """Metrics and parameters of a version's run, and what is wrong where it has been deleted."""
    from mlflow.exceptions import MlflowException

    if not found.run_id:
        return {}, {}, None
    try:
        run = client.get_run(str(found.run_id))
    except MlflowException as error:
        if not mlflow_client.is_absent(error):
            raise
        log.warning("run %s of %s/%s is gone; its metrics are unknown", found.run_id, found.name, found.version)
        return {}, {}, gone(found)
    return dict(run.data.metrics), dict(run.data.params), None


def missing(client: MlflowClient, found: ModelVersion) -> str | None:
    """A sentence if a version cannot be pulled: not ours, or the artifact store answers and has no weights; else None."""
    if MANIFEST_TAG not in found.tags:
        return foreign(found)
    path = str(found.source).rsplit("/", 1)[-1]
    try:
        names = [str(file.path).rsplit("/", 1)[-1] for file in client.list_artifacts(str(found.run_id), path)]
    except Exception as error:
        log.warning("%s/%s: its artifacts cannot be listed (%s)", found.name, found.version, brief(error))
        return None
    return None if WEIGHTS in names else gone(found)


def gone(found: ModelVersion) -> str:
    """The sentence for a version whose files are gone."""
    return (
        f"models:/{found.name}/{found.version}: its files are gone from the artifact store, as after 'mlflow gc'; "
        "register its run again with 'headstart priors register RUN', or promote another version"
    )


def foreign(found: ModelVersion) -> str:
    """The sentence for a version that something else registered."""
    return (
        f"models:/{found.name}/{found.version}: not registered by headstart, so there is nothing to verify; register a run "
        "with 'headstart priors register RUN', or promote another version"
    )


def champion(client: MlflowClient, name: str) -> ModelVersion | None:
    """MLflow's record of a name's champion, or None."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(name, CHAMPION)
    except MlflowException as error:
        if not mlflow_client.is_absent(error):
            raise
        return None


def champions(client: MlflowClient, leave_out: str) -> dict[str, PriorInfo]:
    """Short ``prior.json`` of the champions of all names but ``leave_out``; models that are no priors are left out."""
    infos: dict[str, PriorInfo] = {}
    for name in names_of_priors(client):
        found = champion(client, name) if name != leave_out else None
        info = json.loads(found.tags.get(INFO_TAG, "{}")) if found is not None else {}
        if info.get("prior") == name:
            infos[name] = cast(PriorInfo, info)
    return infos


def parse(uri: str) -> tuple[str, str]:
    """(name, version or alias) of ``models:/NAME@alias``, ``models:/NAME/VERSION`` or a bare name (its champion).

    Raises:
        InputError: none of these.
    """
    match = re.fullmatch(r"(?:models:/+)?([\w\-. ]+?)(?:[@/]([\w\-]+))?", uri)
    if not match:
        raise InputError(
            f"prior '{uri}': expected a folder, models:/NAME@alias, models:/NAME/VERSION or runs:/ID/prior"
        )
    return match[1], match[2] or CHAMPION


def short_info(info: PriorInfo) -> str:
    """The part of ``prior.json`` that the registry shows without a download, as JSON; of the people only their number."""
    recorded = info.get("dataset")
    dataset: dict[str, object] = dict(recorded or {})
    for key, people in dataset.items():
        if key in ("identities", "held_out") and isinstance(people, list):
            dataset[key] = len(people)
    licences = None if recorded is None else recorded.get("licences")
    keys = ("schema", "prior", "rig", "features", "code_version", "weights_sha256")
    short: dict[str, object] = {key: info.get(key) for key in keys} | {"dataset": dataset, "licences": licences}
    text = json.dumps(short)
    if len(text) > MOST_TAG:  # MLflow may truncate longer tags, and half a record is useless
        count = f"{len(licences or ())} licences"
        text = json.dumps(short | {"licences": count, "dataset": {**dataset, "licences": count}})
    return text
