"""A live session: frames of the offline mode, idle life, barge-in, settings, slow machines and slow readers."""

from __future__ import annotations

import asyncio
import itertools
import time
from pathlib import Path

import numpy as np
import pytest

from adapt.avatar.avatar import load_avatar
from adapt.live.engine import Chunk, Engine, Look
from adapt.live.motion import FADE, LiveGaze, LivePoses
from adapt.live.session import FORGIVEN, WAITING_FRAMES, WAITING_PICTURES, LiveSession
from adapt.talk.talker import Talker
from configs import InputError
from heads.geometry.rotation import rotation_to_euler
from shards.media.encode import as_uint8
from tests.support import sounds
from tests.support.waiting import LONGEST, at_rest, until


@pytest.fixture(scope="module")
def avatar(ada):
    return load_avatar(ada, "cpu")


@pytest.fixture(scope="module")
def sound():
    return sounds.voice(1.2)


def offline(avatar, sound, seed=0):
    """The frames of the low-delay Talker with a live head's motion, all sound at once."""
    poses = LivePoses(avatar.track, "generated", seed)
    gaze = LiveGaze(avatar.track["gaze"], poses, seed)
    talker = Talker(avatar, poses=poses, gaze=gaze, seed=seed, low_delay=True)
    return [as_uint8(frame) for frame in talker.feed(sound)]


class HandClock:
    """A session's time, which moves only when a test moves it."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now

    def pass_by(self, session, seconds=0.04):
        """Let time pass, and the session look at the clock."""
        self.now += seconds
        session._wake.set()


@pytest.fixture
def clock(monkeypatch):
    clock = HandClock()
    monkeypatch.setattr("adapt.live.session.time", clock)
    return clock


def taken(session):
    """Frames of sound that the session's engine was given."""
    return session._engine._end / 640


async def some(session, count, before=None):
    """The next frames of a session."""
    frames = []
    async for frame in session:
        frames.append(frame)
        if before is not None:
            before(frame)
        if len(frames) == count:
            return frames
    return frames


def test_frames_of_a_session_are_the_offline_ones_bit_for_bit(avatar, sound, clock):
    async def live():
        async with LiveSession(avatar) as session:
            reader = asyncio.create_task(some(session, 27))
            for at in range(0, len(sound), 320):
                session.push(sound[at : at + 320])
                await until(lambda: not session._live, pause=0.001)
            return await reader

    frames, expected = asyncio.run(live()), offline(avatar, sound)
    assert [frame.number for frame in frames] == list(range(27))
    seen = [frame for frame in frames if frame.image is not None]
    assert len(seen) == 27
    for frame in seen:
        assert np.array_equal(frame.image, expected[frame.number])
    for frame in frames:
        assert np.array_equal(frame.sound, sound[640 * frame.number : 640 * (frame.number + 1)])
        assert frame.heard == 640 * (frame.number + 1)
        assert frame.speaking


def test_every_picture_of_the_engine_is_the_offline_one_when_pieces_are_small(avatar, sound):
    engine = Engine(avatar, Look({}))
    pieces = [Chunk(sound[at : at + 320], time.monotonic(), live=True) for at in range(0, len(sound), 320)]
    frames = [frame for piece in pieces for frame in engine.step(piece)]
    expected = offline(avatar, sound)
    assert len(frames) == len(expected) >= 26
    assert all(np.array_equal(frame.image, image) for frame, image in zip(frames, expected))
    assert engine.dropped == 0


def test_a_session_that_hears_nothing_lives_at_25_frames_a_second(avatar, clock):
    async def live():
        async with LiveSession(avatar) as session:
            reader = asyncio.create_task(some(session, 18))
            for count in range(1, 26):
                await until(lambda count=count: taken(session) >= count, pause=0.002)
                assert taken(session) == count
                clock.pass_by(session)
            return await reader

    frames = asyncio.run(live())
    assert not any(frame.speaking for frame in frames)
    assert all(np.abs(frame.sound).max() == 0 for frame in frames)


