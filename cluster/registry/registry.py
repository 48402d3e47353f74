"""The model registry: priors by name, version and alias, on MLflow; without pickles, verified by hash.

A prior folder holds ``prior.json`` and ``weights.safetensors`` (and whatever else its training wrote). A registered
version is that folder with a manifest of checksums and an ``MLmodel`` file, so that a plain MLflow user can call
``mlflow.pyfunc.load_model("models:/audio-expression@champion").predict({...})``. The ``MLmodel`` names a loading
module (``serving`` in ``prior.json``) and no pickled object.

URIs: a local folder, ``s3://...``, ``models:/NAME@alias``, ``models:/NAME/VERSION``, ``models:/NAME@latest``,
``runs:/RUN_ID/prior``.
"""

from __future__ import annotations

import json
import logging
import re
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from cluster.registry import answers, fetch, mlflow_client, run_log, versions, waiting
from cluster.registry.prior_folder import PriorInfo, check_prior
from cluster.registry.publish import Job, Registered, publish, set_aliases
from cluster.registry.versions import CHAMPION, INFO_TAG, LATEST, VersionRecord, parse
from cluster.registry.waiting import register_waiting
from cluster.storage import storage
from cluster.storage.retry import brief
from configs import InputError

log = logging.getLogger("headstart.registry")
__all__ = ["CHAMPION", "check", "list_models", "parse", "promote", "register", "register_waiting", "resolve", "show"]


# ------------------------------------------------------------------------------------------------ writing


def check() -> str | None:
    """Whether a finished prior can be registered; called before training begins.

    Returns:
        ``None``, or a sentence: the server is unreachable, so the registration will be postponed.

    Raises:
        InputError: it can be reached and would refuse; the sentence says what to do.
    """
    if not mlflow_client.reachable():
        return f"MLflow at {mlflow_client.shown_uri()} is away; the prior will be registered later"
    mlflow_client.check_writable()
    return None


def register(
    name: str,
    folder: storage.Url,
    *,
    metrics: dict[str, float] | None = None,
    config: dict[str, object] | None = None,
    aliases: Sequence[str] = (),
    run: storage.Url | None = None,
    postpone: bool = True,
) -> Registered:
    """Register a prior folder as a new version of ``name``; the same prior of the same run is registered once.

    Args:
        folder: a local prior folder; its weights must match ``weights_sha256`` of its ``prior.json``.
        metrics: figures shown in the registry.
        config: parameters shown in the registry, without secrets.
        aliases: to point at this version. A version becomes ``champion`` automatically if the name has none and it fits
            the champions of the other names.
        run: the training's run folder or URL; the version then belongs to its MLflow run (see ``cluster.registry.run_log``).
        postpone: keep the registration for later if the server is unreachable or refuses; otherwise that is an error.

    Returns:
        See :class:`cluster.registry.publish.Registered`. A registration that is postponed is sent by
        :func:`register_waiting`, which the next registration calls.

    Raises:
        InputError: not a prior folder, damaged weights, a bad name; without ``postpone`` whatever keeps it from being
            registered.
    """
    source = storage.local_path(folder)
    info = check_prior(source)
    _check_name(name)
    job = _job(name, info, metrics or {}, config or {}, tuple(aliases), run)
    if postpone and not mlflow_client.reachable():
        return waiting.postpone(source, job, "is away")
    try:
        register_waiting()
        result = publish(source, info, job)
    except Exception as error:
        log.warning("registration of %s", name, exc_info=True)
        if postpone:
            return waiting.postpone(source, job, f"refuses the registration ({brief(error)})")
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"MLflow at {mlflow_client.shown_uri()} refuses the registration of {name}: {brief(error)}; "
            "see 'headstart doctor'"
        ) from error
    waiting.forget(job)
    return result


def _job(
    name: str,
    info: PriorInfo,
    metrics: dict[str, float],
    config: dict[str, object],
    aliases: tuple[str, ...],
    run: storage.Url | None,
) -> Job:
    key = run_log.run_key(run) if run is not None else None
    # A run registers its prior once; a folder registered by hand becomes a version each time.
    again = f"{key}-{str(info['weights_sha256'])[:16]}" if key else uuid.uuid4().hex
    return Job(name=name, id=again, metrics=metrics, config=config, aliases=aliases, key=key)


