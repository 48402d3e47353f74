"""The model registry: priors by name, version and alias, on MLflow; without pickles, verified by hash.

A prior folder holds ``prior.json`` and ``weights.safetensors`` (and whatever else its training wrote). A registered
version is that folder with a manifest of checksums and an ``MLmodel`` file, so that a plain MLflow user can say
``mlflow.pyfunc.load_model("models:/audio-expression@champion").predict({...})``. The ``MLmodel`` names a module of ours
to load with (``serving`` in ``prior.json``) and no pickled object.

URIs: a local folder, ``s3://...``, ``models:/NAME@alias``, ``models:/NAME/VERSION``, ``models:/NAME@latest``,
``runs:/RUN_ID/prior``.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluster.registry import mlflow_client, spool
from cluster.registry import run_log as tracking
from cluster.registry.compatibility import misfit
from cluster.storage import storage
from cluster.storage.errors import StorageError
from configs import InputError, nearest

log = logging.getLogger("headstart.registry")
CHAMPION = "champion"
LATEST = "latest"  # MLflow keeps this alias for itself; here it is the newest version
ARTIFACT = "prior"
_MANIFEST_TAG = "headstart.manifest"
_PENDING = "registrations"


# ------------------------------------------------------------------------------------------------ writing


def register(
    name: str,
    folder: storage.Url,
    *,
    metrics: dict[str, float] | None = None,
    config: dict[str, Any] | None = None,
    aliases: Sequence[str] = (),
    run: storage.Url | None = None,
) -> dict[str, Any]:
    """Register a prior folder as a new version of ``name``.

    Args:
        folder: a local prior folder; its weights must match ``weights_sha256`` of its ``prior.json``.
        metrics: figures shown in the registry; config: parameters shown (secrets left out).
        aliases: to point at this version. The first version of a name becomes ``champion`` by itself.
        run: the training's run folder or URL: the version then belongs to its MLflow run (see ``cluster.registry.run_log``).

    Returns:
        ``{"name", "version", "uri", "champion", "misfit"}``: whether it is the champion now, and the sentence that says
        why it does not fit the champions of the other names (then it never becomes champion by itself), or None.
        With the server away ``version`` is None and ``waiting`` the folder that
        :func:`register_waiting` (called by the next registration) sends later.

    Raises:
        InputError: not a prior folder, damaged weights, a bad name.
    """
    source = storage.local_path(folder)
    info = _check_prior(source)
    _check_name(name)
    job = {"name": name, "metrics": metrics or {}, "config": config or {}, "aliases": list(aliases)}
    job["key"] = tracking.run_key(run) if run is not None else None
    if not mlflow_client.reachable():
        return _postpone(source, job)
    register_waiting()
    return _register(source, info, job)


def register_waiting() -> list[dict[str, Any]]:
    """Register what was trained while the server was away; returns the new versions."""
    done = []
    for folder in sorted((storage.home() / _PENDING).glob("*")):
        if not (folder / "job.json").is_file():
            continue
        job = storage.read_json(folder / "job.json")
        done.append(_register(folder / ARTIFACT, _check_prior(folder / ARTIFACT), job))
        shutil.rmtree(folder, ignore_errors=True)
    return done


def promote(name: str, version: str | int, alias: str = CHAMPION) -> dict[str, Any]:
    """Point ``alias`` at a version (a number or another alias); returns what :func:`show` says of it.

    Raises:
        InputError: no such model or version, or an alias that MLflow does not allow.
    """
    if alias == LATEST or not re.fullmatch(r"[A-Za-z][\w\-]*", alias):
        raise InputError(f"alias '{alias}': not allowed; use a word such as {CHAMPION} ('latest' names itself)")
    client = mlflow_client.client()
    found = _version(client, name, str(version))
    info = json.loads(found.tags.get("headstart.info", "{}"))
    role = _set_aliases(client, name, int(found.version), [alias], info) if alias == CHAMPION else {}
    client.set_registered_model_alias(name, alias, str(found.version))
    return {**show(name, str(found.version)), **role}


# ------------------------------------------------------------------------------------------------ reading


def list_models() -> list[dict[str, Any]]:
    """Every registered prior: ``{"name", "versions": [{"version", "aliases", "created", "metrics", ...}]}``."""
    client = mlflow_client.client()
    models = sorted(client.search_registered_models(), key=lambda model: model.name)
    return [{"name": model.name, "versions": _versions(client, model.name)} for model in models]


def show(name: str, version_or_alias: str | int = CHAMPION) -> dict[str, Any]:
    """One version's record: aliases, metrics, config, rig, features, dataset, licences, code version, hashes, URI.

    Raises:
        InputError: no such model, version or alias (with the ones that exist).
    """
    client = mlflow_client.client()
    found = _version(client, name, str(version_or_alias))
    record = _record(client, found)
    info = json.loads(found.tags.get("headstart.info", "{}"))
    return {**info, **record, "source": found.source}


def resolve(uri: storage.Url, cache_dir: storage.Url | None = None) -> Path:
    """The local folder of a prior, fetched into the cache and verified by hash where it is not local.

    Args:
        uri: see the module's text; ``NAME``, ``NAME@alias`` and ``NAME/VERSION`` without ``models:/`` work too.
        cache_dir: default ``HEADSTART_HOME/priors``.

    Raises:
        InputError: nothing of that name, or content that does not match its checksums.
    """
    text = str(uri)
    cache = storage.local_path(cache_dir) if cache_dir else storage.home() / "priors"
    if text.startswith("runs:/"):
        return _fetch_run(text, cache)
    if not text.startswith("models:/") and (storage.is_remote(text) or storage.local_path(text).exists()):
        return _fetch_url(text, cache)
    client = mlflow_client.client()
    name, version = parse(text)
    return _fetch_version(client, _version(client, name, version), cache)


def parse(uri: str) -> tuple[str, str]:
    """(name, version or alias) of ``models:/NAME@alias``, ``models:/NAME/VERSION`` or a bare name (its champion)."""
    match = re.fullmatch(r"(?:models:/+)?([\w\-. ]+?)(?:[@/]([\w\-]+))?", uri)
    if not match:
        raise InputError(
            f"prior '{uri}': expected a folder, models:/NAME@alias, models:/NAME/VERSION or runs:/ID/prior"
        )
    return match[1], match[2] or CHAMPION


# ------------------------------------------------------------------------------------------------ registering


def _check_prior(folder: Path) -> dict[str, Any]:
    if not (folder / "prior.json").is_file():
        raise InputError(
            f"{folder}: holds no prior.json, so it is no prior; give the folder that 'headstart pretrain' wrote"
        )
    info = storage.read_json(folder / "prior.json")
    weights = folder / "weights.safetensors"
    if not weights.is_file():
        raise InputError(f"{folder}: prior.json without weights.safetensors; copy the whole folder")
    if storage.sha256(weights) != info.get("weights_sha256"):
        raise InputError(f"{weights}: does not match its checksum in prior.json; fetch or train the prior again")
    return info


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z][\w\-]*", name):
        raise InputError(f"model name '{name}': expected letters, digits, '-' and '_', such as audio-expression")


def _postpone(source: Path, job: dict[str, Any]) -> dict[str, Any]:
    folder = storage.home() / _PENDING / uuid.uuid4().hex[:12]
    shutil.copytree(source, folder / ARTIFACT)
    storage.write_json(folder / "job.json", job)
    print(
        f"MLflow at {mlflow_client.shown_uri()} is away; {job['name']} is registered later from {folder}",
        file=sys.stderr,
    )
    return {"name": job["name"], "version": None, "uri": None, "waiting": str(folder)}


def _register(source: Path, info: dict[str, Any], job: dict[str, Any]) -> dict[str, Any]:
    from mlflow.entities import Metric

    client, name = mlflow_client.client(), job["name"]
    run, owned = _run_of(client, job)
    run_id = run.info.run_id
    try:
        manifest = _upload(client, run_id, source, info)
        now = int(time.time() * 1000)
        rows = [Metric(key, float(value), now, 0) for key, value in job["metrics"].items() if _is_number(value)]
        client.log_batch(run_id, metrics=rows)
        if owned:
            _log_config(client, run_id, job["config"])
        version = _create_version(client, run_id, info, job, manifest)
        role = _set_aliases(client, name, version, job["aliases"], info)
    except BaseException:
        if owned:
            client.set_terminated(run_id, status="FAILED")
        raise
    if owned:
        client.set_terminated(run_id)
    return {"name": name, "version": version, "uri": f"models:/{name}/{version}", **role}


def _run_of(client: Any, job: dict[str, Any]) -> tuple[Any, bool]:
    """(MLflow run, whether it was made for this registration): the training's own where it is known."""
    if job.get("key"):
        spool.send_all()  # the training may not have been announced yet
        found = spool.find_run(client, job["key"])
        if found is not None:
            return found, False
    experiment = mlflow_client.experiment(client)
    run = client.create_run(experiment, run_name=f"register {job['name']}", tags={"headstart.kind": "registration"})
    return run, True


