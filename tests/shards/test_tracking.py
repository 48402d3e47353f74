"""Tracking: exact on made-up heads, takes and refusals on a real face, smoothing that blunts nothing."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from configs import InputError
from heads.rig import load_rig
from heads.rig.facemesh import FOREHEAD, LIPS_INNER, STABLE, mirror_pairs
from shards.media.probe import video_info
from shards.tracking import TrackOptions, detect_landmarks, first_pass, overlay, track_frames, track_video
from shards.tracking import segments as takes
from shards.tracking.coefficients import Fitter
from shards.tracking.models import FaceLandmarks, MirroredLandmarks, landmarks, solutions
from shards.tracking.pose import head_pose, intrinsics_for, project, similarity, unproject
from shards.tracking.shape_statistics import lid_gap
from shards.tracking.smoothing import MARGIN, jitter, noise_level, pose_noise, smooth, smooth_pose
from tests.support.videos import write_video

STABLE = np.array(STABLE)
SIZE = 512
K = intrinsics_for(SIZE)


def turned(yaw, pitch, roll):
    """Rotations (T, 3, 3) from angles (T,) in radians."""
    from scipy.spatial.transform import Rotation

    return Rotation.from_euler("yxz", np.stack([yaw, pitch, roll], -1)).as_matrix()


def seen(local, rotation, translation):
    """Landmarks (T, 478, 3) px of a head (T, 478, 3) in head space."""
    camera = np.einsum("tij,tnj->tni", rotation, local) + translation[:, None]
    pixels = project(camera, K)
    pixels[..., 2] = (camera[..., 2] / translation[:, None, 2] - 1) * K[0, 0]
    return pixels


@pytest.fixture(scope="module")
def fitter():
    return Fitter()


@pytest.fixture(scope="module")
def person(fitter):
    """A made-up person: identity, 80 frames of expression, lids, gaze, pose, and the landmarks they give."""
    rng = np.random.default_rng(3)
    t = np.arange(80) / 25
    identity = rng.normal(size=64).astype(np.float32)
    wave = np.sin(2 * np.pi * (t[:, None] * rng.uniform(0.5, 3, 32) + rng.random(32)))
    expression = (wave * np.clip(np.sin(2 * np.pi * t * 0.7), 0, 1)[:, None]).astype(np.float32)
    eyelids = np.repeat(np.exp(-(((t - 1.4) / 0.08) ** 2))[:, None], 2, 1).astype(np.float32)
    gaze = np.stack([0.3 * np.sin(3 * t), 0.15 * np.cos(2 * t)], -1)[:, None].repeat(2, 1).astype(np.float32)
    rotation = turned(0.4 * np.sin(1.5 * t), 0.2 * np.cos(2 * t), 0.1 * np.sin(t))
    translation = np.stack([0.3 * np.sin(t), 0.2 * np.cos(t), 16 + 0.5 * np.sin(0.8 * t)], -1)
    landmarks = seen(fitter.vertices(identity, expression, eyelids, gaze), rotation, translation)
    return {"identity": identity, "expression": expression, "eyelids": eyelids, "gaze": gaze,
            "rotation": rotation, "translation": translation, "landmarks": landmarks}  # fmt: skip


# ------------------------------------------------------------------------------------------ pose, coefficients


def test_unprojecting_and_projecting_are_inverse():
    rng = np.random.default_rng(0)
    landmarks = rng.uniform(0, SIZE, (4, 478, 3)) * [1, 1, 0.2]
    assert np.allclose(project(unproject(landmarks, K), K)[..., :2], landmarks[..., :2], atol=1e-9)


def test_similarity_finds_scale_rotation_and_translation_with_weights():
    rng = np.random.default_rng(0)
    source, rotation = rng.normal(size=(3, 40, 3)), turned(rng.normal(size=3), rng.normal(size=3), rng.normal(size=3))
    target = 1.7 * np.einsum("tij,tnj->tni", rotation, source) + 5
    weights = rng.random(40)
    target[:, weights < 0.2] += 9  # would mislead, if it were not for
    weights[weights < 0.2] = 0
    scale, found, shift = similarity(source, target, weights)
    assert np.allclose(scale, 1.7)
    assert np.allclose(found, rotation)
    assert np.allclose(shift, 5)


def test_poses_of_a_known_head_are_recovered(fitter, person):
    still = seen(np.repeat(fitter.neutral(person["identity"])[None], 80, 0), person["rotation"], person["translation"])
    rotation, translation, local = head_pose(still, K, fitter.neutral(person["identity"]), STABLE)
    assert np.abs(rotation - person["rotation"]).max() < 1e-6
    assert np.abs(translation - person["translation"]).max() < 1e-4
    assert np.abs(local - fitter.neutral(person["identity"])).max() < 1e-5


def test_a_made_up_persons_parameters_come_back(fitter, person):
    identity = fitter.identity_of(person["landmarks"], K)
    rotation, translation, local = head_pose(person["landmarks"], K, fitter.neutral(identity), STABLE)
    expression, eyelids = fitter.expression_of(local, identity)
    gaze = fitter.gaze_of(person["landmarks"], rotation, translation, K, identity, eyelids)
    back = seen(fitter.vertices(identity, expression, eyelids, gaze), rotation, translation)
    error = np.linalg.norm(back - person["landmarks"], axis=-1)
    assert np.median(error) < 1.0
    assert np.abs(rotation - person["rotation"]).max() < 0.06
    assert np.corrcoef(expression[:, 0], person["expression"][:, 0])[0, 1] > 0.9
    assert np.abs(eyelids - person["eyelids"]).max() < 0.25
    open_eyes = person["eyelids"].max(1) < 0.3
    assert np.abs(gaze - person["gaze"])[open_eyes].mean() < 0.08


def test_expressions_are_exact_when_identity_and_pose_are_known(fitter, person):
    local = fitter.vertices(person["identity"], person["expression"], person["eyelids"], person["gaze"])
    expression, eyelids = fitter.expression_of(local, person["identity"])
    assert np.abs(eyelids - person["eyelids"]).max() < 0.03
    # The ridge shrinks what noise would swamp: the components of the largest motions come back whole.
    assert np.abs(expression - person["expression"])[:, :8].max() < 0.1


def test_gaze_is_bridged_while_an_eye_is_closed(fitter, person):
    closed = person["eyelids"][:, 0] > 0.8
    landmarks = person["landmarks"].copy()
    landmarks[closed, 468:] += 40  # an iris behind a lid is a guess
    gaze = fitter.gaze_of(
        landmarks, person["rotation"], person["translation"], K, person["identity"], person["eyelids"]
    )
    assert np.abs(gaze - person["gaze"])[closed].max() < 0.1


# ---------------------------------------------------------------------------------------------------- smoothing


def noisy_head(fitter, person, motion, seed=0, level=0.6):
    """Landmarks of a neutral head, moving or still, with ``level`` px of noise, and the truth."""
    frames = 120
    t = np.arange(frames) / 25
    rotation = turned(motion * 0.3 * np.sin(2 * np.pi * 1.2 * t), motion * 0.2 * np.cos(2 * np.pi * t), 0 * t)
    translation = np.stack([motion * 0.2 * np.sin(2 * np.pi * 0.9 * t), 0 * t, 16 + 0 * t], -1)
    truth = seen(np.repeat(fitter.neutral(person["identity"])[None], frames, 0), rotation, translation)
    return truth + np.random.default_rng(seed).normal(size=truth.shape) * level, truth


def smoothed(fitter, person, landmarks):
    rotation, translation, local = head_pose(landmarks, K, fitter.neutral(person["identity"]), STABLE)
    local = smooth(local, noise_level(local))
    rotation, translation = smooth_pose(rotation, translation, pose_noise(rotation, translation))
    return seen(local, rotation, translation)


def test_a_still_head_becomes_still(fitter, person):
    raw, _ = noisy_head(fitter, person, motion=0)
    result = smoothed(fitter, person, raw)
    assert jitter(result[:, STABLE, :2]) < 0.3 * jitter(raw[:, STABLE, :2])


def test_a_moving_head_gets_nearer_to_the_truth_and_does_not_lag(fitter, person):
    raw, truth = noisy_head(fitter, person, motion=1)
    result = smoothed(fitter, person, raw)
    error = [np.linalg.norm((x - truth)[:, STABLE, :2], axis=-1).mean() for x in (raw, result)]
    assert error[1] < error[0]
    middle = (result - truth)[:, STABLE, :2].mean(1)
    assert np.abs(middle.mean(0)).max() < 0.2


def test_blinks_and_plosives_keep_their_peaks(fitter, person):
    """A blink of five frames and lips that shut for two come through; so do their times."""
    frames = 100
    eyelids, expression = np.zeros((frames, 2), np.float32), np.zeros((frames, 32), np.float32)
    eyelids[40:45] = np.array([0.4, 0.9, 1.0, 0.8, 0.3], np.float32)[:, None]
    expression[:] = load_rig().control("jaw")["expression"].numpy() * 0.5
    expression[70:72] = 0
    local = fitter.vertices(person["identity"], expression, eyelids, np.zeros((frames, 2, 2), np.float32))
    noisy = local + np.random.default_rng(0).normal(size=local.shape) * 0.003
    result = smooth(noisy, noise_level(noisy))
    lids, lips = lid_gap(result)[:, 0], np.linalg.norm(result[:, 13] - result[:, 14], axis=-1)
    true_lids, true_lips = lid_gap(local)[:, 0], np.linalg.norm(local[:, 13] - local[:, 14], axis=-1)
    assert abs(lids.min() - true_lids.min()) < 0.08 * np.ptp(true_lids)
    assert lids.argmin() == true_lids.argmin()
    assert abs(lips[70:72].mean() - true_lips[70:72].mean()) < 0.06 * np.ptp(true_lips)
    assert jitter(result[:30]) < 0.6 * jitter(noisy[:30])


def test_smoothing_in_chunks_with_a_margin_equals_the_whole(fitter, person):
    raw, _ = noisy_head(fitter, person, motion=0.3)
    rotation, translation, local = head_pose(raw, K, fitter.neutral(person["identity"]), STABLE)
    noise, points = pose_noise(rotation, translation), noise_level(local)
    whole = smooth_pose(rotation, translation, noise)[1], smooth(local, points)
    low, high = 50 - MARGIN, 70 + MARGIN
    part = smooth_pose(rotation[low:high], translation[low:high], noise)[1], smooth(local[low:high], points)
    for a, b in zip(whole, part, strict=True):
        assert np.allclose(a[50:70], b[MARGIN : MARGIN + 20], atol=1e-9)


def test_without_noise_nothing_changes():
    series = np.random.default_rng(0).normal(size=(20, 5, 3))
    assert np.allclose(smooth(series, np.zeros(5)), series)
    assert noise_level(series[:3]).shape == (5,)


# ------------------------------------------------------------------------------------------ videos of a real face


@pytest.fixture(scope="module")
def face():
    """A portrait, (512, 512, 3), from scikit-image's own pictures."""
    data = pytest.importorskip("skimage.data")
    pytest.importorskip("mediapipe")
    return data.astronaut()


