"""Where results may be written, and what ``--overwrite`` never replaces."""

from __future__ import annotations

import os

import numpy as np
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
from tests.support.videos import write_video


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


@pytest.mark.parametrize("locked", ["out", "out/priors"])
@pytest.mark.parametrize(
    ("mark", "command"),
    [
        ("avatar.json", lambda out: adapt(out.parent / "me.mp4", out, overwrite=True, prior="none")),
        ("metrics.json", lambda out: evaluate("me.avatar", "me.mp4", out, overwrite=True)),
        ("sequence.json", lambda out: export("me.avatar", out, as_frames=True, overwrite=True)),
        ("avatar.js", lambda out: export_web("me.avatar", out, overwrite=True)),
    ],
    ids=["adapt", "evaluate", "export", "export_web"],
)
def test_a_folder_that_may_not_be_emptied_is_found_before_any_work(tmp_path, monkeypatch, mark, command, locked):
    write_video(tmp_path / "me.mp4", [np.zeros((64, 64, 3), np.uint8)] * 30)
    (tmp_path / "out" / "priors").mkdir(parents=True)
    (tmp_path / "out" / mark).write_text("{}")
    place, allowed = tmp_path / locked, os.access
    # The tests may run as root, who may do everything.
    monkeypatch.setattr("os.access", lambda path, mode: str(path) != str(place) and allowed(path, mode))
    with pytest.raises(InputError, match=rf"out': may not be changed, because the folder {place} cannot be written to"):
        command(tmp_path / "out")
    assert (tmp_path / "out" / mark).is_file()


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
