"""The benchmark of speech features: how people are divided and clips are averaged."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.speech import folds, grouped, lagged


def test_every_person_is_held_out_once_and_groups_are_spread_over_the_folds():
    people = [f"p{i:02}" for i in range(20)]
    first = set(people[:10])
    parts = folds(people, first)
    assert sorted(name for part in parts for name in part) == people
    assert [len(part & first) for part in parts] == [2] * 5


def test_a_lag_finds_the_shift_of_a_delayed_copy():
    real = np.random.default_rng(0).standard_normal(100)
    late = np.roll(real, 3)
    scores = {lag: lagged(late, real, lag, 4) for lag in range(-4, 5)}
    assert max(scores, key=scores.get) == 3
    assert scores[3] == pytest.approx(1.0)


def test_clips_without_a_closure_do_not_count_for_closures():
    found = [{"group": "new", "r": 0.2, "closure F1": None}, {"group": "new", "r": 0.4, "closure F1": 0.5}]
    values = {r["case"]: r["value"] for r in grouped("x", found)}
    assert values == {"new clips, r": pytest.approx(0.3), "new clips, closure F1": 0.5}
