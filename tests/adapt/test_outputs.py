"""Where results may be written, and what ``--overwrite`` never replaces."""

from __future__ import annotations

import pytest

from adapt.evaluate.evaluate import evaluate
from adapt.export import export
from adapt.job import adapt
from adapt.outputs import claim
from adapt.talk.talk import talk
from adapt.track import track
from adapt.web.export import export_web
from configs import InputError
from configs.scratch import one_writer
from pretrain.train import pretrain


def test_a_folder_of_anything_else_is_never_replaced(tmp_path):
    photos, avatar = tmp_path / "photos", tmp_path / "me.avatar"
    for folder, name in ((photos, "beach.jpg"), (avatar, "avatar.json")):
        folder.mkdir()
        (folder / name).write_text("{}")
    with pytest.raises(InputError, match=r"is a folder; --overwrite replaces only a folder with avatar\.json"):
        claim(photos, overwrite=True, mark="avatar.json")
    with pytest.raises(InputError, match="is a folder; --overwrite replaces only a file"):
        claim(avatar, overwrite=True)
    with pytest.raises(InputError, match=r"is a file; --overwrite replaces only a folder with metrics\.json"):
        claim(photos / "beach.jpg", overwrite=True, mark="metrics.json")
    assert claim(avatar, overwrite=True, mark="avatar.json") == avatar
    (tmp_path / "empty").mkdir()
    assert claim(tmp_path / "empty", overwrite=True, mark="avatar.json") == tmp_path / "empty"
    assert (photos / "beach.jpg").is_file()


def test_a_folder_that_cannot_be_written_to_is_found_before_any_work(tmp_path, monkeypatch):
    def refuses(**options):
        raise OSError(30, "Read-only file system", str(options["dir"]))

    monkeypatch.setattr("tempfile.TemporaryFile", refuses)
    with pytest.raises(InputError, match=r"its folder cannot be written to \(Read-only file system\)"):
        claim(tmp_path / "x.ply")


@pytest.mark.parametrize(
    "command",
    [
        lambda out: adapt("me.mp4", out),
        lambda out: talk("me.avatar", "speech.wav", out),
        lambda out: evaluate("me.avatar", "me.mp4", out),
        lambda out: export("me.avatar", out),
        lambda out: export_web("me.avatar", out),
        lambda out: track("me.mp4", out),
        lambda out: pretrain("sync-expert", "corpus", out=str(out), resume=True, ray=False),
    ],
    ids=["adapt", "talk", "evaluate", "export", "export_web", "track", "pretrain"],
)
def test_an_output_that_another_command_is_writing_is_left_to_it(tmp_path, command):
    with (
        one_writer(tmp_path / "out.mp4"),
        pytest.raises(InputError, match=r"output '.*out.mp4': another command is writing it; wait for it"),
    ):
        command(tmp_path / "out.mp4")
    assert list(tmp_path.iterdir()) == []
