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


def test_json_is_one_object_on_the_last_line(capsys):
    headstart.main(["doctor", "--json"])
    result = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert {"ok", "checks"} <= result.keys()
    assert all({"name", "ok", "detail", "fix"} <= check.keys() for check in result["checks"])


def test_a_mistake_of_ours_is_not_hidden(monkeypatch):
    monkeypatch.setattr(headstart, "_load", lambda target: (_ for _ in ()).throw(RuntimeError("broken")))
    with pytest.raises(RuntimeError, match="broken"):
        headstart.main(["doctor"])
