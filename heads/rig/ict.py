"""ICT-FaceKit (Li et al. 2020, MIT licence) from the user's copy: a folder of OBJ files of one topology."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from configs import InputError
from heads.rig.completion import REGIONS
from heads.rig.packing import packed_atlas
from heads.rig.rig import Rig

NEUTRAL = "generic_neutral_mesh.obj"
IDENTITIES = 50  # of the model's 100
# First vertex of each part, from ICT-FaceKit's description of its topology.
PARTS = (
    (0, "face"), (9409, "neck"), (11248, "mouth_inside"), (13294, "eye_left"), (13678, "eye_right"),
    (14062, "mouth_inside"), (17039, "teeth_upper"), (21451, "eyeball_left"), (23021, "eyeball_right"),
    (24591, "eye_left"),
)  # fmt: skip
BLINKS = ("eyeBlink_L", "eyeBlink_R")
CONTROLS = {
    "jaw": ("jawOpen",), "smile": ("mouthSmile_L", "mouthSmile_R"), "pucker": ("mouthPucker",),
    "brows_up": ("browInnerUp_L", "browInnerUp_R", "browOuterUp_L", "browOuterUp_R"),
    "brows_down": ("browDown_L", "browDown_R"),
}  # fmt: skip


def load_ict(folder: Path) -> Rig:
    """The rig of an ICT-FaceKit folder (``FaceXModel`` or one above it).

    Identity coefficients are the model's; expression coefficients are its blend shapes' weights but for the blinks,
    which are the eyelids.

    Raises:
        InputError: files missing or meshes that do not fit each other.
    """
    base = next(iter(sorted(folder.rglob(NEUTRAL)))).parent
    neutral, faces, face_uvs = read_obj(base / NEUTRAL, with_faces=True)
    identity = sorted(base.glob("identity*.obj"))[:IDENTITIES]
    shapes = [p for p in sorted(base.glob("*.obj")) if p.name != NEUTRAL and not p.stem.startswith("identity")]
    motions = [p for p in shapes if p.stem not in BLINKS]
    if not identity or not motions:
        raise InputError(f"rig '{base}': expected identity*.obj and blend shapes beside {NEUTRAL}, found too few files")
    labels = _labels(len(neutral))
    centres = _eye_centres(neutral, labels)
    scale = 1 / np.linalg.norm(centres[0] - centres[1])
    flip, origin = np.array([1, -1, -1]) * scale, centres.mean(0)
    lids = [base / f"{name}.obj" for name in BLINKS]
    deltas = np.stack([_delta(path, neutral) for path in identity]) * flip
    eyelids = np.stack([_delta(p, neutral) if p.exists() else 0 * neutral for p in lids]) * flip
    eyeballs = np.where(labels == REGIONS.index("eyeball_left"), 1, 0)
    eyeballs = np.where(labels == REGIONS.index("eyeball_right"), 2, eyeballs)
    names = [path.stem for path in motions]
    return Rig(
        {
            "name": np.array("ict-facekit"),
            "mean": (neutral - origin) * flip,
            "identity": deltas,
            "expression": np.stack([_delta(path, neutral) for path in motions]) * flip,
            "eyelids": eyelids,
            "lid_gap": np.zeros((2, len(neutral))),
            "eyeball_centres": (centres - origin) * flip,
            "eyeball_identity": np.stack([deltas[:, eyeballs == eye].mean(1) for eye in (1, 2)], 1),
            "eyeball_vertices": eyeballs,
            "faces": faces,
            "face_uvs": packed_atlas(len(faces)) if face_uvs is None else face_uvs,
            "face_regions": labels[faces].max(1),
            "region_names": np.array(REGIONS),
            "control_names": np.array(list(CONTROLS)),
            "control_expression": np.array(
                [[float(name in parts) for name in names] for parts in CONTROLS.values()], np.float32
            ),
            "n_landmarks": np.array(0),
        }
    )


def read_obj(path: Path, with_faces: bool = False) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Vertices (V, 3), and with ``with_faces`` triangles (F, 3) and their UVs (F, 3, 2, v down; ``None`` without any).

    Polygons become fans.

    Raises:
        InputError: not a readable OBJ file.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        points = np.array([line.split()[1:4] for line in lines if line.startswith("v ")], np.float64).reshape(-1, 3)
        if not with_faces:
            return points, None, None
        texture = np.array([line.split()[1:3] for line in lines if line.startswith("vt ")], np.float64).reshape(-1, 2)
        corners = [_fan(line.split()[1:]) for line in lines if line.startswith("f ")]
        triangles = np.array([corner for fan in corners for corner in fan], np.int64)  # (F, 3, 2) vertex, texture
    except (OSError, ValueError, IndexError) as error:
        raise InputError(f"rig '{path}': not a readable OBJ file ({error})") from None
    if triangles.size == 0 or triangles[..., 0].max() >= len(points):
        raise InputError(f"rig '{path}': has no faces, or faces beyond its {len(points)} vertices")
    if len(texture) == 0 or triangles[..., 1].min() < 0 or triangles[..., 1].max() >= len(texture):
        return points, triangles[..., 0], None
    uvs = texture[triangles[..., 1]]
    return points, triangles[..., 0], np.stack([uvs[..., 0] % 1.0000001, 1 - uvs[..., 1] % 1.0000001], -1)


def _fan(words: list[str]) -> list[list[tuple[int, int]]]:
    """A polygon's ``v``, ``v/vt`` or ``v/vt/vn`` words as triangles of (vertex, texture) from 0; texture -1: none."""
    corners = []
    for word in words:
        parts = word.split("/")
        corners.append((int(parts[0]) - 1, int(parts[1]) - 1 if len(parts) > 1 and parts[1] else -1))
    return [[corners[0], corners[k], corners[k + 1]] for k in range(1, len(corners) - 1)]


def _delta(path: Path, neutral: np.ndarray) -> np.ndarray:
    points = read_obj(path)[0]
    if points.shape != neutral.shape:
        raise InputError(f"rig '{path}': has {len(points)} vertices, expected {len(neutral)} as in {NEUTRAL}")
    return points - neutral


def _labels(n: int) -> np.ndarray:
    """Region label (V,) by the topology's vertex ranges."""
    starts = [start for start, _ in PARTS]
    names = np.array([REGIONS.index(name) for _, name in PARTS])
    return names[np.searchsorted(starts, np.arange(n), side="right") - 1]


def _eye_centres(neutral: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Centres (2, 3) of left and right eyeball; a mesh too small to have them is placed by its bounding box."""
    found = [neutral[labels == REGIONS.index(name)] for name in ("eyeball_left", "eyeball_right")]
    if all(len(points) for points in found):
        return np.stack([(points.max(0) + points.min(0)) / 2 for points in found])
    raise InputError(f"rig: the mesh has {len(neutral)} vertices and no eyeballs; expected ICT-FaceKit's full topology")