def _upload(client: Any, run_id: str, source: Path, info: dict[str, Any]) -> str:
    """Put the folder with its manifest and MLmodel into the run; returns the manifest's sha256."""
    with tempfile.TemporaryDirectory(prefix="headstart-register-") as scratch:
        folder = Path(scratch) / ARTIFACT
        shutil.copytree(source, folder, ignore=shutil.ignore_patterns(storage.COMMIT_MARK))
        _write_mlmodel(folder, info, run_id)
        storage.seal(folder)
        client.log_artifacts(run_id, str(folder), artifact_path=ARTIFACT)
        return storage.sha256(folder / storage.COMMIT_MARK)


def _write_mlmodel(folder: Path, info: dict[str, Any], run_id: str) -> None:
    """MLflow's description: which module loads the folder, and what goes in and out."""
    from mlflow.models import Model

    serving = info.get("serving") or {}
    model = Model(artifact_path=ARTIFACT, run_id=run_id, signature=_signature(serving))
    model.add_flavor(
        "python_function",
        loader_module=serving.get("module", "pretrain.serving"),
        python_version=".".join(map(str, sys.version_info[:3])),
        env={"virtualenv": "python_env.yaml"},
    )
    model.metadata = {"prior": info.get("prior"), "weights_sha256": info.get("weights_sha256")}
    model.save(str(folder / "MLmodel"))
    (folder / "requirements.txt").write_text("headstart\n")
    (folder / "python_env.yaml").write_text("dependencies:\n- -r requirements.txt\n")


