"""Adaptation itself: every recipe, budgets, resuming, killing, refusing."""

from __future__ import annotations

import dataclasses
import itertools
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import adapt.ending
import adapt.job
from adapt.avatar import folder
from adapt.avatar.avatar import load_avatar
from adapt.budget import Clock
from adapt.clip import track_clip
from adapt.drivers.ridge import RidgeDriver
from adapt.fit.schedule import anchor_share
from adapt.job import adapt as make_avatar
from adapt.recipes import recipe as find_recipe
from adapt.recipes import recipe_names
from configs import InputError
from tests.support.avatars import SIZE, stopped_after

QUICK = {"prior": "none", "size": SIZE}


@pytest.fixture(autouse=True)
def _truth(world, monkeypatch):
    monkeypatch.setattr("shards.tracking.track_frames", world.segments)


@pytest.fixture(scope="module")
def avatar(world, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shards.tracking.track_frames", world.segments)
        out = tmp_path_factory.mktemp("avatar") / "ada"
        result = make_avatar(world.video, out, budget="60it", **QUICK)
    return out, result


@pytest.mark.parametrize("recipe", recipe_names())
def test_every_recipe_makes_an_avatar_that_opens_and_renders_the_same_again(world, tmp_path, recipe):
    result = make_avatar(world.video, tmp_path / "ada", recipe=recipe, budget="10it", **QUICK)
    assert result["recipe"] == recipe
    assert result["iterations"] >= 10
    first, second = load_avatar(tmp_path / "ada", "cpu"), load_avatar(tmp_path / "ada", "cpu")
    drive = first.tracked_drive([3, 20])
    if first.model.uses_audio:
        drive = drive.with_(features=_windows(first, 2))
    images = [opened.render(drive) for opened in (first, second)]
    assert images[0].shape == (2, SIZE, SIZE, 3)
    assert np.array_equal(*images)
    assert images[0].std() > 0.05


def _windows(avatar, count):
    from heads.person.inputs import AUDIO_CONTEXT

    return torch.zeros(count, 2 * AUDIO_CONTEXT + 1, avatar.document["features"]["size"])


def test_the_result_and_the_document_say_what_the_design_asks(avatar):
    out, result = avatar
    assert {"avatar", "recipe", "prior", "iterations", "seconds", "metrics"} <= result.keys()
    document = json.loads((out / "avatar.json").read_text())
    needed = {"schema", "recipe", "prior", "rig", "features", "size", "created", "provenance", "metrics"}
    assert needed <= document.keys()
    assert document["prior"] is None
    assert document["null_reasons"] == result["null_reasons"] == {}
    assert document["progress"]["complete"]
    assert not (out / folder.STATE).exists()
    assert sum(record["bytes"] for record in document["files"].values()) < 20e6


def test_optimising_brings_the_face_nearer_to_unseen_frames(avatar):
    curve = json.loads((avatar[0] / "avatar.json").read_text())["progress"]["psnr_face"]
    untrained = 20.0
    assert curve[-1][1] > untrained


def test_training_takes_the_first_ten_elevenths_unless_told_otherwise(avatar, world, tmp_path):
    assert avatar[1]["frames"] == len(world.frames) * 10 // 11
    result = make_avatar(world.video, tmp_path / "short", seconds=1.0, budget="2it", **QUICK)
    assert result["frames"] == 25


@pytest.mark.parametrize("recipe", ["talkinggaussian", "fg3dgs"])
def test_a_recipe_that_listens_itself_takes_no_audio_prior(world, tmp_path, monkeypatch, recipe):
    monkeypatch.setattr("adapt.priors.Priors.motion", property(lambda priors: object()))
    make_avatar(world.video, tmp_path / "ada", recipe=recipe, budget="3it", **QUICK)
    assert "prior" not in load_avatar(tmp_path / "ada", "cpu").driver.name.split("(")[0]


def test_one_frame_is_enough_to_begin_with(world, tmp_path):
    result = make_avatar(world.video, tmp_path / "one", seconds=0.04, budget="3it", **QUICK)
    assert (result["frames"], result["metrics"]["psnr_face_held"]) == (1, None)
    assert "too few to hold any out" in result["null_reasons"]["psnr_face_held"]
    assert load_avatar(tmp_path / "one", "cpu").document["null_reasons"] == result["null_reasons"]


def test_frames_without_the_face_are_not_counted_as_trained_on(world, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "shards.tracking.track_frames", lambda *a, **options: itertools.islice(world.segments(*a, **options), 1)
    )
    result = make_avatar(world.video, tmp_path / "leaves", budget="3it", **QUICK)
    assert result["frames"] == 25
    assert load_avatar(tmp_path / "leaves", "cpu").document["clip"]["frames"] == len(world.frames) * 10 // 11
    assert "the face leaves before the held-out frames" in result["null_reasons"]["psnr_face_held"]


def test_frames_tracked_beforehand_are_all_that_is_trained_on_and_stay_open(world, tmp_path):
    with track_clip(world.video, size=SIZE) as whole, whole.stretch(20, 1) as part:
        assert np.array_equal(part.frames([0]), whole.frames([20]))
        assert np.array_equal(part.track["rotation"][0], whole.track["rotation"][20])
        assert len(part.audio) == 640
        result = make_avatar(world.video, tmp_path / "one", budget="3it", prior="none", clip=part)
        assert result["frames"] == len(part) == 1
        assert part.frames([0]).shape == (1, SIZE, SIZE, 3)
        with pytest.raises(InputError, match="has frames 0 to 65"):
            whole.stretch(60, 10)


def test_a_batch_of_a_window_is_the_window_of_the_batch(world):
    with track_clip(world.video, size=SIZE) as clip:
        window = (5, 9, 48, 32)
        part, whole = clip.batch([3, 40], window=window), clip.batch([3, 40])
    cut = (slice(None), slice(5, 5 + 48), slice(9, 9 + 32))
    assert part.image.shape == (2, 48, 32, 3)
    assert torch.equal(part.image, whole.image[cut])
    assert torch.equal(part.matte, whole.matte[cut])
    assert all(torch.allclose(part.masks[name], mask[cut], atol=1e-6) for name, mask in whole.masks.items())
    moved = whole.track | {"landmarks": whole.track["landmarks"] - torch.tensor([9.0, 5.0, 0.0])}
    assert all(torch.equal(part.track[name], rows) for name, rows in moved.items())


def test_half_of_a_window_is_the_window_of_the_half(world):
    with track_clip(world.video, size=SIZE) as clip:
        part, whole = clip.batch([3, 40], window=(6, 10, 48, 32), shrink=2), clip.batch([3, 40], shrink=2)
        full = clip.batch([3, 40])
    for name, small, large in (
        ("image", whole.image, full.image),
        ("matte", whole.matte, full.matte),
        *((name, mask, full.masks[name]) for name, mask in whole.masks.items()),
    ):
        averaged = torch.nn.functional.avg_pool2d(large.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
        apart = (small - averaged).abs()
        if name in ("image", "matte"):
            assert apart.max() < 1e-6, name
        else:  # masks are drawn at half the size, from four scanlines a row instead of eight
            assert apart.max() < 0.35, name
            assert apart.mean() < 0.003, name
    cut = (slice(None), slice(3, 3 + 24), slice(5, 5 + 16))
    assert torch.equal(part.image, whole.image[cut])
    assert torch.equal(part.matte, whole.matte[cut])
    assert all(torch.allclose(part.masks[name], mask[cut], atol=1e-6) for name, mask in whole.masks.items())
    assert torch.allclose(part.track["landmarks"], whole.track["landmarks"] - torch.tensor([5.0, 3.0, 0.0]), atol=1e-4)


def test_texels_that_nothing_shows_stay_where_the_map_began_and_shown_ones_move(world):
    model = _rigged(world)
    model.start = model.talking.maps().detach().clone()
    assert float(model.penalty(1.0).detach()) == float(model.penalty().detach())
    with torch.no_grad():
        model.talking.colors.add_(0.1)
    model.penalty(1.0).backward()
    assert (model.talking.colors.grad > 0).all()
    # A texel that fills two pixels of a 256 px picture feels them more than the anchor: at a hundredth off in one frame,
    # at a tenth off in five seconds.
    felt = 0.5 * 0.8 * 2 / (3 * 256 * 256)
    anchor = find_recipe("headstart").config().anchor * float(model.talking.colors.grad.max())
    assert 0.1 * anchor * anchor_share(1) < felt
    assert anchor * anchor_share(125) < felt


def _rigged(world):
    from adapt.models.rigged import RiggedHead
    from heads.person.talking_head import HeadConfig
    from heads.rig import load_rig

    intrinsics, identity = (torch.from_numpy(world.track[name]) for name in ("intrinsics", "identity"))
    parts = HeadConfig(resolution=128)
    return RiggedHead(SIZE, intrinsics, rig=load_rig("mediapipe"), identity=identity, parts=parts, residual=False)


def test_a_pose_that_a_single_frame_did_not_show_is_not_tens_of_deviations_away(world):
    head = _rigged(world).talking
    rows = {name: rows if name in ("intrinsics", "identity") else rows[:1] for name, rows in world.track.items()}
    head.calibrate(rows)
    net = head.color.net
    away = (head.inputs(world.track).vectors - net.center) / net.scale
    assert float(away[:, :3].abs().max()) < 6.0


class Seen:
    """A visual prior that paints every head grey and darkens it as the jaw opens or the head turns."""

    def __init__(self, rig, resolution: int) -> None:
        from heads.gaussians.uv import UVGaussians
        from heads.person.appearance import AppearanceBasis
        from heads.person.inputs import POSE

        self.rig, self.resolution, self.info = rig, resolution, {"prior": "expression-visual"}
        self.map = UVGaussians(rig, resolution).neutral(torch.full((3,), 0.5))
        self.appearance_basis = AppearanceBasis(
            POSE + rig.n_expression + 6, 4, len(self.map), torch.arange(len(self.map))
        )
        torch.nn.init.constant_(self.appearance_basis.basis, -1.0)

    def predict(self, frames, mattes, tracks):
        assert len(frames) == len(mattes) == len(tracks["rotation"])
        return self.map.clone()


def test_a_map_follows_pose_and_expression_as_the_prior_has_it_and_the_avatar_keeps_that(world, tmp_path, monkeypatch):
    from adapt.priors import Priors
    from heads.rig import load_rig

    record = {"name": "expression-visual", "version": "1", "sha256": "0", "uri": "/nowhere"}
    priors = Priors({"expression-visual": Seen(load_rig("mediapipe"), 32)}, {"expression-visual": record})
    monkeypatch.setattr(adapt.job, "open_priors", lambda *_: priors)
    monkeypatch.setattr("adapt.plan.find_priors", lambda spec: [])
    shown = {}
    for name, set_ in (("with", []), ("without", ["appearance_basis=false"])):
        make_avatar(world.video, tmp_path / name, prior="given", size=SIZE, budget="2it", seconds=1.0, set=set_)
        shown[name] = load_avatar(tmp_path / name, "cpu")
    appearance_basis = shown["with"].model.talking.appearance_basis
    assert shown["without"].model.talking.appearance_basis is None
    assert appearance_basis.basis.shape == (4, 6 * len(priors.opened["expression-visual"].map))
    assert torch.equal(appearance_basis.basis, priors.opened["expression-visual"].appearance_basis.basis), (
        "a second tells nothing"
    )
    assert 0 < appearance_basis.row.max() < appearance_basis.rows
    vectors = torch.zeros(2, appearance_basis.size)
    vectors[1, :3] = 0.3
    still, turned = (appearance_basis.at(vector)[1] for vector in vectors)
    assert (turned - still).abs().max() > 1e-3


def test_a_training_frames_track_is_refined_by_its_pixels_and_no_other_frames_is(world):
    from adapt.fit.track_refinement import TrackRefinement
    from heads.person.inputs import head_inputs

    model = _rigged(world)
    model.talking.calibrate(world.track)
    refinement = TrackRefinement(3, model.rig.n_expression)
    model.refine_with(refinement)
    assert model.refiner is refinement
    assert "refiner" not in dict(model.named_children()), "no part of the avatar"
    drive = head_inputs(world.track, "cpu").pick([2])
    plain, _ = model.head(drive)
    with torch.no_grad():
        refinement.rows[2, :3] = 20.0
    moved, _ = model.head(drive.with_(index=torch.tensor([2])))
    assert (moved - plain).abs().max() > 0.05
    assert torch.equal(model.head(drive)[0], plain), "a frame that was not trained on"
    moved.sum().backward()
    assert refinement.rows.grad[2].abs().sum() > 0
    model.refine_with(None)
    assert torch.equal(model.head(drive.with_(index=torch.tensor([2])))[0], plain)


def test_own_residuals_come_in_more_slowly_where_a_prior_knows_how_heads_follow(world):
    from adapt.fit.groups import groups_for_clip

    rates = {}
    for known in (False, True):
        model = _rigged(world)
        if known:
            model.talking.add_appearance_basis(2, 10)
        for frames in (25, 125, 250):
            rates[known, frames] = {g["name"]: g["lr"] for g in groups_for_clip(model, 1.0, frames, patience=3.0)}
    assert "head.color" not in rates[False, 25]
    assert "head.appearance_basis.code" not in rates[True, 25]
    assert 0 < rates[True, 125]["head.color"] < rates[False, 125]["head.color"]
    assert rates[True, 250]["head.color"] == rates[False, 250]["head.color"]
    assert rates[True, 250]["head.appearance_basis.code"] > rates[True, 250]["head.appearance_basis.basis"] > 0
    assert rates[True, 125]["head.colors"] == rates[False, 125]["head.colors"]


def test_parts_can_be_switched_off(world, tmp_path):
    off = ["color_mlp=false", "residual_motion=false", "offsets=false", "track_correction=false", "inpainter=false"]
    small = make_avatar(world.video, tmp_path / "small", budget="2it", set=off, **QUICK)
    opened = load_avatar(tmp_path / "small", "cpu")
    assert opened.model.talking.color is None
    assert opened.model.inpainting is None
    assert small["iterations"] >= 2


def test_the_same_seed_gives_the_same_avatar_bit_for_bit(world, tmp_path):
    for name in ("a", "b"):
        make_avatar(world.video, tmp_path / name, budget="5it", seed=3, **QUICK)
    hashes = [folder.read_document(tmp_path / n)["files"][folder.WEIGHTS]["sha256"] for n in ("a", "b")]
    assert hashes[0] == hashes[1]


def test_a_stopped_run_leaves_a_good_avatar_and_resume_goes_on(world, tmp_path):
    out = tmp_path / "ada"
    with stopped_after(7):
        begun = make_avatar(world.video, out, budget="100000it", **QUICK)
    assert not begun["complete"]
    assert load_avatar(out, "cpu").render(load_avatar(out, "cpu").tracked_drive([0])).shape == (1, SIZE, SIZE, 3)
    total = begun["iterations"] + 20
    resumed = make_avatar(world.video, out, budget=f"{total}it", resume=True, **QUICK)
    assert resumed["complete"]
    assert resumed["iterations"] >= total
    assert not (out / folder.STATE).exists()


def test_the_avatar_on_disk_is_good_from_the_first_seconds_on(world, tmp_path, monkeypatch):
    seen = []

    def run(fit, context):
        seen.append(load_avatar(tmp_path / "ada", "cpu").document["progress"]["complete"])
        raise KeyboardInterrupt

    changed = dataclasses.replace(find_recipe("headstart"), run=run)
    monkeypatch.setattr("adapt.plan.recipe", lambda name: changed)
    with pytest.raises(KeyboardInterrupt):
        make_avatar(world.video, tmp_path / "ada", budget="5it", **QUICK)
    assert seen == [False]
    folder.verify_folder(tmp_path / "ada")


def test_a_save_only_writes_and_what_is_needed_once_is_done_once(world, tmp_path, monkeypatch):
    """Saves after every step: the source is hashed once, the body encoded once, the voice fitted once, at the end."""
    done = []

    def counted(name, function):
        def wrapped(*arguments, **options):
            done.append((name, str(arguments[0]) if name == "hash" else ""))
            return function(*arguments, **options)

        return wrapped

    monkeypatch.setattr("adapt.fit.loop.SAVE_EVERY", 0.0)
    monkeypatch.setattr("adapt.avatar.folder.file_sha256", counted("hash", folder.file_sha256))
    monkeypatch.setattr(folder, "write_folder", counted("save", folder.write_folder))
    monkeypatch.setattr(adapt.ending, "write_body", counted("body", adapt.ending.write_body))
    monkeypatch.setattr(RidgeDriver, "fit", counted("voice", RidgeDriver.fit))
    make_avatar(world.video, tmp_path / "ada", budget="4it", **QUICK)
    assert done.count(("hash", str(world.video))) == 1
    names = [name for name, _ in done if name != "hash"]
    assert names[-3:] == ["voice", "body", "save"]
    assert names.count("save") >= 6
    assert names.count("body") == names.count("voice") == 1
    assert not list(tmp_path.glob(".*")), "nothing half-written remains"


def test_a_wall_clock_budget_is_kept(world, tmp_path, monkeypatch):
    """By a clock of the test's own, on which every step takes half a second and all else nothing."""
    now, tick = [0.0], Clock.tick

    def half_a_second(clock):
        tick(clock)
        now[0] += 0.5

    own = SimpleNamespace(monotonic=lambda: now[0])
    monkeypatch.setattr("adapt.budget.time", own)
    monkeypatch.setattr("adapt.job.time", own)  # where the budget begins
    monkeypatch.setattr(Clock, "tick", half_a_second)
    result = make_avatar(world.video, tmp_path / "ada", budget="6s", **QUICK)
    assert result["complete"]
    assert 1 <= result["iterations"] <= 12


def test_a_wall_clock_budget_is_used_up_whatever_its_end_costs(world, tmp_path, monkeypatch):
    """By a clock of the test's own: a step takes a quarter of a second, a save one, the voice three and the body five."""
    now, done = [0.0], []

    def lasting(seconds, name, function):
        def slow(*arguments, **options):
            now[0] += seconds
            done.append(name)
            return function(*arguments, **options)

        return slow

    for module in ("budget", "job", "fit.loop"):
        monkeypatch.setattr(f"adapt.{module}.time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(Clock, "tick", lasting(0.25, "step", Clock.tick))
    monkeypatch.setattr(folder, "write_folder", lasting(1.0, "save", folder.write_folder))
    monkeypatch.setattr(adapt.ending, "write_body", lasting(5.0, "body", adapt.ending.write_body))
    monkeypatch.setattr(RidgeDriver, "fit", lasting(3.0, "voice", RidgeDriver.fit))
    with track_clip(world.video, size=SIZE) as clip:
        result = make_avatar(world.video, tmp_path / "ada", budget="40s", clip=clip, prior="none")
    assert 37 < result["seconds"] <= 40
    assert done.index("voice") < done.index("step", 2), "they depend on the clip alone, which is tracked"
    assert done[-2:] == ["step", "save"]
    assert done.count("voice") == done.count("body") == 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"budget": "0s"}, "budget"),
        ({"recipe": "headstrat"}, "did you mean 'headstart'"),
        ({"set": ["colour_mlp=false"]}, "color_mlp"),
        ({"seconds": -1.0}, "seconds"),
        ({"size": 100}, "multiple of 16"),
        ({"device": "cuda:9"}, "CUDA"),
        ({"prior": "/nowhere/at/all"}, "nowhere"),
        ({"video": "/nowhere.mp4"}, "no such file"),
    ],
)
def test_bad_input_is_refused_with_a_sentence_and_leaves_nothing(world, tmp_path, change, says):
    arguments = {"video": world.video, "budget": "2it", **QUICK, **change}
    video = arguments.pop("video")
    with pytest.raises(InputError, match=says):
        make_avatar(video, tmp_path / "out" / "ada", **arguments)
    assert not (tmp_path / "out" / "ada").exists()