def shot(face, frames, *, zoom=1.6, start=(60, 0), drift=(0.5, 0.2), size=(320, 320)):
    """A camera that drifts over the portrait: pictures (H, W, 3)."""
    from PIL import Image

    height, width = size
    picture = Image.fromarray(np.pad(face, ((200, 200), (200, 200), (0, 0)), mode="edge"))
    for k in range(frames):
        x, y = 200 + start[0] + drift[0] * k, 200 + start[1] + drift[1] * k
        box = (x, y, x + width / zoom, y + height / zoom)
        yield np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC, box))


@pytest.fixture(scope="module")
def portrait_video(face, tmp_path_factory):
    """Three seconds, with a tone as sound."""
    path = tmp_path_factory.mktemp("videos") / "portrait.mp4"
    sound = 0.3 * np.sin(np.arange(48_000) / 16_000 * 2 * np.pi * 220)
    return write_video(path, shot(face, 75), sound=sound)


@pytest.fixture(scope="module")
def segments(portrait_video):
    return [segment for shot in track_video(portrait_video) for segment in shot]


def test_a_take_comes_in_even_segments_whose_parts_have_the_same_length(segments):
    assert [len(s) for s in segments] == [37, 38]
    assert [s.first_frame for s in segments] == [0, 37]
    for s in segments:
        t, size = len(s), s.frames.shape[1]
        assert s.frames.shape == (t, size, size, 3)
        assert s.frames.dtype == np.uint8
        assert s.matte.shape == (t, size, size)
        assert s.matte.dtype == np.uint8
        assert s.audio.shape == (t * 640,)
        shapes = {"landmarks": (t, 478, 3), "rotation": (t, 3, 3), "translation": (t, 3), "intrinsics": (3, 3),
                  "identity": (64,), "expression": (t, 32), "eyelids": (t, 2), "gaze": (t, 2, 2),
                  "quality": (t,), "body": (t, 6), "body_quality": (t,), "background": (t, 6),
                  "background_quality": (t,)}  # fmt: skip
        assert {k: v.shape for k, v in s.track.items()} == shapes
        assert all(v.dtype == np.float32 and np.isfinite(v).all() for v in s.track.values())


