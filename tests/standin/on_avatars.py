"""Avatars on the stand-in device: every recipe, talking, evaluating, exporting, resuming."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile

from adapt.avatar.avatar import load_avatar
from adapt.evaluate.evaluate import evaluate
from adapt.export import export
from adapt.fit.loop import Fit
from adapt.job import adapt
from adapt.recipes import recipe_names
from adapt.talk.talk import talk
from adapt.talk.talker import Talker
from benchmarks.standin import counting
from configs import load_config
from headstart.cli.app import main
from pretrain.folder import task_class, write_prior
from pretrain.loop import Trainer
from pretrain.train import open_split
from shards.media.probe import video_info
from tests.adapt.test_resume import assert_equal, run, run_killed_after, weights
from tests.standin.on_priors import PRIORS, settings
from tests.support.avatars import SIZE, make_world
from tests.support.talkers import Alone, talkers

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


@pytest.mark.parametrize("recipe", recipe_names())
def test_an_adaptation_killed_there_and_resumed_ends_with_the_same_weights(world, device, tmp_path, recipe):
    options = {"budget": "12it", "device": device.type}
    run(world, tmp_path / "whole", recipe, **options)
    run_killed_after(7, world, tmp_path / "killed", recipe, **options)
    run(world, tmp_path / "killed", recipe, resume=True, **options)
    assert_equal(weights(tmp_path / "killed"), weights(tmp_path / "whole"), recipe)


@pytest.fixture(scope="module")
def priors(device, tmp_path_factory):
    """The three priors, trained for two steps there."""
    folder = tmp_path_factory.mktemp("priors")
    for prior in PRIORS:
        kind = task_class(prior)
        config = load_config(kind.config_class, settings(prior, device.type, steps=2))
        trainer = Trainer(
            kind(config, *open_split(kind, config, talkers())), str(folder / prior), Alone(folder / prior)
        )
        trainer.begin(None)
        trainer.run()
        trainer.close()
        write_prior(folder / "found" / prior, trainer.task, trainer.average, {})
    return folder / "found"


@pytest.mark.parametrize("recipe", recipe_names())
def test_a_recipe_on_priors_adapts_aligns_and_speaks_there(world, device, priors, speech, tmp_path, recipe):
    options = {"prior": str(priors), "size": SIZE, "recipe": recipe}
    adapt(world.video, tmp_path / "ada", budget="12it", device=device.type, **options)
    talk(tmp_path / "ada", speech, tmp_path / "said.mp4", device=device.type)
    evaluate(tmp_path / "ada", world.video, tmp_path / "scores", device=device.type)


def test_a_live_head_speaks_there(avatars, device, world):
    avatar = load_avatar(avatars / "headstart", device.type)
    sound = soundfile.read(world.video.parent / "sound.wav", dtype="float32")[0][: 640 * 12]
    talker = Talker(avatar, low_delay=True)
    frames = [*talker.feed(sound), *talker.finish()]
    assert len(frames) == 12
    assert frames[0].shape == (SIZE, SIZE, 3)


def test_a_frame_and_a_step_of_fitting_wait_for_nothing_but_the_picture(avatars, device, world, tmp_path, monkeypatch):
    avatar = load_avatar(avatars / "headstart", device.type)
    drive = avatar.tracked_drive([3, 4, 5, 6])
    avatar.render(drive)
    with counting() as counts:
        avatar.render(drive)
    assert counts.to_host.total() == 1
    assert not [name for name in counts.waits if not name.startswith("gsplat::")]
    assert counts.launches.total() / 4 < 257 / 2, "half of what a frame took before blocks were rendered in one pass"
    steps, real = [], Fit._step

    def counted(fit, *arguments):
        with counting() as step:
            real(fit, *arguments)
        steps.append(step)

    monkeypatch.setattr(Fit, "_step", counted)
    adapt(world.video, tmp_path / "ada", budget="6it", device=device.type, **QUICK)
    waits = [name for step in steps[2:] for name in step.synchronisations if not name.startswith("gsplat::")]
    assert not waits


def test_it_is_exported_from_there(avatars, device, tmp_path):
    export(avatars / "headstart", tmp_path / "head.ply", device=device.type)
    assert (tmp_path / "head.ply").stat().st_size > 1000


def test_the_command_line_takes_the_device_by_name_and_refuses_one_that_is_absent(avatars, device, speech, tmp_path):
    out = tmp_path / "said.mp4"
    assert main(["talk", str(avatars / "headstart"), str(speech), "--out", str(out), "--device", device.type]) == 0
    assert main(["talk", str(avatars / "headstart"), str(speech), "--out", str(out), "--device", "xpu"]) == 2
