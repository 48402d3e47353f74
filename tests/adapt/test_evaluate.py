"""Evaluation: metrics.json and the page, for avatars and for any method's video."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch

from adapt.avatar.avatar import load_avatar
from adapt.avatar.provenance import parse_tags
from adapt.evaluate.avatars import STARTS, track_test
from adapt.evaluate.charts import over_frames
from adapt.evaluate.evaluate import evaluate
from adapt.evaluate.measures.registry import columns
from adapt.evaluate.report import contact_sheet, error_colors
from adapt.evaluate.scoring import Scorer
from adapt.job import adapt as make_avatar
from adapt.marking.marker import Marker
from configs import InputError
from shards.media.decode import read_video
from shards.media.encode import VideoWriter
from shards.media.probe import video_info
from shards.tracking.body import SIDE as TORSO_SIDE
from shards.tracking.options import FIRST_FRAMES
from shards.tracking.refinement import FaceTexture
from tests.support.avatars import SIZE

NAMES = {"psnr", "psnr_face", "ssim", "ssim_face", "lpips", "flip", "lmd", "aue_u", "aue_l", "sync_c", "sync_d"}
NAMES |= {"psnr_body", "jitter_head", "jitter_lips", "seam", "null_reasons", "syncnet_c", "syncnet_d"}


@pytest.fixture(autouse=True)
def _truth(world, monkeypatch):
    monkeypatch.setattr("shards.tracking.track_frames", world.segments)
    monkeypatch.setattr("shards.tracking.detect_landmarks", world.detect)


@pytest.fixture(scope="module")
def scored(world, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shards.tracking.track_frames", world.segments)
        patch.setattr("shards.tracking.detect_landmarks", world.detect)
        folder = tmp_path_factory.mktemp("scored")
        make_avatar(world.video, folder / "ada", budget="60it", prior="none", size=SIZE)
        evaluate(folder / "ada", world.video, folder / "scores")
    return folder


def test_the_record_has_both_drives_and_all_that_the_design_lists(scored):
    record = json.loads((scored / "scores" / "metrics.json").read_text())
    assert set(record["drives"]) == {"track", "audio"}
    for drive in record["drives"].values():
        assert drive.keys() >= NAMES
        absent = {name for name in NAMES - {"null_reasons"} if drive[name] is None}
        assert absent == drive["null_reasons"].keys() & NAMES
        assert all(drive["null_reasons"].values())
    assert record.keys() >= {"fps", "adapt_seconds", "frames", "size", "device", "commit"}
    assert record["frames"] == 6
    assert record["drives"]["track"]["lpips"] is None
    assert "weights" in record["drives"]["track"]["null_reasons"]["lpips"]


def test_the_face_is_measured_on_frames_that_training_never_saw(scored, world):
    record = json.loads((scored / "scores" / "metrics.json").read_text())
    assert (record["test"]["first_frame"], record["test"]["own_clip"]) == (60, True)
    assert record["drives"]["track"]["psnr_face"] > 20
    assert "own body layer" in record["whole_frame"]


def test_tracks_of_torso_and_background_are_part_of_the_track_drive_and_the_record_says_what_it_is_worth(
    world, tmp_path, monkeypatch
):
    def segments(*arguments, **options):
        asked.append(options.get("behind", FIRST_FRAMES))
        for segment in world.segments(*arguments, **options):
            count = len(segment.frames)
            sway = np.zeros((count, 6), np.float32)
            sway[:, 0] = 0.1 * np.sin(np.arange(count))
            for name in ("body", "background"):
                segment.track |= {name: sway, f"{name}_quality": np.ones(count, np.float32)}
            yield segment

    asked = []
    monkeypatch.setattr("shards.tracking.track_frames", segments)
    make_avatar(world.video, tmp_path / "ada", budget="2it", prior="none", size=SIZE)
    avatar = load_avatar(tmp_path / "ada", "cpu")
    assert avatar.track["body"].shape == avatar.track["background"].shape == (60, 6)
    record = evaluate(tmp_path / "ada", world.video, tmp_path / "scores")
    track, plain = record["drives"]["track"], record["drives"]["track"]["without_body_track"]
    assert plain["psnr"] != track["psnr"]
    assert plain["psnr_body"] != track["psnr_body"]
    assert record["drives"]["audio"]["without_body_track"].keys() == plain.keys()
    assert f"{plain['psnr']:.2f} dB on the whole frame" in record["whole_frame"]
    assert asked[0] == FIRST_FRAMES
    body, background = asked[-1].body, asked[-1].background
    assert body.picture.shape == background.picture.shape == (TORSO_SIDE, TORSO_SIDE)  # the avatar's own layers
    assert body.guide.abs().max() < 1
    assert background.starts.shape == (STARTS, 2, 3)
    torch.testing.assert_close(background.starts[-1].flatten(), torch.from_numpy(avatar.track["background"][-1]))


def test_the_offset_that_training_told_is_the_tests_as_well(scored, world, monkeypatch):
    avatar, asked = load_avatar(scored / "ada", "cpu"), []
    assert avatar.document["clip"]["av_offset"] == 0.0
    monkeypatch.setattr("adapt.evaluate.avatars.track_clip", lambda *_, av_offset, **__: asked.append(av_offset))
    avatar.document["clip"]["av_offset"] = 0.08
    track_test(avatar, world.video, 60, 6)
    del avatar.document["clip"]["av_offset"]  # of an earlier version, which moved no sound
    track_test(avatar, world.video, 60, 6)
    avatar.document["provenance"]["video_sha256"] = "another video's"
    track_test(avatar, world.video, 0, 6)
    assert asked == [0.08, 0.0, None]


def test_the_texture_of_the_training_frames_is_that_of_the_test(scored, world, monkeypatch):
    avatar, asked = load_avatar(scored / "ada", "cpu"), []
    monkeypatch.setattr(
        "adapt.evaluate.avatars.track_clip", lambda *_, refine, texture, **__: asked.append((refine, texture))
    )
    track_test(avatar, world.video, 60, 6)  # tracked by the stand-in, which refines nothing
    avatar.texture = FaceTexture(np.zeros((2, 5), np.float32), np.ones(5, np.float32))
    track_test(avatar, world.video, 60, 6)
    assert asked == [(False, None), (True, avatar.texture)]


def test_the_papers_protocol_scores_the_head_over_the_frames_own_body(scored, world, tmp_path, monkeypatch):
    outside, inside, add = [], [], Scorer.add

    def seen(scorer, pictures, reals, landmarks, masks):
        error = np.abs(np.round(pictures * 255) - reals)
        far = np.ones(error.shape[:3], bool)
        for at, points in zip(far, landmarks):  # all that is farther from the face than its own height
            middle, height = points.mean(0), np.ptp(points[:, 1])
            y, x = np.mgrid[: at.shape[0], : at.shape[1]]
            at[:] = np.hypot(x - middle[0], y - middle[1]) > height
        outside.append(error[far].max())
        inside.append(error[masks["face"] > 0.5].mean())
        return add(scorer, pictures, reals, landmarks, masks)

    monkeypatch.setattr(Scorer, "add", seen)
    record = evaluate(scored / "ada", world.video, tmp_path / "paper", protocol="paper")
    assert record["protocol"] == "paper"
    assert "test frame's own" in record["whole_frame"]
    assert max(outside) <= 1  # what is not the head is given, but for the faint ends of Gaussians
    assert min(inside) > 0.01  # and the head is not
    with pytest.raises(InputError, match="expected one of own, paper"):
        evaluate(scored / "ada", world.video, tmp_path / "x", protocol="papers")
    with pytest.raises(InputError, match="leave --ablations out"):
        evaluate(scored / "ada", world.video, tmp_path / "x", protocol="paper", ablations=True)


def test_the_page_needs_nothing_beside_it(scored):
    page = (scored / "scores" / "report.html").read_text()
    assert page.count("data:video/mp4;base64,") == 2
    assert "<polyline" in page
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "real, rendered, error" in page


def test_the_side_by_side_video_is_twice_as_wide_and_says_what_it_is(scored):
    info = video_info(scored / "scores" / "track.mp4")
    assert (info.width, info.height) == (2 * SIZE, SIZE)
    assert parse_tags(info.tags)["synthetic"]


def test_a_video_against_itself_is_perfect(world, tmp_path):
    evaluate(out=tmp_path / "scores", frames=world.video, against=world.video)
    scores = json.loads((tmp_path / "scores" / "metrics.json").read_text())["drives"]["external"]
    assert scores["psnr"] == pytest.approx(100.0)
    assert scores["ssim"] == pytest.approx(1.0)
    assert scores["lmd"] == scores["aue_l"] == scores["seam"] == 0.0
    assert scores["jitter_head"] == pytest.approx(1.0)
    record = parse_tags(video_info(tmp_path / "scores" / "external.mp4").tags)
    assert record["synthetic"]
    assert record["watermark"] == Marker("").fields()["watermark"] != ""
    sides = next(iter(read_video(tmp_path / "scores" / "external.mp4")))[:, :SIZE].astype(int)
    assert np.abs(sides - world.frames[0]).mean() < 6  # beside the mark


def test_a_darker_video_scores_what_its_error_says(world, tmp_path):
    with VideoWriter(tmp_path / "dark.mp4", SIZE, SIZE, crf=10) as writer:
        for frame in world.frames:
            writer.write(np.clip(frame.astype(int) - 26, 0, 255).astype(np.uint8))
    evaluate(out=tmp_path / "scores", frames=tmp_path / "dark.mp4", against=world.video)
    scores = json.loads((tmp_path / "scores" / "metrics.json").read_text())["drives"]["external"]
    assert scores["psnr_face"] == pytest.approx(-20 * np.log10(26 / 255), abs=1.0)


def test_the_original_syncnet_judges_the_true_videos_sound(world, tmp_path, monkeypatch):
    from pretrain.sync_expert import syncnet
    from tests.pretrain.test_syncnet import Bright

    opened = []
    monkeypatch.setattr(syncnet.SyncNet, "open", lambda path: opened.append(path) or Bright())
    evaluate(out=tmp_path / "scores", frames=world.video, against=world.video, syncnet="syncnet_v2.model")
    scores = json.loads((tmp_path / "scores" / "metrics.json").read_text())["drives"]["external"]
    assert opened == ["syncnet_v2.model"]
    assert scores["syncnet_d"] > 0
    assert -15 <= scores["syncnet_offset"] <= 15
    assert "Sync-D, SyncNet" in (tmp_path / "scores" / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"frames": "a.mp4"}, "belong together"),
        ({"avatar": "ada", "frames": "a.mp4", "against": "b.mp4"}, "not both"),
        ({"avatar": "ada"}, "needs an avatar and a video"),
        ({"frames": "a.mp4", "against": "b.mp4", "ablations": True}, "ablations"),
        ({"frames": "/nowhere.mp4", "against": "/nowhere.mp4"}, "no such file"),
        ({"frames": "a.mp4", "against": "b.mp4", "syncnet": "/nowhere.model"}, "nowhere.model': no such file"),
        ({"avatar": "ada", "video": "a.mp4", "protocol": "their"}, "expected one of own, paper"),
    ],
)
def test_contradicting_inputs_are_refused_and_leave_nothing(tmp_path, arguments, says):
    with pytest.raises(InputError, match=says):
        evaluate(out=tmp_path / "scores", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_nothing_left_to_test_on_is_refused(scored, world, tmp_path):
    with pytest.raises(InputError, match="too few to test"):
        evaluate(scored / "ada", world.video, tmp_path / "scores", start=99.0)
    with pytest.raises(InputError, match="--from -1: expected the number of seconds, from 0 on"):
        evaluate(scored / "ada", world.video, tmp_path / "scores", start=-1.0)


def test_videos_of_different_sizes_are_refused(world, tmp_path):
    with VideoWriter(tmp_path / "small.mp4", 64, 64) as writer:
        writer.write(np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(InputError, match="same size"):
        evaluate(out=tmp_path / "scores", frames=tmp_path / "small.mp4", against=world.video)


def test_every_measure_of_the_page_has_a_label_and_a_direction():
    assert all(column.label and column.better for column in columns().values())
    assert columns().keys() >= NAMES - {"null_reasons"}


def test_pictures_of_the_page():
    assert error_colors(np.array([[0.0, 0.25]])).tolist() == [[[0, 0, 0], [1, 1, 1]]]
    tiles = [[np.zeros((4, 6, 3), np.uint8)] * 3] * 2
    assert contact_sheet(tiles, gap=2).shape == (10, 22, 3)
    assert over_frames({"real": np.arange(5.0), "rendered": np.ones(5)}, "lips").count("<polyline") == 2


def _ablations(scored, world, monkeypatch, complete=True):
    """Rows of the table and what each was adapted with; nothing is trained."""
    from adapt.evaluate import ablations

    calls, drives = [], {"audio": {"psnr_face": 30.0}}

    def adapted(video, out, **options):
        calls.append(options)
        return {"complete": complete}

    opened = ablations.load_avatar(scored / "ada", "cpu")
    monkeypatch.setattr(ablations, "adapt", adapted)
    monkeypatch.setattr(ablations, "score_avatar", lambda *_: drives)
    monkeypatch.setattr(ablations, "load_avatar", lambda *_: opened)
    result = {"drives": drives, "test": {"first_frame": 60}}
    rows = ablations.run_ablations(scored / "ada", world.video, result, device="cpu", tools=None)
    return rows, calls


def test_every_ablation_has_the_avatars_budget_and_seed_and_one_part_less(scored, world, monkeypatch):
    rows, calls = _ablations(scored, world, monkeypatch)
    assert {(c["budget"], c["seed"], c["prior"]) for c in calls} == {("60it", 0, "none")}
    whole = {r["setting"]: c["set"][-1] for r, c in zip(rows[1:], calls) if r["trained on"] == "all frames"}
    assert whole["no colour MLP"] == "color_mlp=false"
    assert "no visual prior" not in whole  # this avatar has none
    assert {c["seconds"] for c in calls} == {60 / 25, 1.0}
    assert rows[0]["setting"] == "full"
    assert rows[0]["lmd"] == "–"


def test_an_interrupted_ablation_ends_the_evaluation_instead_of_giving_a_row(scored, world, monkeypatch):
    with pytest.raises(KeyboardInterrupt):
        _ablations(scored, world, monkeypatch, complete=False)


def test_the_page_names_measures_in_the_table_of_ablations_and_says_each_absence_once():
    from adapt.evaluate.page import reasons_of
    from adapt.evaluate.report import ablation_rows

    row = {"setting": "full", "drive": "track", "psnr_face": 31.734, "sync_c": "–"}
    assert ablation_rows([row]) == [{"setting": "full", "drive": "track", "PSNR, face": "31.73", "Sync-C": "–"}]
    drives = {"track": {"null_reasons": {"lpips": "no weights"}}, "audio": {"null_reasons": {"lpips": "no weights"}}}
    assert reasons_of(drives) == {"LPIPS": "no weights"}
    drives["audio"]["null_reasons"] = {"lpips": "no weights", "lmd": "no face"}
    assert reasons_of(drives) == {"LPIPS": "no weights", "LMD (audio)": "no face"}


def test_the_sync_expert_gets_the_feature_that_it_was_trained_on():
    from types import SimpleNamespace

    from adapt.evaluate.tools import sync_features

    sound = np.zeros(10 * 640, np.float32)
    expert = SimpleNamespace(info={"features": {"name": "logmel", "size": 160, "weights": None}})
    assert sync_features(expert, sound, 12).shape == (12, 160)
    assert sync_features("no expert", sound, 12) == "no expert"
