"""How much each pixel of a target counts: the face, and within it eyes and mouth, before hair, neck and outline."""

from __future__ import annotations

import numpy as np
from numba import njit

from heads.masks import region_masks
from heads.rig import facemesh
from pretrain.expression_visual.config import VisualLossConfig

COVERED = ("face", "eyes", "lips", "mouth_inside", "head")
FADE = 0.05  # of the face's height: how soft the edge towards the clothes is
BELOW, BESIDE = 0.12, 0.42  # of the face's height above the chin, of its breadth from the middle: clothes begin there
CHEST = 0.5  # of the face's height below the chin: from there on nothing counts


def pixel_weight(landmarks: np.ndarray, matte: np.ndarray, config: VisualLossConfig) -> np.ndarray:
    """Weights (G, S, S) of the head, its hair and neck and the background beside it; the clothes have none.

    Args:
        landmarks: (G, 478, 3) px; matte: (G, S, S) uint8.
    """
    size = matte.shape[1]
    masks = region_masks(landmarks, size, size, COVERED)
    result = np.empty(matte.shape, np.float32)
    weights = np.array([config.face - 1, config.detail - config.face, config.inside - config.detail], np.float32)
    _weigh(*(masks[name] for name in COVERED), matte, _frames(landmarks), weights, result)
    return result


def _frames(landmarks: np.ndarray) -> np.ndarray:
    """Chin (2), the direction from forehead to chin (2), its length, and the face's breadth over it: (G, 6) float32."""
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
