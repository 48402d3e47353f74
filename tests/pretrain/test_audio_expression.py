"""Audio-expression: streaming without a seam, guidance, styles, the linear part, the baselines."""

from __future__ import annotations

import sys
from typing import ClassVar

import numpy as np
import pytest
import torch

from configs import InputError, load_config, to_dict
from heads.measures.face import component_importance, lip_motion, mouth_directions
from heads.ridge import apply_ridge
from heads.rig import load_rig
from pretrain.audio_expression import diffusion
from pretrain.audio_expression.config import AudioExpressionConfig, DiffusionConfig
from pretrain.audio_expression.inference import AudioExpressionPrior
from pretrain.audio_expression.model import Denoiser, ExpressionModel
from pretrain.audio_expression.objective import SequenceObjective
from pretrain.audio_expression.prior import AudioExpression
from pretrain.audio_expression.targets import flatten_targets, split_targets
from pretrain.audio_expression.task import AudioExpressionTask
from pretrain.audio_expression.view import WindowView, vary
from pretrain.audio_expression.windows import RecentStatistics, Stitcher, fade, frame_noise, utterance_statistics
from pretrain.baselines.baselines import RidgeFit, area_under_curve, correlation, principal_columns
from pretrain.baselines.lags import clip_lags, in_step, moved
from pretrain.data.sequences import Sequence

SIZE, K = 12, 5
CONFIG = load_config(
    AudioExpressionConfig,
    {
        "window": 16,
        "overlap": 4,
        "memory": 16,
        "linear_context": 2,
        "model": {"width": 16, "layers": 2, "audio_layers": 1, "heads": 2, "style": 6, "reach": 8},
        "diffusion": {"sample_steps": 3},
    },
)


def random_prior(config: AudioExpressionConfig = CONFIG, seed: int = 0) -> AudioExpressionPrior:
    """A prior whose every weight is random, so that nothing is zero by accident."""
    torch.manual_seed(seed)
    model = ExpressionModel(config, SIZE, K, 3)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    model.denoiser.linear.weight.normal_(std=0.1)
    return AudioExpressionPrior(model, {}, ["ann", "bob", "cyd"])


def sound(frames: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(frames, SIZE)).astype(np.float32)


def joined(parts) -> np.ndarray:
    return np.concatenate([part["expression"] for part in parts])


@pytest.mark.parametrize("frames", [1, 3, 15, 16, 17, 28, 29, 100])
def test_any_length_gives_one_row_a_frame(frames):
    result = random_prior().sample(sound(frames))
    assert result["expression"].shape == (frames, K)
    assert result["eyelids"].shape == (frames, 2)
    assert np.isfinite(result["expression"]).all()


@pytest.mark.parametrize("block", [1, 7, 16, 64])
def test_a_stream_gives_bit_for_bit_what_the_whole_gives(block):
    prior, features = random_prior(), sound(75)
    whole = prior.sample(features)["expression"]
    parts = joined(prior.stream([features[i : i + block] for i in range(0, 75, block)]))
    assert np.array_equal(whole, parts)


def test_a_long_sound_equals_its_stitched_parts_where_they_overlap():
    prior, features = random_prior(), sound(120)
    step = CONFIG.window - CONFIG.overlap
    whole = prior.sample(features)["expression"]
    head, tail = (
        prior.sample(features[:80])["expression"],
        prior.sample(features[step * 3 :], first=step * 3)["expression"],
    )
    assert np.array_equal(whole[: 80 - CONFIG.window], head[: 80 - CONFIG.window])
    assert np.array_equal(whole[step * 3 + CONFIG.overlap :], tail[CONFIG.overlap :])


def test_a_stream_holds_no_more_than_a_window_however_long_it_is():
    held = []

    def run(rows, at):
        held.append(len(rows))
        return rows

    stitcher = Stitcher(16, 4, run, SIZE)
    for i in range(200):
        stitcher.push(sound(3, i))
        assert len(stitcher._rows) <= 16 + 3
    assert max(held) == 16


