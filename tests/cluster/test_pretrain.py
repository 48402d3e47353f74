"""A real prior through all of it: trained from S3 to S3 through faults, registered, served by plain MLflow."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from cluster import checkpoint
from cluster.registry import registry
from cluster.storage import storage
from pretrain.train import pretrain
from tests.pretrain.test_loop import SMALL
from tests.support.s3_faults import BUCKET, s3_server
from tests.support.talkers import talkers

pytestmark = pytest.mark.slow
PRIOR = "audio-expression"
CONFIG = {**SMALL, "steps": 4, "checkpoint_every": 2}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A registry of this file alone."""
    before, folder = os.environ.get("HEADSTART_HOME"), tmp_path_factory.mktemp("home")
    os.environ["HEADSTART_HOME"] = str(folder)
    yield folder
    os.environ.pop("HEADSTART_HOME") if before is None else os.environ.update(HEADSTART_HOME=before)


@pytest.fixture(scope="module")
def on_disk(home, tmp_path_factory) -> dict:
    """The same training on disk, undisturbed."""
    return pretrain(PRIOR, talkers(), CONFIG, str(tmp_path_factory.mktemp("disk") / "run"), ray=False)


def test_pretraining_from_s3_to_s3_through_faults_gives_the_weights_of_a_local_run(
    home, on_disk, tmp_path, monkeypatch
):
    with s3_server() as s3:
        for path in sorted(p for p in storage.local_path(talkers()).rglob("*") if p.is_file()):
            storage.publish(path, f"s3://{BUCKET}/data/{path.relative_to(talkers())}")
        faults = ["503", "reset", "cut", "lost"]
        s3.plan = lambda method, path, number: faults[number % 4] if number % 9 == 0 else None
        run = f"s3://{BUCKET}/run"
        result = pretrain(PRIOR, f"s3://{BUCKET}/data", CONFIG, run, ray=False)
        s3.heal()
        assert result["weights_sha256"] == on_disk["weights_sha256"]
        assert result["checkpoint"] == checkpoint.checkpoint_url(run, 4)
        assert [c.step for c in checkpoint.list_checkpoints(run)] == [2, 4]
        pulled = registry.resolve(f"{run}/prior", tmp_path)
        assert storage.sha256(pulled / "weights.safetensors") == result["weights_sha256"]


def test_no_secret_is_in_a_run_a_registry_or_a_log(home, on_disk, tmp_path, monkeypatch, capfd):
    secret = "squeamish-ossifrage"
    for name in ("AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD", "RAY_AUTH_TOKEN", "HF_TOKEN"):
        monkeypatch.setenv(name, secret)
    pretrain(PRIOR, talkers(), {**CONFIG, "steps": 2}, str(tmp_path / "run"), ray=False)
    printed = capfd.readouterr()
    written = [path for root in (tmp_path, home) for path in root.rglob("*") if path.is_file()]
    assert {"weights.safetensors", "mlflow.db"} <= {path.name for path in written}
    assert not [path for path in written if secret.encode() in path.read_bytes()]
    assert secret not in printed.out + printed.err


SERVED = """
import mlflow, numpy as np, sys
from mlflow.exceptions import MlflowException
served = mlflow.pyfunc.load_model(f"models:/{sys.argv[1]}@champion")
assert served.metadata.signature.inputs.input_names() == ["features"]
features = np.load("features.npy")
np.save("expression.npy", served.predict({"features": features})["expression"])
try:
    served.predict({"features": features[:, :7]})
except MlflowException:
    print("refused")
"""


def test_a_clean_process_with_plain_mlflow_pulls_the_prior_by_alias_and_says_what_we_say(home, on_disk, tmp_path):
    from cluster.registry import mlflow_client
    from pretrain import load_prior

    features = np.random.default_rng(0).normal(size=(60, 160)).astype(np.float32)
    np.save(tmp_path / "features.npy", features)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HEADSTART")}
    environment |= {"MLFLOW_TRACKING_URI": mlflow_client.tracking_uri()}
    done = subprocess.run(
        [sys.executable, "-c", SERVED, PRIOR],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip().splitlines()[-1] == "refused"
    ours = load_prior(f"models:/{PRIOR}@champion").sample(features)["expression"]
    np.testing.assert_array_equal(np.load(tmp_path / "expression.npy"), ours)


def test_one_training_is_one_run_and_its_version_belongs_to_it(home, on_disk):
    from cluster.registry import mlflow_client, spool
    from cluster.registry import run_log as tracking

    spool.send_all()
    client = mlflow_client.client()
    run = spool.find_run(client, tracking.run_key(on_disk["run"]))
    assert registry.show(PRIOR, on_disk["registered"]["version"])["run_id"] == run.info.run_id
    assert run.data.params["batch_size"] == str(CONFIG["batch_size"])
    assert client.get_metric_history(run.info.run_id, "loss")
