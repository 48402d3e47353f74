"""The torso's own track: recovered where it is known, with a quality that says where it cannot be."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
import torch

from heads.person.image_registration import Reference, align
from heads.rig import load_rig
from shards import DatasetWriter, open_dataset, sample_key
from shards.check.proofs import check_sample
from shards.format.schema import BrokenSample, check_track
from shards.synthetic import make_talker
from shards.tracking.body import CHUNK, SIDE, BodyTracker, brightness_of, head_beside, outline_beside, torso
from shards.tracking.models.matte import own_matte
from tests.support.samples import RIG, parts

SIZE, FRAMES = 128, 30


@pytest.fixture(scope="module")
def clip():
    """Frames, mattes and landmarks of a talker whose shoulders sway and rise against the head, and their true places."""
    person = make_talker(12)
    talk = person.perform(FRAMES / 25, 3, SIZE)
    time = np.arange(FRAMES) / 25
    sway = np.stack([0.25 * np.sin(4 * time), -0.2 * np.sin(5 * time) ** 2, 0 * time], 1)
    talk = replace(talk, body_translation=(talk.body_translation + sway).astype(np.float32))
    frames, mattes = (np.stack(pictures) for pictures in zip(*person.render(talk)))
    points = np.einsum("tij,nj->tni", talk.body_rotation, person.torso_points) + talk.body_translation[:, None]
    pixels = talk.intrinsics[0, 0] * points[..., :2] / points[..., 2:] + SIZE / 2
    seen = ((pixels > 4) & (pixels < SIZE - 4)).all(-1).all(0) & (points[..., 2].mean(0) < points[..., 2].mean())
    return frames, mattes, person.landmarks(talk), pixels[:, seen]


def tracked(tracker: BodyTracker, frames, mattes, landmarks):
    return tracker(brightness_of(frames), mattes, landmarks)


def moved(body: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Displacements ``[T, N, 2]`` px of points ``[N, 2]`` px."""
    x, y = (2 * points / SIZE - 1).T
    return np.einsum("tck,nk->tnc", body.reshape(-1, 2, 3), np.stack([np.ones_like(x), x, y], 1)) * SIZE / 2


def test_the_track_follows_shoulders_that_move_by_themselves_within_a_third_of_a_pixel(clip):
    frames, mattes, landmarks, pixels = clip
    track = tracked(BodyTracker(), frames, mattes, landmarks)
    body, quality = track["body"], track["body_quality"]
    assert body.shape == (FRAMES, 6)
    assert body.dtype == quality.dtype == np.float32
    at_rest = pixels[0] - moved(body[:1], pixels[0])[0]
    error = np.linalg.norm(at_rest + moved(body, at_rest) - pixels, axis=-1)
    motion = np.linalg.norm(pixels - pixels.mean(0), axis=-1)
    assert motion.max() > 4
    assert np.median(error) < 0.33, np.median(error)
    assert np.median(error) < 0.2 * np.median(motion)
    assert quality.min() > 0.8


def test_frames_in_pieces_give_the_same_track_where_the_pieces_are_whole_chunks(clip):
    frames, mattes, landmarks, _ = clip
    whole, tracker = tracked(BodyTracker(), frames, mattes, landmarks), BodyTracker()
    parts = [
        tracked(tracker, frames[part], mattes[part], landmarks[part]) for part in (slice(CHUNK), slice(CHUNK, None))
    ]
    np.testing.assert_allclose(np.concatenate([part["body"] for part in parts]), whole["body"], atol=1e-5)


@pytest.fixture(scope="module")
def face():
    """The mean head's landmarks ``[478, 3]`` px, with their middle in the frame's, and the face a fifth as wide as the frame."""
    rig = load_rig()
    return (
        rig.vertices(torch.zeros(1, rig.n_identity), torch.zeros(1, rig.n_expression))[0, :478].numpy() * 10 + SIZE / 2
    )


def plaid_person(face, shift):
    """Frames, mattes and landmarks of a person in plaid who is moved by ``shift [T]`` px to the right."""
    down, across = np.mgrid[:SIZE, :SIZE]
    frames, mattes = [], []
    for x in shift:
        plaid = 120 + 50 * np.sin((across - x) / 9) * np.cos(down / 7) + 40 * np.cos((across - x + down) / 23)
        person = (np.abs(across - x - 44) < 36) & (down > 84) | (np.abs(across - x - 44) < 14) & (down > 44)
        frames.append(np.repeat(np.where(person, plaid, 60)[..., None], 3, -1).astype(np.uint8))
        mattes.append(person.astype(np.uint8) * 255)
    landmarks = np.repeat(face[None], len(shift), 0) + np.array([-20, 0, 0])
    landmarks[..., 0] += shift[:, None]
    return np.stack(frames), np.stack(mattes), landmarks