def test_windows_that_agree_are_joined_without_a_trace():
    features = sound(100)
    stitcher = Stitcher(16, 4, lambda rows, at: rows, SIZE)
    parts = [stitcher.push(features[:50]), stitcher.push(features[50:]), stitcher.finish()]
    assert np.allclose(np.concatenate(parts), features, atol=1e-6)


def test_the_statistics_of_a_recording_are_those_of_its_last_seconds():
    rows, recent = sound(40), RecentStatistics(memory=20, overlap=4)
    assert np.allclose(recent(rows[:16]), rows[:16].mean(0), atol=1e-6)
    assert np.allclose(recent(rows[12:28]), rows[8:28].mean(0), atol=1e-6)


def test_loudness_and_microphone_do_not_change_the_motion():
    prior, features = random_prior(), sound(60)
    other = features + np.linspace(-1, 2, SIZE, dtype=np.float32)
    assert np.allclose(prior.sample(features)["expression"], prior.sample(other)["expression"], atol=1e-4)


def test_the_fade_hands_over_completely():
    weight = fade(8)[:, 0]
    assert np.allclose(weight + weight[::-1], 1)
    assert (np.diff(weight) > 0).all()


def test_noise_belongs_to_frames():
    whole = frame_noise(3, 0, 200, 4)
    assert torch.equal(frame_noise(3, 50, 100, 4), whole[50:150])
    assert not torch.equal(frame_noise(4, 0, 200, 4), whole)


def test_seeds_change_the_sample_and_no_temperature_makes_them_agree():
    prior, features = random_prior(), sound(20)
    a, b = prior.sample(features, seed=0)["expression"], prior.sample(features, seed=1)["expression"]
    assert not np.allclose(a, b)
    calm = [prior.sample(features, seed=s, temperature=0.0)["expression"] for s in (0, 1)]
    assert np.array_equal(*calm)


def test_guidance_goes_on_in_the_direction_from_deaf_to_hearing():
    prior, features = random_prior(), sound(12)
    deaf, once, twice = (prior.sample(features, steps=1, guidance=g)["expression"] for g in (0.0, 1.0, 2.0))
    assert np.allclose(twice - once, once - deaf, atol=1e-4)
    assert not np.allclose(deaf, once)


def changed(**values) -> AudioExpressionConfig:
    return load_config(AudioExpressionConfig, {**to_dict(CONFIG), **values})


def test_the_correction_weight_shrinks_what_the_network_adds_to_the_regression_and_nothing_else():
    calm = random_prior(changed(diffusion={"sample_steps": 3, "correction_weight": 0.5}))
    bold, features = random_prior(), sound(12)
    assert np.array_equal(bold.sample(features)["expression"], calm.sample(features)["expression"])
    linear = bold.sample(features, steps=1, temperature=0.0, mean=features.mean(0), correction_weight=0.0)["expression"]
    expected = apply_ridge(bold.model.denoiser.linear.weight.numpy(), features)[:, :K]
    assert np.allclose(linear, expected, atol=2e-3), "without the network it is the regression"
    full, half = (prior.expect(features)["expression"] for prior in (bold, calm))
    assert not np.allclose(full, linear, atol=0.05)
    assert np.allclose(half - linear, 0.5 * (full - linear), atol=1e-5)


def test_a_voice_twice_as_lively_moves_the_face_alike_when_its_spread_is_taken_out():
    prior, features = random_prior(changed(scale=True)), 20 * sound(60)
    stretched = 2 * features + np.linspace(-1, 2, SIZE, dtype=np.float32)
    said, same = prior.expect(features)["expression"], prior.expect(stretched)["expression"]
    assert np.allclose(said, same, atol=0.05 * said.std())
    calm = random_prior()
    assert not np.allclose(calm.expect(features)["expression"], calm.expect(stretched)["expression"], atol=0.5)
    whisper = prior.expect(1e-3 * sound(60))["expression"]
    assert (whisper - whisper.mean(0)).std() < 0.1 * (said - said.mean(0)).std(), "a silent room does not speak"