def test_an_output_that_exists_is_not_touched(world, tmp_path):
    (tmp_path / "ada").mkdir()
    with pytest.raises(InputError, match="exists"):
        make_avatar(world.video, tmp_path / "ada", budget="2it", **QUICK)


def test_ten_frames_are_too_few(tmp_path):
    from shards.media.encode import VideoWriter

    with VideoWriter(tmp_path / "short.mp4", 64, 64) as writer:
        for _ in range(10):
            writer.write(np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(InputError, match="10 frames are too few"):
        make_avatar(tmp_path / "short.mp4", tmp_path / "ada", budget="2it", prior="none")


def test_resuming_another_video_or_recipe_is_refused(avatar, world, tmp_path):
    with pytest.raises(InputError, match="recipe headstart, not ggtalker"):
        make_avatar(world.video, avatar[0], recipe="ggtalker", budget="99it", resume=True, **QUICK)
    with pytest.raises(InputError, match="complete"):
        make_avatar(world.video, avatar[0], budget="60it", resume=True, **QUICK)


def test_an_avatar_of_another_rig_is_refused(avatar, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(avatar[0], copy)
    document = json.loads((copy / "avatar.json").read_text())
    document["rig"]["sha256"] = "0" * 64
    (copy / "avatar.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match="was made for another rig"):
        load_avatar(copy, "cpu")


def test_a_recipes_configuration_is_complete_and_commented():
    from configs.loading import resolve_config, to_dict

    for name in recipe_names():
        made = find_recipe(name)
        text = resolve_config(f"adapt/{name}").read_text()
        assert all(f"{key}:" in text for key in to_dict(made.config()))
        assert not [f for f in dataclasses.fields(made.Config) if f.default is not dataclasses.MISSING], (
            "a default stands once: in the YAML"
        )


@pytest.mark.parametrize("recipe", recipe_names())
@pytest.mark.parametrize("change", ["rate=-1", "rate=nan", "rate=inf"])
def test_a_number_that_nothing_can_be_trained_with_is_refused(world, tmp_path, recipe, change):
    with pytest.raises(InputError, match=r"rate'? is '?(-1|nan|inf)'?, expected a number"):
        make_avatar(world.video, tmp_path / "ada", recipe=recipe, budget="2it", set=[change], **QUICK)
    assert not (tmp_path / "ada").exists()
