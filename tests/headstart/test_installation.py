"""The doctor: every check answers, nothing secret is shown, and a broken machine is no crash."""

from __future__ import annotations

import json

from headstart import installation as doctor


def test_the_doctor_answers_every_check_with_a_name_a_detail_and_a_fix():
    report = doctor.doctor()
    names = [check["name"] for check in report["checks"]]
    assert {"python", "torch", "gpu", "nccl", "ray", "deepspeed", "gsplat", "tinycudann", "mediapipe", "s3"} <= set(
        names
    )
    assert {"mlflow", "disk", "live page"} <= set(names)
    assert all(set(check) == {"name", "ok", "detail", "fix"} and check["detail"] for check in report["checks"])
    assert report["ok"] == all(check["ok"] for check in report["checks"])
    json.dumps(report)


def test_the_doctor_says_when_a_configured_service_does_not_answer_and_hides_secrets(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://me:hush@127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "tester")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-hush")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:hush@127.0.0.1:9")
    store, registry = doctor.check_s3(), doctor.check_mlflow()
    assert not store.ok
    assert not registry.ok
    assert "MLFLOW_TRACKING_URI" in registry.fix
    assert "hush" not in f"{store} {registry}"


def test_a_check_that_breaks_is_a_finding_and_not_a_crash(monkeypatch):
    def check_torn() -> doctor.Check:
        raise RuntimeError("torn")

    monkeypatch.setattr(doctor, "CHECKS", (check_torn,))
    assert doctor.doctor() == {
        "ok": False,
        "checks": [{"name": "torn", "ok": False, "detail": "RuntimeError: torn", "fix": "see the detail"}],
    }


def test_the_doctor_says_how_to_get_the_live_page_where_its_server_is_absent(monkeypatch):
    monkeypatch.setattr(doctor, "installed", lambda package: None)
    check = doctor.check_live()
    assert check.ok
    assert check.detail == "absent; headstart live does not run"
    assert check.fix == 'pip install "headstart[live]"'