@pytest.mark.parametrize("block", [1, 16])
def test_a_stream_with_its_spread_taken_out_gives_what_the_whole_gives(block):
    prior, features = random_prior(changed(scale=True)), sound(75)
    parts = joined(prior.stream([features[i : i + block] for i in range(0, 75, block)]))
    assert np.array_equal(prior.sample(features)["expression"], parts)
    assert len(prior.find_style(features, np.zeros((75, K), np.float32), iterations=2)) == 6


def test_utterance_statistics_of_another_shape_is_refused_with_what_to_give():
    features = sound(20)
    with pytest.raises(InputError, match=r"shape \(12,\).* expects \(2, 12\); give prior.utterance_statistics"):
        random_prior(changed(scale=True)).sample(features, mean=features.mean(0))
    with pytest.raises(InputError, match="scale is true and centre is false"):
        changed(scale=True, centre=False)


def test_a_training_window_is_normalised_as_a_recording_is():
    class Segment:
        members: frozenset[str] = frozenset()
        key, clip, identity, length = "a/b-00000", "b", "a", 50
        audio = np.ones(32000, np.float32)
        track: ClassVar = {"expression": sound(50)[:, :K], "eyelids": np.zeros((50, 2), np.float32)}

        def features(self, name):
            return 5 * sound(50)

        def sibling(self, rng):
            return self

    config = changed(scale=True, window=50, memory=50, augment={"speed": 0, "noise": 0})
    window = WindowView(config, {"a": 0})(Segment(), np.random.default_rng(0))
    model = ExpressionModel(config, SIZE, K, 1)
    ours = model.normalise(*(torch.from_numpy(window[name])[None] for name in ("features", "mean")))
    rows = Segment().features("logmel")
    theirs = model.normalise(torch.from_numpy(rows)[None], torch.from_numpy(utterance_statistics(rows, True))[None])
    assert torch.allclose(ours, theirs, atol=1e-4)


def test_deaf_means_that_the_sound_does_not_matter():
    prior = random_prior()
    a, b = (prior.sample(sound(12, s), steps=1, guidance=0.0)["expression"] for s in (0, 1))
    assert np.allclose(a, b, atol=1e-6)


def test_styles_change_the_motion_and_are_known_by_name():
    prior, features = random_prior(), sound(12)
    assert set(prior.styles) == {"ann", "bob", "cyd"}
    mean = prior.sample(features)["expression"]
    assert not np.allclose(mean, prior.sample(features, style=prior.styles["bob"])["expression"])
    assert np.array_equal(mean, prior.sample(features, style=prior.mean_style)["expression"])


def test_a_style_found_from_a_clip_explains_it_better_than_the_mean_style():
    prior, features = random_prior(), sound(64)
    with torch.no_grad():
        prior.model.denoiser.rest.weight.normal_(std=0.5)
    wanted = np.full((64, K), 0.8, np.float32)
    style = prior.find_style(features, wanted, iterations=40)
    error = [
        np.abs(prior.sample(features, style=s, steps=1, temperature=0.0)["expression"].mean(0) - 0.8).mean()
        for s in (None, style)
    ]
    assert error[1] < 0.7 * error[0]
    assert all(p.requires_grad for p in prior.parameters()), "the search leaves the network trainable"


def test_speech_in_a_clip_is_not_mistaken_for_the_face_at_rest():
    prior = random_prior()
    with torch.no_grad():
        prior.model.denoiser.rest.weight.copy_(torch.eye(K + 2, 6))
    features = sound(64)
    said = prior.expect(features)
    track = {"expression": said["expression"], "eyelids": said["eyelids"]}
    # The clip is what the mean style says to this sound, so nothing is left to be a resting face.
    style = prior.find_style(features, track, iterations=0)
    shouting = {"expression": said["expression"] + 0.5, "eyelids": said["eyelids"]}
    other = prior.find_style(features, shouting, iterations=0)
    assert np.linalg.norm(style) < 0.5 * np.linalg.norm(other)


