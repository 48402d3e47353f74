"""Registry and tracker: versions by alias, verified pulls, plain MLflow, a server that goes away, no secrets."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from cluster.registry import mlflow_client, registry, spool
from cluster.registry.run_log import RunLog
from cluster.storage import storage
from configs import InputError

INFO = {
    "schema": 1,
    "prior": "sync-expert",
    "config": {"steps": 3},
    "rig": {"name": "mediapipe-478/1", "sha256": "a" * 64},
    "features": {"name": "logmel", "size": 160},
    "dataset": {"fingerprint": "f" * 16, "identities": ["ann", "bob"], "hours": 0.1, "licences": ["CC-BY-4.0"]},
    "metrics": {"accuracy": 0.75},
    "code_version": "0.1.0",
    "serving": {
        "module": "registry_toy",
        "inputs": [{"name": "x", "dtype": "float32", "shape": [-1, 2]}],
        "outputs": [{"name": "y", "dtype": "float32", "shape": [-1, 3]}],
    },
}
TOY = '''
"""A loader module such as the registry's MLmodel names."""
from pathlib import Path
from safetensors.numpy import load_file

class Model:
    def __init__(self, weight):
        self.weight = weight
    def predict(self, data, params=None):
        return {"y": data["x"] @ self.weight}

def _load_pyfunc(path):
    return Model(load_file(Path(path) / "weights.safetensors")["weight"])