def test_frames_matte_and_sound_show_what_the_source_shows(segments, portrait_video):
    from shards.media.decode import read_video
    from shards.media.sound import read_audio

    x0, y0, x1, y1 = segments[0].crop_box
    source = list(read_video(portrait_video))
    assert np.abs(segments[1].frames[3].astype(int) - source[40][y0:y1, x0:x1].astype(int)).max() <= 1
    assert np.abs(segments[1].audio - read_audio(portrait_video)[37 * 640 : 75 * 640]).max() < 1e-6
    nose = segments[0].track["landmarks"][0, 4, :2].astype(int)
    assert segments[0].matte[0, nose[1], nose[0]] > 240


def test_the_rig_under_the_track_projects_to_the_landmarks(segments):
    rig = load_rig()
    for s in segments:
        track = {k: torch.from_numpy(v) for k, v in s.track.items()}
        vertices = rig.vertices(track["identity"][None], track["expression"], track["eyelids"], track["gaze"])
        camera = vertices @ track["rotation"].transpose(1, 2) + track["translation"][:, None]
        pixels = (camera @ track["intrinsics"].T)[..., :2] / camera[..., 2:]
        error = (pixels[:, :478] - track["landmarks"][..., :2]).norm(dim=-1) * 512 / s.frames.shape[1]
        assert error.median() < 1.2
        assert error[:, list(LIPS_INNER)].median() < 1.5
        assert s.track["quality"].min() > 0.5


