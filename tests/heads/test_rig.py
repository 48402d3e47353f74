"""The shipped rig: topology, atlas, motion and controls."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from configs import InputError
from heads.masks import fill_polygons
from heads.rig import CONTROLS, load_rig
from heads.rig.atlas import signed_areas
from heads.rig.facemesh import EYE_LEFT, EYE_RIGHT, IRIS_LEFT, IRIS_RIGHT, LID_PAIRS, LIPS_INNER
from heads.rig.mediapipe import RECESSION
from heads.rig.packing import packed_atlas
from tests.support.rigs import REGIONS, part, posed


@pytest.fixture(scope="module")
def rig():
    return load_rig("mediapipe")


def test_the_shipped_rig_has_what_tracks_and_priors_rely_on(rig):
    assert rig.name == "mediapipe-478/1"
    assert rig.n_expression == 32
    assert set(rig.regions) == REGIONS
    assert set(rig.controls) == set(CONTROLS)
    assert len(rig.sha256) == 64
    vertices = rig.vertices(torch.randn(3, rig.n_identity), torch.randn(3, rig.n_expression))
    assert vertices.shape == (3, rig.n_vertices, 3)
    assert vertices.dtype == torch.float32
    assert bool(vertices.isfinite().all())


def test_every_region_has_triangles_and_every_vertex_but_the_irises_is_used(rig):
    assert set(rig.face_regions.tolist()) == set(rig.regions.values())
    unused = set(range(rig.n_vertices)) - set(rig.faces.unique().tolist())
    assert unused == set(IRIS_LEFT) | set(IRIS_RIGHT)


def test_head_space_is_centred_upright_and_measured_in_eye_distances(rig):
    mean = rig.mean
    assert mean[IRIS_LEFT[0]].sub(mean[IRIS_RIGHT[0]]).norm() == pytest.approx(1.0, abs=0.02)
    assert mean[IRIS_LEFT[0], 0] > 0 > mean[IRIS_RIGHT[0], 0]  # the person's left is at larger x
    assert mean[152, 1] > mean[10, 1]  # y down
    assert mean[4, 2] == mean[:478, 2].min()  # the nose is nearest


def test_the_skin_is_one_surface_with_openings_for_eyes_mouth_and_neck_only(rig):
    skin = rig.faces[rig.region_faces("face", "lips", "eye_left", "eye_right", "cranium", "ear", "neck")]
    edges = torch.cat([skin[:, [0, 1]], skin[:, [1, 2]], skin[:, [2, 0]]])
    directed = {tuple(edge) for edge in edges.tolist()}
    assert len(directed) == len(edges)  # consistently oriented, no edge used twice in one direction
    border = [edge for edge in directed if edge[::-1] not in directed]
    openings = set(EYE_LEFT) | set(EYE_RIGHT) | set(LIPS_INNER)
    neck = {a for a, _ in border} - openings
    assert openings <= {a for a, _ in border}
    assert rig.mean[sorted(neck), 1].min() > rig.mean[152, 1]  # the rest is the neck's lower end


def test_triangles_face_outwards(rig):
    a, b, c = rig.mean[rig.faces[rig.region_faces("face", "cranium", "neck")]].unbind(1)
    centre = torch.tensor([0.0, 0.2, 0.9])
    outward = (torch.linalg.cross(b - a, c - a) * ((a + b + c) / 3 - centre)).sum(-1) > 0
    assert outward.float().mean() > 0.93  # the underside of nose and chin looks towards the centre


def test_no_triangle_of_the_atlas_is_flipped_or_leaves_the_square(rig):
    uvs = rig.face_uvs.double().numpy()
    assert signed_areas(uvs).min() > 0
    assert uvs.min() >= 0
    assert uvs.max() <= 1


def test_no_two_triangles_of_the_atlas_overlap(rig):
    """Coverages of all triangles, drawn one by one, add up to at most one in every texel."""
    size, total = 160, 0.0
    corners = rig.face_uvs.double().numpy() * size
    for k in range(0, len(corners), 200):
        total = total + fill_polygons(corners[k : k + 200], size, size).sum(0)
    assert total.max() < 1.06
    assert total.sum() == pytest.approx(signed_areas(corners).sum(), rel=0.02)


def test_the_atlas_gives_most_of_its_area_to_the_face_and_most_detail_to_lips_and_lids(rig):
    area, labels = signed_areas(rig.face_uvs.double().numpy()), rig.face_regions.numpy()
    share = {name: area[labels == label].sum() for name, label in rig.regions.items()}
    face = sum(share[name] for name in ("face", "lips", "eye_left", "eye_right"))
    others = [share["neck"], share["cranium"] + share["ear"], share["mouth_inside"] + share["teeth_upper"] * 2]
    assert face > max(others) * 1.5
    a, b, c = rig.mean[rig.faces].double().unbind(1)
    surface = torch.linalg.cross(b - a, c - a).norm(dim=-1).numpy() / 2
    density = {name: share[name] / surface[labels == label].sum() for name, label in rig.regions.items()}
    assert density["lips"] > 1.3 * density["face"]
    assert density["eye_left"] > 1.3 * density["face"]
    assert density["face"] > 1.6 * density["neck"]


def test_a_dropping_jaw_takes_the_lower_teeth_along_and_leaves_the_upper_ones(rig):
    rest, opened = posed(rig), posed(rig, jaw=1.0)
    lower, upper = part(rig, "teeth_lower"), part(rig, "teeth_upper")
    assert (opened[lower, 1] - rest[lower, 1]).mean() > 0.1  # the molars are near the hinge
    assert (opened[lower, 1] - rest[lower, 1]).max() > 0.13
    assert (opened[upper] - rest[upper]).abs().max() < 1e-6
    assert opened[152, 1] - rest[152, 1] > 0.15
    assert opened[14, 1] - opened[13, 1] > 0.2


def test_blinks_close_the_lids_of_their_own_side(rig):
    rest, closed = posed(rig), posed(rig, blink_left=1.0)
    gaps = [[float(v[[lo for _, lo in eye], 1].mean() - v[[up for up, _ in eye], 1].mean()) for eye in LID_PAIRS]
            for v in (rest, closed)]  # fmt: skip
    assert abs(gaps[1][0]) < 0.05 * gaps[0][0]
    assert gaps[1][1] == pytest.approx(gaps[0][1], abs=1e-5)


def test_closed_lids_lie_in_front_of_the_eyeball(rig):
    closed = posed(rig, blink_left=1.0, blink_right=1.0)
    for eye, iris in ((EYE_LEFT, IRIS_LEFT), (EYE_RIGHT, IRIS_RIGHT)):
        middle = [eye[k] for k in (3, 4, 5)]
        assert closed[middle, 2].max() < closed[iris[0], 2]


def test_a_closing_lid_pushes_its_own_eyeball_back(rig):
    rest, closed = posed(rig), posed(rig, blink_left=1.0)
    left, right = (closed[rig.eyeball_vertices == eye] - rest[rig.eyeball_vertices == eye] for eye in (1, 2))
    torch.testing.assert_close(left, torch.tensor([0.0, 0.0, RECESSION]).expand_as(left), atol=1e-5, rtol=0)
    assert right.abs().max() == 0


def test_lids_of_a_wide_eyed_person_close_too(rig):
    torch.manual_seed(1)
    identity = torch.randn(4, rig.n_identity)
    zero = torch.zeros(4, rig.n_expression)
    opened, closed = (rig.vertices(identity, zero, torch.full((4, 2), c)) for c in (0.0, 1.0))
    for eye in LID_PAIRS:
        up, low = [pair[0] for pair in eye], [pair[1] for pair in eye]
        gap = [v[:, low, 1].mean(1) - v[:, up, 1].mean(1) for v in (opened, closed)]
        assert bool((gap[1].abs() < 0.05 * gap[0]).all())


@pytest.mark.parametrize(("control", "axis"), [("gaze_x", 0), ("gaze_y", 1)])
def test_gaze_turns_both_irises_the_way_it_says(rig, control, axis):
    rest, turned = posed(rig), posed(rig, **{control: 1.0})
    for iris in (IRIS_LEFT, IRIS_RIGHT):
        assert turned[iris[0], axis] - rest[iris[0], axis] > 0.03
    still = part(rig, "face", "cranium", "neck", "lips")
    assert torch.equal(turned[still], rest[still])


def test_eyeballs_turn_rigidly(rig):
    ball = part(rig, "eyeball_left")
    ball = ball[rig.eyeball_vertices[ball] == 1]
    rest, turned = posed(rig)[ball], posed(rig, gaze_x=1.0, gaze_y=-0.5)[ball]
    assert torch.allclose(torch.cdist(rest, rest), torch.cdist(turned, turned), atol=2e-3)


def test_smile_widens_pucker_narrows_brows_move(rig):
    rest = posed(rig)
    width = lambda v: float(v[291, 0] - v[61, 0])  # noqa: E731
    brows = lambda v: float(v[[105, 334], 1].mean())  # noqa: E731
    assert width(posed(rig, smile=1.0)) > width(rest) + 0.08
    assert width(posed(rig, pucker=1.0)) < width(rest) - 0.08
    assert brows(posed(rig, brows_up=1.0)) < brows(rest) - 0.04
    assert brows(posed(rig, brows_down=1.0)) > brows(rest) + 0.02


def test_controls_add_up_and_scale(rig):
    half, whole = rig.control("smile", 0.5)["expression"], rig.control("smile", 1.0)["expression"]
    assert torch.allclose(2 * half, whole)
    assert whole.norm() <= 4.0 + 1e-4  # nothing beyond what people do


def test_the_mean_head_is_symmetric(rig):
    mean = rig.mean.numpy()
    mirrored = mean * [-1, 1, 1]
    distance = np.linalg.norm(mean[:, None] - mirrored[None], axis=-1).min(1)
    assert np.quantile(distance, 0.99) < 0.02


def test_vertices_are_differentiable_in_every_argument(rig):
    arguments = [torch.zeros(2, rig.n_identity), torch.zeros(2, rig.n_expression), torch.full((2, 2), 0.3),
                 torch.full((2, 2, 2), 0.1)]  # fmt: skip
    arguments = [a.requires_grad_() for a in arguments]
    rig.vertices(*arguments).square().sum().backward()
    assert all(bool(a.grad.isfinite().all()) and a.grad.abs().sum() > 0 for a in arguments)


def test_one_identity_serves_many_frames(rig):
    one = rig.vertices(torch.ones(1, rig.n_identity), torch.zeros(5, rig.n_expression), torch.zeros(5, 2),
                       torch.zeros(5, 2, 2))  # fmt: skip
    assert one.shape == (5, rig.n_vertices, 3)


def test_wrong_shapes_and_names_are_refused_with_what_was_expected(rig):
    with pytest.raises(ValueError, match=r"identity has shape \(1, 3\), expected \(B, 64\)"):
        rig.vertices(torch.zeros(1, 3), torch.zeros(1, 32))
    with pytest.raises(ValueError, match="identity has 2 rows, expression 3"):
        rig.vertices(torch.zeros(2, 64), torch.zeros(3, 32))
    with pytest.raises(InputError, match="no control 'wink'"):
        rig.control("wink")
    with pytest.raises(InputError, match="no region 'beard'"):
        rig.region_faces("beard")
    with pytest.raises(InputError, match="no such rig"):
        load_rig("nowhere/flame.pkl")


def test_the_shipped_record_says_how_it_was_made():

    record = json.loads((Path(__file__).parents[2] / "heads/rig/data/mediapipe.json").read_text())
    assert record["people"] == 35
    assert "python -m shards.basis learn" in record["made_by"]
    assert (Path(__file__).parents[2] / "heads/rig/data/mediapipe.npz").stat().st_size < 2e6


def test_the_digest_changes_with_any_array(tmp_path, rig):
    with np.load(Path(__file__).parents[2] / "heads/rig/data/mediapipe.npz") as file:
        arrays = {key: file[key] for key in file.files}
    np.savez(tmp_path / "same.npz", **arrays)
    arrays["mean"] = arrays["mean"] + 1e-3
    np.savez(tmp_path / "other.npz", **arrays)
    assert load_rig(tmp_path / "same.npz").sha256 == rig.sha256
    assert load_rig(tmp_path / "other.npz").sha256 != rig.sha256


def test_files_that_are_no_rig_are_refused(tmp_path):
    (tmp_path / "noise.npz").write_bytes(b"PK\x03\x04 not really")
    np.savez(tmp_path / "else.npz", x=np.zeros(3))
    (tmp_path / "empty").mkdir()
    for name, match in (("noise.npz", "not a readable npz"), ("else.npz", "FLAME needs"), ("empty", "no known kind")):
        with pytest.raises(InputError, match=match):
            load_rig(tmp_path / name)


def test_the_packed_atlas_neither_flips_nor_overlaps():
    uvs = packed_atlas(31)
    assert signed_areas(uvs).min() > 0 or signed_areas(uvs).max() < 0
    total = fill_polygons(uvs * 200, 200, 200).sum(0)
    assert total.max() <= 1.0 + 1e-5
    assert 0 <= uvs.min() <= uvs.max() <= 1