def test_a_long_clip_does_not_pull_the_mean_face(monkeypatch):
    config = load_config(AudioExpressionConfig, {"linear_context": 0, "targets": ["expression"]})
    task = AudioExpressionTask.__new__(AudioExpressionTask)
    task.config, task.size, task.n_expression, task.people, task.train = config, SIZE, 32, ["ann", "bob"], None
    task.rig = load_rig()
    runs = [
        Sequence(identity=name, clip=name, features=sound(n), track={"expression": np.full((n, 32), v, np.float32)})
        for name, n, v in (("ann", 90, 1.0), ("bob", 10, 0.0))
    ]
    monkeypatch.setattr(task, "sequences", lambda dataset: iter(runs))
    objective = task.objective()
    task.prepare(objective)
    assert torch.allclose(objective.model.target_mean, torch.full((32,), 0.5))


def test_a_window_of_a_remembered_segment_is_the_same():
    reads = []

    class Segment:
        members: frozenset[str] = frozenset()
        key, clip, identity, length = "a/b-00000", "b", "a", 50
        audio = np.ones(32000, np.float32)
        track: ClassVar = {"expression": sound(50)[:, :K], "eyelids": np.zeros((50, 2), np.float32)}

        def features(self, name):
            reads.append(name)
            return sound(50)

        def sibling(self, rng):
            return self

    view = WindowView(CONFIG, {"a": 0})
    first, again = (view(Segment(), np.random.default_rng(5)) for _ in range(2))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert len(reads) == 1


def test_styles_begin_as_the_resting_faces_of_their_people():
    torch.manual_seed(0)
    model = Denoiser(SIZE, K, 4, 0, CONFIG.model)
    resting = torch.randn(4, K)
    model.set_resting(resting - resting.mean(0))
    with torch.no_grad():
        assert torch.allclose(model.rest(model.styles.weight), resting - resting.mean(0), atol=1e-4)
        wanted = torch.randn(K)
        found = model.rest(model.resting_style(wanted, certainty=1e4))
        assert torch.allclose(found, wanted, atol=0.05)
        assert model.resting_style(wanted, certainty=1e-3).norm() < 0.05, "an uncertain face has the mean style"


def test_noise_is_smooth_in_time_and_of_unit_size():
    taps = diffusion.smoothing(1.5)
    noise = diffusion.smooth_noise(torch.randn(4, 2000 + len(taps) - 1, 3), taps)
    assert noise.shape == (4, 2000, 3)
    assert abs(float(noise.std()) - 1) < 0.03
    assert float(noise.diff(dim=1).std()) < 0.75
    assert float(torch.randn(4, 2000, 3).diff(dim=1).std()) > 1.3


def test_the_mouth_loss_sees_motion_and_not_the_resting_face():
    torch.manual_seed(0)
    objective = SequenceObjective(ExpressionModel(CONFIG, SIZE, K, 3))
    objective.mouth[0, 0] = 1.0
    clean = torch.randn(2, 16, K + 2)
    arguments = (clean, torch.zeros(2, 6), torch.ones(2))
    assert objective.losses(clean + 3.0, *arguments)[1]["mouth"] < 1e-8
    wave = torch.sin(torch.arange(16.0))[None, :, None] * torch.eye(K + 2)[0]
    assert objective.losses(clean + wave, *arguments)[1]["mouth"] > 0.1


def test_opening_the_jaw_opens_the_measured_mouth():
    rig = load_rig()
    directions = mouth_directions(rig, np.ones(rig.n_expression))
    jaw = rig.control("jaw", 1.0)["expression"].numpy()
    assert jaw @ directions[:, 0] > 0.05
    motion = lip_motion(rig, np.zeros(rig.n_identity, np.float32), np.stack([0 * jaw, jaw]))
    assert motion.opening[1] - motion.opening[0] == pytest.approx(jaw @ directions[:, 0], rel=0.05)
    assert (component_importance(rig, np.ones(rig.n_expression), 0.7) > 0).all()


