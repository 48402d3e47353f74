"""Rigs that users bring: FLAME, ICT-FaceKit, those of other packages, and how they are found."""

from __future__ import annotations

import json
import os
import pickle
import shutil

import numpy as np
import pytest
import torch
from scipy import sparse

from configs import InputError
from heads.measures.face import component_importance, lip_motion, mirror_signs
from heads.person.talking_head import HeadConfig, TalkingHead
from heads.rig import Rig, load_rig
from heads.rig.facemesh import N_SURFACE
from heads.rig.registry import rig_kinds
from heads.rig.rig import RigKind
from tests.support.ict_rig import slots, write_ict_folder
from tests.support.rigs import REGIONS, part, posed

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


def test_a_head_on_ict_facekit_renders_and_learns(ict_folder):
    ict = load_rig(f"ict:{ict_folder}")
    frames = 3
    track = {
        "rotation": np.tile(np.eye(3, dtype=np.float32), (frames, 1, 1)),
        "translation": np.tile(np.float32([0, 0, 12]), (frames, 1)),
        "intrinsics": np.float32([[256, 0, 32], [0, 256, 32], [0, 0, 1]]),
        "expression": np.zeros((frames, ict.n_expression), np.float32),
        "eyelids": np.zeros((frames, 2), np.float32),
        "gaze": np.zeros((frames, 2, 2), np.float32),
    }
    head = TalkingHead(ict, torch.zeros(ict.n_identity), 64, 64, HeadConfig(resolution=48, body=False))
    head.calibrate(track)
    shown = head.render(head.inputs(track), 1)
    assert shown.alpha[24:40, 24:40].mean() > 0.9, "the face is opaque"
    assert shown.alpha[:4, :4].max() < 0.1, "a corner shows no head"
    shown.image.sum().backward()
    assert head.colors.grad.abs().sum() > 0


def test_measures_of_faces_know_ict_facekits_landmarks(ict_folder):
    ict = load_rig(f"ict:{ict_folder}")
    jaw = ict.control("jaw")["expression"].numpy()
    motion = lip_motion(ict, np.zeros(ict.n_identity, np.float32), np.stack([0 * jaw, jaw]))
    assert motion.lips.shape == (2, 40, 3)
    assert motion.opening[1] > motion.opening[0] + 0.15
    assert (component_importance(ict, np.ones(ict.n_expression), 0.5) > 0).any()
    with pytest.raises(InputError, match=r"not symmetric.*set augment\.mirror=0"):
        mirror_signs(ict)


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
    jaw.write_text("v 1 2 3\nv 1 two 3\n")
    with pytest.raises(InputError, match="not three numbers each"):
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
