"""Diaries of trainings: everything arrives once, in its own MLflow run, at its own server."""

from __future__ import annotations

import time

import numpy as np

from cluster.registry import mlflow_client, registry, spool
from cluster.registry.run_log import RunLog
from tests.support.prior_folders import make_prior, sqlite_registry


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


def test_a_training_goes_on_without_its_server_and_all_is_sent_later(home, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(mlflow_client, "reachable", lambda: False)
    caplog.set_level("INFO", "headstart")
    tracker = RunLog("away", {"steps": 1}, run=str(tmp_path / "run"), every=0.05)
    tracker.log({"loss": 2.0}, 0)
    time.sleep(0.2)
    tracker.log({"loss": 1.0}, 1)
    tracker.close()
    waiting = registry.register("sync-expert", make_prior(tmp_path / "a"), run=tmp_path / "run")
    assert waiting["version"] is None
    assert "metrics wait in" in caplog.text
    assert len(spool.waiting()) == 1
    monkeypatch.setattr(mlflow_client, "reachable", lambda: True)
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
    diary.send()
    (diary.folder / "sent").unlink()  # as after a crash between sending and writing it down
    diary.send()
    diary.close()
    client, run = _only_run()
    assert len(client.get_metric_history(run.info.run_id, "loss")) == 1


def _losses(uri: str, monkeypatch) -> dict[str, list[float]]:
    """What a server knows: run name to the history of its loss."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    client = mlflow_client.client()
    runs = client.search_runs([mlflow_client.experiment(client)])
    return {r.info.run_name: [m.value for m in client.get_metric_history(r.info.run_id, "loss")] for r in runs}


def test_two_trainings_at_once_each_reach_their_own_data_base(home, tmp_path, empty_store, monkeypatch):
    uris = [sqlite_registry(tmp_path / name, empty_store) for name in ("a", "b")]
    logs = []
    for name, uri in zip("ab", uris):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        logs.append(RunLog(name, {}, run=str(tmp_path / f"run-{name}"), every=60))
        logs[-1].log({"loss": 1.0}, 0)
    spool.send_all()  # of b's process: neither a's diary nor the living b's is its business
    for name, uri, log in zip("ab", uris, logs):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        log.log({"loss": 2.0}, 1)
        log.close()
        assert not log._spool.folder.exists(), name
    assert [_losses(uri, monkeypatch) for uri in uris] == [{"a": [1.0, 2.0]}, {"b": [1.0, 2.0]}]


def test_a_diary_whose_training_lives_is_left_alone_across_a_restart_of_rank_0(home):
    first = spool.Spool("alive", "alive", {})
    first.write({"metrics": {"loss": 1.0}, "step": 0, "time": 1})
    first.write({"end": "FAILED"})
    assert spool.send(first.folder) == 0
    assert spool.waiting() == []
    first.close()  # as the system does when the process dies
    again = spool.Spool("alive", "alive", {})
    assert spool.send_all()["sent"] == 0
    again.write({"metrics": {"loss": 2.0}, "step": 1, "time": 2})
    assert again.send() == 3
    assert again.folder.is_dir(), "the training still writes into it"
    again.write({"end": "FINISHED"})
    again.close()
    assert spool.send_all() == {"sent": 1, "waiting": 0, "error": None}
    assert not again.folder.exists()
    client, run = _only_run()
    assert [m.value for m in client.get_metric_history(run.info.run_id, "loss")] == [1.0, 2.0]