def shifted(track):
    """Displacement ``[T]`` px to the right of a place on the chest."""
    return moved(track["body"], np.array([[44.0, 110.0]]))[:, 0, 0]


def test_a_person_who_moves_by_a_quarter_of_the_frame_within_half_a_second_is_followed(face, monkeypatch):
    shift = np.concatenate([np.zeros(2 * CHUNK), np.linspace(0, 32, 13), np.full(7, 32)])
    moving = plaid_person(face, shift)
    track = tracked(BodyTracker(), *moving)
    error = np.abs(shifted(track) - shift)
    assert np.median(error[2 * CHUNK :]) < SIZE / 64
    assert error.max() < SIZE / 20
    assert track["body_quality"].min() > 0.6
    monkeypatch.setattr("shards.tracking.body.DOUBTED", 0.0)
    assert np.abs(shifted(tracked(BodyTracker(), *moving))[-1] - shift[-1]) > 10


def test_plain_shoulders_are_placed_by_their_outline_to_a_fraction_of_a_pixel(face):
    down, across = np.mgrid[:SIZE, :SIZE].astype(np.float32)
    shifts = 2.5 * np.sin(np.arange(CHUNK) / 4)
    shoulders = 1 / (1 + np.exp(4 * (np.abs(across[None] - 64 - shifts[:, None, None]) + 0.4 * (110 - down) - 44)))
    matte = np.where(down > 88, shoulders, 0)  # soft, as mattes are
    frames = np.repeat((60 + 120 * matte + 20 * (1 - matte) * np.sin(across / 3))[..., None], 3, -1).astype(np.uint8)
    landmarks = np.repeat(face[None], CHUNK, 0) - (0.0, 20.0, 0.0)
    matte = (255 * matte).astype(np.uint8)

    def error(outlined: bool) -> float:
        region, outline = torso(matte, landmarks)
        brightness, outline = brightness_of(frames), outline if outlined else None
        motion, _ = align(
            brightness, region, Reference(brightness[0], region[0], outline=region[0] * 0 + 1), outline=outline
        )
        at = moved(motion.flatten(1).numpy(), np.array([[64.0, 105.0]]))[:, 0, 0]
        return float(np.abs(at - shifts).max())

    assert error(True) < 0.15
    assert error(True) < 0.7 * error(False)


def test_where_the_head_was_is_no_outline_of_the_torso_even_when_the_torso_has_moved(face):
    still = np.repeat(face[None], 3, 0)
    body = np.zeros((3, 6), np.float32)
    beside = outline_beside(still, body, SIZE)
    assert beside.shape == (SIDE, SIDE)
    nose = (face[4, :2] * SIDE / SIZE).astype(int)
    assert beside[nose[1], nose[0]] == 0
    assert beside[-2, 2] == 1
    # A head that moved with its torso is where it was, seen from the torso.
    body[:, 0] = np.array([0.0, 0.1, 0.2])
    carried = still + np.stack([body[:, 0] * SIZE / 2, np.zeros(3), np.zeros(3)], 1)[:, None]
    torch.testing.assert_close(outline_beside(carried, body, SIZE), beside, atol=1.0, rtol=0)
    assert float((outline_beside(carried, body, SIZE) - beside).abs().mean()) < 0.02
    assert float((outline_beside(carried, 0 * body, SIZE) - beside).abs().mean()) > 0.03


def test_frames_that_begin_far_from_a_given_reference_are_found_by_the_head_that_was_beside_it(face):
    still, far = (plaid_person(face, np.full(5, x)) for x in (0.0, 40.0))
    brightness, region = brightness_of(still[0]), torso(*still[1:])[0]
    reference = Reference(brightness[0], region[0])
    beside = head_beside(still[2], np.zeros((5, 6)), SIZE)
    found = tracked(BodyTracker(replace(reference, guide=beside)), *far)
    np.testing.assert_allclose(shifted(found), 40, atol=1)
    assert found["body_quality"].min() > 0.6
    assert np.abs(shifted(tracked(BodyTracker(reference), *far)) - 40).min() > 10


