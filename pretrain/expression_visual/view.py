"""References and targets of one person, with the pixel weights of the comparison."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numba import njit

from heads.masks import region_masks
from heads.rig import facemesh
from pretrain.expression_visual.config import ExpressionVisualConfig, VisualLossConfig
from shards.format.schema import Sample
from shards.read.view import PairView, pictures, tracked

COVERED = ("face", "eyes", "lips", "mouth_inside", "head")
FADE = 0.05  # width of the soft edge towards the clothes, in face heights · guess
BELOW, BESIDE = 0.12, 0.42  # clothes begin here: face heights above the chin, face breadths from the middle · guess
CHEST = 0.5  # face heights below the chin, from where on the weight is zero · guess
POSE = ("rotation", "translation", "intrinsics", "expression", "eyelids", "gaze")


@dataclass(frozen=True)
class ReferenceView:
    """Callable ``(sample, rng) -> batch entries``.

    With R references, G targets and S px: ``source_*`` and ``target_*`` of ``image`` ``[R|G, S, S, 3]``, ``matte``
    ``[R|G, S, S]``, both uint8, ``rotation, translation, intrinsics, expression, eyelids, gaze``; ``identity`` ``[K_id]``,
    ``person`` (two numbers for each ``identity_index``, the odd one for the mirrored person), ``target_weight``
    ``[G, S, S]``, see :func:`pixel_weight`; ``seen`` ``[R]``, 0 for references to ignore.

    Args:
        signs: of the coefficients under mirroring, see :func:`heads.measures.face.mirror_signs`; unused with
            ``augment.mirror`` 0.
    """

    config: ExpressionVisualConfig
    signs: Mapping[str, np.ndarray] = field(compare=False, repr=False)
    features: ClassVar[str | None] = None
    window: ClassVar[int] = 1
    needs_sound: ClassVar[bool] = False

    def __call__(self, sample: Sample, rng: np.random.Generator) -> dict[str, Any]:
        """Draw the frames; the same ``rng`` gives the same ones."""
        config, count = self.config, self.config.references
        draw = PairView(
            size=config.size,
            across=config.across,
            targets=config.targets + count - 1,
            wide=config.wide,
            grouped=config.grouped,
        )
        source, others = draw.chosen(sample, rng)
        frames = [source, *others]
        seen = np.ones(count, np.float32)
        if rng.random() >= config.augment.second:
            seen[1:] = 0
        turned = rng.random() < config.augment.mirror
        used = [frame if i >= count or seen[i] else None for i, frame in enumerate(frames)]  # the rest is not decoded
        image, matte = pictures(used, config.size, plain=True)
        pose = tracked(frames, config.size)
        weight = pixel_weight(pose["landmarks"][count:], matte[count:], config.loss, turned)
        identity, pose = pose["identity"][0], {name: pose[name] for name in POSE}
        if turned:
            _turn(image), _turn(matte[..., None])
            pose, identity = mirrored(pose, self.signs["expression"], config.size), identity * self.signs["identity"]
        entries = {"image": image, "matte": matte, **pose}
        return {
            **{f"source_{name}": value[:count] for name, value in entries.items()},
            **{f"target_{name}": value[count:] for name, value in entries.items()},
            "identity": identity,
            "person": np.int64(2 * sample.identity_index + turned),
            "target_weight": weight,
            "seen": seen,
        }


def mirrored(pose: dict[str, np.ndarray], signs: np.ndarray, size: int) -> dict[str, np.ndarray]:
    """Poses of frames ``[n, ...]``, with the entries :data:`POSE`, in pictures ``size`` px wide that are mirrored.

    Args:
        signs: of the expression ``[K]``, see :func:`heads.measures.face.mirror_signs`.
    """
    flip = np.array([-1, 1, 1], np.float32)
    intrinsics = pose["intrinsics"].copy()
    intrinsics[:, 0, 2] = size - intrinsics[:, 0, 2]
    return {
        "rotation": pose["rotation"] * flip[:, None] * flip,
        "translation": pose["translation"] * flip,
        "intrinsics": intrinsics,
        "expression": pose["expression"] * signs,
        "eyelids": pose["eyelids"][:, ::-1].copy(),
        "gaze": pose["gaze"][:, ::-1] * flip[:2],
    }


def pixel_weight(
    landmarks: np.ndarray, matte: np.ndarray, config: VisualLossConfig, turned: bool = False
) -> np.ndarray:
    """Weights ``[G, S, S]`` of the head, its hair and neck and the background beside it; zero for the clothes.

    Args:
        landmarks: ``[G, 478, 3]`` px; matte: ``[G, S, S]`` uint8.
        turned: return the weights of the mirrored pictures.
    """
    size = matte.shape[1]
    masks = region_masks(landmarks, size, size, COVERED)
    result = np.empty(matte.shape, np.float32)
    weights = np.array([config.face - 1, config.detail - config.face, config.inside - config.detail], np.float32)
    face, eyes, lips, inside, head = (masks[name] for name in COVERED)
    _weigh(face, eyes, lips, inside, head, matte, _frames(landmarks), weights, result)
    if turned:
        _turn(result[..., None])
    return result


def _frames(landmarks: np.ndarray) -> np.ndarray:
    """Chin (2), the direction from forehead to chin (2), its length, and the face's breadth over it: ``[G, 6]`` float32."""
    top, chin = landmarks[:, facemesh.FOREHEAD, :2], landmarks[:, facemesh.CHIN, :2]
    tall = np.maximum(np.linalg.norm(chin - top, axis=-1, keepdims=True), 1e-3)
    sides = landmarks[:, [facemesh.FACE_RIGHT, facemesh.FACE_LEFT], :2]
    broad = np.linalg.norm(np.diff(sides, axis=1)[:, 0], axis=-1, keepdims=True) / tall
    return np.concatenate([chin, (chin - top) / tall, tall, broad], axis=-1).astype(np.float32)


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _weigh(face, eyes, lips, inside, head, matte, frames, weights, out):  # type: ignore[no-untyped-def]
    # pragma: no cover - compiled
    one, zero = np.float32(1), np.float32(0)
    for g in range(out.shape[0]):
        x0, y0, dx, dy, tall, broad = frames[g]
        scale = one / tall
        for y in range(out.shape[1]):
            down = np.float32(y) + np.float32(0.5) - y0
            chest = min(max((np.float32(CHEST) - down * scale) * np.float32(10) + np.float32(0.5), zero), one)
            for x in range(out.shape[2]):
                right = np.float32(x) + np.float32(0.5) - x0
                along, across = (right * dx + down * dy) * scale, abs(right * dy - down * dx) * scale
                below = min(max((along + np.float32(BELOW)) / np.float32(FADE), zero), one)
                beside = min(max((across - np.float32(BESIDE) * broad) / np.float32(FADE), zero), one)
                skin, mouth = face[g, y, x], inside[g, y, x]
                hair = np.float32(matte[g, y, x]) / np.float32(255) * (one - skin) * chest
                near = max(head[g, y, x], hair) * (one - below * beside)
                detail = min(max(eyes[g, y, x] + lips[g, y, x] + mouth, zero), one)
                value = near + weights[0] * skin + weights[1] * detail + weights[2] * mouth
                out[g, y, x] = max(value, zero)


@njit(cache=True, nogil=True)
def _turn(images):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """Mirror pictures ``[n, H, W, C]`` left to right, in place."""
    count, height, width, channels = images.shape
    for n in range(count):
        for y in range(height):
            line = images[n, y]
            for x in range(width // 2):
                for c in range(channels):
                    line[x, c], line[width - 1 - x, c] = line[width - 1 - x, c], line[x, c]