def test_a_drifting_camera_moves_the_head_and_not_the_face(segments):
    joined = {k: np.concatenate([s.track[k] for s in segments]) for k in ("translation", "eyelids", "rotation")}
    assert joined["translation"][-1, 0] < joined["translation"][0, 0] - 0.3
    assert np.abs(np.diff(joined["translation"][:, 0])).max() < 0.05
    assert joined["eyelids"].std(0).max() < 0.1
    angle = np.arccos(np.clip((np.einsum("ij,tij->t", joined["rotation"][0], joined["rotation"]) - 1) / 2, -1, 1))
    assert angle.max() < np.deg2rad(4)


def test_overlays_are_drawn_on_the_frame(segments):
    s = segments[0]
    picture = overlay(s.frames[2], s.track, 2, scale=2)
    assert picture.shape == (s.frames.shape[1] * 2, s.frames.shape[2] * 2, 3)
    assert (picture[::2, ::2] != s.frames[2]).any(-1).mean() > 0.05


def test_where_chunks_of_a_take_are_cut_does_not_matter(portrait_video, segments, monkeypatch):
    monkeypatch.setattr(takes, "CHUNK", 17)
    again = [s for shot in track_video(portrait_video, TrackOptions(matte=False)) for s in shot]
    for a, b in zip(segments, again, strict=True):
        for key in ("landmarks", "rotation", "translation", "expression"):
            assert np.allclose(a.track[key], b.track[key], atol=2e-3), key
    assert (again[0].matte == 255).all()


def test_a_crop_of_a_larger_video_is_refused_with_both_sizes(portrait_video):
    info = video_info(portrait_video)
    sentence = f"is {info.width}x{info.height} px, and the earlier clip's pictures were cut from 0 to 5000 px across"
    with pytest.raises(InputError, match=sentence):
        list(track_frames(portrait_video, crop_box=(0, 0, 5000, 5000), size=512))


def test_another_part_tracked_with_the_same_crop_and_person_continues_the_first(portrait_video, segments):
    first = segments[0]
    rest = list(
        track_frames(portrait_video, start=1.48, crop_box=first.crop_box, identity=first.track["identity"], size=512)
    )
    assert rest[0].crop_box == first.crop_box
    assert np.array_equal(rest[0].track["identity"], first.track["identity"])
    difference = rest[0].track["landmarks"][10, :, :2] - segments[1].track["landmarks"][10, :, :2]
    assert np.abs(difference).max() < 3.0


def test_takes_are_summed_up_before_and_after_they_are_read(portrait_video):
    video = track_video(portrait_video, TrackOptions(matte=False, seconds=2.0))
    assert (video.frames, video.tracked_frames, video.has_audio, video.refusals) == (50, 50, True, [])
    shot = next(iter(video))
    assert len(shot) == 50
    assert shot.identity_coefficients.shape == (64,)
    list(shot)
    assert 0 < shot.jitter["after"] < shot.jitter["before"]


