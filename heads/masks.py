"""Region masks drawn from landmarks: face, eyes, lips, inside of the mouth, head, hair and neck. Antialiased.

Polygons are filled by their exact horizontal coverage on a few scanlines per pixel row, in a compiled kernel that
releases the GIL, so that a loader's threads can draw masks side by side.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numba import njit

from configs import InputError
from heads.rig import facemesh

Array = TypeVar("Array", np.ndarray, torch.Tensor)

REGIONS = ("face", "eyes", "lips", "mouth_inside", "head", "sure_head", "hair_neck")
ALONE, LESS, EITHER = 0, 1, 2  # a region is the first outline, the first without the second, or the union of both
SCANLINES = 4  # per pixel row · choice: coverage along a scanline is exact, so few are needed
# Of the eye's height, taken as 0.45 of its width so that a closed eye has one · guess: lids and lashes belong to the eyes
EYE_MARGIN = 0.35


class Reach(NamedTuple):
    """How far a region reaches beyond the face's outline, as factors of it.

    Attributes:
        widths: sideways, at ``heights`` from its centre, positive downwards, of the distance from forehead to chin.
        above, below: upwards and downwards from its centre.
        rise: of that distance, by which all is moved upwards.
    """

    heights: tuple[float, ...]
    widths: tuple[float, ...]
    above: float
    below: float
    rise: float = 0.0


HEAD = Reach((0.0,), (1.5,), above=1.95, below=1.18, rise=0.04)  # ears and hair, with some margin · guess
# Eyes, nose, mouth: hair in full above the nose, collars not at all · guess, looked at on 24 people
SURE_HEAD = Reach((-0.1, 0.1, 0.2), (2.4, 1.4, 1.08), above=3.0, below=1.05)


def region_masks(
    landmarks: Array,
    height: int,
    width: int,
    regions: Iterable[str] = REGIONS[:5],
    matte: Array | None = None,
    levels: int | None = None,
    corner: tuple[int, int] = (0, 0),
) -> dict[str, Array]:
    """Antialiased masks of face regions: the covered share of each pixel.

    Args:
        landmarks: ``[T, 478, 2 or 3]`` px; pixel centres lie at half integers. A frame with non-finite ones gets zeros.
        height, width: size of the masks in px.
        regions: names from ``REGIONS``; all but the last two by default. ``head`` is the head with hair and some margin
            (where a renderer may paint). ``sure_head`` is where a person's pixels are surely the head's: all above the mouth,
            the face alone beside the jaw, where collars and shoulders come close. ``hair_neck`` is the person without the
            face, down to just below the neck; it needs ``matte``.
        matte: ``[T, H, W]`` person alpha, 0..1 or uint8.
        levels: round coverage to multiples of ``1 / levels``, for example 255 for 8 bits; ``hair_neck`` is not rounded.
        corner: row and column of the masks' first pixel in the picture that the landmarks refer to.

    Returns:
        region name to ``[T, H, W]`` float32 in [0, 1], numpy or torch like ``landmarks`` (on its device).

    Raises:
        InputError: unknown region, wrong shapes, or ``hair_neck`` without a matte.
    """
    points, regions = _as_numpy(landmarks), tuple(regions)
    person = None if matte is None else _as_numpy(matte)
    _check(points, height, width, regions, person)
    drawn = {name: _draw(name, points, height, width, levels, corner) for name in regions if name != "hair_neck"}
    if "hair_neck" in regions and person is not None:
        face = drawn["face"] if "face" in drawn else _draw("face", points, height, width, None, corner)
        drawn["hair_neck"] = _alpha(person) * (1 - face) * _above_shoulders(points, height, corner[0])
    if isinstance(landmarks, torch.Tensor):
        return {name: torch.from_numpy(mask).to(landmarks.device) for name, mask in drawn.items()}
    return drawn


def fill_polygons(polygons: np.ndarray, height: int, width: int) -> np.ndarray:
    """Even-odd coverage ``[T, H, W]`` float32 of one closed polygon ``[T, P, 2]`` px per picture; P >= 3."""
    out = np.zeros((len(polygons), height, width), np.float32)
    _fill(np.ascontiguousarray(polygons, np.float64), out, SCANLINES)
    return out


def _draw(
    name: str, points: np.ndarray, height: int, width: int, levels: int | None, corner: tuple[int, int]
) -> np.ndarray:
    xy, combination = points[..., :2], ALONE
    if name == "face":
        outlines = [xy[:, facemesh.OVAL]]
    elif name == "mouth_inside":
        outlines = [xy[:, facemesh.LIPS_INNER]]
    elif name == "lips":
        outlines, combination = [xy[:, facemesh.LIPS_OUTER], xy[:, facemesh.LIPS_INNER]], LESS
    elif name == "eyes":
        outlines, combination = [_eye_outline(xy, eye) for eye in (facemesh.EYE_LEFT, facemesh.EYE_RIGHT)], EITHER
    else:
        outlines = [_head_outline(xy, HEAD if name == "head" else SURE_HEAD)]
    outlines = [outline.astype(np.float64) - corner[::-1] for outline in outlines]
    drawn = [fill_polygons(outline, height, width) for outline in outlines]
    if levels or combination != ALONE:
        _finish(drawn[0], drawn[-1], combination, levels or 0, _bounds(outlines, height, width))
    return drawn[0]


def _bounds(outlines: list[np.ndarray], height: int, width: int) -> np.ndarray:
    """Rows and columns (top, bottom, left, right) that hold all outlines ``[T, P, 2]`` of a picture, for T pictures."""
    points, sides = np.nan_to_num(np.concatenate(outlines, 1)), np.array([width, height])
    low = np.clip(np.floor(points.min(1)), 0, sides).astype(np.int64)
    high = np.clip(np.ceil(points.max(1)), 0, sides).astype(np.int64)
    return np.stack([low[:, 1], high[:, 1], low[:, 0], high[:, 0]], 1)


def _eye_outline(xy: np.ndarray, eye: tuple[int, ...]) -> np.ndarray:
    """The eye's opening, grown by a share of its width, so that a closed eye still has a region."""
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


