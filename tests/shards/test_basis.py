"""Learning the rig's bases: from made-up people, proven on people left out, written as a rig that loads."""

from __future__ import annotations

import json

import numpy as np
import pytest

from configs import InputError
from heads.rig import load_rig
from shards.basis import basis
from shards.tracking.coefficients import fitter_of
from shards.tracking.pose import intrinsics_for, project
from shards.tracking.shape_statistics import (
    LandmarkClip,
    Person,
    eyelid_basis,
    landmark_weights,
    lid_gap,
    mirrored,
    neutral_face,
)

SIZE = 512


def clip(seed: int, frames: int = 40) -> LandmarkClip:
    """A made-up person who talks, blinks and nods: the shipped rig's motion seen by our camera, with a little noise."""
    fitter, rng = fitter_of(), np.random.default_rng(seed)
    t = np.arange(frames) / 25
    identity = rng.normal(size=64) * 0.7
    expression = np.sin(2 * np.pi * (t[:, None] * rng.uniform(1, 4, 32) + rng.random(32))) * (t[:, None] > 0.4)
    eyelids = np.repeat((np.abs(t - 1.0) < 0.1).astype(float)[:, None], 2, 1)
    points = fitter.vertices(identity, expression, eyelids, np.zeros((frames, 2, 2)))
    yaw = 0.2 * np.sin(2 * t + rng.random())
    rotation = np.zeros((frames, 3, 3))
    rotation[:, 0, 0], rotation[:, 0, 2], rotation[:, 1, 1] = np.cos(yaw), np.sin(yaw), 1
    rotation[:, 2, 0], rotation[:, 2, 2] = -np.sin(yaw), np.cos(yaw)
    camera = np.einsum("tij,tnj->tni", rotation, points) + np.array([0, 0, 16])
    intrinsics = intrinsics_for(SIZE)
    pixels = project(camera, intrinsics)
    pixels[..., 2] = (camera[..., 2] / 16 - 1) * intrinsics[0, 0]
    return LandmarkClip(f"person{seed}", (pixels + rng.normal(size=pixels.shape) * 0.1).astype(np.float32), SIZE)


@pytest.fixture(scope="module")
def clips():
    return [clip(seed) for seed in range(6)]


@pytest.fixture(scope="module")
def learned(clips, tmp_path_factory):
    path = tmp_path_factory.mktemp("rig") / "mine.npz"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(basis, "read_clips", lambda source, count: iter(clips))
        record = basis.learn_basis("made-up", path, n_identity=20, n_expression=24)
    return path, record


def test_a_learned_rig_loads_with_the_shipped_topology_and_atlas(learned):
    path, record = learned
    mine, shipped = load_rig(path), load_rig()
    assert (mine.n_identity, mine.n_expression, mine.n_vertices) == (20, 24, shipped.n_vertices)
    assert bool((mine.faces == shipped.faces).all())
    assert bool((mine.face_uvs == shipped.face_uvs).all())
    assert mine.sha256 != shipped.sha256
    assert (record["people"], record["clips"]) == (6, 6)
    assert json.loads(path.with_suffix(".json").read_text()) == record


def test_the_learned_mean_is_the_people_it_was_learned_from(learned):
    mine, shipped = load_rig(learned[0]), load_rig()
    assert (mine.mean[:468] - shipped.mean[:468]).norm(dim=1).mean() < 0.06
    opened = mine.vertices(mine.mean.new_zeros(1, 20), mine.control("jaw")["expression"][None])[0] - mine.mean
    assert opened[14, 1] - opened[13, 1] > 0.1


def test_people_left_out_are_reconstructed_better_with_more_components(clips):
    few, many = basis.leave_one_out(clips[:4], 4), basis.leave_one_out(clips[:4], 32)
    assert many["lips"] < 0.5 * few["lips"]
    assert many["lips"] < 0.006
    assert set(many["people"]) == {c.identity for c in clips[:4]}
    assert many["worst"] in many["people"]


def test_eyelids_learned_from_blinks_close_the_mean_face_and_mirror_each_other(clips):
    mean, partner, people = basis.align(clips)
    lids = eyelid_basis(people, mean, partner)
    assert np.abs(lid_gap(mean + lids[0])[0]) < 1e-6
    assert np.allclose(lid_gap(mean + lids[0])[1], lid_gap(mean)[1], atol=1e-3)
    assert np.abs(mirrored(lids[0], partner) - lids[1]).max() < 5e-3


def test_the_neutral_face_has_a_shut_mouth_and_open_eyes(clips):
    person: Person = basis.align(clips)[2][0]
    gap = np.linalg.norm(person.frames[:, 13] - person.frames[:, 14], axis=-1)
    face = neutral_face(person.frames)
    assert np.linalg.norm(face[13] - face[14]) < np.median(gap)
    assert (lid_gap(face) > 0.8 * np.median(lid_gap(person.frames), 0)).all()


def test_lips_and_eyes_count_more_and_depth_less():
    weights = landmark_weights()
    assert weights.shape == (468, 3)
    assert weights[13, 0] > weights[159, 0] > weights[10, 0] > weights[10, 2]


def test_sources_without_people_are_refused(tmp_path, clips, monkeypatch, capsys):
    with pytest.raises(InputError, match="holds no videos"):
        basis.learn_basis(tmp_path, tmp_path / "a.npz")
    assert basis.main(["learn", str(tmp_path)]) == 2
    assert "holds no videos" in capsys.readouterr().err
    monkeypatch.setattr(basis, "read_clips", lambda source, count: iter(clips[:2]))
    with pytest.raises(InputError, match="holds 2 people"):
        basis.learn_basis("x", tmp_path / "a.npz")
    monkeypatch.setattr(basis, "read_clips", lambda source, count: iter(clips))
    with pytest.raises(InputError, match="request fewer"):
        basis.learn_basis("x", tmp_path / "a.npz", n_expression=400)


def test_a_resting_face_within_the_identity_basis_has_no_error_and_a_coarser_basis_leaves_more():
    rng = np.random.default_rng(1)
    mean = load_rig().mean[:478].double().numpy()
    shapes = rng.normal(size=(6, 478, 3)) * 0.02
    face = Person(mean + np.tensordot(rng.normal(size=6), shapes, 1), mean[None])
    assert basis.shape_error(face, shapes, mean) < 1e-9
    coarse = [basis.shape_error(face, shapes[:count], mean) for count in (4, 2)]
    assert 1e-3 < coarse[0] < coarse[1]
