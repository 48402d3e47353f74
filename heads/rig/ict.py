"""ICT-FaceKit (Li et al. 2020, MIT licence) from the user's copy: a folder of OBJ files of one topology.

Vertex numbers are those of ICT-FaceKit's README. The meshes that follow the eyeballs in it (lacrimal fluid, blend and
occlusion meshes, lashes) are transparent helpers for other renderers and are left out.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from configs import InputError
from heads.rig import facemesh
from heads.rig.completion import REGIONS
from heads.rig.correspondence import MULTI_PIE, match_irises, match_surface, read_landmarks
from heads.rig.mediapipe import load as load_mediapipe
from heads.rig.packing import packed_atlas
from heads.rig.rig import Rig, RigKind

NEUTRAL = "generic_neutral_mesh.obj"
IDENTITIES = 50  # of the model's 100
VERTICES = 24_591  # without the helper meshes
# First vertex of each part.
PARTS = (
    (0, "face"), (9409, "neck"), (11248, "mouth_inside"), (13294, "eye_left"), (13678, "eye_right"),
    (14062, "mouth_inside"), (17039, "teeth_upper"), (19247, "teeth_lower"),
    (21451, "eyeball_left"), (23021, "eyeball_right"),
)  # fmt: skip
FACE = slice(0, 9409)
# The vertices of Multi-PIE's 68 landmarks.
LANDMARKS = (
    1225, 1888, 1052, 367, 1719, 1722, 2199, 1447, 966, 3661, 4390, 3927, 3924, 2608, 3272, 4088, 3443,
    268, 493, 1914, 2044, 1401, 3615, 4240, 4114, 2734, 2509,
    978, 4527, 4942, 4857, 1140, 2075, 1147, 4269, 3360,
    1507, 1542, 1537, 1528, 1518, 1511, 3742, 3751, 3756, 3721, 3725, 3732,
    5708, 5695, 2081, 0, 4275, 6200, 6213, 6346, 6461, 5518, 5957, 5841, 5702, 5711, 5533, 6216, 6207, 6470, 5517, 5966,
)  # fmt: skip
BLINKS = ("eyeBlink_L", "eyeBlink_R")
CONTROLS = {
    "jaw": ("jawOpen",), "smile": ("mouthSmile_L", "mouthSmile_R"), "pucker": ("mouthPucker",),
    "brows_up": ("browInnerUp_L", "browInnerUp_R", "browOuterUp_L", "browOuterUp_R"),
    "brows_down": ("browDown_L", "browDown_R"),
}  # fmt: skip
LID_REACH = 1.5  # factor by which the eye's outline grows about its centre to cover the lids · guess


def accepts(path: Path) -> bool:
    """Whether the folder, or one below it, holds ICT-FaceKit's neutral mesh."""
    return path.is_dir() and any(path.rglob(NEUTRAL))