'''


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory) -> Path:
    """MLflow's SQLite file after its migrations, which take longer than any test here."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
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


def make_prior(folder: Path, seed: int = 0, **changes) -> Path:
    """A prior folder with random weights."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    weight = torch.randn(2, 3, generator=torch.Generator().manual_seed(seed))
    save_file({"weight": weight}, folder / "weights.safetensors")
    info = INFO | {"weights_sha256": storage.sha256(folder / "weights.safetensors")} | changes
    (folder / "prior.json").write_text(json.dumps(info))
    return folder


def test_the_first_version_is_champion_and_promotion_moves_the_alias(home, tmp_path):
    first = registry.register("sync-expert", make_prior(tmp_path / "a", 1), metrics={"accuracy": 0.5})
    second = registry.register(
        "sync-expert", make_prior(tmp_path / "b", 2), metrics={"accuracy": 0.9}, aliases=("latest",)
    )
    assert (first["version"], second["version"]) == (1, 2)
    assert registry.show("sync-expert", "champion")["version"] == 1
    assert registry.show("sync-expert", "latest")["version"] == 2
    assert registry.promote("sync-expert", 2)["aliases"] == ["champion"]
    listed = registry.list_models()
    assert [(v["version"], v["aliases"]) for v in listed[0]["versions"]] == [(1, []), (2, ["champion"])]
    assert listed[0]["versions"][1]["metrics"] == {"accuracy": 0.9}


def test_a_version_that_does_not_fit_the_other_champions_never_becomes_champion_in_silence(home, tmp_path, caplog):
    first = registry.register("sync-expert", make_prior(tmp_path / "a"))
    assert first["champion"]
    assert first["misfit"] is None
    hears = {"prior": "audio-expression", "features": {"name": "hubert", "size": 1024}}
    other = registry.register("audio-expression", make_prior(tmp_path / "b", **hears))
    assert not other["champion"]
    assert "hubert" in other["misfit"]
    assert "audio-expression/1 does not become champion" in caplog.text
    fitting = registry.register("audio-expression", make_prior(tmp_path / "c", prior="audio-expression"))
    assert fitting["champion"]
    asked = registry.promote("audio-expression", 1)
    assert asked["aliases"] == ["champion"]
    assert "hubert" in asked["misfit"]


def test_show_tells_rig_features_data_and_licences_without_a_download(home, tmp_path):
    registry.register("sync-expert", make_prior(tmp_path / "a"), config={"steps": 3, "model": {"width": 8}})
    shown = registry.show("sync-expert")
    assert shown["rig"] == INFO["rig"]
    assert shown["features"] == INFO["features"]
    assert shown["licences"] == ["CC-BY-4.0"]
    assert shown["dataset"]["identities"] == 2
    assert shown["config"] == {"steps": "3", "model.width": "8"}


@pytest.mark.parametrize(
    "uri", ["models:/sync-expert@champion", "models:/sync-expert/1", "sync-expert", "sync-expert@latest"]
)
def test_a_pulled_prior_is_the_registered_one(home, tmp_path, uri):
    source = make_prior(tmp_path / "a")
    registry.register("sync-expert", source)
    pulled = registry.resolve(uri)
    for name in ("weights.safetensors", "prior.json"):
        assert (pulled / name).read_bytes() == (source / name).read_bytes()
    assert not list(pulled.rglob("*.pkl"))


def test_a_second_pull_reads_the_cache_and_a_damaged_copy_is_fetched_again(home, tmp_path):
    registry.register("sync-expert", make_prior(tmp_path / "a"))
    pulled = registry.resolve("sync-expert")
    inode = (pulled / "weights.safetensors").stat().st_ino
    assert registry.resolve("sync-expert") == pulled
    assert (pulled / "weights.safetensors").stat().st_ino == inode
    good = (pulled / "weights.safetensors").read_bytes()
    (pulled / "weights.safetensors").write_bytes(b"x" + good[1:])
    assert (registry.resolve("sync-expert") / "weights.safetensors").read_bytes() == good


def test_a_version_changed_in_the_artifact_store_is_refused(home, tmp_path):
    registry.register("sync-expert", make_prior(tmp_path / "a"))
    stored = next((home / "artifacts").rglob("weights.safetensors"))
    stored.write_bytes(stored.read_bytes()[:-1] + b"!")
    with pytest.raises(InputError, match="damaged"):
        registry.resolve("sync-expert")
    mark = stored.with_name(storage.COMMIT_MARK)
    content = storage.read_json(mark)
    content["files"]["weights.safetensors"]["sha256"] = storage.sha256(stored)
    storage.write_json(mark, content)
    with pytest.raises(InputError, match="its manifest has sha256"):
        registry.resolve("sync-expert")


def test_unknown_names_versions_and_aliases_are_one_sentence_with_the_known_ones(home, tmp_path):
    with pytest.raises(InputError, match="is empty"):
        registry.resolve("sync-expert")
    registry.register("sync-expert", make_prior(tmp_path / "a"))
    with pytest.raises(InputError, match="did you mean 'sync-expert'"):
        registry.show("sync-exprt")
    with pytest.raises(InputError, match=r"no version or alias '7'.*1 @champion"):
        registry.show("sync-expert", 7)
    with pytest.raises(InputError, match="not allowed"):
        registry.promote("sync-expert", 1, alias="latest")


def test_a_folder_that_is_no_prior_or_is_damaged_is_not_registered(home, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no prior\.json"):
        registry.register("sync-expert", tmp_path / "empty")
    folder = make_prior(tmp_path / "a")
    (folder / "weights.safetensors").write_bytes(b"other")
    with pytest.raises(InputError, match="checksum"):
        registry.register("sync-expert", folder)
    with pytest.raises(InputError, match="model name"):
        registry.register("../x", make_prior(tmp_path / "b"))


@pytest.mark.slow
def test_a_plain_mlflow_user_in_another_process_loads_the_champion_by_alias(home, tmp_path):
    source = make_prior(tmp_path / "a", 5)
    registry.register("sync-expert", source)
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "registry_toy.py").write_text(TOY)
    script = """
import json, mlflow, numpy as np
model = mlflow.pyfunc.load_model("models:/sync-expert@champion")
inputs = model.metadata.signature.inputs
print(json.dumps({"y": model.predict({"x": np.eye(2, dtype=np.float32)})["y"].tolist(), "names": inputs.input_names()}))
try:
    model.predict({"x": np.zeros((4, 5), np.float32)})
except mlflow.exceptions.MlflowException as error:
    print("refused")
"""
    environment = os.environ | {
        "MLFLOW_TRACKING_URI": mlflow_client.tracking_uri(),
        "PYTHONPATH": f"{tmp_path / 'code'}{os.pathsep}{Path(__file__).parents[2]}",
    }
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = done.stdout.strip().splitlines()[-2:]
    from safetensors.torch import load_file

    np.testing.assert_array_equal(json.loads(first)["y"], load_file(source / "weights.safetensors")["weight"].numpy())
    assert json.loads(first)["names"] == ["x"]
    assert second == "refused"


# ------------------------------------------------------------------------------------------------ tracking


def _only_run():
    client = mlflow_client.client()
    runs = client.search_runs([mlflow_client.experiment(client)])
    assert len(runs) == 1
    return client, runs[0]


def test_metrics_pictures_and_files_arrive_in_one_run(home, tmp_path):
    tracker = RunLog("first", {"steps": 2, "model": {"width": 4}}, run=str(tmp_path / "run"), every=60)
    for step in range(3):
        tracker.log({"loss": 1.0 / (step + 1), "bad": float("nan")}, step)
    tracker.image("face", np.linspace(0, 1, 12).reshape(2, 2, 3), 2)
    (tmp_path / "report.md").write_text("good")
    tracker.artifact(tmp_path / "report.md")
    tracker.close()
    client, run = _only_run()
    assert run.data.params == {"steps": "2", "model.width": "4"}
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [(m.step, m.value) for m in history] == [(0, 1.0), (1, 0.5), (2, 1 / 3)]
    assert "bad" not in run.data.metrics
    assert run.info.status == "FINISHED"
    names = {f.path for f in client.list_artifacts(run.info.run_id)}
    assert names == {"images", "report.md"}
    assert client.list_artifacts(run.info.run_id, "images/face")[0].path.endswith("step-00000002.png")
    assert not spool.waiting()


def test_a_resumed_training_goes_on_in_the_same_run_and_its_version_belongs_to_it(home, tmp_path):
    for part in range(2):
        tracker = RunLog("again", {"steps": 2}, run=str(tmp_path / "run"), every=60)
        tracker.log({"loss": float(part)}, part)
        tracker.close()
    registry.register("sync-expert", make_prior(tmp_path / "a"), metrics={"accuracy": 1.0}, run=tmp_path / "run")
    client, run = _only_run()
    assert len(client.get_metric_history(run.info.run_id, "loss")) == 2
    assert registry.show("sync-expert")["run_id"] == run.info.run_id


def test_secrets_never_reach_parameters(home, tmp_path):
    flat = mlflow_client.flatten(
        {
            "aws_secret_access_key": "hush",
            "api-key": "hush",
            "auth": {"token": "hush"},
            "data": "https://me:hush@host/x",
        }
    )
    assert flat == {"data": "https://host/x"}


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_training_goes_on_without_its_server_and_all_is_sent_later(home, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{_free_port()}")
    tracker = RunLog("away", {"steps": 1}, run=str(tmp_path / "run"), every=0.05)
    tracker.log({"loss": 2.0}, 0)
    time.sleep(0.2)
    tracker.log({"loss": 1.0}, 1)
    tracker.close(patience=10)
    waiting = registry.register("sync-expert", make_prior(tmp_path / "a"), run=tmp_path / "run")
    assert waiting["version"] is None
    assert "metrics wait in" in capsys.readouterr().err
    assert len(spool.waiting()) == 1
    monkeypatch.delenv("MLFLOW_TRACKING_URI")  # the embedded store stands for the server that came back
    assert spool.send_all()["error"] is None
    assert [r["name"] for r in registry.register_waiting()] == ["sync-expert"]
    client, run = _only_run()
    assert [m.value for m in client.get_metric_history(run.info.run_id, "loss")] == [2.0, 1.0]
    assert registry.show("sync-expert")["run_id"] == run.info.run_id
    assert not spool.waiting()


def test_a_diary_line_cut_short_by_a_crash_loses_only_itself(home):
    diary = spool.Spool("torn", "torn", {})
    diary.write({"metrics": {"loss": 1.0}, "step": 0, "time": 1})
    diary.close()
    with open(diary.folder / "diary.jsonl", "ab") as stream:
        stream.write(b'{"metrics": {"lo')
    again = spool.Spool("torn", "torn", {})
    again.write({"metrics": {"loss": 3.0}, "step": 2, "time": 3})
    again.close()
    assert spool.send(again.folder) == 3
    client, run = _only_run()
    assert [m.step for m in client.get_metric_history(run.info.run_id, "loss")] == [0, 2]


def test_sending_twice_repeats_nothing(home):
    diary = spool.Spool("twice", "twice", {})
    diary.write({"metrics": {"loss": 1.0}, "step": 0, "time": 1})
    spool.send(diary.folder)
    (diary.folder / "sent").unlink()  # as after a crash between sending and writing it down
    spool.send(diary.folder)
    diary.close()
    client, run = _only_run()
    assert len(client.get_metric_history(run.info.run_id, "loss")) == 1
