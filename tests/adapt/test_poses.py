"""Head poses and blinks of any length: no jumps, no memory, the same in blocks as at once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from adapt.talk.blinks import Blinks
from adapt.talk.poses import AnglePoses, ClipPoses, FixedPose, GeneratedPoses, Poses, neck_pivot, ping_pong
from adapt.talk.torso import LIFT, Torso, low_passed
from heads.geometry.rotation import euler_to_rotation, rotation_to_euler


@pytest.fixture
def clip():
    t = np.arange(50)
    rotation = euler_to_rotation(0.1 * np.sin(t / 8), 0.05 * np.cos(t / 9), 0.02 * np.sin(t / 5))
    translation = np.stack([0.2 * np.sin(t / 10), 0.1 * np.cos(t / 7), np.full(50, 20.0)], 1).astype(np.float32)
    return rotation, translation


def test_angles_and_rotations_are_inverse():
    angles = np.random.default_rng(0).uniform(-0.6, 0.6, (30, 3))
    assert np.allclose(rotation_to_euler(euler_to_rotation(*angles.T)), angles, atol=1e-6)


def test_positive_yaw_turns_the_nose_to_the_right_and_positive_pitch_down():
    nose = np.array([0.0, 0.0, -1.0])
    assert (euler_to_rotation(0.3, 0, 0)[0] @ nose)[0] > 0.2
    assert (euler_to_rotation(0, 0.3, 0)[0] @ nose)[1] > 0.2


def test_a_looped_clip_never_jumps(clip):
    poses = ClipPoses(dict(zip(("rotation", "translation"), clip)))
    long = poses.at(np.arange(500))
    inside = np.abs(np.diff(clip[1], axis=0)).max()
    assert np.abs(np.diff(long.translation, axis=0)).max() <= inside + 1e-6
    assert set(np.abs(np.diff(long.source))) == {1}


def test_a_clip_of_one_frame_is_a_still():
    assert ping_pong(np.arange(5), 1).tolist() == [0] * 5


def test_given_angles_are_kept(clip):
    poses = FixedPose(*clip, yaw=20.0, pitch=-5.0).at(np.arange(3))
    yaw, pitch, _ = np.degrees(rotation_to_euler(poses.rotation)[2])
    assert (yaw, pitch) == (pytest.approx(20, abs=1e-3), pytest.approx(-5, abs=1e-3))


def test_a_list_of_angles_is_followed_to_and_fro(clip):
    poses = AnglePoses(*clip, [[0, 0, 0], [10, 0, 0], [20, 0, 0]]).at(np.arange(5))
    yaws = np.degrees(rotation_to_euler(poses.rotation))
    assert np.allclose(yaws[:, 0], [0, 10, 20, 10, 0], atol=1e-3)


def test_generated_poses_are_smooth_and_stay_near_the_clip(clip):
    poses = GeneratedPoses(*clip, seed=3).at(np.arange(2000))
    angles = np.degrees(rotation_to_euler(poses.rotation))
    assert np.abs(np.diff(angles, axis=0)).max() < 1.5
    assert np.abs(angles).max() < 30
    assert np.abs(np.diff(angles, n=2, axis=0)).max() < 0.3


@pytest.mark.parametrize(
    "make", [lambda c: GeneratedPoses(*c, seed=1), lambda c: ClipPoses(dict(zip(("rotation", "translation"), c)))]
)
def test_poses_in_blocks_are_the_poses_at_once(clip, make):
    poses = make(clip)
    whole = poses.at(np.arange(100)).translation
    blocks = np.concatenate([poses.at(np.arange(i, min(100, i + 7))).translation for i in range(0, 100, 7)])
    assert np.array_equal(whole, blocks)


def test_blinks_come_at_a_natural_rate_and_close_the_eyes():
    closure = Blinks(seed=0).at(np.arange(25 * 60))
    starts = np.flatnonzero(np.diff((closure[:, 0] > 0.9).astype(int)) == 1)
    assert 12 <= len(starts) <= 18
    assert closure.max() == 1.0
    assert (closure[:, 0] == closure[:, 1]).all()


def test_blinks_in_blocks_are_the_blinks_at_once():
    blinks = Blinks(seed=5)
    whole = blinks.at(np.arange(300))
    assert np.array_equal(whole, np.concatenate([blinks.at(np.arange(i, i + 4)) for i in range(0, 300, 4)]))


def test_a_head_turns_about_the_neck_that_its_clip_shows(clip):
    rotation, neck = clip[0], np.array([0.1, 3.0, 0.5])
    rotation = euler_to_rotation(*(4 * rotation_to_euler(rotation)).T)
    translation = np.array([0.3, 0.2, 20.0]) - rotation @ neck
    assert np.allclose(neck_pivot(rotation, translation), neck, atol=0.5)
    poses = FixedPose(rotation, translation, yaw=30.0, pitch=10.0).at(np.arange(1))
    assert np.allclose(poses.rotation[0] @ neck + poses.translation[0], [0.3, 0.2, 20.0], atol=0.2)


def sway(count: int, lag: float = 6.0, seed: int = 0) -> dict[str, np.ndarray]:
    """A track whose torso goes with the head's position, later by a low-pass, with noise."""
    rng = np.random.default_rng(seed)
    time = np.arange(count)
    rotation = euler_to_rotation(0.1 * np.sin(time / 9), 0.05 * np.cos(time / 13), 0.02 * np.sin(time / 7))
    translation = np.stack([0.3 * np.sin(time / 8), 0.1 * np.cos(time / 6), np.full(count, 20.0)], 1)
    body = np.zeros((count, 6))
    body[:, [0, 3]] = 0.2 + 0.1 * low_passed(translation[:, :2], lag)
    body += rng.normal(0, 1e-3, body.shape)
    return {"rotation": rotation, "translation": translation.astype(np.float32), "body": body.astype(np.float32)}