def test_features_of_another_name_or_size_are_refused_in_a_sentence():
    prior = random_prior()
    with pytest.raises(InputError, match=r"expects \(frames, 12\) of 'logmel'"):
        prior.sample(np.zeros((10, 7), np.float32))
    with pytest.raises(InputError, match="'hubert': this audio-expression prior uses 'logmel'"):
        prior.check_features(sound(3), name="hubert")
    with pytest.raises(InputError, match="64 rows and the track 60"):
        prior.find_style(sound(64), np.zeros((60, K), np.float32))


def test_an_untrained_network_is_the_ridge_regression():
    torch.manual_seed(0)
    model = ExpressionModel(CONFIG, SIZE, K, 3)
    model.denoiser.linear.weight.normal_()
    prior = AudioExpressionPrior(model, {}, [])
    features = sound(16)
    expected = apply_ridge(model.denoiser.linear.weight.numpy(), features)[:, :K]
    got = prior.expect(features)["expression"]
    assert np.allclose(got, expected, atol=2e-3)  # not exact: alpha of the last diffusion time is not quite zero


def test_the_untrained_denoiser_is_the_gaussian_posterior_around_its_mean():
    model = Denoiser(SIZE, K, 1, 0, CONFIG.model)
    model.spread.fill_(0.5)
    alpha, noisy = torch.tensor([0.6]), torch.randn(1, 7, K)
    with torch.no_grad():
        got = model(noisy, torch.tensor([3]), alpha, torch.zeros(1, 7, SIZE), torch.zeros(1, 6), torch.tensor([True]))
    # x0 ~ N(0, 0.5), noisy = sqrt(a) x0 + sqrt(1 - a) e
    assert torch.allclose(got, noisy * 0.6**0.5 * 0.5 / (0.6 * 0.5 + 0.4), atol=1e-6)


@pytest.mark.parametrize("sampler", ["ddim", "dpm++"])
@pytest.mark.parametrize("steps", [1, 4, 20])
def test_samplers_return_the_data_when_the_model_knows_it(sampler, steps):
    truth = torch.randn(1, 6, 3)
    config = DiffusionConfig(sampler=sampler)
    got = diffusion.denoise(config, torch.randn(1, 6, 3), steps, lambda x, t: truth)
    assert torch.allclose(got, truth, atol=1e-3)


def test_the_fine_tuning_loss_falls_when_the_clip_is_learned():
    prior = random_prior()
    prior.model.train()
    features, expression = torch.from_numpy(sound(48)).view(3, 16, SIZE), torch.randn(3, 16, K) * 0.1
    optimizer = torch.optim.Adam(prior.parameters(), lr=1e-2)
    losses = []
    for step in range(30):
        torch.manual_seed(step % 3)
        loss = prior.loss(features, expression, eyelids=torch.zeros(3, 16, 2))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-3:]) < 0.6 * np.mean(losses[:3])
    assert {id(p) for p in prior.audio_encoder.parameters()} < {id(p) for p in prior.parameters()}


def test_targets_survive_flattening():
    rng = np.random.default_rng(0)
    track = {
        "expression": rng.normal(size=(9, K)).astype(np.float32),
        "eyelids": rng.uniform(size=(9, 2)).astype(np.float32),
        "gaze": rng.normal(size=(9, 2, 2)).astype(np.float32),
        "rotation": np.tile(np.eye(3, dtype=np.float32), (9, 1, 1)),
        "translation": np.tile(np.float32([0, 0, 5]), (9, 1)),
    }
    targets = ["eyelids", "expression", "gaze", "motion"]
    back = split_targets(flatten_targets(track, targets), targets, K)
    for name in ("expression", "eyelids", "gaze"):
        assert np.array_equal(back[name], track[name])
    assert back["motion"].shape == (9, 6)
    assert np.allclose(back["motion"], 0, atol=1e-6), "a still head does not move"