def test_threads_beside_each_other_track_as_one_does(portrait_video):
    with track_video(portrait_video, TrackOptions(size=128, ahead=True)) as video:
        beside = [segment for shot in video.shots for segment in shot]
    with track_video(portrait_video, TrackOptions(size=128)) as video:
        alone = [segment for shot in video.shots for segment in shot]
    assert len(beside) == len(alone)
    for ours, theirs in zip(beside, alone, strict=True):
        assert np.array_equal(ours.frames, theirs.frames)
        assert np.array_equal(ours.matte, theirs.matte)
        assert all(np.array_equal(ours.track[name], theirs.track[name]) for name in theirs.track)


def test_the_first_pass_ends_when_it_is_told_to(portrait_video):
    answers = iter([False] * 4 + [True])
    with track_video(portrait_video, stop=lambda: next(answers)) as video:
        assert video.frames == 5


def test_cuts_split_and_parts_without_a_face_are_refused(face, tmp_path):
    empty = np.random.default_rng(0).integers(60, 90, (320, 320, 3), np.uint8)
    pictures = [
        *shot(face, 40),
        *shot(face[:, ::-1], 40, start=(120, 10), zoom=1.4),
        *[empty] * 30,
        *shot(face, 40),
        *[empty] * 20,
        *shot(face, 12),
    ]
    video = track_video(write_video(tmp_path / "a.mp4", pictures), TrackOptions(matte=False))
    with video:
        spans = [(shot.start, shot.end) for shot in video.shots]
        assert spans == [(0, 40), (40, 80), (110, 150)]
        reasons = [(r.start, r.end, r.reason) for r in video.refusals]
        assert reasons == [(80, 110, "no face"), (150, 170, "no face"), (170, 182, "shorter than 1 s")]


def test_two_people_of_like_size_are_refused_and_a_bystander_is_not(face, tmp_path):
    large = list(shot(face, 30, zoom=1.6, drift=(0, 0)))
    small = list(shot(face, 30, zoom=0.75, start=(0, 0), drift=(0, 0), size=(320, 320)))
    both = [np.concatenate([a, a[:, ::-1]], 1) for a in large]
    uneven = [np.concatenate([a, b], 1) for a, b in zip(large, small, strict=True)]
    video = track_video(write_video(tmp_path / "both.mp4", both), TrackOptions(matte=False))
    assert [r.reason for r in video.refusals] == ["several faces"]
    video.close()
    with pytest.raises(InputError, match="several faces"):
        list(track_frames(tmp_path / "both.mp4"))
    video = track_video(write_video(tmp_path / "uneven.mp4", uneven), TrackOptions(matte=False))
    with video:
        assert [len(shot) for shot in video.shots] == [30]
        assert video.shots[0].crop_box[2] <= 440  # round the larger one, on the left


@pytest.mark.parametrize("turn", ["upside down", "upright"])
def test_a_face_that_stands_on_its_head_is_refused_and_an_upright_one_is_not(face, tmp_path, turn):
    step = -1 if turn == "upside down" else 1
    pictures = [np.ascontiguousarray(p[::step, ::step]) for p in shot(face, 30, drift=(0, 0))]
    with track_video(write_video(tmp_path / "a.mp4", pictures), TrackOptions(matte=False)) as video:
        reasons = [refusal.reason for refusal in video.refusals]
        assert len(video.shots) == (turn == "upright")
    assert (reasons == []) == (turn == "upright")


@pytest.mark.parametrize(("turns", "cure"), [(1, "transpose=1"), (-1, "transpose=2")])
def test_a_face_on_its_side_is_refused_with_the_turn_that_helps(face, tmp_path, turns, cure):
    """TadasBaltrusaitis/OpenFace#524: a phone's video whose orientation was lost lies on its side."""
    write_video(tmp_path / "a.mp4", (np.rot90(picture, turns) for picture in shot(face, 30)))
    with pytest.raises(InputError, match=f"face on its side; turn the video, such as by ffmpeg -i IN -vf {cure} OUT"):
        list(track_frames(tmp_path / "a.mp4"))


