"""A video's face as ARKit weights, by a tracker whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from adapt.drivers.arkit import arkit_map
from adapt.drivers.blendshapes import read_blendshapes
from adapt.track import track
from configs import InputError
from heads.rig import load_rig
from heads.rig.controls import measures


@pytest.fixture
def tracker(world, monkeypatch):
    """The tracker's truth, with every frame from 30 to 39 lost."""

    def segments(video, **options):
        for segment in world.segments(video, **options):
            if segment.first_frame == 25:
                segment.track = {k: v[:5] if len(v) == 25 else v for k, v in segment.track.items()}
            yield segment

    monkeypatch.setattr("adapt.track.track_frames", segments)


def opening(expression: np.ndarray) -> np.ndarray:
    """The mouth's opening ``[T]``, eye distances."""
    return expression @ measures(load_rig("mediapipe").expression.numpy())["gap"]


@pytest.mark.parametrize("suffix", [".csv", ".json"])
def test_a_video_becomes_weights_in_time_with_its_sound(suffix, world, tracker, tmp_path):
    done = track(world.video, tmp_path / f"talk{suffix}")
    assert done["frames"] == len(world.frames)
    assert done["tracked"] == len(world.frames) - 20
    face = arkit_map(load_rig("mediapipe")).face(read_blendshapes(done["blendshapes"]).at_rate(25))
    seen = np.r_[0:30, 50 : len(world.frames)]
    truth = opening(world.track["expression"])
    assert np.corrcoef(opening(face["expression"])[seen], truth[seen])[0, 1] >= 0.95


def test_a_part_of_a_video_counts_from_its_beginning(world, tracker, tmp_path):
    whole = read_blendshapes(track(world.video, tmp_path / "whole.json")["blendshapes"]).at_rate(25)
    part = read_blendshapes(track(world.video, tmp_path / "part.json", start=0.4, seconds=0.6)["blendshapes"])
    assert np.allclose(part.at_rate(25)[:15], whole[10:25], atol=1e-5)


def test_the_coefficients_are_those_of_the_rig_that_maps_them(world, tmp_path, monkeypatch):
    rig, fitted = load_rig("mediapipe"), []
    monkeypatch.setattr("adapt.track.load_rig", {"mine": rig}.__getitem__)

    def segments(video, *, rig, **options):
        fitted.append(rig)
        return world.segments(video, **options)

    monkeypatch.setattr("adapt.track.track_frames", segments)
    track(world.video, tmp_path / "talk.csv", rig="mine")
    assert fitted == ["mine"]


def test_what_cannot_be_is_refused(world, tracker, tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"ends in \.csv or \.json"):
        track(world.video, tmp_path / "talk.bvh")
    (tmp_path / "talk.csv").write_text("mine")
    with pytest.raises(InputError, match="exists"):
        track(world.video, tmp_path / "talk.csv")
    monkeypatch.setattr("adapt.track.track_frames", lambda video, **options: iter(()))
    with pytest.raises(InputError, match="no frame with a face"):
        track(world.video, tmp_path / "other.csv")
    assert [entry.name for entry in tmp_path.iterdir()] == ["talk.csv"]
