"""A rig of another topology from videos to a talking avatar: nothing on the way names the default one."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.end_to_end.conftest import SIZE
from tests.end_to_end.test_whole import command
from tests.support.ict_rig import write_ict_folder

pytestmark = pytest.mark.slow


def test_an_ict_rig_goes_from_videos_through_a_prior_into_an_avatar_that_talks(films, tmp_path, monkeypatch):
    monkeypatch.setenv("HEADSTART_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    rig = f"ict:{write_ict_folder(tmp_path / 'ict')}"
    rows = ["clip,identity,licence,consent,source"]
    (tmp_path / "videos").mkdir()
    for number, film in enumerate(films.people[:2]):
        shutil.copyfile(film, tmp_path / "videos" / f"p{number}.mp4")
        rows.append(f"p{number},p{number},CC0,generated,synthetic")
    (tmp_path / "consent.csv").write_text("\n".join(rows) + "\n")
    stranger = str(shutil.copyfile(films.stranger, tmp_path / "stranger.mp4"))
    data, run, avatar = (str(tmp_path / name) for name in ("data", "run", "avatar"))

    options = ("--consent", str(tmp_path / "consent.csv"), "--rig", rig, "--size", str(SIZE))
    built = command("shards", "build", str(tmp_path / "videos"), "--out", data, *options)
    assert built["tracked_fraction"] > 0.9
    # The generated rig's expressions are not symmetric: its heads cannot be mirrored.
    keys = ("steps=2", "batch_size=2", "augment.mirror=0")
    trained = command("pretrain", "expression-visual", "--data", data, "--out", run, "--no-ray", *keys)
    command("adapt", stranger, "--out", avatar, "--prior", f"{run}/prior", "--budget", "8it", "--size", "96")
    spoken = command("talk", avatar, stranger, "--out", str(tmp_path / "talking.mp4"))

    document = json.loads((tmp_path / "avatar" / "avatar.json").read_text())
    dataset = json.loads((tmp_path / "data" / "dataset.json").read_text())
    assert document["rig"]["sha256"] == dataset["rig"]["sha256"]
    assert document["rig"]["source"].startswith("ict:")
    assert document["priors"]["expression-visual"]["sha256"] == trained["weights_sha256"]
    assert spoken["frames"] >= 50