def test_variation_changes_sound_and_face_at_the_same_tempo():
    rows = np.arange(50, dtype=np.float32)
    features, targets = np.repeat(rows[:, None], 160, 1), rows[:, None] * 2
    config = load_config(AudioExpressionConfig, {"augment": {"gain": 0, "tilt": 0, "warp": 0, "mask": 0}})
    for seed in range(5):
        heard, moved, _ = vary(features, targets, features.mean(0), config, np.random.default_rng(seed))
        assert heard.shape == (48, 160)
        assert np.allclose(heard[:, 0] * 2, moved[:, 0], atol=1e-3)


def test_the_ridge_regression_finds_a_linear_law_and_leaves_people_out():
    rng = np.random.default_rng(0)
    law = rng.normal(size=(3, SIZE, 3))
    fit = RidgeFit(context=1)
    for person in "abcde":
        x = rng.normal(size=(200, SIZE))
        fit.add(person, x, apply_ridge(law, x) + 0.01 * rng.normal(size=(200, 3)))
    weight, unexplained = fit.solve()
    assert np.allclose(weight, law, atol=0.05)
    assert (unexplained < 0.02).all()


def test_the_ridge_regression_admits_that_noise_explains_nothing():
    rng = np.random.default_rng(0)
    fit = RidgeFit(context=1)
    for person in "abcde":
        fit.add(person, rng.normal(size=(60, SIZE)), rng.normal(size=(60, 2)))
    assert (fit.solve()[1] > 0.95).all()


def test_people_are_judged_by_a_regression_on_the_others():
    rng = np.random.default_rng(0)
    law = rng.normal(size=(1, SIZE, 1))
    fit = RidgeFit(context=0)
    for person in "abcdef":
        x = rng.normal(size=(100, SIZE))
        # What a says is the opposite of what everybody else says.
        fit.add(person, x, apply_ridge(-law if person == "a" else law, x))
    found = fit.held_out(folds=6)
    assert sorted(found) == list("abcdef")
    assert correlation(found["a"].ravel(), law.ravel()) > 0.95, "nothing of a may be in it"


def test_clips_out_of_step_are_found_and_put_in_step():
    rng = np.random.default_rng(0)
    law = rng.normal(size=(1, SIZE, 3))
    smooth = np.ones(5) / 5
    fit, runs = RidgeFit(context=1), []
    late = {"a": 0.0, "b": 2.0, "c": -1.5, "d": 0.5, "e": 0.0, "f": -3.0}
    for person, lag in late.items():
        x = np.apply_along_axis(np.convolve, 0, rng.normal(size=(200, SIZE)), smooth, "same").astype(np.float32)
        y = apply_ridge(law, x).astype(np.float32)
        runs.append(Sequence(identity=person, clip=person, features=moved(x, -lag), track={"y": y}))
        fit.add(person, runs[-1].features, y)
    found = clip_lags(fit, runs, lambda run: run.features, lambda run: run.track["y"][:, 0], np.ones(1), 5.0)
    assert {clip: pytest.approx(lag, abs=0.5) for clip, lag in found.items()} == late
    x, y = in_step(runs[1].features, runs[1].track["y"], 2.0)
    assert len(x) == len(y) == 198
    assert correlation(apply_ridge(law, x)[5:-5, 0], y[5:-5, 0]) > 0.999


def test_one_person_has_nobody_to_be_judged_by():
    fit = RidgeFit(context=0)
    fit.add("a", np.eye(80, 4), np.eye(80, 1))
    assert clip_lags(fit, [], lambda run: run.features, lambda run: run.features[:, 0], np.ones(1), 5.0) == {}


def test_the_penalty_suits_the_targets_that_count():
    rng = np.random.default_rng(0)
    law = rng.normal(size=(2, SIZE, 1))
    fit = RidgeFit(context=0)
    for person in "abcde":
        x = rng.normal(size=(40, SIZE))
        y = apply_ridge(law, x) + np.array([0.01, 100.0]) * rng.normal(size=(40, 2))
        fit.add(person, x, y)
    first, second = (np.abs(fit.solve(importance=np.eye(2)[i])[0][0] - law[0]).mean() for i in (0, 1))
    assert first < 0.02 < second, "the noisy target wants a strong penalty, the clean one none"


