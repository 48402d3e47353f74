"""A small folder as ICT-FaceKit's, generated from the shipped rig: same vertex numbers, few shapes.

Slots that the shipped rig has no vertex for hold points that no triangle uses.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from heads.rig import Rig, facemesh, load_rig
from heads.rig.correspondence import MULTI_PIE
from heads.rig.ict import LANDMARKS, NEUTRAL, PARTS, VERTICES

CENTIMETRES = 6.3  # in a rig unit
AXES = np.array([1.0, -1.0, -1.0])  # ICT-FaceKit: y up, z towards the viewer
EXTRA = ("jawForward", "jawLeft", "mouthFunnel", "mouthShrugUpper", "mouthStretch_L", "noseSneer_L", "cheekPuff_L")


def write_ict_folder(folder: Path, identities: int = 4) -> Path:
    """Writes the OBJ files to ``folder/FaceXModel`` and returns ``folder``."""
    base = folder / "FaceXModel"
    base.mkdir(parents=True)
    rig = load_rig()
    slot = slots(rig)
    neutral = _filled(rig, slot)
    _write(base / NEUTRAL, neutral, slot[rig.faces.numpy()], rig.face_uvs.numpy())

    def shape(name: str, delta: np.ndarray) -> None:
        moved = neutral.copy()
        moved[slot] += delta * AXES * CENTIMETRES
        _write(base / f"{name}.obj", moved)

    for k in range(identities):
        shape(f"identity{k:03d}", rig.identity[k].numpy())
    for name, delta in _blend_shapes(rig).items():
        shape(name, delta)
    return folder


def slots(rig: Rig) -> np.ndarray:
    """ICT-FaceKit's vertex number ``[V]`` of each vertex of the shipped rig."""
    slot = np.full(rig.n_vertices, -1)
    for point, landmark in MULTI_PIE.items():
        slot[landmark] = LANDMARKS[point]
    part = _parts(rig)
    for k, (start, name) in enumerate(PARTS):
        end = PARTS[k + 1][0] if k + 1 < len(PARTS) else VERTICES
        free = np.setdiff1d(np.arange(start, end), slot)
        mine = np.where((part == k) & (slot < 0))[0]
        assert len(mine) <= len(free), name
        slot[mine] = free[: len(mine)]
    assert (slot >= 0).all()
    return slot


def _parts(rig: Rig) -> np.ndarray:
    """Row of ``PARTS`` ``[V]`` that each vertex of the shipped rig belongs to."""
    first = {name: k for k, (_, name) in reversed(list(enumerate(PARTS)))}
    names = {label: name for name, label in rig.regions.items()}
    part = np.zeros(rig.n_vertices, int)
    for triangle, label in zip(rig.faces.numpy(), rig.face_regions.tolist()):
        name = {"lips": "face", "eye_left": "face", "eye_right": "face", "ear": "face", "cranium": "neck"}.get(
            names[label], names[label]
        )
        part[triangle] = np.maximum(part[triangle], first[name])
    part[: facemesh.N_SURFACE] = first["face"]
    part[list(facemesh.IRIS_LEFT)], part[list(facemesh.IRIS_RIGHT)] = first["eyeball_left"], first["eyeball_right"]
    return part


def _filled(rig: Rig, slot: np.ndarray) -> np.ndarray:
    """All ``[24591, 3]`` vertices in centimetres; an eyeball's spare ones mirror it, so that it has its true centre."""
    points, mean = np.zeros((VERTICES, 3)), rig.mean.double().numpy()
    for eye, start in enumerate((PARTS[-2][0], PARTS[-1][0])):
        end = PARTS[-1][0] if eye == 0 else VERTICES
        mine = mean[(slot >= start) & (slot < end)]
        points[start:end] = 2 * rig.eyeball_centres[eye].double().numpy() - np.resize(mine, (end - start, 3))
    points[slot] = mean
    return points * AXES * CENTIMETRES


def _blend_shapes(rig: Rig) -> dict[str, np.ndarray]:
    """Displacements ``[V, 3]``, rig units, of each named blend shape."""
    basis = rig.expression.numpy()
    side = np.clip(0.5 + rig.mean[:, :1].numpy() / 0.4, 0, 1)  # 1 on the person's left

    def control(name: str) -> np.ndarray:
        return np.tensordot(rig.controls[name].expression.numpy(), basis, 1)

    shapes = {"jawOpen": control("jaw"), "mouthPucker": control("pucker")}
    for name, source in (("mouthSmile", "smile"), ("browInnerUp", "brows_up"), ("browDown", "brows_down")):
        shapes[f"{name}_L"], shapes[f"{name}_R"] = control(source) * side, control(source) * (1 - side)
    shapes |= {name: 2 * basis[k] for k, name in enumerate(EXTRA)}
    return shapes | {"eyeBlink_L": rig.eyelids[0].numpy(), "eyeBlink_R": rig.eyelids[1].numpy()}


def _write(path: Path, points: np.ndarray, faces: np.ndarray | None = None, uvs: np.ndarray | None = None) -> None:
    lines = [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in points]
    if faces is not None:
        lines += [f"vt {u:.6f} {1 - v:.6f}" for u, v in uvs.reshape(-1, 2)]
        lines += ["f " + " ".join(f"{v + 1}/{3 * k + c + 1}" for c, v in enumerate(f)) for k, f in enumerate(faces)]
    path.write_text("\n".join(lines) + "\n")
