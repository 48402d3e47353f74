"""Avatar folders: atomic, verified, refused with a sentence when something is missing or altered."""

from __future__ import annotations

import json

import pytest
import torch

from adapt.avatar import folder
from configs import InputError

DOCUMENT = {
    "recipe": "headstart",
    "prior": None,
    "rig": {"name": "r", "sha256": "0"},
    "features": {"name": "logmel", "size": 160},
    "size": 64,
    "created": "now",
    "provenance": {},
    "metrics": {},
}


@pytest.fixture
def avatar(tmp_path):
    path = tmp_path / "ada"
    folder.write_folder(path, DOCUMENT, {"a": torch.arange(4.0)}, files={"thumbnail.jpg": b"jpeg", "x/y.bin": b"12"})
    return path


def test_what_is_written_comes_back(avatar):
    document, tensors = folder.read_folder(avatar)
    assert document["recipe"] == "headstart"
    assert torch.equal(tensors["a"], torch.arange(4.0))
    assert set(document["files"]) == {"weights.safetensors", "thumbnail.jpg", "x/y.bin"}


def test_saving_again_replaces_the_whole_folder_and_leaves_nothing_beside_it(avatar):
    folder.write_folder(avatar, DOCUMENT, {"b": torch.zeros(2)})
    assert set(folder.read_folder(avatar)[1]) == {"b"}
    assert [path.name for path in avatar.parent.iterdir()] == ["ada"]


def test_without_an_atomic_exchange_two_renames_do(avatar, monkeypatch):
    monkeypatch.setattr(folder, "_exchange", lambda a, b: False)
    folder.write_folder(avatar, DOCUMENT, {"b": torch.zeros(2)})
    assert set(folder.read_folder(avatar)[1]) == {"b"}
    assert [path.name for path in avatar.parent.iterdir()] == ["ada"]


def test_a_failed_save_keeps_the_last_good_avatar(avatar):
    with pytest.raises(FileNotFoundError):
        folder.write_folder(avatar, DOCUMENT, {"b": torch.zeros(2)}, files={"body.mp4": avatar / "nowhere.mp4"})
    assert set(folder.read_folder(avatar)[1]) == {"a"}
    assert [path.name for path in avatar.parent.iterdir()] == ["ada"]


def test_a_missing_file_is_named(avatar):
    (avatar / "thumbnail.jpg").unlink()
    with pytest.raises(InputError, match=r"'thumbnail.jpg' is missing"):
        folder.verify_folder(avatar)


@pytest.mark.parametrize("name", ["weights.safetensors", "thumbnail.jpg"])
def test_an_altered_file_is_named(avatar, name):
    data = bytearray((avatar / name).read_bytes())
    data[-1] ^= 1
    (avatar / name).write_bytes(bytes(data))
    with pytest.raises(InputError, match=f"'{name}' was altered"):
        folder.verify_folder(avatar)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda text: text[:-20], "not readable as JSON"),
        (lambda text: json.dumps({**json.loads(text), "schema": 99}), "schema is 99"),
        (lambda text: json.dumps({"schema": 1}), "lacks recipe"),
    ],
)
def test_a_broken_document_is_refused(avatar, change, says):
    path = avatar / folder.DOCUMENT
    path.write_text(change(path.read_text()))
    with pytest.raises(InputError, match=says):
        folder.read_document(avatar)


def test_what_is_no_avatar_is_refused(tmp_path):
    (tmp_path / "me.mp4").write_bytes(b"a video")
    with pytest.raises(InputError, match=r"me\.mp4': is a file, expected the folder that headstart adapt makes"):
        folder.read_document(tmp_path / "me.mp4")
    with pytest.raises(InputError, match="no such folder"):
        folder.read_document(tmp_path / "nobody")
    with pytest.raises(InputError, match="not an avatar folder"):
        folder.read_document(tmp_path)


def test_the_optimisers_state_is_kept_apart_from_the_avatar(avatar):
    folder.write_folder(avatar, DOCUMENT, {"a": torch.zeros(1)}, state={"m": torch.ones(3)})
    assert torch.equal(folder.read_state(avatar)["m"], torch.ones(3))
    (avatar / folder.STATE).unlink()
    folder.verify_folder(avatar)
    assert folder.read_state(avatar) == {}
