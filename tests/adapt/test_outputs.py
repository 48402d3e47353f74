"""Where results may be written, and what ``--overwrite`` never replaces."""

from __future__ import annotations

import pytest

from adapt.outputs import claim
from configs import InputError


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
