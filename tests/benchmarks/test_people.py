"""The benchmark of more people: who is trained on, for how long, and which frames are given and compared."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.priors.people import PASSES, STEPS, chosen, nested, schedules
from benchmarks.priors.prior_gain import GUARD, STRETCHES
from heads.geometry.rotation import euler_to_rotation

PEOPLE = [f"p{i:02}" for i in range(40)]


def test_each_set_of_people_is_contained_in_the_next_and_the_last_is_all():
    sets = nested(PEOPLE, [27, 8, 60], seed=3)
    assert [len(people) for people in sets] == [8, 27, 40]
    assert all(set(small) < set(large) for small, large in itertools.pairwise(sets))
    assert sets[-1] == PEOPLE
    assert nested(PEOPLE, [8], seed=3)[0] == sets[0]
    assert nested(PEOPLE, [8], seed=4)[0] != sets[0]


def test_smaller_sets_get_fewer_steps_for_equally_many_passes():
    found = schedules([8, 20, 40], 400)
    assert [found[STEPS, n] for n in (8, 20, 40)] == [400] * 3
    assert [found[PASSES, n] for n in (8, 20, 40)] == [80, 200, 400]


@pytest.mark.parametrize("length", [80, 400])
def test_given_frames_lie_in_each_other_and_compared_ones_away_from_all(length):
    rng = np.random.default_rng(0)
    landmarks = rng.normal(size=(length, 478, 3)).astype(np.float32)
    yaw = rng.normal(0, 0.2, length)
    track = {
        "rotation": euler_to_rotation(yaw, np.zeros(length), np.zeros(length)),
        "landmarks": landmarks,
        "eyelids": np.zeros((length, 2), np.float32),
    }
    given, compared = chosen(SimpleNamespace(track=track))
    assert list(given) == list(STRETCHES)
    assert len(given["1 frame"]) == 1
    spans = [(given[stretch].min(), given[stretch].max()) for stretch in STRETCHES]
    for (low, high), (lower, higher) in itertools.pairwise(spans):
        assert lower <= low <= high <= higher
    assert spans[-1][1] - spans[-1][0] <= min(124, length // 2)
    assert np.abs(compared[:, None] - given["5 s"][None]).min() >= GUARD
    assert len(compared) >= 8