def test_what_is_said_comes_out_whole_and_in_its_order(avatar, sound):
    async def live():
        async with LiveSession(avatar) as session:
            session.say(sound[:5000])
            session.say((sound[5000:] * 32767).astype(np.int16))
            return await some(session, 38)

    heard = np.concatenate([frame.sound for frame in asyncio.run(live())])
    start = int(np.flatnonzero(heard)[0]) - int(np.flatnonzero(sound)[0])
    assert start % 640 == 0
    assert np.abs(heard[start : start + len(sound)] - sound).max() < 1e-4


def test_an_interruption_ends_the_sound_and_closes_the_lips(avatar, sound):
    speech = np.tile(sound, 6)

    async def live():
        async with LiveSession(avatar) as session:
            session.say(speech)
            resting = session._engine.talker.resting
            before = await some(session, 15)
            session.interrupt()
            shares = []
            after = await some(session, 14, lambda frame: shares.append(resting.share))
            return before, after, session.queued, shares

    before, after, queued, shares = asyncio.run(live())
    assert any(frame.speaking for frame in before)
    assert queued == 0
    assert not any(frame.speaking for frame in after[6:])
    assert shares[-1] == 1.0


def test_speech_begins_and_ends_without_a_jump(avatar, sound):
    """No frame of the head differs from the one before by more than while speaking or looking around."""
    engine = Engine(avatar, Look({}, pose="still", blink="none"))
    engine.talker.gaze = lambda numbers, poses: np.zeros((len(numbers), 2, 2), np.float32)
    stretch = np.concatenate([np.zeros(640 * 15, np.float32), sound, np.zeros(640 * 20, np.float32)])
    frames = [f for at in range(0, len(stretch), 640) for f in engine.step(Chunk(stretch[at : at + 640], 0.0))]
    steps = [np.abs(a.image.astype(int) - b.image).mean() for a, b in itertools.pairwise(frames)]
    speaking = max(steps[16:44])
    assert max(steps[10:16]) <= speaking
    assert max(steps[44:]) <= speaking
    assert max(steps[:13]) < 0.35 * speaking + 0.05


def test_a_slow_machine_drops_pictures_and_no_sound(avatar, sound):
    engine = Engine(avatar, Look({}))
    frames = engine.step(Chunk(sound, time.monotonic()))
    assert [frame.image is not None for frame in frames] == [False] * (len(frames) - 1) + [True]
    assert engine.dropped == len(frames) - 1
    assert np.array_equal(np.concatenate([frame.sound for frame in frames]), sound[: 640 * len(frames)])
    silence = np.zeros(640, np.float32)
    for last, shown in ((time.monotonic() + 3600, False), (time.monotonic() - 3600, True)):
        engine._rendered = last  # however late, there is a picture once the last one is old
        assert (engine.step(Chunk(silence, time.monotonic(), late=0.3))[0].image is not None) == shown


def test_a_reader_who_sleeps_finds_sound_and_the_newest_pictures_and_nothing_grows(avatar):
    async def live():
        async with LiveSession(avatar) as session:
            session._put([])
            engine = session._engine
            frame = engine.step(Chunk(np.zeros(640 * 4, np.float32), 0.0))[-1]
            session._put([frame] * 40)
            waiting = list(session._frames)
            session._put([frame] * (WAITING_FRAMES + 5))
            return waiting, await at_rest(lambda: len(session._frames), 0.3)

    waiting, count = asyncio.run(live())
    assert sum(frame.image is not None for frame in waiting) == WAITING_PICTURES
    assert all(len(frame.sound) == 640 for frame in waiting)
    assert count <= 40 + WAITING_FRAMES + 5 + 2


