"""What the benchmarks of adaptation choose and how their rows add up; no avatar is made here."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import prior_gain, recipes
from benchmarks.results import row


@pytest.fixture
def clip():
    """100 frames: still and closed in the middle third, turned in the first, open in the last, one blink."""
    from adapt.poses import euler_to_rotation

    yaw, gap = np.zeros(100), np.full(100, 0.02)
    yaw[:30], gap[70:] = np.linspace(0.4, 0.1, 30), np.linspace(0.1, 0.4, 30)
    landmarks = np.zeros((100, 478, 3), np.float32)
    landmarks[:, (33, 133), 0], landmarks[:, (362, 263), 0] = -0.5, 0.5
    landmarks[:, 13, 1] = -gap
    lids = np.zeros((100, 2), np.float32)
    lids[45:55] = 1.0
    rotation = euler_to_rotation(yaw, np.zeros(100), np.zeros(100))
    return SimpleNamespace(track={"rotation": rotation, "landmarks": landmarks, "eyelids": lids})


def test_the_narrowest_frames_are_straight_closed_and_awake(clip):
    first, count = prior_gain.narrowest(clip, 12)
    assert count == 12
    assert first >= 30
    assert first + count <= 70
    assert not set(range(first, first + count)) & set(range(45, 55))


def test_the_widest_frames_are_tested_and_never_next_to_those_trained_on(clip):
    first, count = prior_gain.narrowest(clip, 12)
    chosen = prior_gain.tested(clip, first, count)
    assert set(chosen["angles"]) == set(range(20))
    assert set(range(85, 100)) <= set(chosen["mouths"])
    near = set(range(first - prior_gain.GUARD, first + count + prior_gain.GUARD))
    assert not near & (set(chosen["angles"]) | set(chosen["mouths"]))


def test_a_clip_is_never_trained_on_whole(clip):
    assert prior_gain.narrowest(clip, 500)[1] == 66


def test_means_are_over_people_and_keep_recipes_apart():
    rows = [
        row("ada, headstart, 256x256, 60s", "PSNR face, track", 30.0, "dB"),
        row("bob, headstart, 256x256, 60s", "PSNR face, track", 34.0, "dB"),
        row("bob, ggtalker, 256x256, 60s", "PSNR face, track", 20.0, "dB"),
    ]
    found = {r["case"]: r["value"] for r in recipes.means(rows)}
    assert found == {"mean of 2, headstart, 256x256, 60s": 32.0, "mean of 1, ggtalker, 256x256, 60s": 20.0}


def test_options_reach_the_benchmark_that_is_named_before_them(monkeypatch, capsys):
    seen = []
    monkeypatch.setattr(recipes, "main", lambda: seen.append(list(sys.argv)))
    monkeypatch.setattr(sys, "argv", ["python"])
    assert command.main(["recipes", "--people", "ada"]) == 0
    assert seen == [["benchmarks recipes", "--people", "ada"]]
    assert command.main(["recipes", "prior_gain", "--people", "ada"]) == 2
    assert "options belong to one benchmark" in capsys.readouterr().err
