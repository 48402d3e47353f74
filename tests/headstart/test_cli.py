"""The command line: exit statuses and sentences; what the commands do is tested with their rooms."""

from __future__ import annotations

import json

import pytest

import headstart


def test_wrong_input_is_one_sentence_and_status_2(capsys, tmp_path):
    status = headstart.main(["shards", "info", str(tmp_path / "absent")])
    printed = capsys.readouterr()
    assert status == 2
    assert "absent" in printed.err
    assert "Traceback" not in printed.err
    assert len(printed.err.strip().splitlines()) == 1


@pytest.mark.parametrize("arguments", [["adapt", "clip.mp4"], ["shards"], ["nonsense"], ["talk", "--out", "x.mp4"]])
def test_a_wrong_command_line_points_at_help_and_exits_with_2(capsys, arguments):
    with pytest.raises(SystemExit) as exit_:
        headstart.main(arguments)
    assert exit_.value.code == 2
    assert "--help" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", ["sync-expert steps=4 seed=1 --data D", "sync-expert --data D steps=4 --no-ray seed=1"]
)
def test_keys_of_a_training_may_stand_anywhere_on_the_line(monkeypatch, words):
    monkeypatch.setattr(headstart, "_load", lambda target: lambda *positional, **named: {"got": named["overrides"]})
    printed: list[dict] = []
    monkeypatch.setattr(headstart, "_print", lambda result, as_json: printed.append(result))
    assert headstart.main(["pretrain", *words.split()]) == 0
    assert printed == [{"got": ["steps=4", "seed=1"]}]


def test_a_misspelt_option_of_a_training_is_no_key(capsys):
    with pytest.raises(SystemExit):
        headstart.main(["pretrain", "sync-expert", "--data", "D", "--step=4"])
    assert "unrecognized arguments: --step=4" in capsys.readouterr().err


def test_json_is_one_object_on_the_last_line(capsys):
    headstart.main(["doctor", "--json"])
    result = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert {"ok", "checks"} <= result.keys()
    assert all({"name", "ok", "detail", "fix"} <= check.keys() for check in result["checks"])


def test_a_mistake_of_ours_is_not_hidden(monkeypatch):
    monkeypatch.setattr(headstart, "_load", lambda target: (_ for _ in ()).throw(RuntimeError("broken")))
    with pytest.raises(RuntimeError, match="broken"):
        headstart.main(["doctor"])


def test_the_doctor_says_which_backend_will_render():
    checks = {check["name"]: check for check in headstart._doctor(None)["checks"]}
    assert {"python", "torch", "rendering"} <= set(checks)
    assert checks["rendering"]["detail"].startswith(("cpu", "gsplat", "torch"))
