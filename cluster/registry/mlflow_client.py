"""Where MLflow is and how to reach it: an embedded SQLite file by default, a server by ``MLFLOW_TRACKING_URI``."""

from __future__ import annotations

import logging
import os
import re
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cluster.storage import storage
from configs import InputError

EXPERIMENT = "headstart"
_SECRET_NAME = re.compile(r"token|secret|passw|credential|api[_-]?key|access[_-]?key", re.IGNORECASE)


def tracking_uri() -> str:
    """``MLFLOW_TRACKING_URI``, or the SQLite file in ``HEADSTART_HOME`` (default ``~/.headstart``)."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{storage.home() / 'mlflow.db'}"


def shown_uri() -> str:
    """The tracking URI without user and password, for people's eyes."""
    return without_password(tracking_uri())


def without_password(text: str) -> str:
    """``text`` with the user part of any URL in it taken out."""
    return re.sub(r"(\w+://)[^/@\s]+@", r"\1", text)


def is_secret(name: str) -> bool:
    """Whether a parameter's name says that its value must not be recorded."""
    return bool(_SECRET_NAME.search(name))


def reachable(timeout: float = 3.0) -> bool:
    """Whether the server's port answers; the embedded store always does."""
    parts = urlsplit(tracking_uri())
    if parts.scheme not in ("http", "https"):
        return True
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        with socket.create_connection((parts.hostname or "", port), timeout=timeout):
            return True
    except (OSError, ValueError):
        return False


def client() -> Any:
    """An ``MlflowClient`` for runs and models.

    Raises:
        InputError: MLflow is not installed, or the server does not answer.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
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
    if uri.startswith("sqlite:///"):
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def experiment(connected: Any) -> str:
    """The id of our experiment (``MLFLOW_EXPERIMENT_NAME`` or ``headstart``), created when absent."""
    from mlflow.exceptions import MlflowException

    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
    found = connected.get_experiment_by_name(name)
    if found is not None:
        return found.experiment_id
    embedded = "MLFLOW_TRACKING_URI" not in os.environ
    try:
        return connected.create_experiment(
            name, artifact_location=(storage.home() / "artifacts").absolute().as_uri() if embedded else None
        )
    except MlflowException:
        # Another process was first.
        found = connected.get_experiment_by_name(name)
        if found is None:
            raise
        return found.experiment_id


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested parameters as ``{"a.b": text}``; secrets are left out, URLs lose their passwords, long texts are cut."""
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
