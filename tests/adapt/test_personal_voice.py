"""The audio-expression prior as a person's voice: style, fine-tuning, storing, streaming."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from adapt.drivers.base import drive
from adapt.drivers.calibration import calibration, lip_weights
from adapt.drivers.closing import LipClosing
from adapt.drivers.low_delay import heard_by, quickest
from adapt.drivers.personal_voice import REST_FRAMES, person_driver, person_voice, ready_for_live, resting_face
from adapt.drivers.prior import EMPHASIS, SHARE, PriorDriver
from adapt.drivers.ridge import RidgeDriver
from configs import InputError, load_config
from heads.rig import load_rig

RIG = load_rig()


def _prior():
    """A small untrained prior: random, but of the real architecture."""
    from pretrain.audio_expression import AudioExpressionPrior
    from pretrain.audio_expression.config import AudioExpressionConfig
    from pretrain.audio_expression.model import ExpressionModel

    torch.manual_seed(0)
    config = load_config(AudioExpressionConfig, "pretrain/audio-expression/tiny")
    return AudioExpressionPrior(ExpressionModel(config, 160, 32, 2), {"prior": "audio-expression"}, ["a", "b"])


@pytest.fixture(scope="module")
def clip():
    """A clip whose mouth follows the loudness of its sound."""
    rng = np.random.default_rng(0)
    features = rng.standard_normal((150, 160)).astype(np.float32)
    jaw = features[:, :40].mean(1, keepdims=True) * 5
    expression = np.tile(jaw, (1, 32)).astype(np.float32)
    track = {
        "expression": expression,
        "eyelids": np.zeros((150, 2), np.float32),
        "gaze": np.zeros((150, 2, 2), np.float32),
        "rotation": np.tile(np.eye(3, dtype=np.float32), (150, 1, 1)),
        "translation": np.zeros((150, 3), np.float32),
    }
    return SimpleNamespace(track=track, features=lambda: features, identity=np.zeros(RIG.n_identity, np.float32))


def test_a_voice_streams_what_it_drives_and_comes_back_from_its_tensors(clip):
    driver = person_voice(_prior(), clip, {"version": "7"}, RIG, steps=range(40))
    features = clip.features()
    whole = drive(driver, features)["expression"]
    stream = driver.stream()
    parts = [stream.push(features[i : i + 11]) for i in range(0, 150, 11)] + [stream.finish()]
    assert np.allclose(np.concatenate([p["expression"] for p in parts if len(p["expression"])]), whole, atol=1e-4)
    again = PriorDriver.from_tensors(_prior(), driver.tensors(), {"version": "7"})
    assert np.abs(drive(again, features)["expression"] - whole).max() < 0.1
    assert "audio-expression prior 7" in driver.name


def test_fine_tuning_keeps_the_encoder_and_never_makes_the_held_back_seconds_worse(clip):
    prior = _prior()
    encoder = {k: v.clone() for k, v in prior.audio_encoder.state_dict().items()}
    driver = person_voice(prior, clip, {}, RIG, steps=range(60))
    assert all(torch.equal(v, encoder[k]) for k, v in prior.audio_encoder.state_dict().items())
    untuned = _prior()
    style = driver.style

    def error(which):
        found = which.expect(clip.features()[120:], style=style)["expression"]
        return float(((found - clip.track["expression"][120:]) ** 2).mean())

    assert error(prior) <= error(untuned) + 1e-6


def test_fine_tuning_by_steps_ends_with_the_same_weights_every_time(clip):
    from adapt.fit.state import seed_step

    def tuned():
        seeds = (seed_step(0, torch.device("cpu"), "voice", step) for step in range(30))
        return person_voice(_prior(), clip, {}, RIG, steps=seeds).tensors()

    first, second = tuned(), tuned()
    assert any(name.startswith("weights.") for name in first), "nothing was learned, so nothing was compared"
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_prior_is_averaged_with_a_regression_on_the_clip_and_streams_and_is_kept_so(clip):
    driver = person_driver(_prior(), clip, {"version": "7"}, RIG)
    features = clip.features()
    voice = person_voice(_prior(), clip, {"version": "7"}, RIG)
    ridge = RidgeDriver.fit(features, clip.track["expression"]).resting(voice.calibration[2])
    mean = (1 - SHARE) * drive(voice, features)["expression"] + SHARE * drive(ridge, features)["expression"]
    whole = drive(driver, features)
    averaged = ridge.bias + EMPHASIS * (mean - ridge.bias)
    assert driver.closing is not None
    assert np.allclose(whole["expression"], driver.closing(averaged), atol=1e-5)
    assert np.array_equal(whole["eyelids"], drive(voice, features)["eyelids"])
    stream = driver.stream()
    parts = [stream.push(features[i : i + 7]) for i in range(0, 150, 7)] + [stream.finish()]
    assert np.allclose(np.concatenate([p["expression"] for p in parts if p]), whole["expression"], atol=1e-4)
    again = PriorDriver.from_tensors(_prior(), driver.tensors(), {"version": "7"})
    assert np.abs(drive(again, features)["expression"] - whole["expression"]).max() < 0.1
    assert "averaged with a ridge regression" in again.name
    assert driver.with_style(None).regression is driver.regression


def test_only_a_voice_from_an_encoder_with_closing_lips_is_not_emphasised_after_averaging(clip):
    prior = _prior()
    prior.info = prior.info | {"features": {"name": "whisper", "size": 160, "weights": None}}
    rows, ridge = clip.features(), RidgeDriver.fit(clip.features(), clip.track["expression"])
    closing = LipClosing.fit(RIG, clip.identity, clip.track["expression"])
    voice = PriorDriver(prior, regression=ridge, closing=closing)
    alone, fitted = (drive(which, rows)["expression"] for which in (PriorDriver(prior), ridge))
    mean = closing((1 - SHARE) * alone + SHARE * fitted)
    assert np.allclose(drive(voice, rows)["expression"], mean, atol=1e-5)
    assert voice.closed(None).emphasis == EMPHASIS
    assert PriorDriver(_prior(), regression=ridge, closing=closing).emphasis == EMPHASIS


def test_a_voice_that_hears_an_encoder_answers_at_once_by_log_mel(clip):
    driver = person_driver(_prior(), clip, {"version": "7"}, RIG)
    sound = np.random.default_rng(1).standard_normal(150 * 640).astype(np.float32)
    quiet, heard = (
        SimpleNamespace(track=clip.track, audio=sound, feature=SimpleNamespace(name=name))
        for name in ("logmel", "whisper")
    )
    assert ready_for_live(driver, quiet, RIG).quick is None, "log-mel is quick itself"
    live = ready_for_live(driver, heard, RIG)
    again = PriorDriver.from_tensors(_prior(), live.tensors(), {"version": "7"})
    record = {"name": "whisper", "size": 384, "weights": None}
    for ready in (live, again):
        quick = quickest(ready)
        assert heard_by(quick, record)["name"] == "logmel"
        assert quick.lookahead <= 2
        assert drive(quick, np.zeros((30, 160), np.float32))["expression"].shape == (30, 32)
    assert quickest(live, any_feature=False) is not live.quick
    assert heard_by(driver, record) == record


def test_a_clip_too_short_for_a_regression_is_spoken_for_by_the_prior_alone_and_its_lips_meet(clip):
    track = {name: rows[:60] for name, rows in clip.track.items()}
    short = SimpleNamespace(track=track, features=lambda: clip.features()[:60], identity=clip.identity)
    driver = person_driver(_prior(), short, {}, RIG)
    assert driver.regression is None
    assert driver.closing is not None


def test_lips_are_pressed_in_live_use_and_by_a_regression_alone(clip):
    driver = person_driver(_prior(), clip, {}, RIG)
    features, lips = clip.features(), driver.closing
    alone = RidgeDriver.fit(features, clip.track["expression"]).closed(lips)
    kept = RidgeDriver.from_tensors(alone.tensors())
    pairs = [
        (quickest(driver), driver.regression.low_delay()),
        (kept, alone.closed(None)),
        (quickest(kept), alone.quick.closed(None)),
    ]
    for pressed, free in pairs:
        expected = lips(drive(free, features)["expression"])
        assert np.allclose(drive(pressed, features)["expression"], expected, atol=1e-4)
        assert not np.allclose(expected, drive(free, features)["expression"], atol=1e-2)


def _lip_error(a, b):
    """Mean distance of the lips' landmarks of two expression sequences, as LMD: rig units, means removed."""
    from heads.rig.facemesh import LIPS

    rig = RIG
    moved = torch.from_numpy(np.asarray(a - b, np.float32))
    still = rig.vertices(torch.zeros(1, rig.n_identity), torch.zeros(1, moved.shape[1]))
    apart = (rig.vertices(torch.zeros(1, rig.n_identity), moved) - still)[:, list(LIPS), :2]
    return float((apart - apart.mean(1, keepdim=True)).norm(dim=-1).mean())


