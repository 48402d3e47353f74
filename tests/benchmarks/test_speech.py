"""The benchmark of speech features: how people are divided and clips are averaged."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.priors.mouth_shapes import mean_openings, scored
from benchmarks.priors.speech import folds, grouped, halves, zoomed
from heads.measures.face import LipMotion


def test_every_person_is_held_out_once_and_groups_are_spread_over_the_folds():
    people = [f"p{i:02}" for i in range(20)]
    first = set(people[:10])
    parts = folds(people, first)
    assert sorted(name for part in parts for name in part) == people
    assert [len(part & first) for part in parts] == [2] * 5


def test_a_half_is_scored_at_the_lag_of_the_other():
    rng = np.random.default_rng(0)
    real = np.convolve(rng.standard_normal(204), np.ones(5) / 5, "valid")
    found = halves(np.roll(real, 3), real)
    assert found["r, lag of the other half"] > 0.95 > found["r, halves"]
    noise = np.convolve(rng.standard_normal(204), np.ones(5) / 5, "valid")
    assert abs(halves(noise, real)["r, lag of the other half"]) < 0.3, "choosing must not flatter noise"


def test_the_middle_of_a_picture_is_enlarged():
    picture = np.zeros((1, 100, 100, 3), np.uint8)
    picture[:, 40:60, 40:60] = 255
    found = zoomed(picture)
    assert found.shape == picture.shape
    assert found[0, 50, 50, 0] == 255
    assert (found > 128).sum() == pytest.approx((picture > 128).sum() / 0.85**2, rel=0.1)


def test_clips_without_a_closure_do_not_count_for_closures():
    found = [{"group": "new", "r": 0.2, "closure F1": None}, {"group": "new", "r": 0.4, "closure F1": 0.5}]
    values = {r["case"]: r["value"] for r in grouped("x", found)}
    assert values == {"new clips, r": pytest.approx(0.3), "new clips, closure F1": 0.5}


def test_mouth_shapes_open_as_far_as_the_training_people_and_press_on_p_b_m():
    wave = np.sin(np.arange(60) / 3)
    shapes = np.where(wave > 0.3, "D", np.where(wave < -0.3, "A", "B"))
    real = LipMotion(np.zeros((60, 2, 3)), wave, np.maximum(0.1 + 0.11 * wave, 0.0))
    openings = mean_openings([(shapes, real)])
    assert openings["D"] > openings["B"] > openings["A"]
    assert openings["G"] == 0.0, "a shape that nobody made"
    (_, plain), (_, blended) = scored(shapes, real, openings)
    assert plain["closure F1"] > 0.7
    assert plain["r"] > 0.9
    assert blended["spread of the opening"] < plain["spread of the opening"]