def _signature(serving: dict[str, Any]) -> Any:
    """``{"inputs": [{"name", "dtype", "shape"}], "outputs": [...], "params": [...]}`` as MLflow says it, or None."""
    if not serving.get("inputs"):
        return None
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import ParamSchema, ParamSpec, Schema, TensorSpec

    def schema(entries: list[dict[str, Any]]) -> Any:
        return Schema([TensorSpec(np.dtype(e["dtype"]), tuple(e["shape"]), name=e["name"]) for e in entries])

    params = [ParamSpec(e["name"], e["dtype"], e["default"]) for e in serving.get("params", [])]
    return ModelSignature(
        inputs=schema(serving["inputs"]),
        outputs=schema(serving["outputs"]) if serving.get("outputs") else None,
        params=ParamSchema(params) if params else None,
    )


def _create_version(client: Any, run_id: str, info: dict[str, Any], job: dict[str, Any], manifest: str) -> int:
    from mlflow.exceptions import MlflowException

    name = job["name"]
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    source = f"{client.get_run(run_id).info.artifact_uri}/{ARTIFACT}"
    tags = {_MANIFEST_TAG: manifest, "headstart.info": _short_info(info), "weights_sha256": str(info["weights_sha256"])}
    return int(client.create_model_version(name, source=source, run_id=run_id, tags=tags).version)


def _set_aliases(client: Any, name: str, version: int, wanted: Sequence[str], info: dict[str, Any]) -> dict[str, Any]:
    """Point the wanted aliases at a version, and ``champion`` where the name has none and the version fits the others."""
    trouble = misfit(_champions(client, leave_out=name) | {name: info})
    aliases = {alias for alias in wanted if alias != LATEST}
    if trouble is None and _champion(client, name) is None:
        aliases.add(CHAMPION)
    for alias in sorted(aliases):
        client.set_registered_model_alias(name, alias, str(version))
    if trouble is not None:
        kept = "is champion, as asked, though" if CHAMPION in aliases else "does not become champion:"
        log.warning("%s/%s %s %s", name, version, kept, trouble)
    return {"champion": CHAMPION in aliases, "misfit": trouble}


def _champion(client: Any, name: str) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(name, CHAMPION)
    except MlflowException:
        return None


def _champions(client: Any, leave_out: str) -> dict[str, dict[str, Any]]:
    """What the champions of the other priors need, by name; models that are no priors of ours are left out."""
    infos = {}
    for model in client.search_registered_models():
        found = _champion(client, model.name) if model.name != leave_out else None
        info = json.loads(found.tags.get("headstart.info", "{}")) if found is not None else {}
        if info.get("prior") == model.name:
            infos[model.name] = info
    return infos


def _short_info(info: dict[str, Any]) -> str:
    """What :func:`show` tells without a download; of the people only their number."""
    dataset = dict(info.get("dataset") or {})
    for key in ("identities", "held_out"):
        if isinstance(dataset.get(key), list):
            dataset[key] = len(dataset[key])
    keys = ("schema", "prior", "rig", "features", "code_version", "weights_sha256")
    short = {key: info.get(key) for key in keys} | {"dataset": dataset, "licences": dataset.get("licences")}
    return json.dumps(short)[:4900]


def _log_config(client: Any, run_id: str, config: dict[str, Any]) -> None:
    from mlflow.entities import Param

    items = [Param(key, value) for key, value in sorted(mlflow_client.flatten(config).items())]
    for start in range(0, len(items), 100):
        client.log_batch(run_id, params=items[start : start + 100])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


# ------------------------------------------------------------------------------------------------ looking up


