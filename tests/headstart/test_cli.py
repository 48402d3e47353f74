"""The command line: exit statuses, sentences, tables; what the commands do is tested with their rooms."""

from __future__ import annotations

import errno
import io
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from datetime import datetime

import pytest

import headstart
from cluster.storage.errors import sentence
from configs.errors import resumable
from configs.words import shortened
from headstart.cli import adapt, app, doctor, evaluate, output, pretrain, priors, shards, talk
from headstart.cli.app import GROUPS, parser

LINES = {
    "demo": ["demo"],
    "doctor": ["doctor"],
    "shards": ["shards", "info", "D"],
    "pretrain": ["pretrain", "sync-expert", "--data", "D"],
    "priors": ["priors", "list"],
    "adapt": ["adapt", "me.mp4", "--out", "A"],
    "talk": ["talk", "A", "s.wav", "--out", "x.mp4"],
    "live": ["live", "A", "B", "--sessions", "2"],
    "evaluate": ["evaluate", "A", "me.mp4", "--out", "E"],
    "export": ["export", "A", "--out", "x.ply"],
    "detect": ["detect", "x.mp4"],
    "sign_init": ["sign-init", "DIR"],
    "track": ["track", "me.mp4", "--blendshapes", "x.csv"],
}


def printed(show, result, words) -> str:
    """What a person reads who runs a command and gets this result, in a pipe."""
    stream = io.StringIO()
    show(output.console(stream), result, parser().parse_args(words))
    return stream.getvalue()


def answering(monkeypatch, module, result):
    """The command's function answers this."""
    seen: list[tuple] = []

    def call(target, *arguments, **options):
        seen.append((target, arguments, options))
        if isinstance(result, BaseException):
            raise result
        return result

    monkeypatch.setattr(module, "call", call)
    return seen


def test_every_command_of_the_groups_parses():
    assert set(LINES) == {name for names in GROUPS.values() for name in names}
    for words in LINES.values():
        assert callable(parser().parse_args(words).run)


def test_wrong_input_is_one_sentence_and_status_2(capsys, tmp_path):
    status = headstart.main(["shards", "info", str(tmp_path / "absent")])
    shown = capsys.readouterr()
    assert status == 2
    assert "absent" in shown.err
    assert "Traceback" not in shown.err
    assert len(shown.err.strip().splitlines()) == 1


@pytest.mark.parametrize("arguments", [["adapt", "clip.mp4"], ["shards"], ["nonsense"], ["talk", "--out", "x.mp4"]])
def test_a_wrong_command_line_points_at_help_and_exits_with_2(capsys, arguments):
    with pytest.raises(SystemExit) as exit_:
        headstart.main(arguments)
    assert exit_.value.code == 2
    assert "--help" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", ["sync-expert steps=4 seed=1 --data D", "sync-expert --data D steps=4 --no-ray seed=1"]
)
def test_keys_of_a_training_may_stand_anywhere_on_the_line(words):
    assert parser().parse_args(["pretrain", *words.split()]).overrides == ["steps=4", "seed=1"]


def test_a_misspelt_option_of_a_training_is_no_key(capsys):
    with pytest.raises(SystemExit):
        headstart.main(["pretrain", "sync-expert", "--data", "D", "--step=4"])
    error = capsys.readouterr().err
    assert "unrecognized arguments: --step=4" in error
    assert "'headstart pretrain --help' lists the options" in error


@pytest.mark.parametrize(
    "words",
    ["talk A s.wav --out x.mp4 --yaw nan", "adapt me.mp4 --out A --seconds inf", "evaluate A me.mp4 --out E --from nan",
     "export A --out x.ply --roll NaN", "track me.mp4 --blendshapes x.csv --start inf", "demo --minutes nan",
     "shards synthesize --identities 1 --seconds inf --out D"],
)  # fmt: skip
def test_a_number_that_is_none_is_refused_in_every_command(words, capsys):
    with pytest.raises(SystemExit) as caught:
        headstart.main(words.split())
    assert caught.value.code == 2
    assert "invalid number value" in capsys.readouterr().err


def test_json_is_one_object_on_the_last_line(capsys):
    headstart.main(["doctor", "--json"])
    result = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert {"ok", "checks"} <= result.keys()
    assert all({"name", "ok", "detail", "fix"} <= check.keys() for check in result["checks"])


