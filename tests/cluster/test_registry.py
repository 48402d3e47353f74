"""Registry and tracker: versions by alias, verified pulls, plain MLflow, a server that goes away, no secrets."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cluster.registry import mlflow_client, registry
from cluster.storage import storage
from configs import InputError
from tests.support.prior_folders import INFO, make_prior, sqlite_registry

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


def test_the_first_version_is_champion_and_promotion_moves_the_alias(home, tmp_path):
    first = registry.register("sync-expert", make_prior(tmp_path / "a", 1), metrics={"accuracy": 0.5})
    second = registry.register(
        "sync-expert", make_prior(tmp_path / "b", 2), metrics={"accuracy": 0.9}, aliases=("latest",)
    )
    assert (first["version"], second["version"]) == (1, 2)
    assert registry.show("sync-expert", "champion")["version"] == 1
    assert registry.show("sync-expert", "latest")["version"] == 2
    promoted = registry.promote("sync-expert", 2)
    assert (promoted["aliases"], str(promoted["before"])) == (["champion"], "1")
    listed = registry.list_models()
    assert [(v["version"], v["aliases"]) for v in listed[0]["versions"]] == [(1, []), (2, ["champion"])]
    assert listed[0]["versions"][1]["metrics"] == {"accuracy": 0.9}


def test_a_version_that_does_not_fit_the_other_champions_never_becomes_champion_in_silence(home, tmp_path, caplog):
    first = registry.register("sync-expert", make_prior(tmp_path / "a"))
    assert first["champion"]
    assert first["misfit"] is None
    caplog.set_level("INFO", "headstart")
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


def test_a_registry_that_was_moved_finds_its_files_and_so_does_plain_mlflow(tmp_path, monkeypatch, capsys):
    old, new = tmp_path / "old home", tmp_path / "new"
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("HEADSTART_HOME", str(old))
    registry.register("sync-expert", make_prior(tmp_path / "a", 1))
    shutil.copytree(old, tmp_path / "copy")
    old.rename(new)
    monkeypatch.setenv("HEADSTART_HOME", str(new))
    shutil.rmtree(new / "priors", ignore_errors=True)
    assert (registry.resolve("models:/sync-expert@champion") / "weights.safetensors").is_file()
    assert registry.show("sync-expert", "champion")["source"].startswith((new / "artifacts").as_uri())
    assert not old.exists()
    again = registry.register("sync-expert", make_prior(tmp_path / "b", 2))
    assert registry.show("sync-expert", str(again["version"]))["source"].startswith((new / "artifacts").as_uri())

    monkeypatch.setenv("HEADSTART_HOME", str(tmp_path / "copy"))
    (tmp_path / "copy" / "artifacts").rename(tmp_path / "copy" / "artifacts-elsewhere")
    (tmp_path / "copy" / "artifacts").mkdir()
    shown = registry.show("sync-expert", "champion")["source"]
    assert shown.startswith((old / "artifacts").as_uri()), "a folder without its runs is not the registry's"


def test_a_second_pull_reads_the_cache_and_a_damaged_copy_is_fetched_again(home, tmp_path):
    registry.register("sync-expert", make_prior(tmp_path / "a"))
    pulled = registry.resolve("sync-expert")
    inode = (pulled / "weights.safetensors").stat().st_ino
    assert registry.resolve("sync-expert") == pulled
    assert (pulled / "weights.safetensors").stat().st_ino == inode
    good = (pulled / "weights.safetensors").read_bytes()
    (pulled / "weights.safetensors").write_bytes(b"x" + good[1:])
    assert (registry.resolve("sync-expert") / "weights.safetensors").read_bytes() == good


def test_a_registry_that_has_not_changed_is_not_opened_again_and_one_that_has_is(home, tmp_path, monkeypatch):
    registry.register("sync-expert", make_prior(tmp_path / "a", 1))
    registry.register("sync-expert", make_prior(tmp_path / "b", 2))
    first = registry.resolve("models:/sync-expert@champion")
    with pytest.raises(InputError, match="not in the registry"):
        registry.resolve("models:/audio-expression@champion")
    opened, real = [], mlflow_client.client
    monkeypatch.setattr(mlflow_client, "client", lambda: opened.append(1) or real())
    assert registry.resolve("models:/sync-expert@champion") == first
    with pytest.raises(InputError, match="not in the registry"):
        registry.resolve("models:/audio-expression@champion")
    assert not opened
    registry.promote("sync-expert", 2)
    opened.clear()
    second = registry.resolve("models:/sync-expert@champion")
    assert opened
    assert second != first
    shutil.rmtree(second)  # a cache that somebody emptied
    assert (registry.resolve("models:/sync-expert@champion") / "weights.safetensors").is_file()


def test_a_registry_that_does_not_exist_is_empty_and_is_not_made(tmp_path, monkeypatch):
    monkeypatch.setenv("HEADSTART_HOME", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(InputError, match="is empty"):
        registry.resolve("models:/sync-expert@champion")
    assert not list(tmp_path.iterdir())


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


# ------------------------------------------------------------------------------------------------ servers


def test_a_registration_waits_for_the_server_it_was_meant_for(home, tmp_path, empty_store, monkeypatch):
    monkeypatch.setattr(mlflow_client, "reachable", lambda: False)
    registry.register("sync-expert", make_prior(tmp_path / "p"))
    monkeypatch.setattr(mlflow_client, "reachable", lambda: True)
    before = mlflow_client.tracking_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", sqlite_registry(tmp_path / "other", empty_store))
    assert registry.register_waiting() == []
    monkeypatch.setenv("MLFLOW_TRACKING_URI", before)
    assert [r["version"] for r in registry.register_waiting()] == [1]


def test_a_registry_that_says_no_is_a_sentence_beforehand_and_a_postponed_registration_afterwards(
    home, tmp_path, monkeypatch
):
    assert registry.check() is None
    client = mlflow_client.client()
    client.delete_experiment(mlflow_client.experiment(client))
    with pytest.raises(InputError, match=r"experiment 'headstart' was deleted.*mlflow experiments restore"):
        registry.check()
    kept = registry.register("sync-expert", make_prior(tmp_path / "a"))
    assert kept["version"] is None
    assert Path(kept["waiting"], "prior", "weights.safetensors").is_file()
    with pytest.raises(InputError, match="was deleted"):
        registry.register("sync-expert", tmp_path / "a", postpone=False)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/file/mlflow.db")
    with pytest.raises(InputError, match=r"data base .* cannot be written"):
        registry.check()


def test_the_files_of_a_sqlite_registry_lie_beside_its_data_base(home, tmp_path, empty_store, monkeypatch, caplog):
    caplog.set_level("INFO", "headstart")
    sqlite_registry(tmp_path / "mine", empty_store)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mine/own.db")
    registry.register("sync-expert", make_prior(tmp_path / "a"))
    assert f"are placed beside it, in {tmp_path / 'mine' / 'artifacts'}" in caplog.text
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mine/own.db")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert registry.resolve("sync-expert").is_dir()
    assert list((tmp_path / "mine" / "artifacts").rglob("weights.safetensors"))
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("alias", ["v1", "V12", "Latest", "LATEST", "1", "a b"])
def test_aliases_that_mlflow_keeps_for_itself_are_a_sentence(home, tmp_path, alias):
    registry.register("sync-expert", make_prior(tmp_path / "a"))
    with pytest.raises(InputError, match=f"alias '{alias}'.*such as champion"):
        registry.promote("sync-expert", 1, alias=alias)


def test_an_alias_that_differs_only_in_case_is_refused(home, tmp_path):
    """Nothing would look under it: adaptations ask for @champion."""
    for seed in (1, 2):
        registry.register("sync-expert", make_prior(tmp_path / f"{seed}", seed))
    with pytest.raises(InputError, match="alias 'Champion': version 1 of sync-expert has 'champion', and case counts"):
        registry.promote("sync-expert", 2, alias="Champion")
    assert registry.promote("sync-expert", 2, alias="Better")["before"] is None
    assert registry.show("sync-expert", "champion")["version"] == 1


def test_a_champion_whose_files_are_gone_is_named_and_can_be_registered_again(home, tmp_path):
    storage.write_json(tmp_path / "run" / "tracking.json", {"key": "k1"})
    folder = make_prior(tmp_path / "a")
    first = registry.register("sync-expert", folder, run=tmp_path / "run")
    assert registry.list_models()[0]["versions"][0]["missing"] is None
    shutil.rmtree(next((home / "artifacts").glob("*/artifacts/prior")))
    listed = registry.list_models()[0]["versions"][0]
    assert listed["aliases"] == ["champion"]
    assert "its files are gone" in listed["missing"]
    with pytest.raises(InputError, match=r"sync-expert/1: its files (are gone|cannot be fetched)"):
        registry.resolve("sync-expert")
    again = registry.register("sync-expert", folder, run=tmp_path / "run")
    assert (first["version"], again["version"]) == (1, 2)


def test_a_transfer_that_breaks_off_names_the_file_and_the_reason_and_leaves_nothing(home, tmp_path, monkeypatch):
    from mlflow.exceptions import MlflowException

    def broken(*, artifact_uri, dst_path, tracking_uri):
        (Path(dst_path) / "half").write_bytes(b"x")
        raise MlflowException(
            "The following failures occurred while downloading one or more artifacts from http://127.0.0.1:5000/a:\n"
            "##### File prior/weights.safetensors #####\nRead timed out.\n##### File prior/prior.json #####\nReset."
        )

    registry.register("sync-expert", make_prior(tmp_path / "a"))
    monkeypatch.setattr("mlflow.artifacts.download_artifacts", broken)
    sentence = r"its files cannot be fetched \(prior/weights.safetensors: Read timed out.\); check the artifact store"
    with pytest.raises(InputError, match=sentence):
        registry.resolve("models:/sync-expert/1")
    assert not list((home / "priors").rglob("half"))


def test_the_same_prior_of_the_same_run_is_registered_once_and_a_longer_training_beside_it(home, tmp_path):
    storage.write_json(tmp_path / "run" / "tracking.json", {"key": "k1"})
    registered = [
        registry.register("sync-expert", make_prior(tmp_path / f"{seed}-{i}", seed), run=tmp_path / "run")["version"]
        for i, seed in enumerate((1, 1, 2, 2, 1))
    ]
    assert registered == [1, 1, 2, 2, 1]
    for version in (1, 2):
        pulled = registry.resolve(f"sync-expert/{version}")
        wanted = storage.sha256(next(tmp_path.glob(f"{version}-*")) / "weights.safetensors")
        assert storage.sha256(pulled / "weights.safetensors") == wanted


@pytest.mark.parametrize(
    "at", ["log_artifacts", "create_registered_model", "create_model_version", "set_registered_model_alias"]
)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_registration_killed_at_any_step_is_finished_by_the_next_attempt(home, tmp_path, monkeypatch, at, when):
    from mlflow import MlflowClient

    storage.write_json(tmp_path / "run" / "tracking.json", {"key": "k1"})
    folder, real = make_prior(tmp_path / "a"), getattr(MlflowClient, at)

    def killed(*args, **kwargs):
        if when == "after":
            real(*args, **kwargs)
        raise KeyboardInterrupt

    monkeypatch.setattr(MlflowClient, at, killed)
    with pytest.raises(KeyboardInterrupt):
        registry.register("sync-expert", folder, run=tmp_path / "run")
    monkeypatch.setattr(MlflowClient, at, real)
    assert registry.register("sync-expert", folder, run=tmp_path / "run")["version"] == 1
    listed = registry.list_models()[0]["versions"]
    assert [(v["version"], v["aliases"]) for v in listed] == [(1, ["champion"])]
    assert storage.sha256(registry.resolve("sync-expert") / "weights.safetensors") == listed[0]["weights_sha256"]
