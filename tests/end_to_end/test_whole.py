"""The main job by its commands, with the real tracker: videos → shards → three priors → registry → avatar → speech → scores."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

import headstart
from shards.synthetic import synthetic_video
from tests.end_to_end.conftest import PEOPLE, SIZE

pytestmark = pytest.mark.slow
# A few steps each: what is tested is that the rooms fit, not what the priors know.
TRAININGS = {
    "audio-expression": ("steps=4", "batch_size=2"),
    "expression-visual": ("steps=3", "batch_size=2"),
    "sync-expert": ("steps=4", "batch_size=2"),
}


def command(*words: str) -> dict[str, Any]:
    """What a command prints with ``--json``; it must succeed."""
    printed = io.StringIO()
    with redirect_stdout(printed):
        status = headstart.main([*words, "--json"])
    assert status == 0, words
    return json.loads(printed.getvalue().strip().splitlines()[-1])


@pytest.fixture(scope="module")
def world(films, tmp_path_factory) -> Path:
    """Films of generated talkers: three for the corpus, and one stranger with a second speech."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "videos").mkdir()
    for number, film in enumerate(films.people):
        shutil.copyfile(film, folder / "videos" / f"person{number}.mp4")
    shutil.copyfile(films.stranger, folder / "stranger.mp4")
    synthetic_video(900, 2.0, folder / "speech.mp4", size=SIZE, clip=1)
    rows = [f"person{number},person{number},CC0,generated,synthetic" for number in range(PEOPLE)]
    (folder / "consent.csv").write_text("\n".join(["clip,identity,licence,consent,source", *rows]) + "\n")
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Any:
    """A registry of this module's own."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("registry")
        patch.setenv("HEADSTART_HOME", str(folder))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield folder


@pytest.fixture(scope="module")
def corpus(world, home) -> Path:
    """The shards."""
    out = world / "corpus"
    built = command(
        "shards", "build", str(world / "videos"), "--out", str(out), "--consent", str(world / "consent.csv"),
        "--size", str(SIZE),
    )  # fmt: skip
    assert built["identities"] == PEOPLE
    assert built["refused"] == []
    assert built["tracked_fraction"] > 0.9
    assert command("shards", "verify", str(out))["ok"]
    return out


@pytest.fixture(scope="module")
def priors(corpus, world) -> dict[str, dict[str, Any]]:
    """The three registered priors; each becomes the champion."""
    found = {}
    for prior, keys in TRAININGS.items():
        run = world / "runs" / prior
        found[prior] = command("pretrain", prior, "--data", str(corpus), "--out", str(run), "--no-ray", *keys)
        registered = found[prior]["registered"]
        assert registered["name"] == prior
        command("priors", "promote", f"{prior}/{registered['version']}", "--alias", "champion")
    return found


@pytest.fixture(scope="module")
def avatar(priors, world) -> Path:
    """The stranger adapted on the champions, with alignment by the sync expert."""
    out = world / "stranger.avatar"
    made = command("adapt", str(world / "stranger.mp4"), "--out", str(out), "--budget", "40it", "--size", "96")
    assert made["iterations"] == 40
    document = json.loads((out / "avatar.json").read_text())
    assert set(document["priors"]) == set(TRAININGS)
    for prior, record in document["priors"].items():
        assert record["sha256"] == priors[prior]["weights_sha256"]
    return out


def test_the_stranger_speaks_what_adaptation_never_heard(avatar, world):
    spoken = command("talk", str(avatar), str(world / "speech.mp4"), "--out", str(world / "talking.mp4"))
    assert spoken["frames"] in (50, 51)  # the codec pads the sound
    assert spoken["driver"].startswith("audio-expression prior")
    assert (world / "talking.mp4").stat().st_size > 1000


def test_the_stranger_is_scored_under_both_drives(avatar, world):
    scores = command(
        "evaluate", str(avatar), str(world / "stranger.mp4"), "--out", str(world / "scores"), "--from", "2"
    )
    assert set(scores["drives"]) == {"track", "audio"}
    for drive in scores["drives"].values():
        assert drive["psnr_face"] > 12
        assert drive["sync_c"] is not None
    assert Path(scores["report"]).is_file()


def test_the_head_leaves_as_a_file_of_gaussians(avatar, world):
    command("export", str(avatar), "--out", str(world / "head.ply"))
    assert (world / "head.ply").read_bytes().startswith(b"ply\n")


@pytest.mark.parametrize(
    "words",
    [
        lambda world: ["adapt", str(world / "absent.mp4"), "--out", str(world / "x")],
        lambda world: ["talk", str(world / "absent"), str(world / "speech.mp4"), "--out", str(world / "x.mp4")],
        lambda world: ["pretrain", "sync-expert", "--data", str(world / "absent"), "--out", str(world / "x")],
    ],
)
def test_what_is_not_there_is_a_sentence_and_leaves_nothing(words: Callable[[Path], list[str]], world, capsys):
    assert headstart.main(words(world)) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (world / "x").exists()
    assert not (world / "x.mp4").exists()