def test_settings_change_the_head_smoothly_and_wrong_ones_change_nothing(avatar):
    engine = Engine(avatar, Look({}, pose="still", blink="none"))
    engine.talker.gaze = lambda numbers, poses: np.zeros((len(numbers), 2, 2), np.float32)
    silence = Chunk(np.zeros(640, np.float32), 0.0)
    for _ in range(6):
        engine.step(silence)
    before = engine.step(silence)[0].image.astype(int)
    engine.change(Look({"jaw": 1.0}, turn=(20.0, 0.0), pose="still", blink="none").checked(avatar))
    images = [frame.image.astype(int) for _ in range(16) for frame in engine.step(silence)]
    steps = [np.abs(b - a).mean() for a, b in zip([before, *images], images)]
    assert np.abs(images[-1] - before).mean() > 2
    assert max(steps) < 0.6 * np.abs(images[-1] - before).mean()

    async def wrong(**changes):
        async with LiveSession(avatar) as session:
            look = session.look
            with pytest.raises(InputError):
                session.set(**changes)
            assert session.look is look

    for changes in (
        {"controls": {"wings": 1.0}},
        {"controls": {"jaw": 99.0}},
        {"controls": {"jaw": float("nan")}},
        {"turn": (200.0, 0.0)},
        {"pose": "dancing"},
        {"blink": "often"},
        {"background": "original"},
        {"style": "shouting"},
        {"hat": 1},
    ):
        asyncio.run(wrong(**changes))


def test_a_style_moves_the_face_less_or_more_and_own_changes_nothing(avatar, sound):
    moved = {}
    for style in ("own", "calm", "lively"):
        engine = Engine(avatar, Look({}, style=style).checked(avatar))
        engine.talker.resting = None
        motions = list(engine.talker.motions(sound))
        rows = np.concatenate([motion.drive.expression.numpy() for motion in motions])
        moved[style] = np.abs(rows - engine.talker.bounds.mean).mean()
    assert moved["calm"] == pytest.approx(0.6 * moved["own"], rel=0.02)
    assert moved["lively"] > 1.1 * moved["own"]  # held within what the clip showed
    engine = Engine(avatar, Look({}))
    engine.change(Look({}, style="lively"))
    shares = []
    for _ in range(20):
        engine.step(Chunk(np.zeros(640, np.float32), 0.0))
        shares.append(engine.talker.emphasis)
    assert 1.0 < shares[0] < 1.2  # not at once
    assert shares[-1] == pytest.approx(1.4, abs=0.02)


def test_a_turn_is_reached_and_a_new_mode_fades_in(avatar):
    poses = LivePoses(avatar.track, "still")
    start = rotation_to_euler(poses.at(np.arange(1)).rotation)[0]
    poses.turn = (25.0, -10.0)
    turned = rotation_to_euler(poses.at(np.arange(1, 40)).rotation)
    assert np.degrees(turned[-1] - start)[:2] == pytest.approx([25, -10], abs=0.6)
    poses.turn = (0.0, 0.0)
    poses.at(np.arange(40, 90))
    poses.hold("clip")
    faded = poses.at(np.arange(90, 90 + 2 * FADE))
    own = avatar.track["rotation"][faded.source[-1]]
    assert np.degrees(np.abs(rotation_to_euler(faded.rotation[-1:]) - rotation_to_euler(own[None]))).max() < 0.6
    jumps = np.degrees(np.abs(np.diff(rotation_to_euler(faded.rotation), axis=0))).max()
    assert jumps < 3


def test_torso_and_background_fade_to_those_of_the_clip_with_its_poses(avatar):
    count = len(avatar.track["rotation"])
    camera = np.arange(6 * count, dtype=np.float32).reshape(count, 6)
    poses = LivePoses({**avatar.track, "background": camera}, "generated")
    still = np.full(6, 3, np.float32)
    assert (poses.at(np.arange(5)).share == 0).all()
    poses.hold("clip")
    faded = poses.at(np.arange(5, 5 + 2 * FADE))
    assert (np.diff(faded.share[:FADE]) > 0).all()
    assert (faded.share[FADE:] == 1).all()
    np.testing.assert_array_equal(faded.mixed(faded.background, still)[FADE:], camera[faded.source[FADE:]])
    poses.hold("still")
    back = poses.at(np.arange(5 + 2 * FADE, 5 + 4 * FADE))
    assert 0.9 < back.share[0] < 1
    np.testing.assert_array_equal(back.mixed(back.background, still)[FADE:], np.tile(still, (FADE, 1)))
    assert LivePoses(avatar.track).at(np.arange(2)).background is None


def test_eyes_rest_on_something_and_move_on(avatar):
    gaze = LiveGaze(avatar.track["gaze"], LivePoses(avatar.track), seed=1)
    glances = np.stack([gaze.glance(number) for number in range(1000)])
    moving = np.abs(np.diff(glances, axis=0)).max(1) > 1e-9
    assert 40 < moving.sum() < 60  # two frames for each of 25 saccades
    assert 1 < np.degrees(glances[:, 0].std()) < 5


