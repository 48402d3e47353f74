import errno
import subprocess
import sys
import tempfile

import pytest

from configs import InputError
from configs.scratch import PREFIX, ScratchFolder, one_writer


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


HOLD = (
    "import sys, tempfile; from configs.scratch import one_writer\n"
    "tempfile.tempdir = {folder!r}\n"
    "with one_writer({out!r}): print('held', flush=True); sys.stdin.read()"
)


def test_an_output_has_one_writer_and_a_killed_one_holds_nothing(tmp_path):
    out = str(tmp_path / "new" / "me.avatar")
    program = HOLD.format(folder=str(tmp_path), out=out)
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(InputError, match=r"output '.*me.avatar': another command is writing it"), one_writer(out):
            pass
        with one_writer(str(tmp_path / "other.avatar")):  # another output is free
            pass
        other.kill()
    same = tmp_path / "new" / "." / "me.avatar"
    with one_writer(out), pytest.raises(InputError), one_writer(same):
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_killed_writers_leave_in_the_temporary_folder_is_removed_by_the_next(tmp_path):
    program = HOLD.format(folder=str(tmp_path), out=str(tmp_path / "killed"))
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        other.kill()
    left = list(tmp_path.iterdir())
    assert len(left) == 1
    with one_writer(tmp_path / "one"):
        with one_writer(tmp_path / "two"):
            assert len(list(tmp_path.iterdir())) == 2
            assert not left[0].exists()
        with pytest.raises(InputError), one_writer(tmp_path / "one"):
            pass
    assert list(tmp_path.iterdir()) == []


def test_an_output_is_free_when_its_writer_has_failed(tmp_path):
    with pytest.raises(FileNotFoundError), one_writer(tmp_path / "a"):
        raise FileNotFoundError("of the command itself")
    with one_writer(tmp_path / "a"):
        pass


def test_without_a_temporary_folder_for_locks_nothing_is_held(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with one_writer(tmp_path / "a"):
        pass


@pytest.mark.parametrize("where", ["checkpoint", "pull", "copy"])
def test_a_folder_that_a_killed_process_left_beside_its_target_goes_with_the_next_one(tmp_path, where):
    code = (
        "import os, pathlib, signal, sys; from configs.scratch import ScratchFolder\n"
        f"folder = ScratchFolder('{where}', within=pathlib.Path(sys.argv[1]))\n"
        "(folder.path / 'half').write_bytes(b'0' * 1000)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert len(list(tmp_path.iterdir())) == 1
    (tmp_path / ".tmp-of-something-else").mkdir()
    with ScratchFolder(where, within=tmp_path) as mine, ScratchFolder(where, within=tmp_path) as other:
        assert sorted(tmp_path.iterdir()) == sorted([mine, other, tmp_path / ".tmp-of-something-else"])
        assert mine.name.startswith(".tmp-")  # which readers do not see


def test_a_folder_on_a_disk_without_locks_is_used_and_left_alone_by_others(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr("configs.scratch.fcntl.flock", refuse)
    with ScratchFolder("pull", within=tmp_path) as first, ScratchFolder("pull", within=tmp_path) as second:
        assert first.is_dir()
        assert second.is_dir()
    assert not list(tmp_path.iterdir())
