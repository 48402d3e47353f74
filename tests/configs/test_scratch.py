import subprocess
import sys
import tempfile

import pytest

from configs.scratch import PREFIX, ScratchFolder


@pytest.fixture(autouse=True)
def _temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_a_folder_is_removed_when_it_is_closed(tmp_path):
    with ScratchFolder("test") as folder:
        (folder / "file").write_text("content")
        assert folder.parent == tmp_path
        assert folder.name.startswith(f"{PREFIX}test-")
    assert not list(tmp_path.iterdir())


def test_closing_twice_is_no_error():
    folder = ScratchFolder("test")
    folder.close()
    folder.close()


def test_the_folder_of_a_killed_process_is_removed_by_the_next_and_one_in_use_stays(tmp_path):
    program = (
        "import os, signal, tempfile; from configs.scratch import ScratchFolder\n"
        f"tempfile.tempdir = {str(tmp_path)!r}\n"
        "folder = ScratchFolder('killed'); (folder.path / 'file').write_text('content')\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    with ScratchFolder("used") as used:
        subprocess.run([sys.executable, "-c", program], check=False)
        (left,) = tmp_path.glob(f"{PREFIX}killed-*")
        with ScratchFolder("next") as following:
            assert not left.exists()
            assert used.is_dir()
            assert following.is_dir()


def test_what_is_no_folder_of_ours_stays(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / f"{PREFIX}link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / f"{PREFIX}file").write_text("content")
    (tmp_path / "headstart-kept-1").mkdir()
    with ScratchFolder("test"):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {
        "elsewhere", f"{PREFIX}link", f"{PREFIX}file", "headstart-kept-1"
    }  # fmt: skip