def test_islands_of_a_matte_are_not_the_persons_but_hands_below_the_face_are(face):
    matte = np.zeros((2, SIZE, SIZE), np.uint8)
    matte[:, 40:90, 48:80] = 255  # head
    matte[:, 100:, 20:108] = 255  # torso, cut off by a scarf
    clean = matte.copy()
    matte[1, 10:60, 4:24] = 255  # a picture on the wall
    matte[1, 70:90, 110:] = 200  # and somebody in the background
    landmarks = np.repeat(face[None], 2, 0)
    own = own_matte(matte, landmarks)
    assert np.array_equal(own, clean)
    assert own_matte(clean, landmarks) is clean  # and is not copied
    soft = clean.copy()
    soft[0, 36:40, 48:80] = 90  # hair
    assert np.array_equal(own_matte(soft, landmarks), soft)


def test_frames_that_show_something_else_are_bridged_and_have_a_low_quality(clip):
    frames, mattes, landmarks, _ = clip
    plain = tracked(BodyTracker(), frames, mattes, landmarks)["body"]
    covered = frames.copy()
    covered[12:15] = np.random.default_rng(0).integers(0, 255, covered[12:15].shape)
    track = tracked(BodyTracker(), covered, mattes, landmarks)
    assert track["body_quality"][12:15].max() < 0.3
    assert np.abs(track["body"] - plain).max() < 0.03  # half pictures, 2 px here
    assert np.abs(np.diff(track["body"], axis=0)).max() < 0.06


def test_a_given_reference_places_another_part_of_a_clip_where_it_is_in_the_first(clip):
    frames, mattes, landmarks, _ = clip
    reference = Reference(brightness_of(frames[:1])[0], torso(mattes[:1], landmarks[:1])[0][0])
    early = tracked(BodyTracker(reference), frames[:20], mattes[:20], landmarks[:20])["body"]
    late = tracked(BodyTracker(reference), frames[10:], mattes[10:], landmarks[10:])["body"]
    assert np.abs(early[0]).max() < 1e-3
    assert np.abs(early[10:] - late[:10]).max() < 0.01


def test_without_a_torso_in_view_there_is_no_motion_and_no_quality(clip):
    frames, mattes, landmarks, _ = clip
    track = tracked(BodyTracker(), frames[:3], np.zeros_like(mattes[:3]), landmarks[:3])
    assert not track["body"].any()
    assert not track["body_quality"].any()


def test_the_torso_leaves_the_head_out(clip):
    frames, mattes, landmarks, _ = clip
    brightness, region = brightness_of(frames[:2]), torso(mattes[:2], landmarks[:2])[0]
    assert brightness.shape == region.shape == (2, SIDE, SIDE)
    nose = (landmarks[0, 4, :2] * SIDE / SIZE).astype(int)
    assert region[0, nose[1], nose[0]] == 0
    assert region[0, -2, SIDE // 2] > 0.9
    assert torch.isfinite(brightness).all()


def test_a_dataset_keeps_the_torso_track_and_one_without_it_stays_readable(tmp_path):
    rng = np.random.default_rng(0)
    body = {"body": rng.normal(size=(6, 6)).astype(np.float32), "body_quality": rng.random(6).astype(np.float32)}
    with DatasetWriter(tmp_path / "data", rig=RIG) as writer:
        for number, extra in enumerate((body, {})):
            given = parts(number)
            meta = {"first_frame": 6 * number, "licence": "test", "consent": "yes"}
            writer.add(sample_key("ann", "clip", number), meta, **{**given, "track": {**given["track"], **extra}})
    with closing(open_dataset(tmp_path / "data")) as dataset:
        with_body, without = (dataset.sample(0, row) for row in range(2))
        for name, value in body.items():
            np.testing.assert_array_equal(with_body.track[name], value)
        assert "body" not in without.track
        assert check_sample(with_body, {"logmel": 160}) == check_sample(without, {"logmel": 160})


@pytest.mark.parametrize(
    ("value", "says"),
    [(np.zeros((6, 5), np.float32), r"'body' has shape \(6, 5\), expected \(6, 6\)"), (np.zeros((6, 6)), "float64")],
)
def test_a_torso_track_of_another_shape_or_type_is_refused(value, says):
    with pytest.raises(BrokenSample, match=says):
        check_track("ann/clip-00000", {**parts(0)["track"], "body": value}, 6)