def _version(client: Any, name: str, version: str) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        if version == LATEST:
            numbers = [int(v.version) for v in client.search_model_versions(f"name='{name}'")]
            version = str(max(numbers)) if numbers else version
        if version.isdigit():
            return client.get_model_version(name, version)
        return client.get_model_version_by_alias(name, version)
    except MlflowException as error:
        raise InputError(_not_found(client, name, version, error)) from None


def _not_found(client: Any, name: str, version: str, error: Exception) -> str:
    names = [model.name for model in client.search_registered_models()]
    if name not in names:
        if not names:
            return f"prior '{name}': the registry at {mlflow_client.shown_uri()} is empty; use 'headstart pretrain'"
        return f"prior '{name}': not in the registry{nearest(name, names)}"
    have = [f"{v['version']} {' '.join('@' + a for a in v['aliases'])}".strip() for v in _versions(client, name)]
    return f"prior '{name}': no version or alias '{version}'; there are {', '.join(have) or 'none'}"


def _versions(client: Any, name: str) -> list[dict[str, Any]]:
    found = sorted(client.search_model_versions(f"name='{name}'"), key=lambda v: int(v.version))
    return [_record(client, version) for version in found]


def _record(client: Any, found: Any) -> dict[str, Any]:
    from mlflow.exceptions import MlflowException

    # Searches leave the aliases out on some stores; asking for the version itself never does.
    whole = client.get_model_version(found.name, str(found.version))
    metrics: dict[str, float] = {}
    config: dict[str, str] = {}
    try:
        run = client.get_run(found.run_id)
        metrics, config = dict(run.data.metrics), dict(run.data.params)
    except MlflowException:
        log.warning("run %s of %s/%s is gone; its metrics are unknown", found.run_id, found.name, found.version)
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
    }


# ------------------------------------------------------------------------------------------------ fetching


def _fetch_version(client: Any, found: Any, cache: Path) -> Path:
    manifest = client.get_model_version(found.name, str(found.version)).tags.get(_MANIFEST_TAG)
    if not manifest:
        raise InputError(
            f"models:/{found.name}/{found.version}: not registered by headstart, so there is nothing to verify"
        )
    target = cache / found.name / f"{found.version}-{manifest[:12]}"
    return _fetch_artifacts(found.source, target, f"models:/{found.name}/{found.version}", manifest)


def _fetch_run(uri: str, cache: Path) -> Path:
    client = mlflow_client.client()
    run_id, _, path = uri.removeprefix("runs:/").partition("/")
    from mlflow.exceptions import MlflowException

    try:
        source = f"{client.get_run(run_id).info.artifact_uri}/{path or ARTIFACT}"
    except MlflowException:
        raise InputError(f"{uri}: no such run at {mlflow_client.shown_uri()}; check the run id") from None
    return _fetch_artifacts(source, cache / "runs" / run_id / (path or ARTIFACT), uri, None)


def _fetch_artifacts(source: str, target: Path, shown: str, manifest: str | None) -> Path:
    if target.is_dir():
        try:
            return _verify(target, shown, manifest)
        except StorageError as error:
            log.warning("%s; fetching it again", error)
            shutil.rmtree(target)
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".tmp-", dir=target.parent) as scratch:
        try:
            got = download_artifacts(artifact_uri=source, dst_path=scratch, tracking_uri=mlflow_client.tracking_uri())
        except (MlflowException, OSError) as error:
            first = str(error).splitlines()[0]
            raise InputError(f"{shown}: its files cannot be fetched ({first}); check the artifact store") from error
        _verify(Path(got), shown, manifest)
        try:
            os.replace(got, target)
        except OSError:
            if not target.is_dir():  # another process was first, with the same content
                raise
    return target


def _verify(folder: Path, shown: str, manifest: str | None) -> Path:
    mark = folder / storage.COMMIT_MARK
    if not mark.is_file():
        raise StorageError(
            f"{shown}: no manifest of checksums among its files; it is not a prior registered by headstart"
        )
    if manifest is not None and (got := storage.sha256(mark)) != manifest:
        raise StorageError(
            f"{shown}: its manifest has sha256 {got[:12]}, the registry says {manifest[:12]}; do not use it"
        )
    storage.check_tree(folder, storage.read_mark(folder))
    return folder


def _fetch_url(url: str, cache: Path) -> Path:
    if not storage.is_remote(url):
        folder = storage.local_path(url)
        _check_prior(folder)
        return folder
    mark = storage.read_mark(url)
    digest = str(mark["files"].get("weights.safetensors", {}).get("sha256", uuid.uuid4().hex))[:16]
    target = cache / "urls" / f"{storage.basename(url)}-{digest}"
    if not target.is_dir():
        storage.download_tree(url, target)
    storage.check_tree(target, mark)
    _check_prior(target)
    return target
