"""Sync-expert: lips cut out in one way, embeddings as measure and as loss, offsets found."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from configs import InputError, load_config
from heads.measures.lips import crop_lips, lip_shape
from pretrain.sync_expert.config import SyncExpertConfig
from pretrain.sync_expert.evidence import auc_at, moving_mean
from pretrain.sync_expert.inference import OFFSETS, SyncExpert, without_hubs
from pretrain.sync_expert.model import SpeechEncoder, SyncModel, sliding
from pretrain.sync_expert.objective import SyncObjective, prepare_lips, relight
from pretrain.sync_expert.view import MARGIN
from tests.support.talkers import talkers

SIZE = 12
CONFIG = load_config(
    SyncExpertConfig,
    {"run": 12, "model": {"channels": 8, "width": 32, "embedding": 16, "height": 16, "breadth": 24, "dropout": 0.0}},
)


def expert(seed: int = 0) -> SyncExpert:
    torch.manual_seed(seed)
    return SyncExpert(SyncModel(CONFIG, SIZE), {})


def face(size: int = 128) -> torch.Tensor:
    """Landmarks (478, 3) px of a schematic face: eye corners, mouth corners and lips where they belong."""
    points = torch.full((478, 3), size / 2.0)
    points[:, 2] = 0
    places = {
        33: (40, 45),
        263: (88, 45),
        61: (52, 85),
        291: (76, 85),
        13: (64, 82),
        14: (64, 88),
        0: (64, 78),
        17: (64, 93),
    }
    for index, place in places.items():
        points[index, :2] = torch.tensor(place) * size / 128
    return points


def picture(size: int = 128) -> torch.Tensor:
    """A smooth picture (S, S, 3) with structure everywhere."""
    y, x = torch.meshgrid(torch.arange(size) + 0.5, torch.arange(size) + 0.5, indexing="ij")
    waves = [torch.sin(x / size * a + y / size * b) for a, b in ((11, 3), (4, 13), (7, 7))]
    return torch.stack(waves, -1) * 0.4 + 0.5


def turned(points: torch.Tensor, angle: float, size: int) -> torch.Tensor:
    cos, sin = math.cos(angle), math.sin(angle)
    matrix = torch.tensor([[cos, -sin], [sin, cos]])
    middle = size / 2
    return torch.cat([(points[:, :2] - middle) @ matrix.T + middle, points[:, 2:]], -1)


def test_the_crop_is_centred_on_the_mouth():
    marked = torch.zeros(128, 128, 3)
    marked[84:88, 62:66] = 1
    cut = crop_lips(marked[None], face()[None], 32, 48)[0, ..., 0]
    rows, columns = torch.meshgrid(torch.arange(32), torch.arange(48), indexing="ij")
    assert abs(float((columns * cut).sum() / cut.sum()) - 23.5) < 1.5
    assert abs(float((rows * cut).sum() / cut.sum()) - 15.5) < 3


def test_a_head_rolled_or_nearer_gives_the_same_crop():
    image, points = picture(), face()
    straight = crop_lips(image[None], points[None], 16, 24)
    twice = torch.nn.functional.interpolate(image.permute(2, 0, 1)[None], scale_factor=2, mode="bilinear")
    near = crop_lips(twice.permute(0, 2, 3, 1), points[None] * 2, 16, 24)
    assert (straight - near).abs().max() < 0.01
    angle = 0.3
    y, x = torch.meshgrid(torch.arange(128) + 0.5, torch.arange(128) + 0.5, indexing="ij")
    back = turned(torch.stack([x, y, 0 * x], -1).reshape(-1, 3), -angle, 128)[:, :2].reshape(1, 128, 128, 2)
    rolled = torch.nn.functional.grid_sample(image.permute(2, 0, 1)[None], back / 64 - 1, align_corners=False)
    cut = crop_lips(rolled.permute(0, 2, 3, 1), turned(points, angle, 128)[None], 16, 24)
    assert (straight - cut).abs().max() < 0.02


def test_gradients_reach_the_pixels_of_the_mouth_and_no_others():
    image = picture().requires_grad_()
    prior, points = expert(), face()
    sound = torch.randn(1, 5, SIZE)
    loss = prior.loss(image.expand(1, 5, -1, -1, -1), points.expand(1, 5, -1, -1), sound)
    loss.backward()
    assert image.grad[80:92, 55:73].abs().sum() > 0
    assert image.grad[:20].abs().sum() == 0
    assert all(p.grad is None for p in prior.model.parameters()), "the expert itself is frozen"


def test_lip_shape_measures_the_opening_whatever_the_size():
    points = face()
    wide = points.clone()
    wide[14, 1] += 6
    assert torch.allclose(lip_shape(points), lip_shape(points * 3), atol=1e-6)
    assert float(lip_shape(wide)[0]) == pytest.approx(float(lip_shape(points)[0]) * 2)


def test_embeddings_are_unit_vectors_and_distances_run_from_none_to_two():
    prior = expert()
    audio, lips = prior.audio_embedding(torch.randn(3, 5, SIZE)), prior.lip_embedding(torch.rand(3, 5, 16, 24, 3))
    assert torch.allclose(audio.norm(dim=-1), torch.ones(3), atol=1e-5)
    assert torch.allclose(lips.norm(dim=-1), torch.ones(3), atol=1e-5)
    assert torch.allclose(prior.distance(audio, audio), torch.zeros(3), atol=1e-3)
    assert torch.allclose(prior.distance(audio, -audio), torch.full((3,), 2.0), atol=1e-5)


def test_loudness_of_the_sound_and_light_of_the_picture_do_not_matter():
    prior, rows, lips = expert(), torch.randn(2, 5, SIZE), torch.rand(2, 5, 16, 24, 3)
    assert torch.allclose(prior.audio_embedding(rows), prior.audio_embedding(rows + 3.0), atol=1e-5)
    assert torch.allclose(prior.lip_embedding(lips), prior.lip_embedding(lips + 0.3), atol=1e-4)


class Oracle(SyncExpert):
    """Hears and sees the same number, so that the search for the offset can be tested by itself."""

    def audio_embedding(self, features, mean=None):
        return torch.stack([features[:, 0, 0].cos(), features[:, 0, 0].sin()], -1)


@pytest.mark.parametrize("late", [-7, 0, 4])
def test_the_offset_of_late_sound_is_found(late):
    prior = Oracle(SyncModel(CONFIG, SIZE), {})
    prior.model.lips.windows = lambda frames: torch.stack([frames[:, 0, 0].cos(), frames[:, 0, 0].sin()], -1)
    phase = torch.from_numpy(np.random.default_rng(0).uniform(-3, 3, 140)).float()
    seen = phase[20:120, None].expand(-1, 4)
    heard = phase[20 - late : 120 - late, None].expand(-1, SIZE)
    sync_c, sync_d, offset = prior.confidence_of(seen, heard.numpy())
    assert offset == late
    assert sync_d < 0.01
    assert sync_c > 1


def test_sound_that_all_lips_are_near_does_not_win():
    reach, hub = 5, 30
    sound = torch.arange(60)[:, None] + torch.arange(-reach, reach + 1)
    distances = torch.where((sound < 0) | (sound >= 60), float("nan"), 1.0)
    distances[:, reach] -= 0.1
    distances[sound == hub] -= 0.5
    corrected = without_hubs(distances)
    assert distances[hub - 2].argmin() == reach + 2, "as they are, the hub wins two frames early"
    assert (corrected.nan_to_num(9.0).argmin(1) == reach).all()
    assert torch.equal(corrected.isnan(), distances.isnan())
    assert float(corrected.nanmean()) == pytest.approx(float(distances.nanmean()), abs=1e-5)


def test_a_clip_too_short_for_an_offset_is_refused():
    with pytest.raises(InputError, match="25 frames or more, got 10"):
        expert().confidence_of(torch.zeros(10, 32), np.zeros((10, SIZE), np.float32))


def test_features_of_another_size_are_refused_in_a_sentence():
    with pytest.raises(InputError, match=r"7 columns: this sync expert expects 12 of 'logmel'"):
        expert().audio_embedding(torch.zeros(1, 5, 7))


def test_sliding_windows_hold_consecutive_frames():
    x = torch.arange(7.0)[None, :, None]
    windows = sliding(x, 3)
    assert windows.shape == (1, 5, 3, 1)
    assert windows[0, 2, :, 0].tolist() == [2, 3, 4]


def test_the_objective_learns_to_tell_a_clips_own_sounds_apart():
    torch.manual_seed(0)
    objective = SyncObjective(SyncModel(CONFIG, SIZE)).eval()
    clue = torch.rand(4, 12)
    size = (round(16 * MARGIN), round(24 * MARGIN))
    lips = torch.rand(4, 12, *size, 3) * 40
    lips[:, :, size[0] // 2 :] += clue[:, :, None, None, None] * 200
    features = torch.randn(4, 12, SIZE) * 0.1 + clue[..., None]
    batch = {"lips": lips.to(torch.uint8), "features": features, "mean": features.mean(1)}
    batch |= {"shape": torch.zeros(4, 12, 3), "weight": torch.ones(4)}
    optimizer = torch.optim.Adam(objective.parameters(), lr=3e-3)
    accuracy = []
    for _ in range(60):
        loss, parts = objective(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        accuracy.append(float(parts["accuracy"]))
    assert accuracy[-1] > 0.6 > 0.3 > accuracy[0]


def test_unusable_samples_weigh_nothing():
    objective = SyncObjective(SyncModel(CONFIG, SIZE)).eval()
    batch = {
        "lips": torch.randint(0, 255, (2, 12, 22, 32, 3), dtype=torch.uint8),
        "features": torch.randn(2, 12, SIZE),
        "mean": torch.zeros(2, SIZE),
        "shape": torch.zeros(2, 12, 3),
        "weight": torch.tensor([1.0, 0.0]),
    }
    loss, _ = objective(batch)
    batch["features"][1] += 5
    assert torch.equal(objective(batch)[0].detach(), loss.detach())


def test_the_unaugmented_crop_is_the_middle_of_the_margin():
    lips = torch.zeros(1, 1, 22, 32, 3)
    lips[:, :, 11:, :] = 255
    cut = prepare_lips(lips, CONFIG, augment=False)
    assert cut.shape == (1, 1, 16, 24, 3)
    assert cut[0, 0, :7].max() < 0.01
    assert cut[0, 0, 9:].min() > 0.99


@pytest.mark.parametrize("accelerator", [False, True])
def test_windows_on_an_accelerator_are_those_of_the_cpu_with_the_same_gradient(monkeypatch, accelerator):
    x = torch.randn(2, 7, 4, generator=torch.Generator().manual_seed(1), requires_grad=True)
    upstream = torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(2))
    monkeypatch.setattr("pretrain.sync_expert.model.is_accelerator", lambda device: accelerator)
    windows = sliding(x, 3)
    assert torch.equal(windows, torch.stack([x[:, i : i + 3] for i in range(5)], 1))
    (gradient,) = torch.autograd.grad(windows, x, upstream)
    expected = torch.zeros_like(x)
    for i in range(5):
        expected[:, i : i + 3] += upstream[:, i]
    assert torch.allclose(gradient, expected)


def test_the_windows_of_a_run_are_encoded_as_each_by_itself():
    for window in (1, 2, 5):
        config = load_config(SyncExpertConfig, {"window": window, "model": {"width": 32, "embedding": 16}})
        encoder = SpeechEncoder(config, SIZE).eval()
        rows = torch.randn(2, 12, SIZE, generator=torch.Generator().manual_seed(0))
        for together, alone in zip(encoder.run(rows, window), encoder(sliding(rows, window))):
            torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-5)


def test_relit_lips_keep_their_form_and_get_noise_of_the_stated_size():
    torch.manual_seed(0)
    lips = (torch.rand(1, 3, 3, 16, 24) * 255).round()
    change = load_config(SyncExpertConfig, {"augment": {"light": 0, "colour": 0, "noise": 0.05}})
    noise = relight(lips, change) - lips / 255
    assert abs(float(noise.mean())) < 0.005
    assert abs(float(noise.std()) - 0.05) < 0.002
    lit = relight(lips, load_config(SyncExpertConfig, {"augment": {"noise": 0}}))[0]
    for channel in range(3):
        # Contrast, brightness and tint: a straight line from the values before to those after, in each channel.
        assert torch.corrcoef(torch.stack([lips[0, :, channel].flatten(), lit[:, channel].flatten()]))[0, 1] > 0.99999


@pytest.mark.parametrize(("height", "breadth"), [(36, 48), (18, 28), (48, 66)])
def test_patches_give_frame_features_of_the_same_shape(height, breadth):
    model = {"channels": 8, "width": 32, "embedding": 16, "height": height, "breadth": breadth, "patches": True}
    lips = SyncModel(load_config(SyncExpertConfig, {"model": model}), SIZE).lips
    assert lips.frames(torch.rand(2, 5, height, breadth, 3)).shape == (2, 5, 32)


def test_scores_ignore_what_is_missing():
    distances = np.full((40, 2 * OFFSETS + 1), np.nan)
    distances[:, OFFSETS], distances[:, OFFSETS + 8] = 0.5, 1.0
    assert auc_at(distances, 0) == 1.0
    mean = moving_mean(np.array([[1.0], [3.0], [np.nan], [5.0]]), 2)
    assert mean[0, 0] == 2.0
    assert np.isnan(mean[1:, 0]).all()


def test_a_run_of_lips_repeats_and_follows_the_track():
    from pretrain.sync_expert.view import CropCache, LipRunView
    from shards.read.dataset import open_dataset

    dataset = open_dataset(talkers())
    config = load_config(SyncExpertConfig, {"augment": {"gain": 0, "tilt": 0, "warp": 0, "mask": 0}})
    view = LipRunView(config, CropCache(1 << 24))
    sample = dataset.read(0)
    a, b = (view(dataset.read(0), np.random.default_rng(3)) for _ in range(2))
    assert all(np.array_equal(a[name], b[name]) for name in a)
    uncached = LipRunView(config, CropCache(0))(dataset.read(0), np.random.default_rng(3))
    assert np.array_equal(a["lips"], uncached["lips"])
    assert a["lips"].shape == (24, round(36 * MARGIN), round(48 * MARGIN), 3)
    shape = lip_shape(torch.tensor(sample.track["landmarks"])).numpy()
    assert np.isclose((shape - shape.mean(0))[:, 0][:, None], a["shape"][:, 0][None]).any(0).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [({"run": 6}, "run is 6 frames"), ({"model": {"height": 8}}, "16 px")],
)
def test_wrong_configurations_are_one_sentence(change, message):
    with pytest.raises(InputError, match=message):
        load_config(SyncExpertConfig, change)
