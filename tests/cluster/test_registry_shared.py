"""A registry that others use, too, that refuses, or that is no registry at all."""

from __future__ import annotations

import http.server
import os
import signal
import subprocess
import sys
import threading

import pytest

from adapt.priors import champions_of, find_priors
from cluster.registry import mlflow_client, registry, versions
from cluster.registry.versions import NotRegistered
from configs import InputError
from pretrain.roles import SYNC
from tests.support.prior_folders import make_prior
from tests.support.waiting import wait_until


@pytest.fixture
def stub(monkeypatch):
    """A web server that is no MLflow and answers every request in the same way; returns a function that starts it."""
    servers = []

    def start(status):
        class Answer(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(status)
                self.send_header("Content-Length", "4")
                self.end_headers()
                self.wfile.write(b"<hi>")

            do_POST = do_PATCH = do_GET

            def log_message(self, *_):
                pass

        servers.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{servers[-1].server_port}")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")

    yield start
    for server in servers:
        server.shutdown()


def foreign_version(name):
    """A version that another tool registered."""
    client = mlflow_client.client()
    run = client.create_run(mlflow_client.experiment(client))
    client.log_text(run.info.run_id, "x", "model/MLmodel")
    if name not in {model.name for model in client.search_registered_models()}:
        client.create_registered_model(name)
    source = f"{run.info.artifact_uri}/model"
    return int(client.create_model_version(name, source=source, run_id=run.info.run_id).version)


@pytest.mark.parametrize("status", [200, 401, 404, 500])
def test_a_server_that_is_no_mlflow_or_refuses_is_one_sentence_in_every_command(home, stub, status):
    stub(status)
    questions = (
        registry.list_models,
        lambda: registry.show("sync-expert", 1),
        lambda: registry.resolve("models:/sync-expert@champion"),
        lambda: registry.resolve("runs:/abc/prior"),
        lambda: registry.promote("sync-expert", 1),
    )
    for question in questions:
        with pytest.raises(InputError, match=r"^MLflow at http://127\S+ does not serve the registry .*TRACKING_URI"):
            question()
    assert "does not serve the registry" in mlflow_client.trouble()


@pytest.mark.parametrize("uri", ["localhost:5000", "127.0.0.1:5000/", "mlflow.example.org:80", " "])
def test_an_address_without_http_is_a_sentence_and_makes_no_folder(home, tmp_path, monkeypatch, uri):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    with pytest.raises(InputError, match=r"expected a URL such as http://127\.0\.0\.1:5000"):
        registry.list_models()
    assert not list(here.iterdir())


def test_models_of_others_are_not_listed_and_none_of_our_priors_is_lost_among_them(home, tmp_path, monkeypatch):
    client = mlflow_client.client()
    for number in range(7):
        client.create_registered_model(f"a-model-of-others-{number}")
    foreign_version("a-model-of-others-3")
    registry.register("sync-expert", make_prior(tmp_path / "a"))

    real = type(client).search_registered_models
    monkeypatch.setattr(
        type(client), "search_registered_models", lambda self, **k: real(self, **k | {"max_results": 3})
    )
    found = type(client).search_model_versions
    monkeypatch.setattr(
        type(client), "search_model_versions", lambda self, *a, **k: found(self, *a, **k | {"max_results": 1})
    )
    assert [model["name"] for model in registry.list_models()] == ["sync-expert"]
    assert len(versions.every(client.search_registered_models)) == 8
    with pytest.raises(NotRegistered, match=r"no version or alias '7' \(it has 1 @champion\)"):
        registry.show("sync-expert", 7)
    hears = {"prior": "audio-expression", "features": {"name": "hubert", "size": 1024}}
    assert "hubert" in registry.register("audio-expression", make_prior(tmp_path / "b", **hears))["misfit"]


def test_a_version_that_others_registered_under_our_name_is_called_so_and_not_promoted(home, tmp_path):
    registry.register("sync-expert", make_prior(tmp_path / "a"))
    version = foreign_version("sync-expert")
    with pytest.raises(InputError, match="sync-expert/2: not registered by headstart"):
        registry.promote("sync-expert", version)
    assert registry.show("sync-expert", "champion")["version"] == 1
    mlflow_client.client().set_registered_model_alias("sync-expert", "champion", str(version))
    listed = registry.list_models()[0]["versions"][1]
    assert listed["missing"].startswith("models:/sync-expert/2: not registered by headstart")


def test_a_version_whose_files_are_gone_is_not_promoted(home, tmp_path):
    for seed in (1, 2):
        registry.register("sync-expert", make_prior(tmp_path / f"{seed}", seed))
    client = mlflow_client.client()
    client.delete_run(client.get_model_version("sync-expert", "2").run_id)
    stored = sorted((home / "artifacts").rglob("weights.safetensors"), key=lambda path: path.stat().st_mtime)
    stored[-1].unlink()
    with pytest.raises(InputError, match="sync-expert/2: its files are gone"):
        registry.promote("sync-expert", 2)
    assert registry.show("sync-expert", "champion")["version"] == 1


def test_a_champion_is_not_replaced_because_the_server_could_not_say_who_it_is(home, tmp_path, monkeypatch):
    from mlflow.exceptions import MlflowException

    registry.register("sync-expert", make_prior(tmp_path / "a", 1))
    client = mlflow_client.client()

    def refuse(self, name, alias):
        raise MlflowException("the data base is locked")

    with monkeypatch.context() as patch:
        patch.setattr(type(client), "get_model_version_by_alias", refuse)
        assert registry.register("sync-expert", make_prior(tmp_path / "b", 2))["version"] is None
    assert registry.show("sync-expert", "champion")["version"] == 1


def test_an_adaptation_says_which_champion_it_goes_without_and_why(home, tmp_path, caplog):
    caplog.set_level("INFO", "headstart")
    assert find_priors(None) == []
    assert caplog.text == ""  # nothing is registered: nothing to say
    registry.register("sync-expert", make_prior(tmp_path / "a"))
    assert len(champions_of(SYNC)) == 1
    stored = next((home / "artifacts").rglob("weights.safetensors"))
    stored.write_bytes(b"changed")
    for folder in (home / "priors" / "sync-expert").iterdir():
        (folder / "weights.safetensors").unlink()
    assert champions_of(SYNC) == []
    assert "without models:/sync-expert@champion: " in caplog.text


def test_an_adaptation_says_once_that_the_server_does_not_answer(home, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    caplog.set_level("INFO", "headstart")
    assert find_priors(None) == []
    said = [record.getMessage() for record in caplog.records if record.name == "headstart"]
    assert len(said) == 1
    assert "no MLflow server answers at http://127.0.0.1:9" in said[0]
    assert all(
        f"models:/{name}@champion" in said[0] for name in ("audio-expression", "expression-visual", "sync-expert")
    )


def test_a_pull_that_is_killed_leaves_nothing_after_the_next_one(home, tmp_path):
    registry.register("sync-expert", make_prior(tmp_path / "a"))
    code = (
        "import time, mlflow.artifacts\n"
        "real = mlflow.artifacts.download_artifacts\n"
        "def slow(**k):\n"
        "    real(**k)\n"
        "    time.sleep(60)\n"
        "mlflow.artifacts.download_artifacts = slow\n"
        "from cluster.registry import registry\n"
        "registry.resolve('sync-expert')\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], env=os.environ.copy())
    cache = home / "priors" / "sync-expert"
    try:
        wait_until(lambda: list(cache.glob("*/**/weights.safetensors")))
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert len(list(cache.iterdir())) == 1
    folder = registry.resolve("sync-expert")
    assert list(cache.iterdir()) == [folder]
