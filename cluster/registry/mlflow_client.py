"""Where MLflow is and how to reach it: an embedded SQLite file by default, a server by ``MLFLOW_TRACKING_URI``."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cluster.registry import moved
from cluster.storage import storage
from cluster.storage.retry import brief
from configs import InputError
from configs.progress import say

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "headstart"
SQLITE = "sqlite:///"
_SECRET_NAME = re.compile(r"token|secret|passw|credential|api[_-]?key|access[_-]?key", re.IGNORECASE)


def tracking_uri() -> str:
    """``MLFLOW_TRACKING_URI``, or the SQLite file in ``HEADSTART_HOME`` (default ``~/.headstart``).

    The path of a SQLite file is made absolute, so that a URI means the same file in every process.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}{storage.home() / 'mlflow.db'}"
    file = sqlite_file(uri)
    return uri if file is None else f"{SQLITE}{file.absolute()}"


def sqlite_file(uri: str) -> Path | None:
    """The database file that a SQLite URI names, or None for servers and for URIs with options."""
    if not uri.startswith(SQLITE) or "?" in uri:
        return None
    return Path(uri.removeprefix(SQLITE))


def shown_uri() -> str:
    """The tracking URI without user and password, for messages."""
    return without_password(tracking_uri())


def without_password(text: str) -> str:
    """``text`` without the user and password of any URL in it."""
    return re.sub(r"(\w+://)[^/@\s]+@", r"\1", text)


def is_secret(name: str) -> bool:
    """Whether a parameter's name says that its value must not be recorded."""
    return bool(_SECRET_NAME.search(name))


def reachable(timeout: float = 3.0) -> bool:
    """Whether the server's port accepts a connection within ``timeout`` seconds; the embedded store always does."""
    parts = urlsplit(tracking_uri())
    if parts.scheme not in ("http", "https"):
        return True
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        with socket.create_connection((parts.hostname or "", port), timeout=timeout):
            return True
    except (OSError, ValueError):
        return False


def client() -> MlflowClient:
    """An ``MlflowClient`` for runs and models.

    Raises:
        InputError: MLflow is not installed, or the server does not answer.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    if re.fullmatch(r"[\w.\-]+:\d+(/.*)?|\s*", tracking_uri()):  # MLflow would make a folder of that name
        raise InputError(
            f"MLFLOW_TRACKING_URI is '{shown_uri()}', expected a URL such as http://127.0.0.1:5000, or "
            "sqlite:///FILE; correct it, or unset it to use the embedded registry"
        )
    if not reachable():
        raise InputError(
            f"no MLflow server answers at {shown_uri()}; start it, correct MLFLOW_TRACKING_URI, or unset it to use "
            "the embedded registry"
        )
    try:
        from mlflow import MlflowClient
    except ImportError as error:
        raise InputError(f"the registry needs MLflow, which is absent ({error}); install headstart[cluster]") from None
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    uri = tracking_uri()
    if file := sqlite_file(uri):
        _check_sqlite(file)
        moved.follow(file, os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT))
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Turn what MLflow raises while it is asked into one sentence; also a decorator.

    Raises:
        InputError: no MLflow answers at that address, or it refuses the request.
    """
    try:
        yield
    except Exception as error:
        if not isinstance(error, (ImportError, *_refusals())):  # ImportError: the driver of another database
            raise
        cure = (
            "check its path and version"
            if sqlite_file(tracking_uri())
            else "check MLFLOW_TRACKING_URI, MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, and the server's log"
        )
        raise InputError(
            f"MLflow at {shown_uri()} does not serve the registry ({without_password(brief(error))}); {cure}"
        ) from error


def _refusals() -> Iterator[type[Exception]]:
    """Errors of MLflow and of its databases, without importing them: that takes a second, and they may be absent."""
    for module, name in (("mlflow.exceptions", "MlflowException"), ("sqlalchemy.exc", "SQLAlchemyError")):
        if module in sys.modules:
            yield getattr(sys.modules[module], name)


def is_absent(error: Exception) -> bool:
    """Whether MLflow says that what was asked for does not exist, and not that it cannot answer."""
    return getattr(error, "error_code", None) in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


def trouble() -> str | None:
    """A sentence if the registry is there and cannot be read, else None; a database that does not exist is not made."""
    file = sqlite_file(tracking_uri())
    if file is not None and not file.exists():
        return None
    try:
        with told():
            client().search_registered_models(max_results=1)
    except InputError as error:
        return str(error)
    return None


def _check_sqlite(file: Path) -> None:
    """Prove that the database can be written to: MLflow itself would try for minutes and end in a traceback.

    Raises:
        InputError: it cannot; the sentence says why.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(sqlite3.connect(file, timeout=20.0)) as data_base:
            data_base.execute("BEGIN IMMEDIATE")
            data_base.rollback()
    except (OSError, sqlite3.Error) as error:
        raise InputError(
            f"the registry's data base {file} cannot be written ({error}); check the folder's owner, mode and free space, "
            "or name another by MLFLOW_TRACKING_URI"
        ) from None


def experiment(connected: MlflowClient) -> str:
    """The id of our experiment (``MLFLOW_EXPERIMENT_NAME`` or ``headstart``), created when absent."""
    from mlflow.exceptions import MlflowException

    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
    found = connected.get_experiment_by_name(name)
    if found is None:
        try:
            location = artifact_folder()
            made = connected.create_experiment(name, artifact_location=location.as_uri() if location else None)
            if location and "MLFLOW_TRACKING_URI" in os.environ:
                say(f"files registered in {shown_uri()} are placed beside it, in {location}")
            return str(made)
        except MlflowException:
            # Another process was first.
            found = connected.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        raise InputError(
            f"the experiment '{name}' was deleted in MLflow at {shown_uri()}; restore it with "
            f"'mlflow experiments restore --experiment-id {found.experiment_id}', or name another by MLFLOW_EXPERIMENT_NAME"
        )
    return str(found.experiment_id)


def artifact_folder() -> Path | None:
    """Where a SQLite registry's files go: beside its database. MLflow would use the current working directory."""
    file = sqlite_file(tracking_uri())
    return file.parent / "artifacts" if file else None


def check_writable() -> None:
    """Prove that runs and versions can be written and their files stored.

    Raises:
        InputError: the experiment was deleted, or the database, server or artifact folder refuses.
    """
    from mlflow.exceptions import MlflowException

    connected = client()
    try:
        at = experiment(connected)
        connected.set_experiment_tag(at, "headstart.checked", str(int(time.time())))
        location = str(connected.get_experiment(at).artifact_location)
    except MlflowException as error:
        raise InputError(
            f"MLflow at {shown_uri()} refuses to be written to ({brief(error)}); check its permissions, or name another "
            "by MLFLOW_TRACKING_URI"
        ) from error
    folder = Path(location.removeprefix("file://"))
    if location.startswith(("file://", "/")) and not _can_be_made(folder):
        raise InputError(
            f"files registered in {shown_uri()} belong into {folder}, which cannot be written; check its owner and mode"
        )


def _can_be_made(folder: Path) -> bool:
    there = next(path for path in (folder, *folder.parents) if path.exists())
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def flatten(values: dict[str, object], prefix: str = "") -> dict[str, str]:
    """Nested parameters as ``{"a.b": text}``; secrets are left out, URLs lose user and password, texts end at 500 characters."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if is_secret(str(key)):
            continue
        if isinstance(value, dict):
            flat.update(flatten(value, f"{name}."))
        elif value is not None:
            flat[re.sub(r"[^\w\-. /]", "_", name)[:250]] = without_password(str(value))[:500]
    return flat