def load(path: Path | None = None) -> Rig:
    """The rig of an ICT-FaceKit folder (``FaceXModel`` or one above it).

    Identity coefficients are the model's. Expression coefficients are the weights of its blend shapes, except the blinks,
    which become the eyelids. FaceMesh's landmarks are read from ``landmarks.json`` next to the meshes, or else matched
    from Multi-PIE's 68, whose vertices are known.

    Raises:
        InputError: no path, missing files, or meshes that do not fit each other.
    """
    if path is None or not accepts(path):
        raise InputError(f"rig 'ict:{path or ''}': expected a folder with {NEUTRAL}, as in ict:/path/to/FaceXModel")
    base = next(iter(sorted(path.rglob(NEUTRAL)))).parent
    neutral, faces, face_uvs = read_mesh(base / NEUTRAL)
    identity = sorted(base.glob("identity*.obj"))[:IDENTITIES]
    shapes = [p for p in sorted(base.glob("*.obj")) if p.name != NEUTRAL and not p.stem.startswith("identity")]
    motions = [p for p in shapes if p.stem not in BLINKS]
    if not identity or not motions:
        raise InputError(f"rig '{base}': expected identity*.obj and blend shapes beside {NEUTRAL}, found too few files")
    if len(neutral) < VERTICES:
        raise InputError(f"rig '{base}': {NEUTRAL} has {len(neutral)} vertices, expected at least {VERTICES}")
    kept = (faces < VERTICES).all(1)
    faces, face_uvs = faces[kept], packed_atlas(int(kept.sum())) if face_uvs is None else face_uvs[kept]
    labels = _labels()
    centres = _eye_centres(neutral[:VERTICES], labels)
    flip = np.array([1, -1, -1]) / np.linalg.norm(centres[0] - centres[1])
    origin = centres.mean(0)
    mean, centres = (neutral[:VERTICES] - origin) * flip, (centres - origin) * flip

    def deltas(paths: list[Path]) -> np.ndarray:
        return np.stack([_delta(p, neutral)[:VERTICES] if p.exists() else np.zeros_like(mean) for p in paths]) * flip

    landmarks = read_landmarks(base, VERTICES)
    landmarks = _matched(mean, labels, centres) if landmarks is None else landmarks
    eyeballs = np.where(labels == REGIONS.index("eyeball_left"), 1, 0)
    eyeballs = np.where(labels == REGIONS.index("eyeball_right"), 2, eyeballs)
    people, names = deltas(identity), [path.stem for path in motions]
    return Rig(
        {
            "name": np.array("ict-facekit"),
            "mean": mean,
            "identity": people,
            "expression": deltas(motions),
            "eyelids": deltas([base / f"{name}.obj" for name in BLINKS]),
            "lid_gap": _lid_gap(landmarks),
            "eyeball_centres": centres,
            "eyeball_identity": np.stack([people[:, eyeballs == eye].mean(1) for eye in (1, 2)], 1),
            "eyeball_vertices": eyeballs,
            "faces": faces,
            "face_uvs": face_uvs,
            "face_regions": _face_regions(mean, faces, labels, landmarks),
            "region_names": np.array(REGIONS),
            "control_names": np.array(list(CONTROLS)),
            "control_expression": np.array(
                [[float(name in parts) for name in names] for parts in CONTROLS.values()], np.float32
            ),
            "landmark_vertices": landmarks,
        }
    )


def read_points(path: Path) -> np.ndarray:
    """Vertices ``[V, 3]`` of an OBJ file.

    Raises:
        InputError: not a readable OBJ file.
    """
    return _points(_lines(path), path)


