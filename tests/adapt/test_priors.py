"""Which priors an adaptation is given: they fit, or are refused before a frame is decoded; it hears what they hear."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file

import adapt.ending
import adapt.job
from adapt.avatar.avatar import load_avatar
from adapt.priors import find_priors, open_priors
from adapt.talk.talk import talk
from configs import InputError, load_config, to_dict
from heads.rig import load_rig
from pretrain import load_prior
from pretrain.audio_expression.config import AudioExpressionConfig
from pretrain.audio_expression.model import ExpressionModel
from shards.features import open_feature
from shards.synthetic.mp4 import write_mp4
from tests.shards.features.models import convolutional
from tests.support.avatars import SIZE, make_world
from tests.support.person_priors import audio_expression, sync_expert, write_folder

LOGMEL = {"name": "logmel", "size": 160, "weights": None}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"), frames=132)


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    path = tmp_path_factory.mktemp("film") / "me.mp4"
    write_mp4(path, (np.zeros((32, 32, 3), np.uint8) for _ in range(60)), np.zeros(38400, np.float32))
    return path


@pytest.fixture(scope="module")
def hubert(tmp_path_factory):
    """A speech encoder with random weights, as a record."""
    pytest.importorskip("transformers", reason="speech features need transformers")
    return open_feature(f"hubert={convolutional(tmp_path_factory.mktemp('encoder') / 'hubert', 'hubert')}").record


def refuse(film, out, prior, monkeypatch, match):
    monkeypatch.setattr("shards.tracking.track_frames", lambda *_, **__: pytest.fail("tracked"))
    with pytest.raises(InputError, match=match):
        adapt.job.adapt(film, out, prior=prior)
    assert not out.exists()


def test_a_prior_that_is_not_there_is_told_before_a_frame_is_decoded(film, tmp_path, monkeypatch):
    refuse(film, tmp_path / "me", "/nowhere", monkeypatch, "prior '/nowhere'")


def test_priors_that_hear_different_features_are_refused_before_a_frame_is_decoded(film, tmp_path, monkeypatch):
    audio_expression(tmp_path / "priors" / "a", {"name": "hubert", "size": 768, "weights": None})
    sync_expert(tmp_path / "priors" / "b", LOGMEL)
    refuse(
        film, tmp_path / "me", tmp_path / "priors", monkeypatch, "do not fit together: audio features.*hubert.*logmel"
    )


def test_priors_of_different_rigs_are_refused_before_a_frame_is_decoded(film, tmp_path, monkeypatch):
    audio_expression(tmp_path / "priors" / "a", LOGMEL)
    sync_expert(tmp_path / "priors" / "b", LOGMEL, rig={"name": "ict/1", "sha256": "b" * 64, "source": "ict:/nowhere"})
    refuse(film, tmp_path / "me", tmp_path / "priors", monkeypatch, "do not fit together: rig.*mediapipe.*ict/1")


def test_a_rig_that_is_another_by_now_is_refused_before_a_frame_is_decoded(film, tmp_path, monkeypatch):
    rig = {"name": "mediapipe-478/1", "sha256": "c" * 64, "source": "mediapipe"}
    audio_expression(tmp_path / "a", LOGMEL, rig=rig)
    refuse(film, tmp_path / "me", tmp_path / "a", monkeypatch, "rig mediapipe-478/1 .cccccccccccc. is asked for")


def test_an_encoder_that_is_gone_is_told_before_a_frame_is_decoded(film, tmp_path, monkeypatch, hubert):
    record = {**hubert, "weights": {**hubert["weights"], "source": str(tmp_path / "gone")}}
    audio_expression(tmp_path / "a", record)
    refuse(film, tmp_path / "me", tmp_path / "a", monkeypatch, "gone")


@pytest.mark.parametrize("revision", [1, 3])
def test_a_prior_made_from_rows_of_another_revision_is_refused_before_a_frame_is_decoded(
    film, tmp_path, monkeypatch, revision
):
    folder = audio_expression(tmp_path / "a", LOGMEL)
    info = json.loads((folder / "prior.json").read_text())
    info["live"] = {"name": "whisper-live", "size": 2720, "weights": None, "revision": revision}
    (folder / "prior.json").write_text(json.dumps(info))
    cure = "train it again" if revision == 1 else "use the version of headstart that made it"
    match = f"prior '{folder}': audio feature 'whisper-live' of revision {revision}, expected 2: .*{cure}"
    refuse(film, tmp_path / "me", folder, monkeypatch, match)


def test_a_prior_of_before_revisions_is_refused_by_its_regression_for_live_use(tmp_path):
    changes = ["features=logmel", "live=whisper-live"]
    config = load_config(AudioExpressionConfig, "pretrain/audio-expression/tiny", changes)
    model = ExpressionModel(config, 160, load_rig().n_expression, 2, live=2720)
    folder = write_folder(tmp_path / "a", "audio-expression", to_dict(config), model, LOGMEL)
    with pytest.raises(InputError, match=f"prior '{folder}': audio feature 'whisper-live' of revision 1, expected 2"):
        open_priors(find_priors(folder))


def test_two_priors_of_one_kind_are_refused(tmp_path):
    for name in ("a", "b"):
        sync_expert(tmp_path / name, LOGMEL)
    with pytest.raises(InputError, match="a second sync-expert prior"):
        find_priors(f"{tmp_path / 'a'},{tmp_path / 'b'}")


def test_a_folder_of_priors_names_each_and_one_without_any_is_refused(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "priors" / name).mkdir(parents=True)
        (tmp_path / "priors" / name / "prior.json").write_text(json.dumps({"schema": 1, "prior": name}))
    (tmp_path / "empty").mkdir()
    assert [prior.folder.name for prior in find_priors(tmp_path / "priors")] == ["a", "b"]
    assert find_priors("none") == []
    with pytest.raises(InputError, match=r"hold a prior\.json"):
        find_priors(f"{tmp_path / 'priors'},{tmp_path / 'empty'}")


@pytest.fixture(scope="module")
def speaking(world, hubert, tmp_path_factory):
    """Avatars adapted and aligned on priors that hear HuBERT: one whole, one killed in between and resumed."""
    folder = tmp_path_factory.mktemp("speaking")
    audio_expression(folder / "priors" / "a", hubert)
    sync_expert(folder / "priors" / "s", hubert)
    options = {"prior": folder / "priors", "size": SIZE, "budget": "40it"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shards.tracking.track_frames", world.segments)
        whole = adapt.job.adapt(world.video, folder / "whole", **options)
        stop = adapt.ending.fit_voice

        def killed(run):
            raise KeyboardInterrupt

        patch.setattr(adapt.ending, "fit_voice", killed)
        with pytest.raises(KeyboardInterrupt):
            adapt.job.adapt(world.video, folder / "killed", **options)
        patch.setattr(adapt.ending, "fit_voice", stop)
        adapt.job.adapt(world.video, folder / "killed", resume=True, **{**options, "prior": None})
    return folder, whole


def test_an_avatar_hears_what_its_priors_hear_and_speaks(speaking, hubert, world, tmp_path):
    folder, whole = speaking
    document = json.loads((folder / "whole" / "avatar.json").read_text())
    assert document["features"] == hubert
    assert document["driver"] == "prior"
    assert whole["driver"].startswith("audio-expression prior")
    sound = 0.1 * np.random.default_rng(0).standard_normal(16_000)
    soundfile.write(tmp_path / "speech.wav", sound, 16_000)
    said = talk(folder / "whole", tmp_path / "speech.wav", tmp_path / "ada.mp4", background="model")
    assert said["frames"] == 25


def test_the_voice_too_is_the_same_after_a_kill_and_the_priors_are_those_it_was_begun_with(speaking):
    folder, _ = speaking
    whole, resumed = (load_file(folder / name / "weights.safetensors") for name in ("whole", "killed"))
    assert whole.keys() == resumed.keys()
    assert any(name.startswith("voice.") for name in whole)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_the_alignment_moves_the_colours_and_is_a_stage_of_its_own(speaking, monkeypatch, world, tmp_path):
    folder, _ = speaking
    monkeypatch.setattr("shards.tracking.track_frames", world.segments)
    options = {"prior": folder / "priors", "size": SIZE, "budget": "40it"}
    adapt.job.adapt(world.video, tmp_path / "apart", set=["alignment=false"], **options)
    a, b = (load_avatar(where, "cpu").model.talking.colors for where in (folder / "whole", tmp_path / "apart"))
    assert not torch.equal(a, b)


def test_resuming_with_other_priors_is_told_apart(speaking, world, tmp_path, monkeypatch):
    folder, _ = speaking
    monkeypatch.setattr("shards.tracking.track_frames", world.segments)
    audio_expression(tmp_path / "logmel", LOGMEL)
    with pytest.raises(InputError, match="do not fit together: audio features of this clip or avatar is hubert"):
        adapt.job.adapt(
            world.video, folder / "whole", resume=True, prior=tmp_path / "logmel", size=SIZE, budget="400it"
        )


def test_a_prior_of_a_later_version_says_which_one_trained_it(tmp_path):
    folder = sync_expert(tmp_path / "sync", LOGMEL)
    info = json.loads((folder / "prior.json").read_text())
    info["config"]["attention_span"] = 3
    info["code_version"] = "0.9.0"
    (folder / "prior.json").write_text(json.dumps(info | {"notes": "entries that mean nothing here are passed over"}))
    with pytest.raises(
        InputError, match=r"sync: .*unknown key 'attention_span'.*version 0\.9\.0 trained it, this is .*train again"
    ):
        load_prior(folder)


def test_a_prior_whose_rig_is_missing_is_not_told_to_train_again(tmp_path, monkeypatch):
    def without_rig(*_):
        raise InputError("the rig 'flame/1' is not here; set HEADSTART_FLAME")

    folder = sync_expert(tmp_path / "sync", LOGMEL)
    monkeypatch.setattr("pretrain.sync_expert.prior.Sync.restore", without_rig)
    with pytest.raises(InputError, match=r"sync: the rig 'flame/1' is not here; set HEADSTART_FLAME$"):
        load_prior(folder)
