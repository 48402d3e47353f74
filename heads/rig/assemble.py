"""From landmark statistics to a rig file: extends identity and expression of the face to the completed head."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from heads.ridge import ridge_weights
from heads.rig import facemesh
from heads.rig.atlas import build_atlas
from heads.rig.completion import (
    EYEBALL_SEGMENTS,
    JAW_ARC,
    REGIONS,
    TOP_ARC,
    Head,
    complete,
    eye_contour,
    eyeball_centre,
)
from heads.rig.controls import control_directions
from heads.rig.rig import FORMAT

HINGE = np.array([0.0, 0.55, 0.8])  # rig units, on the axis through the jaw joints in front of the ears · guess
LOOP_FOLLOW = (0.6, 0.3, 0.12, 0.04)  # of the outline's motion, for successive rows of cranium and neck · guess


def assemble(
    name: str,
    mean: np.ndarray,
    triangles: np.ndarray,
    identity: np.ndarray,
    expression: np.ndarray,
    eyelids: np.ndarray,
    atlas: dict[str, np.ndarray] | None = None,
) -> dict[str, np.ndarray]:
    """The arrays of a rig file.

    Args:
        mean: ``[478, 3]`` symmetric mean landmarks, head space.
        triangles: ``[F, 3]`` of the face's surface.
        identity, expression: ``[K, 478, 3]`` displacements per unit coefficient.
        eyelids: ``[2, 478, 3]`` displacements that close the left and the right eye of the mean face.
        atlas: ``faces``, ``face_regions`` and ``face_uvs`` of a rig to keep, so that maps learned on one rig fit the
            other; ``None`` builds an atlas, which takes some ten seconds.
    """
    head = complete(mean, triangles)
    faces, regions = np.concatenate(head.faces), np.concatenate(head.labels)
    if atlas is None:
        face_uvs = build_atlas(head.vertices, faces, regions, head.parts)
    else:
        # The same vertices joined the same way; only which diagonal splits a cell of the cranium could differ.
        faces, regions, face_uvs = atlas["faces"], atlas["face_regions"], atlas["face_uvs"]
    centres = np.stack([eyeball_centre(mean, side) for side in ("left", "right")])
    full_identity, centre_identity = _extend_identity(head, identity)
    directions = control_directions(expression)
    return {
        "format": np.array(FORMAT),
        "name": np.array(name),
        "mean": head.vertices.astype(np.float32),
        "identity": full_identity.astype(np.float16),
        "expression": _extend_expression(head, expression).astype(np.float16),
        "eyelids": _lids_over_eyeballs(head, eyelids, centres).astype(np.float32),
        "eyeball_centres": centres.astype(np.float32),
        "eyeball_identity": centre_identity.astype(np.float32),
        "eyeball_vertices": _eyeball_mask(head),
        "faces": faces.astype(np.int32),
        "face_uvs": face_uvs.astype(np.float32),
        "face_regions": regions.astype(np.int8),
        "region_names": np.array(REGIONS),
        "lid_gap": _lid_gap(len(head.vertices)),
        "control_names": np.array(list(directions)),
        "control_expression": np.stack(list(directions.values())).astype(np.float32),
        "n_landmarks": np.array(facemesh.N_LANDMARKS),
    }


def write(path: Path, arrays: dict[str, np.ndarray], record: dict[str, object]) -> None:
    """Write the rig file and, next to it, the record of how it was made (``.json``)."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays)
    path.with_suffix(".json").write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n")


def _lid_gap(n: int) -> np.ndarray:
    """Weights ``[2, V]`` on y that measure how far the left and the right eye are open."""
    weights = np.zeros((2, n), np.float32)
    for eye, pairs in enumerate(facemesh.LID_PAIRS):
        for upper, lower in pairs:
            weights[eye, upper], weights[eye, lower] = -1 / len(pairs), 1 / len(pairs)
    return weights


def _eyeball_mask(head: Head) -> np.ndarray:
    """The eyeball ``[V]`` that each vertex turns with: 0 none, 1 left, 2 right."""
    mask = np.zeros(len(head.vertices), np.int8)
    for label, part in ((1, "eyeball_left"), (2, "eyeball_right")):
        # The last ring closes the eye's corners and does not turn with the eyeball.
        mask[head.parts[part].start : head.parts[part].stop - EYEBALL_SEGMENTS] = label
    mask[list(facemesh.IRIS_LEFT)], mask[list(facemesh.IRIS_RIGHT)] = 1, 2
    return mask


