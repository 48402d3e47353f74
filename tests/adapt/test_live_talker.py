"""The low-delay mode of the Talker and its driver: the same frames however the sound comes, and how late they are."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from adapt.avatar.avatar import load_avatar
from adapt.drivers.base import drive
from adapt.drivers.loudness import LoudnessDriver
from adapt.drivers.low_delay import quickest
from adapt.drivers.ridge import AHEAD, PAST, QUICK_AHEAD, RidgeDriver
from adapt.talk.talker import Talker


@pytest.fixture(scope="module")
def hearing(grace):
    """An avatar whose head listens to the sound itself."""
    return load_avatar(grace, "cpu")


@pytest.fixture(scope="module")
def avatar(ada):
    return load_avatar(ada, "cpu")


@pytest.fixture(scope="module")
def sound(world):
    return soundfile.read(world.video.parent / "sound.wav", dtype="float32")[0][: 640 * 40 + 333]


def stream(talker: Talker, sound: np.ndarray, sizes: list[int]) -> np.ndarray:
    frames, at = [], 0
    for size in sizes:
        frames += list(talker.feed(sound[at : at + size]))
        at += size
    return np.stack([*frames, *talker.feed(sound[at:]), *talker.finish()])


@pytest.mark.parametrize("which", ["avatar", "hearing"])
def test_live_frames_are_the_offline_ones_of_the_same_mode_bit_for_bit(which, sound, request):
    opened = request.getfixturevalue(which)
    whole = stream(Talker(opened, low_delay=True), sound, [])
    pieces = stream(Talker(opened, low_delay=True), sound, [320] * 30 + [1, 2000, 639, 121, 519])
    assert len(whole) == len(sound) // 640
    assert np.array_equal(whole, pieces)
    # The mode is another one: it does not know a frame's neighbours after it.
    assert not np.array_equal(whole, stream(Talker(opened), sound, []))


def test_a_frame_comes_when_its_look_ahead_was_heard_and_not_a_frame_later(avatar):
    talker, fed, came = Talker(avatar, low_delay=True), 0, []
    noise = 0.1 * np.random.default_rng(0).standard_normal(640 * 30).astype(np.float32)
    for at in range(0, len(noise), 40):
        fed += 40
        came += [fed] * len(list(talker.motions(noise[at : at + 40])))
    needed = [640 * (frame + QUICK_AHEAD + 1) + 120 for frame in range(len(came))]
    assert came == needed
    assert talker.delay == pytest.approx((QUICK_AHEAD + 1) * 0.04 + 0.0075)
    assert talker.delay <= 0.16


def test_a_picture_left_out_changes_no_other(avatar, sound):
    every = stream(Talker(avatar, low_delay=True), sound, [])
    talker = Talker(avatar, low_delay=True)
    some = [talker.render(motion)[0] if i % 3 == 0 else None for i, motion in enumerate(talker.motions(sound))]
    for i, frame in enumerate(some):
        assert frame is None or np.array_equal(frame, every[i])


def voice(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features, and expressions that are a blur of them over the frames around."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((400, 12)).astype(np.float32)
    mixing = rng.standard_normal((12, 4))
    return features, sum(0.5 ** abs(shift) * np.roll(features, shift, 0) @ mixing for shift in range(-4, 5))


def agreement(driver: RidgeDriver, features: np.ndarray, expression: np.ndarray) -> float:
    found = drive(driver, features)["expression"]
    return float(np.corrcoef(found[10:-10].ravel(), expression[10:-10].ravel())[0, 1])


def test_the_quick_regression_hears_less_and_is_better_than_one_that_guesses():
    features, expression = voice()
    driver = RidgeDriver.fit(features[:300], expression[:300])
    assert driver.quick is not None
    assert (driver.lookahead, driver.quick.lookahead) == (AHEAD, QUICK_AHEAD)
    guessing = RidgeDriver(driver.mean, driver.spread, driver.weight, driver.bias).low_delay()
    assert guessing.lookahead == QUICK_AHEAD
    scores = [agreement(d, features[300:], expression[300:]) for d in (driver, driver.quick, guessing)]
    assert scores[0] > scores[1] > scores[2] > 0.3


def test_the_guess_is_the_regression_on_a_sound_whose_last_row_lasts():
    features, expression = voice()
    fitted = RidgeDriver.fit(features, expression)
    whole = RidgeDriver(fitted.mean, fitted.spread, fitted.weight, fitted.bias)
    heard = features[: PAST + 1 + QUICK_AHEAD]
    lasting = np.concatenate([heard, np.repeat(heard[-1:], AHEAD, 0)])
    expected = drive(whole, lasting)["expression"][PAST]
    assert np.allclose(drive(whole.low_delay(), heard)["expression"][PAST], expected, atol=1e-4)


def test_an_avatar_keeps_its_quick_regression(avatar):
    assert isinstance(avatar.driver, RidgeDriver)
    assert avatar.driver.quick is not None
    again = RidgeDriver.from_tensors(avatar.driver.tensors())
    assert np.array_equal(quickest(again).weight, avatar.driver.quick.weight)


def test_a_driver_without_a_shorter_version_stays_as_it_is():
    driver = LoudnessDriver(np.zeros(3, np.float32), np.ones(3, np.float32))
    assert quickest(driver) is driver
