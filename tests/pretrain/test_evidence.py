"""Figures of a prior are means over people, whatever the number of their clips."""

from __future__ import annotations

import math

from pretrain.audio_expression.evidence import summarise as voices
from pretrain.expression_visual.evidence import summarise as looks
from pretrain.sync_expert.evidence import summarise as lips
from pretrain.task import Evidence, people_means

ROWS = [
    {"identity": "ann", "clip": "a", "frames": 50, "x": 1.0, "y": None},
    {"identity": "ann", "clip": "b", "frames": 50, "x": 3.0, "y": 4.0},
    {"identity": "bob", "clip": "c", "frames": 90, "x": 6.0, "y": math.nan},
]


def test_a_person_with_two_clips_counts_once():
    assert people_means(ROWS)["x"] == 4.0
    assert people_means(ROWS)["people"] == 2.0


def test_missing_figures_are_left_out_and_what_nobody_has_is_nan():
    assert people_means(ROWS, ["y"]) == {"y": 4.0, "people": 2.0}
    assert math.isnan(people_means([{"identity": "ann", "z": None}])["z"])
    assert people_means([]) == {"people": 0.0}


def test_a_prior_without_figures_says_what_the_held_out_clips_lack():
    nothing = Evidence(needs="60 frames (2.4 s) with sound in one piece")
    sentence = "no figures on held-out people: none of their clips has 60 frames (2.4 s) with sound in one piece; hold"
    assert nothing.missing().startswith(sentence)
    assert nothing.markdown().startswith(f"N{sentence[1:]}")
    assert Evidence(rows=ROWS).missing() is None


def test_each_prior_names_its_figures_for_the_registry():
    assert voices([{"identity": "a", "clip": "c", "frames": 9, "motion/real prior": 2.0}]) == {
        "motion_per_real_prior": 2.0,
        "people": 1.0,
    }
    looked = looks([{"identity": "a", "clip": "c", "PSNR prior": 30.0, "PSNR copy": 28.0}])
    assert looked == {"psnr_prior": 30.0, "psnr_copy": 28.0, "gain_psnr": 2.0, "people": 1.0}
    heard = lips([{"identity": "a", "AUC 5": 0.5, "AUC 25": 0.75, "hit": 1.0, "Sync-C": 2.0, "Sync-D": None}])
    assert (heard["auc_window"], heard["auc_second"], heard["offset_accuracy"]) == (0.5, 0.75, 1.0)
    assert math.isnan(heard["sync_d"])
