"""A real prior through all of it: trained from S3 to S3 through faults, registered, served by plain MLflow."""

from __future__ import annotations

import numpy as np
import pytest

from cluster import checkpoint, registry, storage
from pretrain.train import pretrain
from tests.pretrain_data import talkers
from tests.s3_faults import BUCKET, s3_server
from tests.test_pretrain_loop import SMALL

pytestmark = pytest.mark.slow
PRIOR = "audio-expression"
CONFIG = {**SMALL, "steps": 4, "checkpoint_every": 2}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A registry of this file alone."""
    import os

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


def test_the_registered_prior_is_served_by_plain_mlflow_with_its_signature(home, on_disk):
    import mlflow
    from mlflow.exceptions import MlflowException

    from cluster import mlflow_client
    from pretrain import load_prior

    uri = f"models:/{PRIOR}/{on_disk['registered']['version']}"
    mlflow.set_tracking_uri(mlflow_client.tracking_uri())
    try:
        served = mlflow.pyfunc.load_model(uri)
    finally:
        mlflow.set_tracking_uri(None)
    assert served.metadata.signature.inputs.input_names() == ["features"]
    features = np.random.default_rng(0).normal(size=(60, 160)).astype(np.float32)
    motion = served.predict({"features": features})
    np.testing.assert_array_equal(motion["expression"], load_prior(uri).sample(features)["expression"])
    with pytest.raises(MlflowException):
        served.predict({"features": features[:, :7]})


def test_one_training_is_one_run_and_its_version_belongs_to_it(home, on_disk):
    from cluster import mlflow_client, spool, tracking

    spool.send_all()
    client = mlflow_client.client()
    run = spool.find_run(client, tracking.run_key(on_disk["run"]))
    assert registry.show(PRIOR, on_disk["registered"]["version"])["run_id"] == run.info.run_id
    assert run.data.params["batch_size"] == str(CONFIG["batch_size"])
    assert client.get_metric_history(run.info.run_id, "loss")