def test_a_projection_onto_the_columns_that_vary_changes_nothing_when_it_keeps_them_all():
    rng = np.random.default_rng(0)
    x = [rng.normal(size=(80, 4)) @ rng.normal(size=(4, SIZE)) for _ in range(3)]
    columns = principal_columns(x)
    assert columns.shape[1] == SIZE
    assert np.allclose(columns.T @ columns, np.eye(SIZE), atol=1e-5)


def test_scores_know_their_ends():
    assert correlation(np.arange(9.0), 3 - 2 * np.arange(9.0)) == pytest.approx(-1)
    assert correlation(np.ones(9), np.arange(9.0)) == 0
    assert area_under_curve(np.array([3.0, 4.0]), np.array([1.0, 2.0])) == 1
    assert area_under_curve(np.array([1.0]), np.array([1.0])) == 0.5


def test_a_trained_prior_opens_expects_and_finds_a_style_without_the_samplers(monkeypatch):
    made = random_prior()
    info = {"config": to_dict(CONFIG), "dataset": {"identities": ["ann", "bob", "cyd"]}, "features": {"size": SIZE}}
    monkeypatch.setitem(sys.modules, "diffusers", None)  # importing it now fails
    opened = AudioExpression.restore(info, made.model.state_dict(), torch.device("cpu"))
    features = sound(40)
    np.testing.assert_array_equal(opened.expect(features)["expression"], made.expect(features)["expression"])
    opened.find_style(features, np.zeros((40, K), np.float32), iterations=2)


def test_noise_is_added_as_the_schedule_says():
    from diffusers import DDPMScheduler

    reference = DDPMScheduler(num_train_timesteps=100, beta_schedule="squaredcos_cap_v2")
    clean, noise, t = torch.randn(3, 7, 5), torch.randn(3, 7, 5), torch.tensor([0, 50, 99])
    got = diffusion.add_noise(reference.alphas_cumprod, clean, noise, t)
    torch.testing.assert_close(got, reference.add_noise(clean, noise, t))


def test_the_regression_for_live_use_finds_what_rows_tell_and_is_restored_with_the_prior():
    from heads.rig import load_rig
    from pretrain.audio_expression.beginnings import fit_live
    from pretrain.audio_expression.model import LiveRegression
    from shards.features.whisper_live import LAYOUT, MEL_SIZE

    rng, width = np.random.default_rng(0), 6
    size = LAYOUT.encoded * width + LAYOUT.mels * MEL_SIZE
    mixing = np.zeros((size, 32))
    mixing[: LAYOUT.encoded * width] = rng.normal(size=(LAYOUT.encoded * width, 32))
    runs = []
    for name in ("ann", "bob", "cyd"):
        rows = rng.normal(0, 1, (300, size))
        rows[:, LAYOUT.encoded * width :] *= 0.01
        face = (rows - rows.mean(0)) @ mixing + rng.normal()
        track = {"expression": face.astype(np.float32)}
        runs.append(Sequence(identity=name, clip=name, features=rows.astype(np.float32), track=track))
    live = LiveRegression(size, 32)
    fit_live(live, runs, load_rig(), columns=192, lags={})
    guess = (runs[0].features - live.mean.numpy()) @ live.weight.numpy()
    assert (
        correlation(guess.ravel(), (runs[0].track["expression"] - runs[0].track["expression"].mean(0)).ravel()) > 0.99
    )
    config = load_config(AudioExpressionConfig, {**to_dict(CONFIG), "features": "whisper", "live": "whisper-live"})
    model = ExpressionModel(config, SIZE, K, 3, live=size)
    model.live.weight.normal_()
    weights = {"sha256": "0" * 64, "source": "w"}
    info = {
        "prior": "audio-expression",
        "config": to_dict(config),
        "features": {"name": "whisper", "size": SIZE, "weights": weights},
        "dataset": {"identities": ["ann", "bob", "cyd"]},
    }
    restored = AudioExpression.restore(info, model.state_dict(), torch.device("cpu"))
    assert (restored.live.feature, restored.live.revision) == ("whisper-live", 1)
    record = {"name": "whisper-live", "size": size, "weights": weights, "revision": 2}
    assert AudioExpression.restore({**info, "live": record}, model.state_dict(), torch.device("cpu")).live.revision == 2
    assert np.array_equal(restored.live.weight, model.live.weight.numpy())
    before = {name: value for name, value in model.state_dict().items() if not name.startswith("live.")}
    assert AudioExpression.restore(info, before, torch.device("cpu")).live is None, "a prior of an earlier version"


