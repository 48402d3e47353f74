"""Avatars on the stand-in device: every recipe, talking, evaluating, exporting, resuming."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile

from adapt.avatar.avatar import load_avatar
from adapt.evaluate.evaluate import evaluate
from adapt.export import export
from adapt.job import adapt
from adapt.recipes import recipe_names
from adapt.talk.talk import talk
from headstart.cli.app import main
from shards.media.probe import video_info
from tests.support.avatars import SIZE, make_world

QUICK = {"prior": "none", "size": SIZE}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(autouse=True)
def _truth(world, monkeypatch, device):
    monkeypatch.setattr("shards.tracking.track_frames", world.segments)
    monkeypatch.setattr("shards.tracking.detect_landmarks", world.detect)


@pytest.fixture(scope="module")
def avatars(world, tmp_path_factory, device):
    """An avatar of every recipe, made on the device."""
    folder = tmp_path_factory.mktemp("avatars")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shards.tracking.track_frames", world.segments)
        for recipe in recipe_names():
            adapt(world.video, folder / recipe, recipe=recipe, budget="12it", device=device.type, **QUICK)
    return folder


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    rng = np.random.default_rng(1)
    path = tmp_path_factory.mktemp("speech") / "speech.wav"
    sound = 0.3 * rng.standard_normal(16_000) * np.clip(np.sin(np.arange(16_000) / 1500), 0, 1)
    soundfile.write(path, sound.astype(np.float32), 16_000)
    return path


@pytest.mark.parametrize("recipe", recipe_names())
def test_an_avatar_made_there_renders_the_same_on_both_devices(avatars, device, recipe):
    pictures = []
    for place in ("cpu", device.type):
        opened = load_avatar(avatars / recipe, place)
        drive = opened.tracked_drive([3, 20])
        if opened.model.uses_audio:
            drive = drive.with_(features=_windows(opened, 2))
        pictures.append(opened.render(drive).astype(float))
    assert pictures[0].std() > 0.05
    assert np.abs(pictures[0] - pictures[1]).max() < 2  # levels of 255


def _windows(avatar, count):
    import torch

    from heads.person.inputs import AUDIO_CONTEXT

    return torch.zeros(count, 2 * AUDIO_CONTEXT + 1, avatar.document["features"]["size"], device=avatar.device)


@pytest.mark.parametrize("recipe", recipe_names())
def test_it_talks_there(avatars, device, speech, tmp_path, recipe):
    talk(avatars / recipe, speech, tmp_path / "said.mp4", device=device.type)
    info = video_info(tmp_path / "said.mp4")
    assert (info.width, info.height) == (SIZE, SIZE)


@pytest.mark.parametrize("recipe", recipe_names())
def test_it_is_evaluated_there(avatars, device, world, tmp_path, recipe):
    evaluate(avatars / recipe, world.video, tmp_path / "scores", device=device.type)
    record = json.loads((tmp_path / "scores" / "metrics.json").read_text())
    assert record["drives"]["track"]["psnr_face"] > 10
    assert "stand-in" in record["device"]


def test_an_adaptation_interrupted_there_goes_on_to_the_same_bits(world, device, tmp_path):
    adapt(world.video, tmp_path / "whole", budget="8it", device=device.type, **QUICK)
    adapt(world.video, tmp_path / "cut", budget="4it", device=device.type, **QUICK)
    adapt(world.video, tmp_path / "cut", budget="8it", device=device.type, resume=True, **QUICK)
    drives = [load_avatar(tmp_path / name, "cpu") for name in ("whole", "cut")]
    assert [d.document["progress"]["iterations"] for d in drives] == [8, 8]


def test_it_is_exported_from_there(avatars, device, tmp_path):
    export(avatars / "headstart", tmp_path / "head.ply", device=device.type)
    assert (tmp_path / "head.ply").stat().st_size > 1000


def test_the_command_line_takes_the_device_by_name_and_refuses_one_that_is_absent(avatars, device, speech, tmp_path):
    out = tmp_path / "said.mp4"
    assert main(["talk", str(avatars / "headstart"), str(speech), "--out", str(out), "--device", device.type]) == 0
    assert main(["talk", str(avatars / "headstart"), str(speech), "--out", str(out), "--device", "xpu"]) == 2
