"""Rigs: topology, atlas, motion, controls, and the formats that users bring."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import sparse

from configs import InputError
from heads.masks import fill_polygons
from heads.rig import CONTROLS, Rig, load_rig
from heads.rig.atlas import signed_areas
from heads.rig.facemesh import EYE_LEFT, EYE_RIGHT, IRIS_LEFT, IRIS_RIGHT, LID_PAIRS, LIPS_INNER, N_SURFACE
from heads.rig.packing import packed_atlas
from heads.rig.registry import rig_kinds
from heads.rig.rig import RigKind
from tests.support.ict_rig import slots, write_ict_folder

REGIONS = {
    "face", "lips", "eye_left", "eye_right", "eyeball_left", "eyeball_right",
    "mouth_inside", "teeth_upper", "teeth_lower", "cranium", "ear", "neck",
}  # fmt: skip


@pytest.fixture(scope="module")
def rig():
    return load_rig("mediapipe")


def posed(rig, **controls):
    """Vertices (V, 3) of the mean head under named controls."""
    expression, eyelids, gaze = torch.zeros(1, rig.n_expression), torch.zeros(1, 2), torch.zeros(1, 2, 2)
    for name, amount in controls.items():
        delta = rig.control(name, amount)
        expression, eyelids, gaze = expression + delta["expression"], eyelids + delta["eyelids"], gaze + delta["gaze"]
    return rig.vertices(torch.zeros(1, rig.n_identity), expression, eyelids, gaze)[0]


def part(rig, *names):
    """Indices of the vertices that only the named regions use."""
    return rig.faces[rig.region_faces(*names)].unique()


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
    import json

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


# ---------------------------------------------------------------------------------------------------- FLAME


FLAME_JOINTS = np.array(
    [[0, -0.15, -0.02], [0, -0.1, -0.02], [0, -0.02, 0], [0.0315, 0.03, 0.06], [-0.0315, 0.03, 0.06]]
)


def small_flame(seed=0, vertices=40):
    """A model in FLAME's format: y up, looking along +z, metres."""
    rng = np.random.default_rng(seed)
    template = rng.normal(size=(vertices, 3)) * [0.08, 0.1, 0.08]
    regressor = np.linalg.lstsq(template.T, FLAME_JOINTS.T, rcond=None)[0].T
    weights = rng.random((vertices, 5))
    weights[:8, 3], weights[8:16, 4] = 50, 50
    return {
        "v_template": template,
        "shapedirs": rng.normal(size=(vertices, 3, 400)) * 0.002,
        "posedirs": rng.normal(size=(vertices, 3, 36)) * 1e-4,
        "J_regressor": regressor,
        "weights": weights / weights.sum(1, keepdims=True),
        "kintree_table": np.array([[4294967295, 0, 1, 1, 1], [0, 1, 2, 3, 4]], np.uint32),
        "f": np.stack([np.arange(30), np.arange(1, 31), np.arange(2, 32)], 1).astype(np.uint32),
    }


@pytest.mark.parametrize("kind", ["npz", "pkl", "safetensors"])
def test_flame_loads_from_every_format_and_poses_like_smplx(tmp_path, kind):
    pytest.importorskip("smplx")
    model = small_flame()
    path = tmp_path / f"FLAME_NEUTRAL.{kind}"
    if kind == "npz":
        np.savez(path, **model)
    elif kind == "pkl":
        with path.open("wb") as file:
            pickle.dump({**model, "J_regressor": sparse.csc_matrix(model["J_regressor"])}, file, protocol=2)
    else:
        from safetensors.numpy import save_file

        save_file({k: np.ascontiguousarray(v.astype(np.float32)) for k, v in model.items()}, str(path))
    flame = load_rig(tmp_path)
    assert flame.n_vertices == 40
    assert (flame.n_identity, flame.n_expression) == (100, 53)
    torch.manual_seed(0)
    identity, expression = torch.randn(2, 100), torch.randn(2, 53) * 0.2
    gaze = torch.tensor([[[0.2, 0.1], [0.2, 0.1]]]).expand(2, 2, 2)
    ours = flame.vertices(identity, expression, torch.zeros(2, 2), gaze)
    assert torch.allclose(ours, _by_smplx(model, identity, expression, gaze), atol=1e-3)