@pytest.mark.parametrize("bad", [np.zeros((2, 4), np.float32), np.array(["a"]), np.zeros(3, complex)])
def test_what_is_no_sound_is_refused(avatar, bad):
    async def live():
        async with LiveSession(avatar) as session:
            with pytest.raises(InputError, match="mono samples"):
                session.push(bad)

    asyncio.run(live())


def test_more_than_a_minute_ahead_is_refused_and_room_waits(avatar):
    async def live():
        async with LiveSession(avatar) as session:
            session.say(np.zeros(16_000 * 60, np.float32))
            with pytest.raises(InputError, match="more slowly"):
                session.say(np.zeros(16_000, np.float32))
            session.interrupt()
            await asyncio.wait_for(session.room(), LONGEST)

    asyncio.run(live())


def test_not_a_number_is_silence_and_no_fault(avatar):
    async def live():
        async with LiveSession(avatar) as session:
            session.say(np.full(640, np.nan, np.float32))
            return await some(session, 8)

    assert all(np.isfinite(frame.sound).all() for frame in asyncio.run(live()))


@pytest.mark.parametrize(("patience", "whole"), [(5.0, True), (0.05, False)])
def test_a_stuttering_network_loses_no_sound(avatar, sound, monkeypatch, clock, patience, whole):
    monkeypatch.setattr("adapt.live.session.PATIENCE", patience)
    speech = 0.1 + 0.2 * np.abs(sound[: 640 * 20])

    async def live():
        async with LiveSession(avatar) as session:
            reader, given = asyncio.create_task(some(session, 24)), 0
            for at in range(0, len(speech), 3200):
                before = taken(session)
                session.push(speech[at : at + 3200])
                await until(lambda before=before: taken(session) >= before + 5)
                given = taken(session)
                clock.pass_by(session, 0.25)
                if whole:
                    await asyncio.sleep(0.1)
                    assert taken(session) == given
                else:  # silence is filled in
                    await until(lambda given=given: taken(session) > given)
            monkeypatch.setattr("adapt.live.session.PATIENCE", 0.05)
            while not reader.done():
                clock.pass_by(session)
                await asyncio.sleep(0.005)
            return await reader

    heard = np.concatenate([frame.sound for frame in asyncio.run(live())])
    voiced = np.flatnonzero(heard)
    assert np.array_equal(heard[voiced], speech[: len(voiced)])
    gaps = voiced[-1] - voiced[0] + 1 - len(voiced)
    assert (gaps == 0) == whole


def test_a_machine_that_slept_does_not_catch_up_what_nobody_saw(avatar, clock):
    async def live():
        async with LiveSession(avatar) as session:
            before = await at_rest(lambda: taken(session), 0.1)
            clock.pass_by(session, 3600)
            await until(lambda: taken(session) > before)
            return await at_rest(lambda: taken(session), 0.1) - before

    assert 2 <= asyncio.run(live()) <= 2 + FORGIVEN * 25


def test_the_agent_of_the_documentation_speaks_is_interrupted_and_ends(avatar, sound):
    page = (Path(__file__).parents[2] / "docs" / "live.md").read_text()
    space: dict = {}
    exec(page.split("```python\n")[1].split("```")[0], space)
    shown, waited_for, sentences = [], [], iter(["one", "two"])

    async def listen():
        """The user breaks in whenever ten frames more have been spoken, and then leaves."""
        if not waited_for:
            waited_for.append(10)
        else:
            await until(lambda: sum(frame.speaking for frame in shown) >= waited_for[-1])
            waited_for.append(sum(frame.speaking for frame in shown) + 10)
        return next(sentences, None)

    async def answer(text):
        for _ in range(2 if text == "two" else 100):
            yield sound[:8000]

    asyncio.run(asyncio.wait_for(space["agent"](avatar, listen, answer, shown.append), LONGEST))
    speaking = [frame.speaking for frame in shown]
    assert 20 <= sum(speaking) < 600  # the long first answer was cut off
    assert [frame.number for frame in shown] == list(range(len(shown)))