def read_mesh(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Vertices ``[V, 3]``, triangles ``[F, 3]`` and their UVs ``[F, 3, 2]`` (v down; ``None`` without any) of an OBJ file.

    Polygons are split into fans of triangles.

    Raises:
        InputError: not a readable OBJ file.
    """
    lines = _lines(path)
    points = _points(lines, path)
    try:
        texture = np.array([line.split()[1:3] for line in lines if line.startswith("vt ")], np.float64).reshape(-1, 2)
        corners = [_fan(line.split()[1:]) for line in lines if line.startswith("f ")]
        triangles = np.array([corner for fan in corners for corner in fan], np.int64)  # [F, 3, 2] vertex, texture
    except (ValueError, IndexError) as error:
        raise InputError(f"rig '{path}': not a readable OBJ file ({error})") from None
    if triangles.size == 0 or triangles[..., 0].max() >= len(points):
        raise InputError(f"rig '{path}': has no faces, or faces beyond its {len(points)} vertices")
    if len(texture) == 0 or triangles[..., 1].min() < 0 or triangles[..., 1].max() >= len(texture):
        return points, triangles[..., 0], None
    uvs = texture[triangles[..., 1]]
    return points, triangles[..., 0], np.stack([uvs[..., 0] % 1.0000001, 1 - uvs[..., 1] % 1.0000001], -1)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise InputError(f"rig '{path}': not a readable OBJ file ({error})") from None


def _points(lines: list[str], path: Path) -> np.ndarray:
    rows = [line[2:] for line in lines if line.startswith("v ")]
    columns = len(rows[0].split()) if rows else 3
    with warnings.catch_warnings():
        # NumPy stops at the first non-number and only warns; the count reveals it.
        warnings.simplefilter("ignore", DeprecationWarning)
        # Five times as fast as splitting each line, and a model has a hundred such files.
        numbers = np.fromstring(" ".join(rows), sep=" ")
    if columns < 3 or len(numbers) != len(rows) * columns or not np.isfinite(numbers).all():
        raise InputError(f"rig '{path}': not a readable OBJ file (vertices are not three numbers each)")
    return numbers.reshape(len(rows), columns)[:, :3]


def _fan(words: list[str]) -> list[list[tuple[int, int]]]:
    """A polygon's ``v``, ``v/vt`` or ``v/vt/vn`` words as triangles of (vertex, texture) from 0; texture -1: none."""
    corners = []
    for word in words:
        parts = word.split("/")
        corners.append((int(parts[0]) - 1, int(parts[1]) - 1 if len(parts) > 1 and parts[1] else -1))
    return [[corners[0], corners[k], corners[k + 1]] for k in range(1, len(corners) - 1)]


def _delta(path: Path, neutral: np.ndarray) -> np.ndarray:
    points = read_points(path)
    if points.shape != neutral.shape:
        raise InputError(f"rig '{path}': has {len(points)} vertices, expected {len(neutral)} as in {NEUTRAL}")
    return points - neutral


def _labels() -> np.ndarray:
    """Region label ``[V]`` from the topology's vertex ranges."""
    starts = [start for start, _ in PARTS]
    names = np.array([REGIONS.index(name) for _, name in PARTS])
    return names[np.searchsorted(starts, np.arange(VERTICES), side="right") - 1]


def _eye_centres(neutral: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Centres ``[2, 3]`` of the left and the right eyeball."""
    eyeballs = [neutral[labels == REGIONS.index(name)] for name in ("eyeball_left", "eyeball_right")]
    return np.stack([(points.max(0) + points.min(0)) / 2 for points in eyeballs])


def _matched(mean: np.ndarray, labels: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """The vertex ``[478]`` of each FaceMesh landmark on the neutral head ``mean [V, 3]``."""
    shipped = load_mediapipe()
    template = shipped.landmarks(shipped.mean).double().numpy()
    anchors = {landmark: LANDMARKS[point] for point, landmark in MULTI_PIE.items()}
    parts = [match_surface(template, mean[FACE], anchors)]
    # FaceMesh counts the right iris first.
    for eye, iris in ((1, facemesh.IRIS_RIGHT), (0, facemesh.IRIS_LEFT)):
        eyeball = np.where(labels == REGIONS.index(("eyeball_left", "eyeball_right")[eye]))[0]
        relative = template[list(iris)] - shipped.eyeball_centres[eye].double().numpy()
        parts.append(eyeball[match_irises(relative, centres[eye], mean[eyeball])])
    return np.concatenate(parts)


def _lid_gap(landmarks: np.ndarray) -> np.ndarray:
    """Weights ``[2, V]`` on y that measure how far the left and the right eye are open."""
    weights = np.zeros((2, VERTICES))
    for eye, pairs in enumerate(facemesh.LID_PAIRS):
        for upper, lower in pairs:
            weights[eye, landmarks[upper]] -= 1 / len(pairs)
            weights[eye, landmarks[lower]] += 1 / len(pairs)
    return weights


def _face_regions(mean: np.ndarray, faces: np.ndarray, labels: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Labels ``[F]``: the topology's parts; lips, lids and cranium from the landmarks."""
    regions = labels[faces].max(1)
    centre = mean[faces].mean(1)
    points = mean[landmarks]
    face, neck = regions == REGIONS.index("face"), regions == REGIONS.index("neck")
    for name, eye in (("eye_left", facemesh.EYE_LEFT), ("eye_right", facemesh.EYE_RIGHT)):
        ring = points[list(eye), :2]
        grown = ring.mean(0) + (ring - ring.mean(0)) * LID_REACH
        regions[face & _inside(centre[:, :2], grown)] = REGIONS.index(name)
    outer, inner = (
        _inside(centre[:, :2], points[list(loop), :2]) for loop in (facemesh.LIPS_OUTER, facemesh.LIPS_INNER)
    )
    regions[face & outer & ~inner] = REGIONS.index("lips")
    regions[neck & (centre[:, 1] < points[list(facemesh.LIP_CORNERS), 1].mean())] = REGIONS.index("cranium")
    return regions


def _inside(points: np.ndarray, loop: np.ndarray) -> np.ndarray:
    """Whether points ``[N, 2]`` lie inside the closed polygon ``[P, 2]``, by the even-odd rule."""
    x, y = points[:, None, 0], points[:, None, 1]
    (ax, ay), (bx, by) = loop.T, np.roll(loop, -1, 0).T
    crosses = (ay <= y) != (by <= y)
    right = ax + (y - ay) / np.where(by == ay, 1.0, by - ay) * (bx - ax) > x
    return (crosses & right).sum(1) % 2 == 1


RIG = RigKind(name="ict", about="a folder of ICT-FaceKit's .obj files", accepts=accepts, load=load)
