#!/usr/bin/env bash
# Guess: once "mlflow gc" has deleted the run and the files behind a registered model version, the registry shows the
#   version as broken, or downloading it raises an error.
# Behaviour: the version stays READY and keeps its alias. download_artifacts("models:/prior@best") creates an empty
#   folder and returns its path as after a success.
# Why it matters to a user of this field: priors are trained in many runs and old runs are cleaned up. The alias that
#   serves everyone then points at nothing, and the failure shows as a missing file far from the registry. Compare the
#   downloaded files with a list before using them, and delete a run only if no version refers to it.
# Versions: mlflow-skinny 3.17.0 with SQLAlchemy 2.1.9 and alembic 1.20.1, Python 3.11. Date: 2026-11-29.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check mlflow-skinny==3.17.0 sqlalchemy==2.1.9 alembic==1.20.1

export MLFLOW_DISABLE_TELEMETRY=true
cat >registry.py <<'EOF'
import logging
import os
import subprocess
import sys
from pathlib import Path

import mlflow

logging.disable(logging.INFO)
URI = "sqlite:///registry.db"
mlflow.set_tracking_uri(URI)
mlflow.set_registry_uri(URI)
client = mlflow.MlflowClient()
experiment = client.create_experiment("priors", artifact_location=Path("artifacts").absolute().as_uri())
run = client.create_run(experiment).info
Path("weights.bin").write_bytes(bytes(1000))
client.log_artifact(run.run_id, "weights.bin", "prior")
client.create_registered_model("prior")
version = client.create_model_version("prior", f"{run.artifact_uri}/prior", run.run_id)
client.set_registered_model_alias("prior", "best", version.version)


def download(folder):
    return sorted(os.listdir(mlflow.artifacts.download_artifacts("models:/prior@best", dst_path=folder)))


before = download("before")
client.delete_run(run.run_id)
collect = [sys.executable, "-m", "mlflow", "gc", "--backend-store-uri", URI]
subprocess.run(collect, check=True, capture_output=True)
status = client.get_model_version_by_alias("prior", "best").status
try:
    after = download("after")
except Exception as error:
    after = type(error).__name__
print(f"before gc: files {before}; after gc: status {status}, files {after}")
if not (before == ["weights.bin"] and status == "READY" and after == []):
    raise SystemExit("Changed: mlflow notices that the files of a registered version are gone.")
EOF
venv/bin/python registry.py