def _by_smplx(model, identity, expression, gaze):
    """The same pose put together from smplx's own steps, in our axes and units."""
    from smplx.lbs import batch_rigid_transform, batch_rodrigues, blend_shapes, vertices2joints

    number = {k: torch.tensor(np.asarray(v, np.float64)).float() for k, v in model.items() if k != "kintree_table"}
    betas = torch.cat([identity, expression[:, :50]], 1)
    directions = torch.cat([number["shapedirs"][..., :100], number["shapedirs"][..., 300:350]], -1)
    shaped = number["v_template"] + blend_shapes(betas, directions)
    joints = vertices2joints(number["J_regressor"], shaped)
    pose = torch.zeros(len(identity), 5, 3)
    pose[:, 2], pose[:, 3:] = expression[:, 50:], torch.stack([gaze[..., 1], gaze[..., 0], 0 * gaze[..., 0]], -1)
    rotations = batch_rodrigues(pose.reshape(-1, 3)).reshape(-1, 5, 3, 3)
    change = (rotations[:, 1:] - torch.eye(3)).reshape(len(pose), -1) @ number["posedirs"].reshape(-1, 36).T
    _, transforms = batch_rigid_transform(rotations, joints, torch.tensor([-1, 0, 1, 1, 1]))
    skin = torch.einsum("vj,bjkl->bvkl", number["weights"], transforms)
    points = torch.cat([shaped + change.reshape(shaped.shape), torch.ones(*shaped.shape[:2], 1)], -1)
    points = torch.einsum("bvkl,bvl->bvk", skin, points)[..., :3]
    eyes = number["J_regressor"][3:] @ number["v_template"]
    return (points - eyes.mean(0)) * torch.tensor([1.0, -1.0, -1.0]) / (eyes[0] - eyes[1]).norm()


def test_flame_eyes_turn_and_its_jaw_drops_in_our_axes(tmp_path):
    pytest.importorskip("smplx")
    model = small_flame()
    model["posedirs"] *= 0
    model["v_template"][8] = [0, -0.06, 0.09]  # a chin, and a pupil
    model["v_template"][0] = [0.0315, 0.03, 0.09]
    model["weights"][8], model["weights"][0] = [0, 0, 1, 0, 0], [0, 0, 0, 1, 0]
    model["J_regressor"][:, [0, 8]] = 0
    model["J_regressor"] = np.linalg.lstsq(model["v_template"].T, FLAME_JOINTS.T, rcond=None)[0].T
    np.savez(tmp_path / "FLAME_NEUTRAL.npz", **model)
    flame = load_rig(tmp_path / "FLAME_NEUTRAL.npz")
    zero = torch.zeros(1, 100), torch.zeros(1, 53)
    rest = flame.vertices(*zero)[0]
    turned = flame.vertices(*zero, gaze=torch.tensor([[[0.3, 0.2], [0.3, 0.2]]]))[0]
    opened = flame.vertices(zero[0], flame.control("jaw")["expression"][None])[0]
    assert (turned[0] - rest[0])[0] > 0.05  # towards +x
    assert (turned[0] - rest[0])[1] > 0.05  # and down
    assert (opened[8] - rest[8])[1] > 0.1
    with pytest.raises(InputError, match="no eyelids"):
        flame.vertices(*zero, torch.ones(1, 2))


class Bomb:
    def __reduce__(self):
        return os.system, ("touch exploded",)


def test_a_pickle_that_wants_to_run_code_is_refused_and_runs_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with open("FLAME_NEUTRAL.pkl", "wb") as file:
        pickle.dump({**small_flame(), "extra": Bomb()}, file)
    with pytest.raises(InputError, match="can run code"):
        load_rig(tmp_path / "FLAME_NEUTRAL.pkl")
    assert not (tmp_path / "exploded").exists()


def test_flame_files_with_missing_or_unfitting_arrays_are_refused(tmp_path):
    model = small_flame()
    del model["posedirs"]
    np.savez(tmp_path / "a.npz", **model)
    np.savez(tmp_path / "b.npz", **{**small_flame(), "weights": np.zeros((3, 5))})
    np.savez(tmp_path / "c.npz", **{**small_flame(), "f": np.full((2, 3), 99)})
    for name, match in (("a", "missing posedirs"), ("b", "weights has shape"), ("c", "beyond 40")):
        with pytest.raises(InputError, match=match):
            load_rig(tmp_path / f"{name}.npz")