def _head_outline(xy: np.ndarray, reach: Reach) -> np.ndarray:
    """The face's outline ``[T, P, 2]``, grown sideways over the ears and upwards over the hair."""
    centre, down, tall = _head_frame(xy)
    right = np.stack([down[..., 1], -down[..., 0]], -1)
    offset = xy[:, facemesh.OVAL] - centre
    along, across = (offset * down).sum(-1, keepdims=True), (offset * right).sum(-1, keepdims=True)
    wide = np.interp(along / tall, reach.heights, reach.widths)
    along = along * np.where(along < 0, reach.above, reach.below) - reach.rise * tall
    return centre + down * along + right * across * wide


def _above_shoulders(points: np.ndarray, height: int, top: int) -> np.ndarray:
    """Weights ``[T, H, 1]``: 1 down to half a face height below the chin, fading to 0 over a tenth of it."""
    _, _, tall = _head_frame(points[..., :2])
    limit = points[:, facemesh.CHIN, 1][:, None] + 0.5 * tall[:, 0]
    rows = np.arange(top, top + height)[None] + 0.5
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
def _cross(polygon, first, scanlines, found, crossed):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """Find where scanlines cross a polygon ``[P, 2]``, left to right: ``crossed [L]`` times, at x ``found [L, P + 1]``.

    There are ``scanlines`` in a pixel row from row ``first`` on. Each edge visits only the lines that it crosses.
    """
    corners, lines, share = polygon.shape[0], crossed.shape[0], 1.0 / scanlines
    crossed[:] = 0
    for k in range(corners):
        ax, ay = polygon[k, 0], polygon[k, 1]
        bx, by = polygon[(k + 1) % corners, 0], polygon[(k + 1) % corners, 1]
        low = min(max((min(ay, by) - first) / share - 1.5, 0.0), float(lines))
        high = min(max((max(ay, by) - first) / share + 1.5, 0.0), float(lines))
        for line in range(int(low), int(high)):
            y = first + line // scanlines + (line % scanlines + 0.5) * share
            if (ay <= y) != (by <= y):
                x = ax + (y - ay) / (by - ay) * (bx - ax)
                place = crossed[line]
                while place > 0 and found[line, place - 1] > x:
                    found[line, place] = found[line, place - 1]
                    place -= 1
                found[line, place] = x
                crossed[line] += 1


@njit(cache=True, nogil=True)
def _add_span(line, left, right, share, skip_from, skip_to):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Add ``share`` to a line of pixels from ``left`` to ``right`` px, but not to the whole pixels that are skipped."""
    width = line.shape[0]
    left, right = max(0.0, left), min(float(width), right)
    if right <= left:
        return
    a, b = int(left), min(width - 1, int(right))
    if a == b:
        line[a] += (right - left) * share
        return
    line[a] += (a + 1 - left) * share
    for x in range(a + 1, min(b, skip_from)):
        line[x] += share
    for x in range(max(a + 1, skip_to), b):
        line[x] += share
    line[b] += (right - b) * share


@njit(cache=True, nogil=True)
def _fill(polygons, out, scanlines):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    count, corners = polygons.shape[0], polygons.shape[1]
    height, width = out.shape[1], out.shape[2]
    all_found = np.empty((height * scanlines, corners + 1), np.float64)
    all_crossed = np.empty(height * scanlines, np.int64)
    share = 1.0 / scanlines
    for t in range(count):
        low = polygons[t, :, 1].min()
        high = polygons[t, :, 1].max()
        if not (np.isfinite(low) and np.isfinite(high)):
            continue
        first, last = max(0, int(np.floor(max(low, 0.0)))), min(height, int(np.ceil(min(high, float(height)))))
        if last <= first:
            continue
        _cross(polygons[t], first, scanlines, all_found, all_crossed[: (last - first) * scanlines])
        for row in range(first, last):
            line = out[t, row]
            here = slice((row - first) * scanlines, (row - first + 1) * scanlines)
            found, crossed = all_found[here], all_crossed[here]
            # Pixels that one span of every scanline covers are full: no need to add them up.
            full_from, full_to = 0, width - 1
            for sub in range(scanlines):
                if crossed[sub] == 2:
                    full_from = max(full_from, int(max(0.0, found[sub, 0])) + 1)
                    full_to = min(full_to, int(max(0.0, found[sub, 1])))
                else:
                    full_to = 0
            full_to = max(full_to, full_from)
            for sub in range(scanlines):
                for pair in range(0, crossed[sub] - 1, 2):
                    _add_span(line, found[sub, pair], found[sub, pair + 1], share, full_from, full_to)
            line[full_from:full_to] = 1.0


@njit(cache=True, nogil=True)
def _finish(out, other, combination, levels, bounds):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """Combine coverages ``[T, H, W]`` within bounds ``[T, 4]`` and round them to ``levels``, if that is not 0."""
    for t in range(len(out)):
        for y in range(bounds[t, 0], bounds[t, 1]):
            mine, its = out[t, y], other[t, y]
            for x in range(bounds[t, 2], bounds[t, 3]):
                value = mine[x]
                if combination == 1:
                    value = max(value - its[x], np.float32(0))
                elif combination == 2:
                    value = max(value, its[x])
                if levels and value != 0 and value != 1:
                    value = np.floor(value * np.float32(levels) + np.float32(0.5)) / np.float32(levels)
                mine[x] = value