def _extend_identity(head: Head, basis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``[K, 478, 3]`` -> ``[K, V, 3]`` and the eyeballs' centres ``[K, 2, 3]``.

    The rest of the head follows the face by the best axis-aligned scaling and translation, and near the face's outline
    by what that leaves over.
    """
    surface = head.vertices[: facemesh.N_SURFACE]
    scale, shift = _axis_affine(surface, basis[:, : facemesh.N_SURFACE])
    full = head.vertices[None] * scale[:, None] + shift[:, None]
    oval = list(facemesh.OVAL)
    left_over = basis[:, oval] - full[:, oval]
    distance = np.linalg.norm(head.vertices[:, None] - head.vertices[None, oval], axis=-1)
    near = np.exp(-((distance / 0.45) ** 2))
    full += np.einsum("vo,koc->kvc", near / (near.sum(1, keepdims=True) + 0.15), left_over)
    full[:, : facemesh.N_SURFACE] = basis[:, : facemesh.N_SURFACE]
    for part in ("mouth_inside", "teeth_upper", "teeth_lower"):
        full[:, head.parts[part]] = basis[:, list(facemesh.LIPS_INNER)].mean(1, keepdims=True)
    centres = np.stack([basis[:, eye_contour(side)].mean(1) for side in ("left", "right")], 1)
    mask = _eyeball_mask(head)
    for eye, part in enumerate(("eyeball_left", "eyeball_right")):
        full[:, mask == eye + 1] = centres[:, None, eye]
        full[:, head.parts[part]] = centres[:, None, eye]
    return full, centres


def _axis_affine(points: np.ndarray, motion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least squares ``motion ~ points * scale + shift`` per axis, scales shrunk to their mean: ``[K, 3]``, ``[K, 3]``."""
    centre = points.mean(0)
    offset = points - centre
    spread, product = (offset**2).sum(0), (offset * motion).sum(1)
    common = product.sum(1, keepdims=True) / spread.sum()
    pull = 0.3 * spread.mean()
    scale = (product + pull * common) / (spread + pull)
    return scale, motion.mean(1) - centre * scale


def _extend_expression(head: Head, basis: np.ndarray) -> np.ndarray:
    """``[K, 478, 3]`` -> ``[K, V, 3]``: lower teeth and mouth move with the jaw, cranium and neck with the outline near them."""
    full = np.zeros((len(basis), *head.vertices.shape))
    full[:, : facemesh.N_SURFACE] = basis[:, : facemesh.N_SURFACE]
    turn = _jaw_turn(head.vertices, basis)
    for part, share in head.follow.items():
        points = head.vertices[head.parts[part]]
        full[:, head.parts[part]] = np.cross(turn[:, None], points - HINGE) * share[:, None]
    for part, arc in (("cranium", TOP_ARC), ("neck", JAW_ARC)):
        index = np.arange(head.parts[part].start, head.parts[part].stop)
        rows = 14 if part == "cranium" else 9
        grid = index.reshape(rows, -1)
        for row, weight in zip(grid, LOOP_FOLLOW, strict=False):
            nearest = np.linalg.norm(head.vertices[row][:, None] - head.vertices[None, list(arc)], axis=-1)
            share = np.exp(-((nearest.min(1) / 0.8) ** 2)) * weight
            full[:, row] = basis[:, np.array(arc)[nearest.argmin(1)]] * share[:, None]
    return full


def _jaw_turn(vertices: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Rotation vectors ``[K, 3]`` of the jaw about its hinge that best explain the chin's motion."""
    arm = vertices[list(facemesh.JAW)] - HINGE
    zero = np.zeros(len(arm))
    cross = np.stack(
        [
            np.stack([zero, arm[:, 2], -arm[:, 1]], -1),
            np.stack([-arm[:, 2], zero, arm[:, 0]], -1),
            np.stack([arm[:, 1], -arm[:, 0], zero], -1),
        ],
        1,
    )  # cross[n] @ turn == turn x arm[n]
    system = cross.reshape(-1, 3)
    motion = basis[:, list(facemesh.JAW)].reshape(len(basis), -1)
    return ridge_weights(system.T @ system, system.T @ motion.T, 0.05).T


def _lids_over_eyeballs(head: Head, eyelids: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """``[2, 478, 3]`` -> ``[2, V, 3]``, lifted so that a closing lid slides over the eyeball and not through it."""
    full = np.zeros((2, *head.vertices.shape))
    full[:, : facemesh.N_SURFACE] = eyelids[:, : facemesh.N_SURFACE]
    for k, side in enumerate(("left", "right")):
        lids = np.where(np.linalg.norm(full[k], axis=1) > 1e-3)[0]
        closed = head.vertices[lids] + full[k, lids]
        reach = ((closed[:, :2] - centres[k, :2]) ** 2).sum(1)
        radius = 0.222  # the eyeball's and the lid's thickness
        over = reach < radius**2
        front = centres[k, 2] - np.sqrt(np.maximum(radius**2 - reach, 0))
        lift = np.where(over, np.minimum(front - closed[:, 2], 0), 0)
        full[k, lids, 2] += lift
        assert len(eye_contour(side)) == 16
    return full
