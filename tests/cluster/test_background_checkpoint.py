"""Checkpoints written while training goes on: whole or absent, whatever happens meanwhile."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cluster.checkpoint import BackgroundWriter, fetch_latest, latest_checkpoint, list_checkpoints, save_checkpoint
from tests.support.waiting import LONGEST

KILLED = """
import sys, time
from pathlib import Path
from cluster.checkpoint import BackgroundWriter

writer = BackgroundWriter()
writer.start(sys.argv[1], 1, lambda folder: (folder / "a").write_text("first"))
writer.wait()

def slow(folder):
    (folder / "a").write_text("half of the sec")
    print("writing", flush=True)
    time.sleep(3600)

writer.start(sys.argv[1], 2, slow)
writer.wait()
"""


def test_a_process_killed_while_it_writes_leaves_the_checkpoint_before_whole(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "writing"
    process.send_signal(signal.SIGKILL)
    process.wait()
    found = fetch_latest(str(tmp_path), tmp_path / "scratch")
    assert found is not None
    assert found[0] == 1
    assert (found[1] / "a").read_text() == "first"


def test_the_caller_does_not_wait_and_the_next_one_waits_for_the_one_before(tmp_path):
    go_on = threading.Event()

    def slow(folder: Path) -> None:
        assert go_on.wait(LONGEST)
        (folder / "a").write_text("whole")

    writer = BackgroundWriter()
    writer.start(str(tmp_path), 1, slow)  # returns although nothing is written before the event
    assert latest_checkpoint(str(tmp_path)) is None
    later = threading.Timer(0.2, go_on.set)
    later.start()
    writer.start(str(tmp_path), 2, slow)
    assert go_on.is_set()
    assert 1 in [checkpoint.step for checkpoint in list_checkpoints(str(tmp_path))]
    writer.wait()
    assert [checkpoint.step for checkpoint in list_checkpoints(str(tmp_path))] == [1, 2]


def test_a_write_that_failed_is_told_at_the_next_call_and_leaves_nothing(tmp_path):
    def broken(folder: Path) -> None:
        (folder / "a").write_text("half")
        raise ValueError("disk of paper")

    writer = BackgroundWriter()
    writer.start(str(tmp_path), 1, broken)
    with pytest.raises(ValueError, match="disk of paper"):
        writer.start(str(tmp_path), 2, lambda folder: None)
    writer.wait()
    assert list_checkpoints(str(tmp_path)) == []


def test_a_checkpoint_that_was_killed_while_it_was_written_goes_with_the_next_one(tmp_path):
    program = (
        "import os, signal, sys; from cluster.checkpoint import save_checkpoint\n"
        "def write(folder):\n"
        "    (folder / 'weights').write_bytes(b'0' * 1000)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "save_checkpoint(sys.argv[1], 1, write)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1
    save_checkpoint(tmp_path, 2, lambda folder: (folder / "weights").write_bytes(b"0"))
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000002"]