def test_a_calibrated_voice_is_no_farther_from_the_truth_than_the_persons_mean():
    rng, weight = np.random.default_rng(0), lip_weights(RIG, 32)
    true = rng.standard_normal((200, 32)).astype(np.float32)
    for said in (3 * true + 5, rng.standard_normal((200, 32)) * 4, -true):
        gain, centre, rest = calibration(said, true, weight)
        assert _lip_error(rest + gain * (said - centre), true) <= 1.02 * _lip_error(np.tile(rest, (200, 1)), true)
    gain, _, _ = calibration(3 * true + 5, true, weight)
    assert np.allclose(gain, 1 / 3, atol=1e-3)


def test_a_style_of_another_size_is_refused():
    with pytest.raises(InputError, match="style has shape"):
        PriorDriver(_prior()).with_style(np.zeros(3, np.float32))


def test_the_resting_face_of_a_short_clip_is_drawn_towards_that_of_people_in_general(clip):
    prior, features = _prior(), clip.features()
    usual = drive(PriorDriver(prior), features)["expression"].mean(0)
    mean = clip.track["expression"].mean(0)
    rest = person_voice(prior, clip, {}, RIG).calibration[2]
    share = len(features) / (len(features) + REST_FRAMES)
    assert np.allclose(rest, usual + share * (mean - usual), atol=1e-4)
    several = np.tile(features, (8, 1)), np.tile(clip.track["expression"], (8, 1))
    longer = resting_face(PriorDriver(prior), *several)
    assert np.abs(longer - mean).max() < 0.5 * np.abs(rest - mean).max()
    driver = person_driver(prior, clip, {}, RIG)
    assert np.allclose(driver.regression.bias, rest, atol=1e-4)
