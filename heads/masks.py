"""Region masks drawn from landmarks: face, eyes, lips, inside of the mouth, head, hair and neck. Antialiased.

Polygons are filled by their exact horizontal coverage on a few scanlines per pixel row, in a compiled kernel that
releases the GIL, so that a loader's threads can draw masks side by side.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import numpy as np
import torch
from numba import njit

from configs import InputError
from heads.rig import facemesh

Array = TypeVar("Array", np.ndarray, torch.Tensor)

REGIONS = ("face", "eyes", "lips", "mouth_inside", "head", "hair_neck")
SCANLINES = 4  # per pixel row · choice: with exact coverage along the row this gives 4 * 256 levels on a slanted edge
EYE_MARGIN = 0.35  # of the eye's height · guess: lids and lashes belong to the eyes


def region_masks(
    landmarks: Array, height: int, width: int, regions: Iterable[str] = REGIONS[:5], matte: Array | None = None
) -> dict[str, Array]:
    """Coverage of each region per pixel.

    Args:
        landmarks: ``[T, 478, 2 or 3]`` px; pixel centres lie at half integers.
        height, width: size of the masks in px.
        regions: names out of ``REGIONS``. ``head`` is the head with hair and some margin (where a renderer may paint);
            ``hair_neck`` is the person inside ``head`` and below it that is not face, and needs ``matte``.
        matte: ``[T, H, W]`` person alpha, 0..1 or uint8.

    Returns:
        region name to ``[T, H, W]`` float32 in [0, 1], numpy or torch like ``landmarks`` (on its device).

    Raises:
        InputError: unknown region, wrong shapes, or ``hair_neck`` without a matte.
    """
    points, regions = _as_numpy(landmarks), tuple(regions)
    person = None if matte is None else _as_numpy(matte)
    _check(points, height, width, regions, person)
    drawn: dict[str, np.ndarray] = {name: _draw(name, points, height, width) for name in regions if name != "hair_neck"}
    if "hair_neck" in regions and person is not None:
        face = drawn["face"] if "face" in drawn else _draw("face", points, height, width)
        drawn["hair_neck"] = _alpha(person) * (1 - face) * _above_shoulders(points, height)
    if isinstance(landmarks, torch.Tensor):
        return {name: torch.from_numpy(mask).to(landmarks.device) for name, mask in drawn.items()}
    return drawn


def fill_polygons(polygons: np.ndarray, height: int, width: int) -> np.ndarray:
    """Even-odd coverage ``[T, H, W]`` float32 of one closed polygon ``[T, P, 2]`` px per picture; P >= 3."""
    out = np.zeros((len(polygons), height, width), np.float32)
    _fill(np.ascontiguousarray(polygons, np.float64), out, SCANLINES)
    return out


def _draw(name: str, points: np.ndarray, height: int, width: int) -> np.ndarray:
    fill = fill_polygons
    xy = points[..., :2]
    if name == "face":
        return fill(xy[:, facemesh.OVAL], height, width)
    if name == "mouth_inside":
        return fill(xy[:, facemesh.LIPS_INNER], height, width)
    if name == "lips":
        outer, inner = fill(xy[:, facemesh.LIPS_OUTER], height, width), fill(xy[:, facemesh.LIPS_INNER], height, width)
        return np.maximum(outer - inner, 0)
    if name == "eyes":
        left, right = (fill(_eye_outline(xy, eye), height, width) for eye in (facemesh.EYE_LEFT, facemesh.EYE_RIGHT))
        return np.maximum(left, right)
    return fill(_head_outline(xy), height, width)


def _eye_outline(xy: np.ndarray, eye: tuple[int, ...]) -> np.ndarray:
    """The eye's opening, grown by a share of its width, so that a closed eye still is a region."""
    ring = xy[:, eye]
    centre = ring.mean(1, keepdims=True)
    outward = ring - centre
    width = np.linalg.norm(ring[:, :1] - ring[:, 8:9], axis=-1, keepdims=True)
    length = np.maximum(np.linalg.norm(outward, axis=-1, keepdims=True), 1e-6)
    return ring + outward / length * width * EYE_MARGIN * 0.45