def test_json_of_a_result_with_undefined_numbers_is_read_by_any_reader(monkeypatch, capsys):
    """JSON has no NaN: JavaScript, for one, refuses the whole line."""
    undefined = {"f1": float("nan"), "rows": [{"r": float("inf")}, (1.5, float("-inf"))], "steps": 4}
    monkeypatch.setattr(pretrain, "run", lambda arguments: undefined)
    assert headstart.main([*LINES["pretrain"], "--json"]) == 0
    line = capsys.readouterr().out.strip().splitlines()[-1]
    result = json.loads(line, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert result == {"f1": None, "rows": [{"r": None}, [1.5, None]], "steps": 4}


@pytest.mark.parametrize("where", ["home", "logs"])
def test_a_home_that_cannot_be_written_is_one_sentence_in_every_command(tmp_path, monkeypatch, capsys, where):
    """A file stands in the way, since permissions do not hold root back."""
    monkeypatch.setenv("HEADSTART_HOME", str(tmp_path / "home"))
    path = tmp_path / "home" / ("" if where == "home" else "logs")
    path.parent.mkdir(exist_ok=True)
    path.write_text("")
    for words in LINES.values():
        with pytest.raises(SystemExit) as caught:
            headstart.main(words)
        assert caught.value.code == 2
        assert "logs cannot be written" in capsys.readouterr().err


def test_a_home_in_which_no_file_can_be_made_is_one_sentence(tmp_path, monkeypatch, capsys):
    def refuse(path, *_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setenv("HEADSTART_HOME", str(tmp_path))
    monkeypatch.setattr("pathlib.Path.touch", refuse)
    with pytest.raises(SystemExit) as caught:
        headstart.main(["doctor"])
    assert caught.value.code == 2
    assert "logs cannot be written (Permission denied); set HEADSTART_HOME" in capsys.readouterr().err


def test_a_command_whose_log_later_commands_removed_ends_well(tmp_path, monkeypatch, capsys):
    """More than twenty commands may begin while a training runs."""
    monkeypatch.setenv("HEADSTART_HOME", str(tmp_path))
    logs = tmp_path / "logs"

    def long(*arguments, **options):
        for number in range(30):
            (logs / f"99991231-2359{number:02}-doctor-1.log").write_text("x")
        for path in logs.glob("*-doctor-*.log"):
            path.unlink()
        return {"ok": True, "checks": []}

    monkeypatch.setattr(doctor, "call", long)
    assert headstart.main(["doctor"]) == 0


def test_the_newest_logs_are_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HEADSTART_HOME", str(tmp_path))
    (tmp_path / "logs").mkdir()
    for number in range(30):
        (tmp_path / "logs" / f"20200101-0000{number:02}-doctor-1.log").write_text("x")
    answering(monkeypatch, doctor, {"ok": True, "checks": []})
    assert headstart.main(["doctor"]) == 0
    assert sorted(path.name[13:15] for path in (tmp_path / "logs").iterdir()) == [f"{n}" for n in range(10, 30)]


def test_a_mistake_of_ours_is_not_hidden(monkeypatch, capsys):
    answering(monkeypatch, doctor, RuntimeError("broken"))
    assert headstart.main(["doctor"]) == 1
    shown = capsys.readouterr().err
    assert "RuntimeError: broken" in shown
    assert "a bug in headstart" in shown


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "headstart: no space left on device; free space"),
        (OSError(errno.EROFS, "Read-only file system", "/mnt/x.ply"), "headstart: /mnt/x.ply: read-only file system;"),
        (PermissionError(errno.EACCES, "Permission denied", "x"), "headstart: x: permission denied; ask for"),
    ],
)
def test_a_fault_of_the_machine_is_one_sentence_and_no_bug(monkeypatch, capsys, fault, says):
    answering(monkeypatch, doctor, fault)
    assert headstart.main(["doctor"]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(says)
    assert len(shown.splitlines()) == 1


@pytest.mark.parametrize("command", ["pretrain sync-expert --data d --out r", "adapt me.mp4 --out a --consent me"])
@pytest.mark.parametrize(
    "fault",
    [
        sentence("r/checkpoints", "write", OSError(errno.ENOSPC, "No space left on device")),
        sentence("s3://b/r", "write", ConnectionError("reset")),
        OSError(errno.ENOSPC, "No space left on device"),
    ],
)
def test_the_advice_to_repeat_a_command_names_resume_where_that_continues_it(monkeypatch, capsys, command, fault):
    module = {"pretrain": pretrain, "adapt": adapt}[command.split()[0]]
    answering(monkeypatch, module, fault)
    with pytest.raises(type(fault)), resumable():
        raise fault
    assert headstart.main(command.split()) == 2
    assert "run the same command again with --resume" in capsys.readouterr().err
    assert headstart.main([*command.split(), "--resume"]) == 2
    assert "with --resume" not in capsys.readouterr().err


@pytest.mark.parametrize("fault", [sentence("s3://b/me.mp4", "read", ConnectionError("reset")), KeyboardInterrupt()])
def test_an_adaptation_that_saved_nothing_yet_is_not_told_to_resume(monkeypatch, capsys, fault):
    answering(monkeypatch, adapt, fault)
    assert headstart.main(["adapt", "s3://b/me.mp4", "--out", "s3://b/a", "--consent", "me"]) in (2, 130)
    shown = capsys.readouterr().err
    assert "--resume" not in shown
    assert shown.rstrip().endswith(("run the same command again", "nothing half-written is left"))


def test_an_interrupted_command_says_what_is_left(monkeypatch, capsys):
    answering(monkeypatch, doctor, KeyboardInterrupt())
    assert headstart.main(["doctor"]) == 130
    assert "nothing half-written is left" in capsys.readouterr().err
    assert "add --resume" in app.interrupted("pretrain", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt) as saved, resumable():
        raise KeyboardInterrupt
    assert "add --resume" in app.interrupted("adapt", saved.value)


def test_sigterm_ends_a_command_as_ctrl_c_does_and_cleans_up(monkeypatch, capsys):
    cleaned = []

    def run(*arguments, **options):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        finally:
            cleaned.append(True)

    monkeypatch.setattr(doctor, "call", run)
    before = signal.getsignal(signal.SIGTERM)
    assert headstart.main(["doctor"]) == 143
    assert cleaned
    assert capsys.readouterr().err == "headstart: interrupted; nothing half-written is left\n"
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_broken_check_is_status_2(monkeypatch, capsys):
    check = {"name": "disk", "ok": False, "detail": "full", "fix": "free 5 GB"}
    answering(monkeypatch, doctor, {"ok": False, "checks": [check]})
    assert headstart.main(["doctor"]) == 2
    shown = capsys.readouterr().out
    assert "fault  disk  full" in shown
    assert "disk: free 5 GB" in shown
    assert "name=" not in shown


def test_the_doctor_says_which_backend_will_render():
    checks = {check["name"]: check for check in doctor.run(parser().parse_args(["doctor"]))["checks"]}
    assert {"python", "torch", "rendering"} <= set(checks)
    assert checks["rendering"]["detail"].startswith(("cpu", "gsplat", "torch"))


def test_scores_are_a_table_of_measures_and_drives():
    scores = {"psnr_face": 33.911, "lmd": None, "null_reasons": {"lpips": "no weight files"}}
    result = {"drives": {"track": scores, "audio": {**scores, "psnr_face": 29.0}}, "frames": 40, "size": 256,
              "device": "cpu", "report": "E/report.html"}  # fmt: skip
    lines = printed(evaluate.show, result, LINES["evaluate"]).splitlines()
    assert any(line.split() == ["PSNR,", "face", "33.91", "29.00", "dB", "higher"] for line in lines)
    assert "not measured: no weight files" in lines
    assert not any("LMD" in line for line in lines), "a measure that no drive has is no row"
    assert not any("is not the clip" in line for line in lines)
    lines = printed(evaluate.show, {**result, "test": {"own_clip": False}}, LINES["evaluate"]).splitlines()
    assert sum("is not the clip that the avatar was made of" in line for line in lines) == 1


def test_a_promotion_says_what_it_replaced_and_how_to_go_back():
    line = ["priors", "promote", "sync-expert/2"]
    text = printed(priors.show_promoted, {"name": "sync-expert", "version": 2, "before": "1"}, line)
    assert "sync-expert/2 is @champion now; before, it was sync-expert/1" in text
    assert "headstart priors promote sync-expert/1 --alias champion" in text
    text = printed(priors.show_promoted, {"name": "sync-expert", "version": 1, "before": None}, line)
    assert text.strip() == "sync-expert/1 is @champion now"
    for unclear in ("sync-expert", "models:/sync-expert"):  # it would promote the champion to champion
        assert app.main(["priors", "promote", unclear]) == 2


def test_a_registry_without_priors_says_what_to_do():
    text = printed(priors.show_list, {"priors": []}, LINES["priors"])
    assert "No prior is registered yet." in text
    assert "headstart pretrain" in text


def test_the_registry_shows_dates_and_not_milliseconds():
    noon = int(datetime(2026, 11, 29, 12, 5).timestamp() * 1000)
    version = {"version": 2, "aliases": ["champion"], "created": noon}
    text = printed(priors.show_list, {"priors": [{"name": "sync-expert", "versions": [version]}]}, LINES["priors"])
    assert ["sync-expert", "2", "champion", "2026-11-29", "12:05"] in [line.split() for line in text.splitlines()]
    shown = printed(priors.show_record, {"name": "sync-expert", "created": noon}, ["priors", "show", "sync-expert"])
    assert "2026-11-29 12:05" in shown


def test_a_broken_dataset_lists_its_faults_and_the_repair():
    fault = {"shard": "a.tar", "key": "ada/1", "member": "f000.jpg", "reason": "checksum"}
    text = printed(shards.show_verify, {"ok": False, "samples": 3, "broken": [fault]}, ["shards", "verify", "D"])
    assert "a.tar" in text
    assert "headstart shards verify D --repair" in text


def test_names_with_brackets_and_spaces_are_shown_whole_and_can_be_pasted():
    place, video = "Ann's [final] take/a :100:.avatar", "to [/b] me.mp4"
    result = {"avatar": place, "iterations": 3, "seconds": 1.0, "stages": {}, "prior": None, "recipe": "headstart",
              "metrics": {}, "frames": 9, "size": 96, "driver": "x", "consent": "[bold]", "complete": True}  # fmt: skip
    lines = printed(adapt.show, result, ["adapt", video, "--out", place]).splitlines()
    assert lines[0] == f"avatar {place}, after 3 steps in 1.0 s"
    commands = [shlex.split(line.removeprefix("next: ")) for line in lines if line.startswith("next: ")]
    assert commands == [
        ["headstart", "talk", place, "speech.wav", "--out", "talking.mp4"],
        ["headstart", "evaluate", place, video, "--out", "scores"],
    ]


@pytest.mark.parametrize(("words", "says"), [([], "metadata and by a watermark;"), (["--no-watermark"], "metadata; ")])
def test_talk_says_which_marks_the_video_carries(words, says):
    result = {"video": "[x].mp4", "frames": 50, "fps": 20.0}
    text = printed(talk.show, result, [*LINES["talk"], *words])
    assert text.startswith("video [x].mp4, 2.0 s long\n")
    assert says in text


def test_nothing_is_coloured_in_a_pipe():
    run = subprocess.run([sys.executable, "-m", "headstart", "doctor"], capture_output=True, text=True, check=False)
    assert "\x1b" not in run.stdout + run.stderr
    assert run.stderr == ""


@pytest.mark.parametrize(("value", "shown"), [(8.14, "8.1 s"), (252, "4 min 12 s"), (7500, "2 h 5 min"), (None, None)])
def test_seconds_are_written_as_people_say_them(value, shown):
    assert output.seconds(value) == shown


def test_only_the_last_logs_are_kept_and_empty_ones_are_not(tmp_path, monkeypatch):
    monkeypatch.setenv("HEADSTART_HOME", str(tmp_path))
    folder = tmp_path / "logs"
    folder.mkdir()
    for number in range(30):
        (folder / f"{number:02}.log").write_text("old")
    headstart.main(["shards", "info", str(tmp_path / "absent")])
    assert len(list(folder.iterdir())) == app.KEPT_LOGS


def test_a_long_reason_of_another_program_ends_behind_a_whole_word():
    assert shortened("no such\n host") == "no such host"
    assert shortened("the host said nothing at all", 20) == "the host said …"
    assert len(shortened("x" * 300, 200)) <= 200


def test_who_removes_a_person_is_reminded_of_the_priors_that_learned_of_them():
    result = {"samples": 1, "clips": 2, "also_as": [], "dataset": {}}
    text = printed(shards.show_forget, result, ["shards", "forget", "D", "--identity", "ann"])
    assert "ann is removed from D: 1 sample of 2 clips deleted" in text
    assert "priors that were trained on this dataset before" in text