# ---------------------------------------------------------------------------------------------------- ICT-FaceKit


@pytest.fixture(scope="module")
def ict_folder(tmp_path_factory):
    return write_ict_folder(tmp_path_factory.mktemp("ict"))


def test_ict_facekit_moves_as_its_blend_shapes_blinks_and_eyes_do(ict_folder):
    ict, source = load_rig(f"ict:{ict_folder}"), load_rig()
    assert (ict.n_vertices, ict.n_identity) == (24_591, 4)
    assert ict.face_uvs.shape == (len(ict.faces), 3, 2)
    scale = float(1 / (source.eyeball_centres[0] - source.eyeball_centres[1]).norm())
    used = slots(source)
    for control in ("jaw", "smile"):
        theirs = posed(source, **{control: 1.0}) - posed(source)
        ours = posed(ict, **{control: 1.0}) - posed(ict)
        torch.testing.assert_close(ours[used], theirs * scale, atol=1e-4, rtol=1e-3)
    blink = posed(ict, blink_left=1.0) - posed(ict)
    torch.testing.assert_close(
        blink[used], (posed(source, blink_left=1.0) - posed(source)) * scale, atol=1e-4, rtol=1e-3
    )
    zero = torch.zeros(1, 4), torch.zeros(1, ict.n_expression)
    turned = ict.vertices(*zero, None, torch.tensor([[[0.3, 0.0], [0.0, 0.0]]]))[0]
    moved = (turned - posed(ict)).abs().sum(1) > 1e-6
    assert bool(moved[21_451:23_021].all())
    assert not bool(moved[:21_451].any() or moved[23_021:].any())
    assert posed(ict)[21_451:23_021, 0].mean() > 0  # the left eye


def test_ict_facekit_finds_facemesh_landmarks_by_its_68(ict_folder):
    ict, source = load_rig(f"ict:{ict_folder}"), load_rig()
    surface, irises = ict.landmark_vertices[:N_SURFACE], ict.landmarks(ict.mean)[N_SURFACE:]
    assert surface.tolist() == slots(source)[:N_SURFACE].tolist()
    # Irises lie on vertices of the eyeballs, of which several may share a place.
    scale = (source.eyeball_centres[0] - source.eyeball_centres[1]).norm()
    expected = (source.mean[N_SURFACE:478] - source.eyeball_centres.mean(0)) / scale
    torch.testing.assert_close(irises, expected, atol=1e-4, rtol=1e-4)
    assert ict.landmarks(torch.zeros(2, 5, ict.n_vertices, 3)).shape == (2, 5, 478, 3)
    assert ict.landmarks(ict.expression).shape == (ict.n_expression, 478, 3)
    wide = torch.tensor([[0.0, 0.0, 0.0, 0.0]])
    assert ict.lid_scale(wide).tolist() == [[1.0, 1.0]]


def test_ict_facekit_has_every_region_that_a_head_needs(ict_folder):
    ict = load_rig(f"ict:{ict_folder}")
    present = {name for name, label in ict.regions.items() if bool((ict.face_regions == label).any())}
    assert present >= REGIONS - {"ear"}
    lips = posed(ict)[part(ict, "lips")]
    assert bool((lips[:, 1] > 0.5).all())
    assert bool((posed(ict)[part(ict, "eye_left")][:, 0] > 0).all())


def test_landmarks_beside_a_rig_are_taken_as_they_are(ict_folder, tmp_path):
    shutil.copytree(ict_folder, tmp_path / "ict")
    file = tmp_path / "ict/FaceXModel/landmarks.json"
    file.write_text(json.dumps({"facemesh": list(range(478))}))
    ict = load_rig(tmp_path / "ict")
    assert ict.landmark_vertices.tolist() == list(range(478))
    assert torch.equal(ict.landmarks(ict.mean), ict.mean[:478])
    for wrong in ("{}", '{"facemesh": [1, 2]}', json.dumps({"facemesh": [24_591] * 478}), "["):
        file.write_text(wrong)
        load_rig.cache_clear()
        with pytest.raises(InputError, match="478 vertex numbers"):
            load_rig(tmp_path / "ict")