@mlflow_client.told()
def promote(name: str, version: str | int, alias: str = CHAMPION) -> dict[str, object]:
    """Point ``alias`` at a version (a number or another alias).

    Returns:
        What :func:`show` says of it, and ``before``: the version that had the alias, or None; for ``champion`` also
        ``misfit``: the sentence that says why it does not fit the champions of the other names, or None.

    Raises:
        InputError: no such model or version, one that cannot be pulled, an alias that MLflow does not allow, or one that
            differs from another only in case.
    """
    _check_alias(alias)
    client = mlflow_client.client()
    found = versions.find(client, name, str(version))
    if wrong := versions.missing(client, found):
        raise InputError(wrong)
    held = client.get_registered_model(name).aliases
    if other := next((known for known in held if known != alias and known.lower() == alias.lower()), None):
        raise InputError(
            f"alias '{alias}': version {held[other]} of {name} has '{other}', and case counts; write it so"
        )
    before = {"before": held.get(alias)}
    if alias == CHAMPION:
        role = set_aliases(client, name, int(found.version), [alias], json.loads(found.tags.get(INFO_TAG, "{}")))
        return {**show(name, str(found.version)), **role, **before}
    client.set_registered_model_alias(name, alias, str(found.version))
    return {**show(name, str(found.version)), **before}


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z][\w\-]*", name):
        raise InputError(
            f"model name '{name}': expected a letter, then letters, digits, '-' and '_', such as audio-expression"
        )


def _check_alias(alias: str) -> None:
    if alias.lower() == LATEST or re.fullmatch(r"[vV]\d+", alias):
        raise InputError(
            f"alias '{alias}': reserved, since '{LATEST}' is always the newest version and 'v1' means version 1; "
            f"not allowed as an alias, use a word such as {CHAMPION}"
        )
    if not re.fullmatch(r"[A-Za-z][\w\-]*", alias):
        raise InputError(
            f"alias '{alias}': not allowed; use a letter, then letters, digits, '-' and '_', such as {CHAMPION}"
        )


# ------------------------------------------------------------------------------------------------ reading


class ModelRecord(TypedDict):
    """A registered prior and its versions, oldest first."""

    name: str
    versions: list[VersionRecord]


@mlflow_client.told()
def list_models() -> list[ModelRecord]:
    """Every registered prior, by name; models of which Headstart registered no version are left out.

    Raises:
        InputError: MLflow is not installed, or the server does not answer.
    """
    client = mlflow_client.client()
    return [{"name": name, "versions": versions.records(client, name)} for name in versions.names_of_priors(client)]


@mlflow_client.told()
def show(name: str, version_or_alias: str | int = CHAMPION) -> dict[str, object]:
    """One version's record: aliases, metrics, config, rig, features, dataset, licences, code version, hashes, URI.

    Raises:
        InputError: no such model, version or alias (with the ones that exist).
    """
    client = mlflow_client.client()
    found = versions.find(client, name, str(version_or_alias))
    info = json.loads(found.tags.get(INFO_TAG, "{}"))
    return {**info, **versions.record(client, found), "source": found.source}


@mlflow_client.told()
def resolve(uri: storage.Url, cache_dir: storage.Url | None = None) -> Path:
    """The local folder of a prior, fetched into the cache and verified by hash where it is not local.

    Args:
        uri: see the module docstring; ``NAME``, ``NAME@alias`` and ``NAME/VERSION`` without ``models:/`` work too.
        cache_dir: default ``HEADSTART_HOME/priors``.

    Raises:
        NotRegistered: the registry holds nothing of that name.
        InputError: it does not answer, or the content does not match its checksums.
    """
    text = str(uri)
    cache = storage.local_path(cache_dir) if cache_dir else storage.home() / "priors"
    if text.startswith("runs:/"):
        return fetch.fetch_run(text, cache)
    if not text.startswith("models:/") and (storage.is_remote(text) or storage.local_path(text).exists()):
        return fetch.fetch_url(text, cache)
    return _resolve_version(*parse(text), cache)


def _resolve_version(name: str, version: str, cache: Path) -> Path:
    """The folder of a registered version; asks MLflow only if the registry has changed since the last question."""
    file = mlflow_client.sqlite_file(mlflow_client.tracking_uri())
    if file is not None and not file.exists():  # MLflow would make one, in seconds, to find it empty
        raise versions.NotRegistered(versions.empty(name))
    known = answers.recall(cache, name, version)
    if known is not None and "missing" in known:
        raise versions.NotRegistered(known["missing"])
    if known is not None and (folder := fetch.cached(cache / known["folder"], known["manifest"])) is not None:
        return folder
    asked = answers.stamp()
    client = mlflow_client.client()
    try:
        found = versions.find(client, name, version)
    except versions.NotRegistered as error:
        answers.remember(cache, asked, name, version, {"missing": str(error)})
        raise
    folder = fetch.fetch_version(client, found, cache)
    manifest = storage.sha256(folder / storage.COMMIT_MARK)
    answer = {"folder": folder.relative_to(cache).as_posix(), "manifest": manifest}
    answers.remember(cache, asked, name, version, answer)
    return folder