def test_the_torso_follows_generated_poses_as_it_did_in_the_clip_with_its_lag():
    track, other = sway(300), sway(100, seed=1)
    torso = Torso(track, scale=0.0)
    assert torso.lag in (5.0, 10.0)
    found = torso(np.arange(100), Poses(other["rotation"], other["translation"], np.zeros(100, int)))
    error = np.abs(found - other["body"])[30:, [0, 3]]
    assert error.mean() < 0.35 * np.abs(other["body"] - other["body"].mean(0))[:, [0, 3]].mean()


def test_a_torso_behind_a_swaying_head_is_smooth_breathes_and_does_not_depend_on_blocks():
    track = sway(300)
    source = GeneratedPoses(track["rotation"], track["translation"], seed=2)
    numbers = np.arange(400)
    whole = Torso(track, scale=0.1)(numbers, source.at(numbers))
    torso = Torso(track, scale=0.1)
    parts = [torso(part, source.at(part)) for part in np.array_split(numbers, 57)]
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-6)
    assert np.abs(np.diff(whole, axis=0)).max() < 5e-3  # half pictures: 0.6 px at 256 px
    assert np.abs(np.diff(whole, 2, axis=0)).max() < 2e-3
    assert np.abs(whole - track["body"].mean(0)).max() < 0.1
    still = FixedPose(track["rotation"], track["translation"]).at(numbers)
    breath = Torso(track, scale=0.1)(numbers, still)
    assert np.ptp(breath[:, 3]) == pytest.approx(2 * 0.1 * LIFT, rel=0.01)
    assert np.ptp(breath[:, :3]) == pytest.approx(np.ptp(breath[0, :3]))


def test_where_the_head_plays_the_clip_the_torso_does_too():
    track = sway(50)
    poses = ClipPoses(track).at(np.arange(120))
    shown = Torso(track, scale=0.1)(np.arange(120), poses)
    np.testing.assert_array_equal(shown, track["body"][poses.source])
    assert np.abs(np.diff(shown, axis=0)).max() <= np.abs(np.diff(track["body"], axis=0)).max()


def test_the_background_moves_with_the_clips_poses_alone():
    track = sway(50) | {"background": np.arange(300, dtype=np.float32).reshape(50, 6)}
    poses = ClipPoses(track).at(np.arange(120))
    np.testing.assert_array_equal(poses.background, track["background"][poses.source])
    assert ClipPoses(sway(50)).at(np.arange(3)).background is None
    assert FixedPose(track["rotation"], track["translation"]).at(np.arange(3)).background is None


def test_a_torso_goes_from_the_generated_place_to_the_clips_by_its_share():
    track = sway(50)
    numbers, clip = np.arange(40), ClipPoses(track).at(np.arange(40))
    alone = Torso(track, scale=0.1)(numbers, replace(clip, body=None))
    mixed = Torso(track, scale=0.1)(numbers, replace(clip, share=np.linspace(0, 1, 40)))
    np.testing.assert_allclose(mixed[0], alone[0], atol=1e-6)
    np.testing.assert_allclose(mixed[-1], clip.body[-1], atol=1e-6)
    np.testing.assert_allclose(mixed[13], alone[13] + (clip.body[13] - alone[13]) / 3, atol=1e-6)