def _head_frame(xy: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centre ``[T, 1, 2]``, unit vector from forehead to chin ``[T, 1, 2]``, distance from forehead to chin ``[T, 1, 1]``."""
    top, chin = xy[:, facemesh.FOREHEAD, None], xy[:, facemesh.CHIN, None]
    tall = np.maximum(np.linalg.norm(chin - top, axis=-1, keepdims=True), 1e-6)
    return xy[:, facemesh.OVAL].mean(1, keepdims=True), (chin - top) / tall, tall


def _head_outline(xy: np.ndarray) -> np.ndarray:
    """The face's outline grown sideways over the ears and upwards over the hair."""
    centre, down, tall = _head_frame(xy)
    right = np.stack([down[..., 1], -down[..., 0]], -1)
    offset = xy[:, facemesh.OVAL] - centre
    along, across = (offset * down).sum(-1, keepdims=True), (offset * right).sum(-1, keepdims=True)
    along = along * np.where(along < 0, 1.95, 1.18) - 0.04 * tall
    return centre + down * along + right * across * 1.5


def _above_shoulders(points: np.ndarray, height: int) -> np.ndarray:
    """1 down to half a face below the chin, fading out over a tenth: hair and neck, but not the chest ``[T, H, 1]``."""
    _, _, tall = _head_frame(points[..., :2])
    limit = points[:, facemesh.CHIN, 1][:, None] + 0.5 * tall[:, 0]
    rows = np.arange(height)[None] + 0.5
    return np.clip((limit - rows) / (0.1 * tall[:, 0]) + 0.5, 0, 1)[..., None].astype(np.float32)


def _as_numpy(value: np.ndarray | torch.Tensor) -> np.ndarray:
    return value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)


def _alpha(matte: np.ndarray) -> np.ndarray:
    scale = 255 if matte.dtype == np.uint8 else 1
    return matte.astype(np.float32) / scale


def _check(points: np.ndarray, height: int, width: int, regions: tuple[str, ...], matte: np.ndarray | None) -> None:
    if points.ndim != 3 or points.shape[1] != facemesh.N_LANDMARKS or points.shape[2] not in (2, 3):
        raise InputError(f"masks: landmarks have shape {points.shape}, expected (T, {facemesh.N_LANDMARKS}, 2 or 3)")
    unknown = [name for name in regions if name not in REGIONS]
    if unknown:
        raise InputError(f"masks: unknown region '{unknown[0]}'; known: {', '.join(REGIONS)}")
    if "hair_neck" in regions and (matte is None or tuple(matte.shape) != (len(points), height, width)):
        got = None if matte is None else tuple(matte.shape)
        raise InputError(f"masks: hair_neck needs a matte of shape {(len(points), height, width)}, got {got}")


@njit(cache=True, nogil=True)
def _fill(polygons, out, scanlines):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    count, corners = polygons.shape[0], polygons.shape[1]
    height, width = out.shape[1], out.shape[2]
    crossings = np.empty(corners + 1, np.float64)
    share = 1.0 / scanlines
    for t in range(count):
        low = polygons[t, :, 1].min()
        high = polygons[t, :, 1].max()
        if not (np.isfinite(low) and np.isfinite(high)):
            continue
        first, last = max(0, int(np.floor(max(low, 0.0)))), min(height, int(np.ceil(min(high, float(height)))))
        for row in range(first, last):
            for sub in range(scanlines):
                y = row + (sub + 0.5) * share
                found = 0
                for k in range(corners):
                    ax, ay = polygons[t, k, 0], polygons[t, k, 1]
                    bx, by = polygons[t, (k + 1) % corners, 0], polygons[t, (k + 1) % corners, 1]
                    if (ay <= y) != (by <= y):
                        x = ax + (y - ay) / (by - ay) * (bx - ax)
                        place = found
                        while place > 0 and crossings[place - 1] > x:
                            crossings[place] = crossings[place - 1]
                            place -= 1
                        crossings[place] = x
                        found += 1
                for pair in range(0, found - 1, 2):
                    left, right = max(0.0, crossings[pair]), min(float(width), crossings[pair + 1])
                    if right <= left:
                        continue
                    a, b = int(left), min(width - 1, int(right))
                    if a == b:
                        out[t, row, a] += (right - left) * share
                    else:
                        out[t, row, a] += (a + 1 - left) * share
                        for x_ in range(a + 1, b):
                            out[t, row, x_] += share
                        out[t, row, b] += (right - b) * share
