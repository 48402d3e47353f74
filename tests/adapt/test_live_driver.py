"""The prior's regression for live use: corrected on the clip, streamed, kept by the avatar, and left out where it cannot be."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from adapt.avatar.avatar import load_avatar
from adapt.drivers.base import drive
from adapt.drivers.live import AUDIBLE, LiveDriver
from adapt.drivers.low_delay import heard_by, quickest
from adapt.drivers.personal_voice import LIVE_BLOCKS, LIVE_FRAMES, live_frames, ready_for_live
from adapt.drivers.prior import PriorDriver
from adapt.drivers.ridge import RidgeDriver
from adapt.talk.talker import Talker
from heads.rig import load_rig
from pretrain.roles import LiveFilter
from shards.features import open_feature
from shards.features.whisper_live import BLOCK, LAYOUT, WhisperLive
from tests.shards.features.models import whisper
from tests.shards.features.sounds import noise

SIZE, K = LAYOUT.encoded * 32 + 5 * 160, 32


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return str(whisper(tmp_path_factory.mktemp("whisper") / "w"))


class Voice:
    """A motion prior with a regression for live use, whose own voice is a still face."""

    mean_style = np.zeros(4, np.float32)

    def __init__(self, weights: str) -> None:
        self.info = {"prior": "audio-expression", "features": open_feature("whisper", weights).record}
        rng = np.random.default_rng(0)
        matrix = rng.normal(0, 0.02, (SIZE, K)).astype(np.float32)
        self.live = LiveFilter("whisper-live", np.zeros(SIZE, np.float32), matrix, matrix[:, 0], WhisperLive.revision)

    def find_style(self, features, track, *, iterations=0, seed=0):
        return self.mean_style

    def streamer(self, **options):
        def still(rows):
            return {"expression": np.zeros((len(rows), K), np.float32)}

        return SimpleNamespace(lookahead=48, push=still, finish=lambda: still(()))


def clip(weights: str, frames: int = 130) -> SimpleNamespace:
    sound = 0.1 * noise(640 * frames)
    track = {"expression": np.random.default_rng(1).normal(0, 1, (frames, K)).astype(np.float32)}
    return SimpleNamespace(track=track, audio=sound, feature=open_feature("whisper", weights))


def test_a_corrected_regression_is_nearer_to_the_person_than_the_priors():
    rng = np.random.default_rng(0)
    prior = LiveFilter("whisper-live", np.zeros(SIZE, np.float32), rng.normal(0, 1, (SIZE, K)).astype(np.float32) / 30)
    low = rng.normal(0, 1, (20, SIZE)).astype(np.float32) / 4  # rows of a person lie in few directions
    rows = rng.normal(0, 1, (400, 20)).astype(np.float32) @ low
    own = 0.8 * prior.weight + rng.normal(0, 1, (SIZE, K)) / 30
    face = rows @ own + 3.0
    driver = LiveDriver.fit(prior, rows[:250], face[:250], np.ones(K))
    corrected = (rows[250:] - driver.mean) @ driver.weight + driver.bias
    untouched = (rows[250:] - driver.mean) @ prior.weight + driver.bias
    errors = [float(((guess - face[250:]) ** 2).mean()) for guess in (corrected, untouched)]
    assert errors[0] < 0.5 * errors[1]


def test_a_stream_gives_the_frames_of_the_whole_and_settles_on_another_voice():
    rng = np.random.default_rng(0)
    weight = rng.normal(0, 0.1, (SIZE, K)).astype(np.float32)
    driver = LiveDriver(np.zeros(SIZE, np.float32), weight, np.ones(K, np.float32), "whisper-live")
    rows = rng.normal(0, 1, (60, SIZE)).astype(np.float32)
    whole, stream = drive(driver, rows)["expression"], driver.stream()
    parts = [stream.push(rows[i : i + 7])["expression"] for i in range(0, 60, 7)]
    assert np.array_equal(np.concatenate(parts), whole)
    assert stream.finish() == stream.push(rows[:0]) == {}
    other = np.zeros((4000, SIZE), np.float32) + rng.normal(0, 1, SIZE).astype(np.float32)
    settled = drive(driver, np.abs(other))["expression"]  # loud
    assert np.abs(settled[-1] - 1).max() < 0.01 * np.abs(settled[0] - 1).max()
    silent = np.abs(other[:200])
    silent[:, -800:] = AUDIBLE - 0.2
    assert np.array_equal(*drive(driver, silent)["expression"][[0, -1]]), "pauses move no mean"


def test_what_is_heard_of_shut_lips_drifts_and_streams_as_the_expression_does():
    rng = np.random.default_rng(0)
    weight = rng.normal(0, 0.1, (SIZE, K)).astype(np.float32)
    driver = LiveDriver(
        np.zeros(SIZE, np.float32), weight, np.ones(K, np.float32), "whisper-live", closure=weight[:, 0]
    )
    rows = rng.normal(0, 1, (60, SIZE)).astype(np.float32)
    whole, stream = drive(driver, rows), driver.stream()
    parts = [stream.push(rows[i : i + 7])["closure"] for i in range(0, 60, 7)]
    assert np.array_equal(np.concatenate(parts), whole["closure"])
    np.testing.assert_allclose(whole["closure"], whole["expression"][:, 0] - 1, atol=1e-4)
    again = LiveDriver.from_tensors(driver.tensors(), "whisper-live")
    assert np.array_equal(drive(again, rows)["closure"], whole["closure"])


def test_an_avatar_keeps_the_regression_and_answers_by_it_where_its_encoder_is(weights, caplog):
    voice, rig = Voice(weights), load_rig()
    driver = ready_for_live(PriorDriver(voice), clip(weights), rig)
    assert driver.quick is not None
    assert driver.live is not None
    record = voice.info["features"]
    kept = {"version": "1", "live": open_feature("whisper-live", weights).record}
    again = PriorDriver.from_tensors(voice, driver.tensors(), kept)
    quick = quickest(again, record)
    assert isinstance(quick, LiveDriver)
    assert np.array_equal(quick.weight, driver.live.weight)
    assert np.array_equal(quick.closure, voice.live.closure)
    assert heard_by(quick, record) == open_feature("whisper-live", weights).record
    # Without the encoder, for a head that listens to the avatar's own rows, and where no record is given: as before.
    gone = {**record, "weights": {"source": "/nowhere", "sha256": "0" * 64}}
    with caplog.at_level(logging.WARNING):
        assert isinstance(quickest(again, gone), RidgeDriver)
    assert "hears log-mel" in caplog.text
    earlier = PriorDriver.from_tensors(
        voice, driver.tensors(), {"version": "1"}
    )  # made from rows of the first revision
    with caplog.at_level(logging.WARNING):
        assert isinstance(quickest(earlier, record), RidgeDriver)
    assert "'whisper-live' of revision 1, expected 2" in caplog.text
    assert isinstance(quickest(again), RidgeDriver)
    assert quickest(again, record, any_feature=False) is again


def test_a_prior_without_such_a_regression_leaves_live_use_as_it_was(weights):
    voice = Voice(weights)
    voice.live = None
    driver = ready_for_live(PriorDriver(voice), clip(weights), load_rig())
    assert driver.live is None
    assert quickest(driver, voice.info["features"]).feature == "logmel"
    kept = ready_for_live(PriorDriver(Voice(weights)), clip(weights), load_rig()).tensors()
    assert PriorDriver.from_tensors(voice, kept, {}).live is None


@pytest.fixture
def avatar(ada, weights):
    opened = load_avatar(ada, "cpu")
    rng, face = np.random.default_rng(0), opened.track["expression"]
    weight = rng.normal(0, 0.02, (SIZE, face.shape[1])).astype(np.float32)
    live = LiveDriver(np.zeros(SIZE, np.float32), weight, face.mean(0), "whisper-live", revision=WhisperLive.revision)
    opened.driver = PriorDriver(Voice(weights), live=live)
    opened.document["features"] = open_feature("whisper", weights).record
    return opened


def test_live_frames_do_not_depend_on_the_feeds_and_come_120_ms_after_their_sound(avatar):
    sound = 0.1 * noise(640 * 20 + 333)
    whole = Talker(avatar, low_delay=True)
    expected = np.stack([*whole.feed(sound), *whole.finish()])
    assert len(expected) == 20
    talker, fed, came, frames = Talker(avatar, low_delay=True), 0, [], []
    for at in range(0, len(sound), 80):
        piece = sound[at : at + 80]
        fed += len(piece)
        for frame in talker.feed(piece):
            came.append(fed)
            frames.append(frame)
    assert came == [640 * (frame + 4) for frame in range(len(came))]
    assert np.array_equal(np.stack([*frames, *talker.finish()]), expected)
    assert talker.delay == pytest.approx(0.16)
    assert talker.lookahead == 3
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("count", [1, 99, 250, 799, 801, 3333])
def test_frames_that_a_regression_is_corrected_on_are_spread_over_few_blocks(count):
    frames = live_frames(count)
    assert len(frames) == len(np.unique(frames)) == min(count, LIVE_FRAMES)
    assert frames.min() == 0
    assert frames.max() == count - 1
    assert len(np.unique(frames // BLOCK)) <= LIVE_BLOCKS