def test_a_face_on_its_side_that_is_lost_is_still_said_to_lie(tmp_path, monkeypatch):
    class Losing:
        """Landmarks of a face on its side in the first ten pictures, then none."""

        def __init__(self, parallel):
            self.left = 10

        def __call__(self, picture):
            self.left -= 1
            points = np.zeros((478, 3), np.float32)
            points[FOREHEAD, 0] = 100
            return points if self.left >= 0 else None

        forget = close = lambda self: None

    class Blind:
        def __call__(self, picture):
            return np.zeros((0, 4), np.float32)

        close = lambda self: None  # noqa: E731

    monkeypatch.setattr(first_pass, "MirroredLandmarks", Losing)
    monkeypatch.setattr(first_pass, "FaceFinder", Blind)
    write_video(tmp_path / "a.mp4", np.full((40, 64, 64, 3), 90, np.uint8))
    found = first_pass.run_first_pass(tmp_path / "a.mp4", TrackOptions())
    (refusal,) = found.refusals
    assert (refusal.start, refusal.end, refusal.reason[:16]) == (0, 40, "face on its side")
    found.close()


class _Sided:
    """FaceMesh with a bias of 3 px to the left, on a face whose middle is where the brightest column of the picture is."""

    def __init__(self):
        self.face = mean_face()

    def __call__(self, picture):
        if picture.max() == 0:
            return None
        middle = picture[..., 0].max(0).argmax() + 0.5
        return (self.face + np.array([middle - 3, 60, 0])).astype(np.float32)

    forget = close = lambda self: None


def mean_face():
    rig = load_rig()
    return 30 * rig.landmarks(rig.mean).numpy()


def test_landmarks_averaged_with_the_mirrored_picture_have_no_bias_to_one_side(monkeypatch):
    mesh = MirroredLandmarks.__new__(MirroredLandmarks)
    mesh._other = _Sided()
    monkeypatch.setattr(FaceLandmarks, "__call__", lambda self, picture: mesh._other(picture))
    picture = np.zeros((120, 160, 3), np.uint8)
    assert mesh(picture) is None
    picture[:, 100] = 255
    face = mean_face()
    both_sides = (face + face[mirror_pairs(face)] * [-1, 1, 1]) / 2  # FaceMesh's mean face is not quite symmetric
    np.testing.assert_allclose(mesh(picture), both_sides + np.array([100.5, 60, 0]), atol=1e-3)
    picture[:, 0] = 255  # then the mirror image shows another face
    np.testing.assert_allclose(mesh(picture), face + np.array([0.5 - 3, 60, 0]), atol=1e-3)


def test_landmarks_are_the_same_when_picture_and_mirror_image_are_searched_at_the_same_time(clips):
    from shards.media.decode import read_video

    pictures = list(read_video(clips / "cnn2_a.mp4", seconds=0.2, size=256))
    pictures.insert(3, np.zeros_like(pictures[0]))  # where the face is lost, both are searched from scratch
    found = []
    for parallel in (False, True):
        mesh = MirroredLandmarks(parallel=parallel)
        found.append([mesh(picture) for picture in pictures])
        mesh.close()
    assert [points is None for points in found[1]] == [False, False, False, True, False, False]
    np.testing.assert_equal(found[0], found[1])


def test_a_short_videos_pictures_are_kept_and_give_what_decoding_again_gives(portrait_video, segments, monkeypatch):
    monkeypatch.setattr(first_pass, "KEPT", 10 * 320 * 320 * 3)
    with track_video(portrait_video) as video:
        assert video._first_pass.pictures is None
        again = [segment for shot in video.shots for segment in shot]
    for ours, theirs in zip(segments, again, strict=True):
        np.testing.assert_array_equal(ours.frames, theirs.frames)
        assert all(np.array_equal(ours.track[name], theirs.track[name]) for name in theirs.track)
    with track_video(portrait_video, TrackOptions(seconds=0.4, min_seconds=0.2)) as video:
        assert len(video._first_pass.pictures.rows) == 10
    with track_video(portrait_video, TrackOptions(size=256, seconds=0.4, min_seconds=0.2)) as video:
        assert video._first_pass.pictures is None


def test_landmarks_are_those_of_mediapipes_own_tracking(clips):
    """Its graph places the square in which the network looks as we do; what is left are roundings."""
    import mediapipe

    from shards.media.decode import read_video

    pictures = list(read_video(clips / "ed_pose2_a.mp4", seconds=0.4))
    theirs = mediapipe.solutions.face_mesh.FaceMesh(refine_landmarks=True, min_detection_confidence=0.4)
    mesh = FaceLandmarks()
    for _ in range(landmarks.SETTLING - 1):
        theirs.process(pictures[0])
    for picture in pictures:
        found = theirs.process(picture).multi_face_landmarks[0]
        expected = landmarks._pixels(landmarks._coordinates(found), picture.shape)
        assert np.linalg.norm((mesh(picture) - expected)[:, :2], axis=1).mean() < 0.15
    theirs.close()
    mesh.close()