def test_an_ict_mesh_of_another_topology_is_refused(ict_folder, tmp_path):
    shutil.copytree(ict_folder, tmp_path / "ict")
    jaw = tmp_path / "ict/FaceXModel/jawOpen.obj"
    jaw.write_text("\n".join(jaw.read_text().splitlines()[:500]))
    with pytest.raises(InputError, match="has 500 vertices, expected 24591"):
        load_rig(tmp_path / "ict")
    neutral = tmp_path / "ict/FaceXModel/generic_neutral_mesh.obj"
    neutral.write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    with pytest.raises(InputError, match="has 3 vertices, expected at least 24591"):
        load_rig(tmp_path / "ict")


# ---------------------------------------------------------------------------------------------------- registry


def test_a_rig_says_where_it_came_from_and_is_found_there_again(ict_folder):
    assert load_rig().record == {"name": "mediapipe-478/1", "sha256": load_rig().sha256, "source": "mediapipe"}
    by_path = load_rig(ict_folder)
    assert by_path.record["source"] == f"ict:{ict_folder.resolve()}"
    assert load_rig(by_path.source).sha256 == by_path.sha256


def test_a_rig_without_landmarks_says_what_to_do(tmp_path):
    pytest.importorskip("smplx")
    np.savez(tmp_path / "FLAME_NEUTRAL.npz", **small_flame())
    flame = load_rig(f"flame:{tmp_path}")
    assert flame.n_landmarks == 0
    with pytest.raises(InputError, match=r"names no FaceMesh landmarks.*landmarks\.json"):
        flame.landmarks(flame.mean)
    assert type(flame.to("meta")) is type(flame)


def test_unknown_rigs_are_refused_with_what_is_known(tmp_path):
    with pytest.raises(InputError, match="did you mean 'mediapipe'"):
        load_rig("mediapip")
    with pytest.raises(InputError, match="no such file or folder"):
        load_rig("ict:/nowhere")
    with pytest.raises(InputError, match="expected a folder with generic_neutral_mesh"):
        load_rig("ict")
    (tmp_path / "rig.txt").write_text("x")
    with pytest.raises(InputError, match=r"no known kind of rig.*ict: a folder of ICT-FaceKit"):
        load_rig(tmp_path / "rig.txt")


class Point:
    """An entry point of an installed package."""

    def __init__(self, name, value):
        self.name, self.value, self._loaded = name, "package.module:RIG", value

    def load(self):
        if isinstance(self._loaded, Exception):
            raise self._loaded
        return self._loaded


def test_other_packages_offer_rigs_by_entry_point(monkeypatch):
    kind = RigKind(name="box", about="nothing", accepts=lambda path: False, load=lambda path: Rig(small_rig()))
    monkeypatch.setattr("heads.rig.registry.metadata.entry_points", lambda group: [Point("box", kind)])
    assert "box" in rig_kinds()
    assert load_rig("box").record["source"] == "box"
    load_rig.cache_clear()
    for wrong, match in ((ImportError("no"), "cannot be imported"), (3, "expected a heads.rig.rig.RigKind")):
        monkeypatch.setattr("heads.rig.registry.metadata.entry_points", lambda group: [Point("box", wrong)])  # noqa: B023
        with pytest.raises(InputError, match=match):
            load_rig("box")


def small_rig():
    """Arrays of the smallest rig: one triangle."""
    zeros = np.zeros
    return {
        "name": np.array("box"), "region_names": np.array(["face"]), "landmark_vertices": zeros(0, np.int64),
        "mean": np.eye(3), "identity": zeros((1, 3, 3)), "expression": zeros((1, 3, 3)), "eyelids": zeros((2, 3, 3)),
        "eyeball_centres": zeros((2, 3)), "eyeball_identity": zeros((1, 2, 3)), "face_uvs": np.full((1, 3, 2), 0.5),
        "faces": np.array([[0, 1, 2]]), "face_regions": zeros(1), "eyeball_vertices": zeros(3), "lid_gap": zeros((2, 3)),
        "control_names": np.array([]), "control_expression": zeros((0, 1)),
    }  # fmt: skip
