"""Expression-visual: unwrapping, visibility, the mean head, one-shot maps, and no background in them."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest
import torch

from configs import InputError, load_config
from heads.gaussians.uv import UVGaussians
from heads.geometry.camera import project
from heads.measures.face import mirror_signs
from heads.rig import load_rig
from pretrain.expression_visual.baseline import texture_copy
from pretrain.expression_visual.config import ExpressionVisualConfig
from pretrain.expression_visual.inference import ExpressionVisualPrior
from pretrain.expression_visual.model import COLOUR, VisualModel
from pretrain.expression_visual.objective import VisualObjective
from pretrain.expression_visual.task import ExpressionVisualTask
from pretrain.expression_visual.unwrap import TexelSurface, facing, mirror_index, unhidden, visibility, within
from pretrain.expression_visual.view import ReferenceView, pixel_weight
from tests.support.talkers import talkers

S = 64
CONFIG = load_config(
    ExpressionVisualConfig,
    {"size": S, "model": {"resolution": 32, "channels": 8, "levels": 2, "image_channels": 8}, "batch_size": 2},
)


@functools.cache
def model() -> VisualModel:
    torch.manual_seed(0)
    return VisualModel(CONFIG, load_rig()).eval()


def frontal(count: int = 1, yaw: float = 0.0) -> dict[str, torch.Tensor]:
    """Pose fields of a mean head that fills the frame."""
    rig = load_rig()
    cos, sin = np.cos(yaw), np.sin(yaw)
    pose = {
        "rotation": torch.tensor([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]], dtype=torch.float32),
        "translation": torch.tensor([0.0, -0.4, 14.0]),
        "intrinsics": torch.tensor([[4.0 * S, 0, S / 2], [0, 4.0 * S, S / 2], [0, 0, 1]]),
        "expression": torch.zeros(rig.n_expression),
        "eyelids": torch.zeros(2),
        "gaze": torch.zeros(2, 2),
    }
    return {name: value.expand(count, *value.shape).clone() for name, value in pose.items()}


def person() -> torch.Tensor:
    return torch.zeros(1, load_rig().n_identity)


def stripes() -> torch.Tensor:
    """A picture (1, S, S, 3), red to the right and green downwards."""
    y, x = torch.meshgrid(torch.arange(S) + 0.5, torch.arange(S) + 0.5, indexing="ij")
    return torch.stack([x / S, y / S, 0 * x + 0.5], -1)[None]


def region(name: str) -> torch.Tensor:
    return model().binding.regions == load_rig().regions[name]


def test_texels_project_where_their_landmarks_do():
    rig, pose = load_rig(), frontal()
    vertices = rig.vertices(person(), pose["expression"], pose["eyelids"], pose["gaze"])
    corners, _ = project(vertices, pose["rotation"], pose["translation"], pose["intrinsics"])
    surface = TexelSurface(rig, model().binding)
    pixels, _ = project(surface.points(vertices)[0], pose["rotation"], pose["translation"], pose["intrinsics"])
    low, high = corners[0, surface.corners].amin(1), corners[0, surface.corners].amax(1)
    assert ((pixels[0] >= low - 1e-3) & (pixels[0] <= high + 1e-3)).all()


def test_the_front_is_seen_and_the_back_is_not():
    pose = frontal()
    _, seen = visibility(model().surface, model().vertices(person(), pose), pose, torch.ones(1, S, S))
    assert seen[0, region("face")].mean() > 0.5
    points, normals = model().surface.points(load_rig().mean[None])
    away = facing(points, normals, pose["rotation"], pose["translation"])[0] < 0
    assert seen[0, away].max() == 0
    assert away[region("cranium")].float().mean() > 0.2


def test_a_turned_head_hides_its_far_cheek():
    points = model().surface.points(load_rig().mean[None])[0][0]
    right, left = (region("face") & (side * points[:, 0] > 0.5) for side in (1, -1))
    means = []
    for yaw in (0.0, 0.6):
        pose = frontal(yaw=yaw)
        _, seen = visibility(model().surface, model().vertices(person(), pose), pose, torch.ones(1, S, S))
        means.append((seen[0, left].mean(), seen[0, right].mean()))
    assert abs(means[0][0] - means[0][1]) < 0.1
    assert abs(means[1][0] - means[1][1]) > 0.3


def test_the_depth_buffer_hides_what_lies_behind():
    pixels = torch.tensor([[[10.0, 10.0], [10.1, 10.0], [40.0, 40.0]]])
    assert unhidden(pixels, torch.tensor([[5.0, 7.0, 7.0]]), S).tolist() == [[1, 0, 1]]


def test_the_mirror_of_the_left_eye_is_the_right_one():
    rig = load_rig()
    binding = UVGaussians(rig, 64)
    points = TexelSurface(rig, binding).points(rig.mean[None])[0][0]
    mirror = mirror_index(points)
    left = binding.regions == rig.regions["eye_left"]
    assert (binding.regions[mirror[left]] == rig.regions["eye_right"]).float().mean() > 0.8
    assert torch.allclose(points[mirror, 0], -points[:, 0], atol=0.25)


def test_a_polygon_holds_what_lies_between_its_edges():
    loop = torch.tensor([[[0.0, 0.0], [8.0, 0.0], [8.0, 4.0], [4.0, 1.0], [0.0, 4.0]]])
    pixels = torch.tensor([[[1.0, 1.0], [4.0, 2.0], [7.5, 3.0], [9.0, 1.0]]])
    assert within(pixels, loop).tolist() == [[1, 0, 1, 0]]


def test_an_eyeball_is_seen_through_open_lids_and_not_through_closed_ones():
    pose = frontal(2)
    pose["eyelids"][1] = 1.0
    pose["intrinsics"][:, :2] *= 4  # a large eye: its opening is several px high
    _, seen = visibility(
        model().surface, model().vertices(person().expand(2, -1), pose), pose, torch.ones(2, 4 * S, 4 * S)
    )
    assert seen[0, region("eyeball_left")].mean() > 0.1
    assert seen[1, region("eyeball_left")].max() == 0


def test_no_hole_shows_in_the_neck_and_the_cranium_of_an_untrained_head():
    from heads.gaussians.render import render_head

    rig, yaws = load_rig(), (0.0, 0.6, 1.5, 3.1)
    pose = {name: torch.cat([frontal(yaw=yaw)[name] for yaw in yaws]) for name in frontal()}
    vertices = model().vertices(person().expand(len(yaws), -1), pose)
    gaussians = model().binding.bind(vertices, model().neutral[None].expand(len(yaws), -1, -1))
    camera = (pose["rotation"], pose["translation"], pose["intrinsics"])
    alpha = render_head(gaussians, *camera, S, S)[1][..., 0]
    used = rig.faces[torch.isin(rig.face_regions, torch.tensor([rig.regions["neck"], rig.regions["cranium"]]))].unique()
    corners, _ = project(vertices[:, used], *camera)
    rows = alpha[
        torch.arange(len(yaws))[:, None], corners[..., 1].long().clamp(0, S - 1), corners[..., 0].long().clamp(0, S - 1)
    ]
    low, high = corners.amin(1, keepdim=True), corners.amax(1, keepdim=True)
    inner = ((corners > low + 6) & (corners < high - 6) & (corners < S - 6)).all(-1)
    assert inner.sum() > 100
    assert rows[inner].min() > 0.7


def test_a_texel_that_is_seen_well_enough_takes_nothing_from_the_mirrored_side_and_the_mean_head():
    pose, given = frontal(yaw=0.3), (person(), torch.ones(1, 1))
    maps = {}
    for seen_from in (1.0, 0.125):
        torch.manual_seed(0)
        built = VisualModel(replace(CONFIG, model=replace(CONFIG.model, seen_from=seen_from)), load_rig()).eval()
        with torch.no_grad():
            maps[seen_from] = built(sources(stripes(), torch.ones(1, S, S), pose), *given)[0, :, COLOUR]
    colour, seen, _ = model().look(stripes(), torch.ones(1, S, S), person(), pose)
    part = (seen[0] > 0.2) & (seen[0] < 0.8)
    assert part.sum() > 20
    assert torch.allclose(maps[0.125][part], colour[0, part], atol=1e-5)
    assert not torch.allclose(maps[1.0][part], colour[0, part], atol=1e-2)
    with pytest.raises(InputError, match="seen_from"):
        load_config(ExpressionVisualConfig, {"model": {"seen_from": 0}})


def test_the_copy_of_several_frames_is_their_mean_where_a_texel_is_seen():
    pose = frontal(2)
    pair = torch.cat([stripes(), stripes() * 0.5])
    both = texture_copy(model(), pair, torch.ones(2, S, S), person(), pose)
    one = texture_copy(model(), stripes(), torch.ones(1, S, S), person(), frontal())
    seen = model().look(stripes(), torch.ones(1, S, S), person(), frontal())[1][0] > 0.2
    assert both.shape == one.shape
    assert torch.allclose(both[seen, COLOUR], 0.75 * one[seen, COLOUR], atol=1e-5)


def test_hair_that_was_not_seen_differs_from_the_mean_as_seen_hair_does():
    count = len(model().mirror)
    cranium = region("cranium")
    texture, weight = torch.full((1, count, 3), 0.8), torch.zeros(1, count)
    points = model().surface.points(load_rig().mean[None])[0][0]
    weight[0, points[:, 2] < 0.6] = 1
    texture[0, cranium] = 0.1
    base = model().base_colour(texture, weight)[0]
    back = cranium & (points[:, 2] > 1.2)
    assert back.sum() > 10
    assert base[back].mean() < 0.3, "not as bright as the face"


def test_the_mean_head_learns_faster_and_is_not_drawn_to_zero():
    task = ExpressionVisualTask(CONFIG, None, None)
    objective = VisualObjective(VisualModel(CONFIG, load_rig()), people=2)
    groups = task.groups(objective)
    (mean,) = (group for group in groups if any(p is objective.model.mean_map for p in group["params"]))
    assert mean["lr"] == pytest.approx(CONFIG.mean_rate * CONFIG.optimiser.lr)
    assert mean["weight_decay"] == 0
    assert sum(len(group["params"]) for group in groups) == len(list(objective.parameters()))


def sources(image: torch.Tensor, matte: torch.Tensor, pose: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value[:, None] for name, value in ({"image": image, "matte": matte} | pose).items()}


def test_an_untrained_network_shows_the_texture_where_it_was_seen():
    pose, matte = frontal(), torch.ones(1, S, S)
    with torch.no_grad():
        maps = model()(sources(stripes(), matte, pose), person(), torch.ones(1, 1))
    pixels, seen = visibility(model().surface, model().vertices(person(), pose), pose, matte)
    sure = seen[0] > 0.99
    assert sure.sum() > 100
    assert torch.allclose(maps[0, sure][:, COLOUR][:, 0], pixels[0, sure, 0] / S, atol=0.02)
    assert torch.allclose(maps[0, :, :10], model().neutral[:, :10])


def test_what_was_not_seen_takes_the_mirrored_side_then_the_mean_head_in_the_persons_tone():
    count = len(model().mirror)
    texture, weight = torch.full((1, count, 3), 0.9), torch.zeros(1, count)
    points = model().surface.points(load_rig().mean[None])[0][0]
    weight[0, points[:, 0] > 0.3] = 1
    texture[0, :, 1] = 0.2
    base = model().base_colour(texture, weight)[0]
    mirrored = model().mirror[points[:, 0] < -0.6]
    assert (weight[0, mirrored] == 1).float().mean() > 0.9
    assert torch.allclose(base[points[:, 0].abs() < 0.1].mean(0), torch.tensor([0.9, 0.2, 0.9]), atol=0.05)


def test_the_background_does_not_leak_into_the_head():
    pose = frontal()
    matte = torch.zeros(1, S, S)
    matte[:, 16:52, 18:46] = 1
    other = torch.where(matte[..., None] > 0, stripes(), torch.rand(1, S, S, 3))
    with torch.no_grad():
        a, b = (model()(sources(i, matte, pose), person(), torch.ones(1, 1)) for i in (stripes(), other))
    known = (stripes() * matte[..., None]).sum() > 0
    assert known
    assert (a - b).abs().max() < 2e-2, "bilinear sampling may touch one pixel beyond the shrunken matte, no more"


def test_references_that_are_not_seen_change_nothing():
    pose, matte = frontal(2, 0.0), torch.ones(2, S, S)
    pose["rotation"][1] = frontal(yaw=0.4)["rotation"][0]
    image = torch.cat([stripes(), torch.rand(1, S, S, 3)])
    both = {name: value[None] for name, value in ({"image": image, "matte": matte} | pose).items()}
    first = {name: value[:, :1] for name, value in both.items()}
    with torch.no_grad():
        assert torch.allclose(
            model()(both, person(), torch.tensor([[1.0, 0.0]])), model()(first, person(), torch.ones(1, 1)), atol=1e-5
        )
        assert not torch.allclose(
            model()(both, person(), torch.ones(1, 2)), model()(first, person(), torch.ones(1, 1)), atol=1e-2
        )


def test_the_copy_uses_nothing_that_was_learned():
    pose, matte = frontal(), torch.ones(1, S, S)
    before = texture_copy(model(), stripes(), matte, person(), pose)
    torch.manual_seed(1)
    other = VisualModel(CONFIG, load_rig())
    torch.nn.init.normal_(other.mean_map)
    torch.nn.init.normal_(other.unet.out.weight)
    other.mean_colour.fill_(0.1)
    assert torch.equal(before, texture_copy(other, stripes(), matte, person(), pose))


def test_the_prior_takes_frames_of_any_size_and_gives_a_map_for_its_gaussians():
    prior = ExpressionVisualPrior(model(), {})
    pose = {name: value[0].numpy() for name, value in frontal().items()}
    track = pose | {"identity": person()[0].numpy()}
    small = prior.predict(stripes()[0], torch.ones(S, S), track)
    assert small.shape == (UVGaussians(load_rig(), prior.resolution).n, 14)
    large = (stripes()[0].repeat_interleave(2, 0).repeat_interleave(2, 1) * 255).to(torch.uint8)
    track["intrinsics"] = track["intrinsics"] * np.array([[2], [2], [1]], np.float32)
    same = prior.predict(large, torch.full((2 * S, 2 * S), 255, dtype=torch.uint8), track)
    assert torch.allclose(small, same, atol=0.02)
    with pytest.raises(InputError, match="differ in number or size"):
        prior.predict(stripes()[0], torch.ones(S, S // 2), track)
    with pytest.raises(InputError, match=r"'rotation' has shape \(3, 3, 3\), expected \(1"):
        prior.predict(stripes()[0], torch.ones(S, S), track | {"rotation": np.zeros((3, 3, 3), np.float32)})


def batch_of(samples: int = 2) -> dict[str, torch.Tensor]:
    from shards.read.dataset import open_dataset
    from shards.read.reader import Reader

    return next(
        iter(Reader(open_dataset(talkers()), ReferenceView(CONFIG, mirror_signs(load_rig())), batch_size=samples))
    )


def test_a_mirrored_sample_is_the_flipped_picture_of_the_flipped_head():
    from shards.read.dataset import open_dataset

    sample, rig = open_dataset(talkers()).read(0), load_rig()
    plain, mirror = (
        ReferenceView(replace(CONFIG, augment=replace(CONFIG.augment, mirror=chance)), mirror_signs(load_rig()))(
            sample, np.random.default_rng(3)
        )
        for chance in (0.0, 1.0)
    )

    def landmarks(batch):
        pose = {name: torch.tensor(batch[f"target_{name}"]).float() for name in frontal()}
        identity = torch.tensor(batch["identity"])[None].float().expand(len(pose["rotation"]), -1)
        vertices = rig.vertices(identity, pose["expression"], pose["eyelids"], pose["gaze"])[:, : rig.n_landmarks]
        return project(vertices, pose["rotation"], pose["translation"], pose["intrinsics"])[0].numpy()

    other = mirror_index(rig.mean[: rig.n_landmarks]).numpy()
    expected = landmarks(plain)[:, other] * [-1, 1] + [S, 0]
    assert np.abs(landmarks(mirror) - expected).max() < 1e-3
    assert np.abs(landmarks(mirror) - landmarks(plain)).max() > 0.1, "nobody is symmetric"
    assert mirror["person"] == plain["person"] + 1, "a code of their own"
    for name in ("target_image", "target_matte", "target_weight", "source_image"):
        assert np.array_equal(mirror[name], plain[name][:, :, ::-1])


def test_a_reference_that_is_not_used_is_not_decoded_and_changes_nothing(monkeypatch):
    from shards.format import codecs
    from shards.read.dataset import open_dataset

    decoded, real = [], codecs.decode_jpeg
    monkeypatch.setattr(codecs, "decode_jpeg", lambda *a, **k: decoded.append(1) or real(*a, **k))
    batches, counts = [], []
    for chance in (0.0, 1.0):
        decoded.clear()
        config = replace(CONFIG, across=1.0, wide=0.0, augment=replace(CONFIG.augment, second=chance))
        view = ReferenceView(config, mirror_signs(load_rig()))
        batches.append(view(open_dataset(talkers()).read(0), np.random.default_rng(3)))
        counts.append(len(decoded))
    without, both = batches
    assert CONFIG.references == 2
    assert counts[1] == counts[0] + 1
    assert without["seen"].tolist() == [1, 0]
    assert both["seen"].tolist() == [1, 1]
    assert not without["source_image"][1].any()
    assert both["source_image"][1].any()
    assert all(
        np.array_equal(without[n], both[n]) for n in without if n not in ("seen", "source_image", "source_matte")
    )


def test_a_training_step_moves_every_part_of_the_model_towards_the_target(monkeypatch):
    monkeypatch.setattr("pretrain.expression_visual.objective.CODED", 1.0)
    torch.manual_seed(0)
    batch = batch_of()
    objective = VisualObjective(VisualModel(CONFIG, load_rig()), people=int(batch["person"].max()) // 2 + 1)
    objective.model.unet.out.weight.data.normal_(std=0.01)
    objective.model.appearance_basis.basis.data.normal_(std=0.01)
    vary = replace(CONFIG.augment, gain=0.0, gamma=0.0)
    objective.model.config = replace(CONFIG, augment=vary)
    optimizer = torch.optim.Adam(objective.parameters(), lr=3e-3)
    losses = []
    for step in range(12):
        torch.manual_seed(step % 2)
        loss, parts = objective(batch)
        optimizer.zero_grad()
        loss.backward()
        if step == 0:
            still = [n for n, p in objective.named_parameters() if p.grad is None or not p.grad.any()]
            assert not still
        optimizer.step()
        losses.append(float(loss.detach()))
    assert min(losses[-2:]) < 0.9 * max(losses[:2])
    assert set(parts) == {"l1", "d_ssim", "alpha", "offset", "scale", "code"}, "no perceptual loss without its weights"


def test_maps_follow_the_pose_from_the_references_that_were_seen_and_codes_stay_out_of_the_prior():
    torch.manual_seed(0)
    objective = VisualObjective(VisualModel(CONFIG, load_rig()), people=2)
    appearance_basis = objective.model.appearance_basis
    torch.nn.init.normal_(appearance_basis.basis)
    here = {name: value[None] for name, value in frontal(2).items()}
    there = {name: value[None] for name, value in frontal(yaw=0.3).items()}
    here["rotation"][0, 1] = there["rotation"][0, 0]
    maps = torch.zeros(1, len(appearance_basis.row), 14)
    with torch.no_grad():
        away = objective.model.follow(maps, here, torch.tensor([[1.0, 0.0]]), there)
        half = objective.model.follow(maps, here, torch.ones(1, 2), there)
        same = objective.model.follow(maps, here, torch.tensor([[0.0, 1.0]]), there)
    assert away.shape == (1, 1, len(appearance_basis.row), 14)
    assert away[..., COLOUR].abs().max() > 0.01
    assert torch.allclose(half, away / 2, atol=1e-5)
    assert same.abs().max() < 1e-6
    weights = ExpressionVisualTask(CONFIG, None, None).weights(objective)
    assert "appearance_basis.basis" in weights
    assert not any("codes" in name for name in weights)


def test_clothes_and_far_background_do_not_count_and_the_mouth_counts_most():
    from shards.read.dataset import open_dataset

    landmarks = open_dataset(talkers()).read(0).track["landmarks"][:2] * 0.5 + np.array([S / 4, S / 4, 0])
    matte = np.zeros((2, S, S), np.uint8)
    matte[:, S // 2 :] = 255  # shoulders as broad as the frame
    weight = pixel_weight(landmarks.astype(np.float32), matte, CONFIG.loss)
    assert weight[:, -4:].max() == 0, "clothes"
    assert weight[:, :2].max() == 0, "background far above"
    assert CONFIG.loss.face < float(weight.max()) <= CONFIG.loss.inside
    lips = landmarks[0, 14].round().astype(int)
    assert weight[0, lips[1] - 2 : lips[1] + 3, lips[0]].max() > CONFIG.loss.face


def test_a_perceptual_loss_without_its_weights_is_refused():
    with pytest.raises(InputError, match=r"loss\.perceptual is set and loss\.lpips is not"):
        load_config(ExpressionVisualConfig, {"loss": {"perceptual": 0.1}})
    with pytest.raises(InputError, match=r"loss\.lpips is 'vgg\.pth', expected two weight files: BACKBONE,LINEAR"):
        load_config(ExpressionVisualConfig, {"loss": {"perceptual": 0.1, "lpips": "vgg.pth"}})


@pytest.mark.parametrize("change", [{"across": 2}, {"wide": 2}, {"augment": {"mirror": 2}}])
def test_a_chance_beyond_one_is_refused(change):
    with pytest.raises(InputError, match="is 2, expected a number from 0 to 1"):
        load_config(ExpressionVisualConfig, change)
