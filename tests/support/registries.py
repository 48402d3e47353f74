"""Fixtures: an embedded registry of each test alone, with MLflow's migrations done once."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from cluster.registry import mlflow_client


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory) -> Path:
    """MLflow's SQLite file after its migrations, which take longer than any test here; made once for all modules."""
    path = tmp_path_factory.getbasetemp() / "empty-mlflow.db"
    if path.exists():
        return path
    before = os.environ.get("MLFLOW_TRACKING_URI")
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{path}"
    mlflow_client.client().search_registered_models()
    del os.environ["MLFLOW_TRACKING_URI"]
    if before is not None:
        os.environ["MLFLOW_TRACKING_URI"] = before
    return path


@pytest.fixture
def home(tmp_path, monkeypatch, empty_store):
    """An embedded registry of this test alone."""
    monkeypatch.setenv("HEADSTART_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "home").mkdir()
    shutil.copyfile(empty_store, tmp_path / "home" / "mlflow.db")
    return tmp_path / "home"
