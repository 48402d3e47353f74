"""Pulling priors into the cache; every file is verified by its checksum, also when it is already there."""

from __future__ import annotations

import logging
import os
import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.registry import mlflow_client
from cluster.registry.prior_folder import ARTIFACT, WEIGHTS, check_prior
from cluster.registry.versions import MANIFEST_TAG, foreign, gone
from cluster.storage import storage
from cluster.storage.errors import StorageError
from configs import InputError
from configs.scratch import ScratchFolder

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger("headstart.registry")


def fetch_version(client: MlflowClient, found: ModelVersion, cache: Path) -> Path:
    """The local folder of a registered version, verified against the manifest hash in the registry.

    Raises:
        InputError: not registered by Headstart, gone from the artifact store, or changed there.
    """
    manifest = client.get_model_version(found.name, str(found.version)).tags.get(MANIFEST_TAG)
    if not manifest:
        raise InputError(foreign(found))
    target = cache / found.name / f"{found.version}-{manifest[:12]}"
    return _fetch_artifacts(str(found.source), target, f"models:/{found.name}/{found.version}", manifest, gone(found))


def fetch_run(uri: str, cache: Path) -> Path:
    """A local copy of a folder among a run's artifacts (``runs:/RUN_ID/prior``).

    It is verified against its own manifest only: the registry holds no hash of it.

    Raises:
        InputError: no such run or folder, or damaged files.
    """
    client = mlflow_client.client()
    run_id, _, path = uri.removeprefix("runs:/").partition("/")
    from mlflow.exceptions import MlflowException

    try:
        source = f"{client.get_run(run_id).info.artifact_uri}/{path or ARTIFACT}"
    except MlflowException as error:
        if not mlflow_client.is_absent(error):
            raise
        raise InputError(f"{uri}: no such run at {mlflow_client.shown_uri()}; check the run id") from None
    return _fetch_artifacts(
        source, cache / "runs" / run_id / (path or ARTIFACT), uri, None, f"{uri}: the run has no such files"
    )


def cached(target: Path, manifest: str) -> Path | None:
    """A folder that was fetched before, verified again; ``None`` if it is gone or damaged."""
    try:
        return _verify(target, str(target), manifest) if target.is_dir() else None
    except StorageError as error:
        log.warning("%s; fetching it again", error)
        return None


def _fetch_artifacts(source: str, target: Path, shown: str, manifest: str | None, empty: str) -> Path:
    if target.is_dir():
        try:
            return _verify(target, shown, manifest)
        except StorageError as error:
            log.warning("%s; fetching it again", error)
            shutil.rmtree(target)
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    target.parent.mkdir(parents=True, exist_ok=True)
    with ScratchFolder("pull", within=target.parent) as scratch:
        try:
            got = download_artifacts(
                artifact_uri=source, dst_path=str(scratch), tracking_uri=mlflow_client.tracking_uri()
            )
        except (MlflowException, OSError) as error:
            raise InputError(
                f"{shown}: its files cannot be fetched ({_reason(error)}); check the artifact store"
            ) from error
        if not any(Path(got).iterdir()):  # MLflow downloads files that are gone as an empty folder, without an error
            raise StorageError(empty)
        _verify(Path(got), shown, manifest)
        try:
            os.replace(got, target)
        except OSError:
            if not target.is_dir():  # another process was first, with the same content
                raise
    return target


def _reason(error: Exception) -> str:
    """What broke the download: MLflow lists a heading and a reason for each file, below a line that tells neither."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    files = [line.strip("# ").removeprefix("File ") for line in lines if line.startswith("##### File")]
    reasons = [line for line in lines if not line.startswith("##### File")]
    return f"{files[0]}: {reasons[1]}" if files and reasons[1:] else lines[0] if lines else type(error).__name__


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


def fetch_url(url: str, cache: Path) -> Path:
    """The local folder of a prior by path or object-store URL, verified.

    Raises:
        InputError: no complete prior there, or damaged files.
    """
    if not storage.is_remote(url):
        folder = storage.local_path(url)
        check_prior(folder)
        return folder
    mark = storage.read_mark(url)
    digest = (storage.checksum_of(mark, WEIGHTS) or uuid.uuid4().hex)[:16]
    target = cache / "urls" / f"{storage.basename(url)}-{digest}"
    if not target.is_dir():
        storage.download_tree(url, target)
    storage.check_tree(target, mark)
    check_prior(target)
    return target
