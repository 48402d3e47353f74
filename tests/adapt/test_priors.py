"""Which priors an adaptation is given: a name that is not there is told at once."""

from __future__ import annotations

import json

import numpy as np
import pytest

import adapt.job
from adapt.priors import find_priors
from configs import InputError
from shards.synthetic.mp4 import write_mp4


def test_a_prior_that_is_not_there_is_told_before_a_frame_is_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr("shards.tracking.track_frames", lambda *_, **__: pytest.fail("tracked"))
    film = tmp_path / "me.mp4"
    write_mp4(film, (np.zeros((32, 32, 3), np.uint8) for _ in range(60)), np.zeros(38400, np.float32))
    with pytest.raises(InputError, match="prior '/nowhere'"):
        adapt.job.adapt(film, tmp_path / "me", prior="/nowhere")
    assert not (tmp_path / "me").exists()


def test_a_folder_of_priors_names_each_and_one_without_any_is_refused(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "priors" / name).mkdir(parents=True)
        (tmp_path / "priors" / name / "prior.json").write_text(json.dumps({"schema": 1, "prior": name}))
    (tmp_path / "empty").mkdir()
    assert [prior.folder.name for prior in find_priors(tmp_path / "priors")] == ["a", "b"]
    assert find_priors("none") == []
    with pytest.raises(InputError, match=r"hold a prior\.json"):
        find_priors(f"{tmp_path / 'priors'},{tmp_path / 'empty'}")