def test_a_regression_to_shut_lips_finds_closures_that_an_expression_does_not_show():
    """Rows say where the lips are shut, and of the expression only a shadow."""
    from pretrain.audio_expression.beginnings import prepare, shut_lips

    rig, rng, runs = load_rig(), np.random.default_rng(0), []
    slope = mouth_directions(rig, np.ones(32))[:, 0]
    for who in "abcdef":
        beat = np.sin(np.arange(120) / 3.0 + rng.uniform(0, 6))[:, None]
        track = {
            "expression": ((1 + 1.2 * beat) * slope / (slope @ slope) ** 0.5).astype(np.float32),
            "eyelids": np.zeros((120, 2), np.float32),
            "identity": np.zeros(rig.n_identity, np.float32),
        }
        run = Sequence(identity=who, clip=who, features=np.zeros((120, SIZE), np.float32), track=track)
        rows = rng.normal(size=(120, SIZE)).astype(np.float32)
        rows[:, 0] += 4 * shut_lips(rig, run)
        runs.append(Sequence(identity=who, clip=who, features=rows, track=track))
    shut = np.concatenate([shut_lips(rig, run) for run in runs])
    assert 0.1 < shut.mean() < 0.5
    config = load_config(AudioExpressionConfig, {**to_dict(CONFIG), "closure": True})
    objective = SequenceObjective(ExpressionModel(config, SIZE, 32, 6))
    prepare(objective, runs, list("abcdef"), rig)
    prior = AudioExpressionPrior(objective.model, {}, list("abcdef"))
    assert prior.tells_closure
    heard = np.concatenate([prior.expect(run.features)["closure"] for run in runs])
    assert correlation(heard, shut) > 0.7
    parts = list(prior.stream([runs[0].features[i : i + 7] for i in range(0, 120, 7)]))
    assert np.array_equal(
        np.concatenate([part["closure"] for part in parts]), prior.sample(runs[0].features)["closure"]
    )
    before = {name: value for name, value in objective.model.state_dict().items() if not name.startswith("closure.")}
    info = {"config": to_dict(CONFIG), "features": {"size": SIZE}, "dataset": {"identities": list("abcdef")}}
    assert not AudioExpression.restore(info, before, torch.device("cpu")).tells_closure, "a prior of an earlier version"


def test_rows_for_live_use_of_other_weights_are_refused():
    from types import SimpleNamespace

    from pretrain.audio_expression.beginnings import live_record

    config = load_config(AudioExpressionConfig, {"features": "whisper", "live": "whisper-live"})
    records = {
        name: {"name": name, "size": 4, "weights": {"source": "w", "sha256": digit * 64}}
        for name, digit in (("whisper", "0"), ("whisper-live", "1"))
    }
    dataset = SimpleNamespace(url="corpus", feature_records=records)
    with pytest.raises(InputError, match="extracted with other weights"):
        live_record(dataset, config, records["whisper"])
    records["whisper-live"]["weights"]["sha256"] = "0" * 64
    with pytest.raises(
        InputError, match=r"'whisper-live' of revision 1, expected 2: .*--out corpus --features whisper-live=w'"
    ):
        live_record(dataset, config, records["whisper"])
    records["whisper-live"]["revision"] = 2
    assert live_record(dataset, config, records["whisper"]) is records["whisper-live"]
    del records["whisper-live"]
    assert live_record(dataset, config, records["whisper"]) is None