def test_the_part_that_the_network_sees_holds_the_square_in_which_it_looks():
    region = landmarks.Region.around(mean_face() + np.array([60, 70, 0]))
    x0, y0, x1, y1 = region.box((300, 300))
    assert x0 <= max(0, region.x - region.side / 2)
    assert x1 >= region.x + region.side / 2
    assert y0 <= max(0, region.y - region.side / 2)
    assert y1 >= region.y + region.side / 2
    assert region.box((50, 40))[2:] == (40, 50)


def test_landmarks_read_from_their_bytes_equal_their_attributes():
    from mediapipe.framework.formats.landmark_pb2 import NormalizedLandmark, NormalizedLandmarkList

    marks = [NormalizedLandmark(x=0.25, y=0.0, z=-1.5), NormalizedLandmark(x=1e-9, y=2.0, z=0.0)]
    expected = np.array([(p.x, p.y, p.z) for p in marks], np.float32)
    np.testing.assert_array_equal(landmarks._coordinates(NormalizedLandmarkList(landmark=marks)), expected)
    marks[1].visibility = 0.5  # a field that face landmarks do not have
    np.testing.assert_array_equal(landmarks._coordinates(NormalizedLandmarkList(landmark=marks)), expected)


def test_matplotlib_waits_until_something_of_it_is_used(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    (tmp_path / "matplotlib").mkdir()
    (tmp_path / "matplotlib" / "__init__.py").write_text("")
    (tmp_path / "matplotlib" / "pyplot.py").write_text("figure = 'a figure'")
    monkeypatch.syspath_prepend(tmp_path)
    with solutions._without_matplotlib():
        import matplotlib.pyplot as plt
    assert "matplotlib" not in sys.modules
    assert plt.figure == "a figure"  # drawing still works
    import matplotlib.pyplot

    assert matplotlib.pyplot.__file__ == str(tmp_path / "matplotlib" / "pyplot.py")


def test_real_faces_that_stand_on_their_heads_are_refused_with_the_cure(clips, tmp_path):
    from shards.media.decode import read_video

    for name in ("cnn2_a", "hl_video3"):
        frames = list(read_video(clips / f"{name}.mp4", seconds=1.2))
        upright = write_video(tmp_path / f"{name}.mp4", frames)
        turned = write_video(tmp_path / f"{name}_turned.mp4", [np.ascontiguousarray(f[::-1, ::-1]) for f in frames])
        with track_video(upright, TrackOptions(matte=False)) as video:
            assert (video.tracked_frames, video.refusals) == (30, [])
        with pytest.raises(InputError, match="face upside down; turn the video, such as by ffmpeg"):
            list(track_frames(turned))


def test_the_first_landmarks_are_as_settled_as_the_later_ones(face):
    from shards.tracking import detect_landmarks

    pictures = list(shot(face, 12, drift=(0, 0)))
    points, found = detect_landmarks(np.stack([pictures[0]] * 12))
    assert found.all()
    off = np.linalg.norm((points - points[-1])[..., :2], axis=-1).mean(axis=1)
    assert off[0] < 0.35


def test_landmarks_of_a_picture_of_half_the_size_lie_at_half_the_place(face):
    from PIL import Image

    from shards.tracking import detect_landmarks

    large = next(iter(shot(face, 1, drift=(0, 0), zoom=1.4)))
    small = np.asarray(Image.fromarray(large).resize((large.shape[1] // 2, large.shape[0] // 2), Image.Resampling.BOX))
    a, b = (detect_landmarks(np.stack([picture] * 8))[0][-1] for picture in (large, small))
    assert np.abs((a - 2 * b)[:, :2].mean(axis=0)).max() < 0.35  # half a pixel of the small one is a whole one


def test_messages_count_from_the_start_of_the_video(face, tmp_path):
    empty = np.random.default_rng(0).integers(60, 90, (320, 320, 3), np.uint8)
    write_video(tmp_path / "a.mp4", [*shot(face, 50), *[empty] * 40])
    with pytest.raises(InputError, match=r"no face \(from 2\.[04] to 3\.[26] s\)"):
        list(track_frames(tmp_path / "a.mp4", start=2.0))


def test_it_is_said_which_part_of_a_video_is_used(face, tmp_path, caplog):
    empty = np.random.default_rng(0).integers(60, 90, (320, 320, 3), np.uint8)
    write_video(tmp_path / "a.mp4", [*[empty] * 25, *shot(face, 50)])
    with caplog.at_level("INFO", logger="headstart"):
        segments = list(track_frames(tmp_path / "a.mp4"))
    assert sum(len(segment) for segment in segments) == 50
    assert "of 3.0 s, 1.0 to 3.0 s are used" in caplog.text
    assert "no face (from 0.0 to 1.0 s)" in caplog.text


def test_a_small_face_is_refused_with_its_reason(face, tmp_path):
    pictures = list(shot(face, 30, zoom=0.7, start=(-100, -60), drift=(0, 0), size=(360, 480)))
    video = track_video(write_video(tmp_path / "a.mp4", pictures), TrackOptions(min_eye_distance=60, matte=False))
    video.close()
    assert not video.tracked_frames
    assert "too small" in video.refusals[0].reason


def test_a_wide_picture_is_cropped_around_head_and_shoulders(face, tmp_path):
    pictures = list(shot(face, 30, zoom=1.0, start=(0, 0), drift=(0, 0), size=(300, 512)))
    video = track_video(write_video(tmp_path / "a.mp4", pictures), TrackOptions(matte=False))
    with video:
        segment = next(iter(video.shots[0]))
    x0, y0, x1, y1 = segment.crop_box
    assert x1 - x0 == y1 - y0 == segment.frames.shape[1]
    assert 0 <= x0 < x1 <= 512
    landmarks = segment.track["landmarks"][..., :2]
    assert landmarks.min() > 0
    assert landmarks.max() < segment.frames.shape[1]


def test_sound_can_be_required(face, tmp_path):
    silent = write_video(tmp_path / "silent.mp4", shot(face, 30), sound=np.zeros(20_000))
    without = write_video(tmp_path / "without.mp4", shot(face, 30))
    for path, reason in ((silent, "silent audio"), (without, "no audio")):
        video = track_video(path, TrackOptions(require_audio=True))
        video.close()
        assert (video.tracked_frames, video.refusals[0].reason) == (0, reason)
    segment = next(iter(track_video(without, TrackOptions(matte=False)).shots[0]))
    assert not segment.has_audio
    assert segment.audio.shape == (len(segment) * 640,)


def test_videos_that_cannot_serve_are_refused_in_one_sentence(face, tmp_path):
    one = write_video(tmp_path / "one.mp4", shot(face, 1))
    blank = write_video(tmp_path / "blank.mp4", [np.full((96, 128, 3), 80, np.uint8)] * 30)
    with pytest.raises(InputError, match="holds one frame, expected"):
        track_video(one)
    with pytest.raises(InputError, match="holds no frame from 99 s on"):
        track_video(one, TrackOptions(start=99))
    with pytest.raises(InputError, match="start is -1, expected a number of seconds from 0 on"):
        track_video(one, TrackOptions(start=-1))
    with pytest.raises(InputError, match=r"no face \(from 0.0 to 1.2 s\)"):
        list(track_frames(blank))
    with pytest.raises(InputError, match="size is 63"):
        track_video(one, TrackOptions(size=63))


def test_landmarks_are_found_anew_in_finished_pictures(face):
    pictures = np.stack([*shot(face, 2), np.zeros((320, 320, 3), np.uint8)])
    landmarks, found = detect_landmarks(pictures)
    assert found.tolist() == [True, True, False]
    assert landmarks.shape == (3, 478, 3)
    assert 20 < np.linalg.norm(landmarks[0, 468] - landmarks[0, 473]) < 120


@pytest.mark.clips
def test_a_real_clip_is_tracked_with_lips_and_irises_in_place(clips):
    video = track_video(clips / "aoc.mp4", TrackOptions(seconds=2.0, matte=False))
    rig = load_rig()
    for shot in video:
        for s in shot:
            track = {k: torch.from_numpy(v) for k, v in s.track.items()}
            vertices = rig.vertices(track["identity"][None], track["expression"], track["eyelids"], track["gaze"])
            camera = vertices @ track["rotation"].transpose(1, 2) + track["translation"][:, None]
            pixels = (camera @ track["intrinsics"].T)[..., :2] / camera[..., 2:]
            raw, found = detect_landmarks(s.frames)
            error = np.linalg.norm(pixels[:, :478].numpy() - raw[..., :2], axis=-1)[found]
            assert np.median(error) < 2.0
            assert np.median(error[:, [468, 473]]) < 2.5
