"""Who agreed is asked before an avatar is made, kept in it, and carried into everything that it says."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

from adapt.avatar.avatar import load_avatar
from adapt.avatar.export import format_of
from adapt.consent import LONGEST_TEXT, WARNING, consent_of, question, refuse_withdrawn
from adapt.export import export
from adapt.job import adapt as make_avatar
from adapt.marking.detect import detect
from adapt.talk.talk import talk
from cluster.storage import storage
from configs import InputError, progress
from headstart.cli import adapt as command
from shards.build.journal import Journal
from shards.format.catalogue import read_catalogue
from shards.people.forget import forget
from tests.support.avatars import SIZE, make_world
from tests.support.samples import make_dataset

AGREED = "Ada agreed in writing on 3 May 2026"
OPTIONS = {"budget": "1it", "prior": "none", "size": SIZE}


class Heard:
    """A listener that keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def start(self, label, total, unit):
        return progress._Silent()

    def stop(self, task) -> None:
        pass


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"), frames=40)


@pytest.fixture(autouse=True)
def _truth(world, monkeypatch):
    monkeypatch.setattr("shards.tracking.track_frames", world.segments)


@pytest.fixture(scope="module")
def avatar(world, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shards.tracking.track_frames", world.segments)
        out = tmp_path_factory.mktemp("avatar") / "ada"
        assert make_avatar(world.video, out, consent=AGREED, **OPTIONS)["consent"] == AGREED
    return out


def document(avatar: Path) -> dict:
    return json.loads((avatar / "avatar.json").read_text())


# --- what is recorded -----------------------------------------------------------------------------------------------


def test_a_text_is_kept_in_the_avatar_and_named_by_its_statement(avatar: Path) -> None:
    kept = document(avatar)["consent"]
    assert (kept["consent"], kept["licence"], kept["identity"]) == (AGREED, "unknown", "person")
    assert load_avatar(avatar, "cpu").provenance("").as_dict()["consent"] == AGREED


def test_a_row_of_a_consent_file_is_the_record(tmp_path: Path) -> None:
    rows = tmp_path / "consent.csv"
    rows.write_text("clip,identity,licence,consent,source\nme,ann,CC-BY-4.0,agreed on paper,studio\n")
    found = consent_of(tmp_path / "me.mp4", rows)
    assert (found.consent, found.licence, found.identity, found.file) == (
        "agreed on paper",
        "CC-BY-4.0",
        "ann",
        "consent.csv",
    )


def test_another_file_is_known_by_its_hash_and_not_copied(tmp_path: Path) -> None:
    paper = tmp_path / "release.pdf"
    paper.write_bytes(b"signed by Ann")
    found = consent_of("me.mp4", paper)
    assert found.consent == f"as in release.pdf, SHA-256 {found.file_sha256[:16]}"
    assert found.file_sha256 == storage.sha256(paper)
    assert "Ann" not in json.dumps(found.as_dict())


def test_without_consent_the_avatar_says_unknown_and_the_user_is_warned(world, tmp_path: Path) -> None:
    heard = Heard()
    with progress.listen(heard):
        assert make_avatar(world.video, tmp_path / "ada", **OPTIONS)["consent"] == "unknown"
    assert document(tmp_path / "ada")["consent"]["consent"] == "unknown"
    assert WARNING in heard.said


def test_a_resumed_avatar_keeps_its_record_unless_another_is_given(world, avatar: Path, tmp_path: Path) -> None:
    out = tmp_path / "ada"
    make_avatar(world.video, out, consent=AGREED, **OPTIONS)
    make_avatar(world.video, out, resume=True, **{**OPTIONS, "budget": "6it"})
    assert document(out)["consent"]["consent"] == AGREED
    make_avatar(world.video, out, resume=True, consent="withdrawn in June", **{**OPTIONS, "budget": "12it"})
    assert document(out)["consent"]["consent"] == "withdrawn in June"


# --- what carries it ------------------------------------------------------------------------------------------------


def test_videos_and_heads_carry_the_record(avatar: Path, tmp_path: Path) -> None:
    speech = tmp_path / "speech.wav"
    soundfile.write(speech, 0.2 * _noise(8000), 16_000)
    talk(avatar, speech, tmp_path / "a.mp4")
    head = export(avatar, tmp_path / "a.glb")["out"]
    assert format_of(head).read_record(head)["consent"] == AGREED
    for row in detect([tmp_path / "a.mp4", head])["files"]:
        assert any(AGREED in mark["detail"] for mark in row["marks"])


def test_signed_manifests_carry_the_record(avatar: Path, tmp_path: Path) -> None:
    pytest.importorskip("c2pa")
    from adapt.marking.certificates import sign_init
    from adapt.marking.sign import read_manifest

    made = sign_init(tmp_path / "keys")
    keys = (made["certificate"], made["key"])
    speech = tmp_path / "speech.wav"
    soundfile.write(speech, 0.2 * _noise(4000), 16_000)
    talk(avatar, speech, tmp_path / "a.mp4", sign=keys)
    talk(avatar, speech, tmp_path / "frames", background="rgba", sign=keys)
    export(avatar, tmp_path / "a.ply", sign=keys)
    for path in ("a.mp4", "a.ply", "frames/000000.png", "frames/audio.wav"):
        manifest = read_manifest(tmp_path / path)
        assert manifest is not None, path
        assert (manifest.state, manifest.provenance["consent"]) == ("Valid", AGREED), path
    export(avatar, tmp_path / "a.ply", overwrite=True)
    assert read_manifest(tmp_path / "a.ply") is None, "the manifest of the file before is gone"


def _noise(count: int):
    import numpy as np

    return np.random.default_rng(2).standard_normal(count).astype(np.float32)


# --- withdrawn people -----------------------------------------------------------------------------------------------


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A dataset of two people, one of whom withdrew; the build's journal knew their clip by its hash."""
    url = make_dataset(tmp_path / "dataset")
    gone = read_catalogue(str(url)).identities[0]["name"]
    record = {"clip": "old", "identity": gone, "sha256": "ab" * 32, "frames": 1, "shards": []}
    Journal(str(url), {}, {"old": record}).write()
    forget(str(url), gone)
    return Path(url)


def test_a_withdrawn_clip_is_refused_under_any_name(dataset: Path) -> None:
    with pytest.raises(InputError, match="this very clip was withdrawn") as error:
        refuse_withdrawn("new-name.mp4", "ab" * 32, "somebody", dataset)
    assert str(dataset) in str(error.value)
    assert "\n" not in str(error.value)
    refuse_withdrawn("other.mp4", "cd" * 32, "somebody", dataset)


def test_a_withdrawn_identity_is_refused_and_nothing_is_written(world, tmp_path: Path) -> None:
    url = make_dataset(tmp_path / "dataset")
    gone = read_catalogue(str(url)).identities[0]["name"]
    forget(str(url), gone)
    rows = tmp_path / "consent.csv"
    rows.write_text(f"clip,identity,licence,consent,source\nperson,{gone},own,yes,own\n")
    with pytest.raises(InputError, match=f"the identity '{gone}' was withdrawn"):
        make_avatar(world.video, tmp_path / "ada", consent=rows, dataset=url, **OPTIONS)
    assert not (tmp_path / "ada").exists()
    make_avatar(world.video, tmp_path / "ada", consent=AGREED, dataset=url, **OPTIONS)


def test_a_place_that_is_no_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing-here"):
        refuse_withdrawn("a.mp4", "ab" * 32, "ann", tmp_path / "nothing-here")


# --- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("absent.csv", "no such file"),
        ("absent.pdf", "no such file"),
        (".", "is a folder"),
        ("", "expected one line"),
        ("two\nlines", "expected one line"),
        ("x" * (LONGEST_TEXT + 1), "expected one line"),
    ],
)
def test_a_wrong_consent_is_one_sentence(given: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as error:
        consent_of("me.mp4", given)
    assert "\n" not in str(error.value)


def test_a_consent_file_without_the_clip_is_refused(tmp_path: Path) -> None:
    rows = tmp_path / "consent.csv"
    rows.write_text("clip,identity,licence,consent,source\nanother,ann,own,yes,own\n")
    with pytest.raises(InputError, match="no row names the clip me"):
        consent_of("me.mp4", rows)


# --- the question ---------------------------------------------------------------------------------------------------

ASK = """
import argparse, sys
from configs import progress
from headstart.cli import adapt
class Heard:
    def say(self, text): print(text, file=sys.stderr, flush=True)
adapt._adapted = lambda a: {"consent": a.consent}
with progress.listen(Heard()):
    print(adapt.run(argparse.Namespace(video=sys.argv[1], consent=None, resume=False, view=False))["consent"])
"""


@pytest.mark.parametrize(("typed", "recorded"), [("Ann agreed", "Ann agreed"), ("", "unknown")])
def test_a_terminal_asks(world, typed: str, recorded: str) -> None:
    theirs, ours = pty.openpty()
    line = [sys.executable, "-c", ASK, str(world.video)]
    process = subprocess.Popen(line, stdin=ours, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    os.write(theirs, f"{typed}\n".encode())
    out, err = process.communicate(timeout=600)
    os.close(theirs), os.close(ours)
    assert out.strip() == recorded
    assert question(world.video) in err


def test_no_terminal_is_not_asked(world) -> None:
    line = [sys.executable, "-c", ASK, str(world.video)]
    done = subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600)
    assert done.stdout.strip() == "None"
    assert "Who is in" not in done.stderr


def test_the_command_takes_both_options() -> None:
    from headstart.cli.app import parser

    given = parser().parse_args(["adapt", "a.mp4", "--out", "b", "--consent", "unknown", "--dataset", "s3://b/d"])
    assert (given.consent, given.dataset) == ("unknown", "s3://b/d")
    assert command.run is given.run
