"""The optimisation loop: what a step changes, what it must not change, and what it draws."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adapt.budget import Clock, parse_budget
from adapt.clip import track_clip
from adapt.fit.context import Context
from adapt.fit.groups import rigged_groups
from adapt.fit.initial_maps import build_rigged, nearest_texels
from adapt.fit.loop import Fit
from adapt.fit.losses import rigged_loss
from adapt.fit.optimizers import RATES
from adapt.fit.sampling import SLID, IncrementalSampling, next_frame, windows_of
from adapt.fit.state import Place, seed_step
from adapt.priors import Priors
from adapt.recipes import recipe
from heads.gaussians.uv import UVGaussians
from heads.person.talking_head import HeadConfig
from heads.rig import load_rig
from tests.support.avatars import SIZE

CPU = torch.device("cpu")
SMALL = HeadConfig(resolution=24, color_rank=3, offset_rank=3, correction_rank=4, hidden=8)


@pytest.fixture(scope="module")
def clip(world):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shards.tracking.track_frames", world.segments)
        with track_clip(world.video, size=SIZE) as found:
            yield found


def make_fit(clip, steps=12):
    config = recipe("headstart").config(changes=["resolution=64"])
    context = Context(clip, load_rig(), len(clip), config, Priors(), CPU)
    model = build_rigged(context, SMALL, residual=False)
    return Fit(model, context, Clock(parse_budget(f"{steps}it")), np.arange(len(clip) - 3, len(clip)))


def run(fit, loss=None):
    usual = rigged_loss(fit.context.config, fit.model, len(fit.clip))
    fit.stage("fit", 0.0, 1.0, rigged_groups(fit.model), loss or usual)


def test_every_part_with_a_rate_moves_and_the_held_out_frames_get_better(clip):
    fit = make_fit(clip, steps=40)
    basis = fit.model.talking.add_appearance_basis(2, 10)
    basis.basis.data.normal_(std=0.01)
    basis.row.fill_(3)
    start = {name: value.clone() for name, value in fit.model.talking.named_parameters()}
    before = fit.measure("before")
    run(fit)
    assert fit.measure("after") > before + 3
    for part in [name for name, rate in RATES.items() if rate]:
        named = [(n, p) for n, p in fit.model.talking.named_parameters() if n == part or n.startswith(part + ".")]
        assert any(not torch.equal(start[name], parameter) for name, parameter in named), part


def test_a_frame_that_breaks_the_arithmetic_leaves_the_head_alone(clip):
    fit = make_fit(clip, steps=3)
    before = {name: value.clone() for name, value in fit.model.state_dict().items()}
    run(fit, loss=lambda rendered, batch: rendered.image.sum() * float("nan"))
    assert fit.clock.iterations == 3
    assert all(torch.equal(before[name], value) for name, value in fit.model.state_dict().items())


def test_measuring_and_looking_change_nothing_that_steps_draw(clip):
    results = []
    for look in (False, True):
        seed_step(0, CPU, "build")
        fit = make_fit(clip, steps=4)
        usual = rigged_loss(fit.context.config, fit.model, len(clip))

        def loss(rendered, batch, fit=fit, usual=usual, look=look):
            if look:
                torch.rand(7)
                fit.measure("now and then")
            return usual(rendered, batch)

        fit.stage("fit", 0.0, 1.0, rigged_groups(fit.model), loss)
        results.append({name: value.clone() for name, value in fit.model.state_dict().items()})
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


def test_all_frames_come_before_any_comes_again():
    place, rng = Place(), np.random.default_rng(0)
    drawn = [int(next_frame(place, np.arange(5), rng)[0]) for _ in range(10)]
    assert sorted(drawn[:5]) == sorted(drawn[5:]) == [0, 1, 2, 3, 4]


def test_frames_that_are_tracked_meanwhile_are_mixed_into_the_order():
    place, rng = Place(), np.random.default_rng(0)
    drawn = [int(next_frame(place, np.arange(10), rng)[0]) for _ in range(2)]
    drawn += [int(next_frame(place, np.arange(100), rng)[0]) for _ in range(98)]
    assert sorted(drawn) == list(range(100))
    assert sum(frame >= 10 for frame in drawn[2:12]) >= 7  # 90 of the 98 that were left are new


def test_a_run_resumed_before_the_tracker_has_come_as_far_draws_what_there_is():
    place = Place(order=[40, 3, 70], newest=99)
    assert {int(next_frame(place, np.arange(5), np.random.default_rng(0))[0]) for _ in range(5)} == {0, 1, 2, 3, 4}


def test_windows_are_stretches_of_consecutive_frames():
    sample = windows_of(9, 5)
    drawn = [sample(0.0, step, np.random.default_rng(step)) for step in range(50)]
    assert all(np.array_equal(window, np.arange(window[0], window[0] + 5)) for window in drawn)
    assert {int(window[0]) for window in drawn} == {0, 1, 2, 3, 4}
    assert len(windows_of(3, 5)(0.0, 0, np.random.default_rng(0))) == 3


def drawn_levels(sample, metric, progress):
    return np.array([metric[sample(progress, step, np.random.default_rng(step))[0] - 100] for step in range(400)])


def test_incremental_sampling_slides_a_window_over_the_motion_in_one_step_of_many_and_holds_no_state():
    frames, metric = np.arange(100, 200), np.random.default_rng(0).permutation(100)
    window = IncrementalSampling(frames, metric, width=0.1, every=1)
    for progress in (0.0, 0.39, 0.7):
        levels, middle = drawn_levels(window, metric, progress), 99 * progress / SLID
        assert middle - 10 <= levels.min()
        assert levels.max() <= middle + 10
    assert set(drawn_levels(window, metric, 0.8)) > {0, 1, 2, 97, 98, 99}
    seldom = IncrementalSampling(frames, metric, width=0.1, every=20)
    assert abs((drawn_levels(seldom, metric, 0.0) <= 10).mean() - (1 / 20 + 19 / 20 * 0.11)) < 0.05
    assert window(0.3, 7, np.random.default_rng(1)) == window(0.3, 7, np.random.default_rng(1))


def test_the_mouth_is_seen_widest_first_and_a_window_between_two_motions_takes_the_nearest():
    frames, metric = np.arange(100, 200), np.random.default_rng(0).permutation(100)
    wide = IncrementalSampling(frames, metric, width=0.0, every=1, widest=0.1)
    assert drawn_levels(wide, metric, 0.05).min() == 95
    assert 99 * 0.5 - 1 < drawn_levels(wide, metric, 0.5 * SLID).min() < 99 * 0.5 + 3
    assert drawn_levels(wide, metric, 0.9).min() < 3
    blinks = np.where(metric < 90, 0.0, 1.0)
    lone = IncrementalSampling(frames, blinks, width=0.1, every=1)
    assert set(drawn_levels(lone, blinks, 0.45 * SLID)) == {0.0}
    still = IncrementalSampling(frames, 0 * blinks, width=0.1, every=1)
    assert len(set(drawn_levels(still, metric, 0.3))) > 90


def test_a_place_comes_back_from_its_tensors():
    place = Place(stage=2, steps=7, order=[3, 1], once={"calibrate"}, pictured=25, newest=3)
    assert Place.from_tensors(place.tensors()) == place
    assert Place.from_tensors({}) == Place()


def test_a_texel_takes_the_nearest_one_of_its_own_region_in_a_coarser_map(clip):
    model = make_fit(clip).model
    source, target = UVGaussians(load_rig(), 40), model.talking.uv
    nearest = nearest_texels(UVGaussians(model.rig, 40), model)
    assert torch.equal(source.regions[nearest], target.regions)
    places, wanted = ((uv.texels.double() + 0.5) / uv.resolution for uv in (source, target))
    distance = torch.cdist(wanted, places, compute_mode="donot_use_mm_for_euclid_dist")
    distance[target.regions[:, None] != source.regions[None]] = torch.inf
    assert torch.allclose((wanted - places[nearest]).norm(dim=1), distance.min(1).values)
