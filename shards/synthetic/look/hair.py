"""Hair as strands: grown on the skull, combed, fallen, and drawn as thin Gaussians over the rasterised mesh."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np

from shards.synthetic.identity import Identity
from shards.synthetic.look.shading import Lights, srgb_to_linear
from shards.synthetic.look.skin import SKULL_CENTRE


@dataclass(frozen=True)
class Style:
    """How strands of one style grow. Lengths in rig units; `lift` 0 lies flat, 1 stands up; `fall` is gravity."""

    strands: int
    length: tuple[float, float]
    steps: int
    lift: float
    fall: float
    volume: float  # how far above the scalp hair may lie
    curl: float = 0.0
    waves: float = 0.0
    comb: str = "part"  # part | back | forward | out
    width: float = 0.011


STYLES: dict[str, Style] = {
    "bald": Style(0, (0, 0), 0, 0, 0, 0),
    "buzz": Style(7000, (0.06, 0.10), 2, 0.55, 0.0, 0.05, comb="forward", width=0.008),
    "short": Style(6000, (0.30, 0.55), 6, 0.26, 0.20, 0.16, comb="forward"),
    "side": Style(6000, (0.45, 0.85), 8, 0.20, 0.30, 0.17, comb="part"),
    "curly": Style(5600, (0.50, 0.85), 10, 0.5, 0.35, 0.26, curl=0.06, comb="out"),
    "afro": Style(8000, (0.62, 0.78), 8, 1.0, 0.0, 1.1, curl=0.06, comb="out"),
    "bob": Style(5200, (2.0, 2.5), 14, 0.10, 1.3, 0.17, comb="part", width=0.012),
    "long": Style(5600, (3.4, 4.4), 18, 0.08, 1.5, 0.16, comb="part", width=0.012),
    "wavy": Style(5400, (2.8, 3.8), 20, 0.12, 1.3, 0.22, waves=0.06, comb="part", width=0.012),
    "bun": Style(5000, (1.9, 2.4), 12, 0.06, 0.0, 0.08, comb="bun", width=0.011),
}
_AXES = np.array([1.2, 1.42, 1.5])  # the skull as an ellipsoid around SKULL_CENTRE


@dataclass(frozen=True)
class Strands:
    """Segments of all strands in head space: ends ``[N, 2, 3]``, linear colour ``[N, 3]``, shade ``[N]`` darker inside, width."""

    ends: np.ndarray
    color: np.ndarray
    shade: np.ndarray
    width: np.ndarray
    normal: np.ndarray  # (N, 3) outwards from the head: for broad lighting


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-9)


def _settle(points: np.ndarray, layer: np.ndarray, scale: np.ndarray, loose: bool) -> np.ndarray:
    """Moves points ``[N, 3]`` onto or above the skull plus `layer` ``[N]``, and out of face and neck; flat unless `loose`."""
    away = points - SKULL_CENTRE
    axes = _AXES * scale + layer[:, None]
    level = np.linalg.norm(away / axes, axis=1, keepdims=True)
    aim = np.maximum(level, 1.0) if loose else 1 + 0.45 * np.maximum(level - 1, 0)
    on_skull = (level < 1) | (points[:, 1:2] < 0.3)
    points = np.where(on_skull, SKULL_CENTRE + away * aim / np.maximum(level, 1e-6), points)
    # Hair hangs beside and behind the cheeks and the neck, never through them.
    points = _beside(points, (-0.1, 1.9), (0.0, 1.02), (1.12 * scale[0], 1.02), layer)
    return _beside(points, (1.9, 9.0), (0.0, 1.05), (0.98, 0.98), layer)


def _beside(points: np.ndarray, heights: tuple, centre: tuple, radii: tuple, layer: np.ndarray) -> np.ndarray:
    """Pushes points between two heights out of an upright elliptic cylinder."""
    reach = np.array(radii) + layer[:, None]
    flat = (points[:, [0, 2]] - centre) / reach
    r = np.linalg.norm(flat, axis=1, keepdims=True)
    # What is in front of the ears goes to the side rather than forward, over the cheek.
    flat = np.where((flat[:, 1:] < -0.2) & (r < 1.15), flat * (1.0, 0.0) + (0.0, -0.15), flat / np.maximum(r, 1e-6))
    flat = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
    moved = centre + flat * reach
    inside = (points[:, 1:2] > heights[0]) & (points[:, 1:2] <= heights[1]) & (r < 1)
    return np.where(inside, np.stack([moved[:, 0], points[:, 1], moved[:, 1]], 1), points)


def _comb(style: Style, roots: np.ndarray, normal: np.ndarray, part: float, rng: np.random.Generator) -> np.ndarray:
    """Initial direction along the scalp ``[N, 3]``."""
    x, z = roots[:, 0], roots[:, 2] - SKULL_CENTRE[2]
    back, down = np.array([0, 0, 1.0]), np.array([0, 1.0, 0])
    if style.comb == "forward":
        top = np.clip((-roots[:, 1] - 0.6) / 0.6, 0, 1)[:, None]
        way = top * (np.array([0.45 * np.sign(part), 0.0, -1.0])) + (1 - top) * (
            down + 0.35 * np.sign(z)[:, None] * back
        )
    elif style.comb == "bun":
        way = np.array([0, -0.55, 2.55]) - roots
    elif style.comb == "out":
        way = 0.3 * rng.standard_normal(roots.shape)
    else:
        side = np.tanh((x - part) / 0.10)[:, None]
        front = np.clip(-z / 1.2, 0, 1)[:, None]
        way = side * np.array([1.0, 0, 0]) + (0.35 + 0.55 * front) * back + 0.35 * down
    way = way - (way * normal).sum(1, keepdims=True) * normal
    return _unit(way)


def grow(
    identity: Identity, roots: np.ndarray, normals: np.ndarray, scale: np.ndarray, rng: np.random.Generator
) -> Strands | None:
    """Strands of the identity's style from roots ``[N, 3]`` with outward normals ``[N, 3]``; None for a bald head.

    scale ``[3]``: this head's size against the mean skull, so that hair lies on it.
    """
    style = STYLES[identity.hair]
    if style.strands == 0 or len(roots) == 0:
        return None
    n = len(roots)
    part = 0.45 * rng.choice([-1, 1]) if rng.random() < 0.6 else 0.0
    length = rng.uniform(*style.length, n)
    if identity.hair in ("short", "side"):  # short at the sides and the nape, as a barber cuts it
        length *= np.clip(0.28 + 0.75 * (-roots[:, 1] - 0.05) / 1.0, 0.25, 1.05)
    layer = style.volume * rng.beta(1.3, 1.5, n)
    layer *= np.clip(0.35 + 0.65 * (0.6 - roots[:, 1]), 0.25, 1.0) if identity.hair != "afro" else 1.0
    clump = _clumps(roots, rng)
    heading = _unit(style.lift * normals + (1 - style.lift) * _comb(style, roots, normals, part, rng))
    heading = _unit(heading + 0.09 * rng.standard_normal((n, 3)) + 0.07 * clump[:, :3])
    points, path = roots, [roots]
    step = (length / style.steps)[:, None]
    phase = rng.uniform(0, 2 * np.pi, n) * (0.15 if style.waves else 1.0) + 3 * clump[:, 3]
    goal, axis = np.array([0, -0.45, 2.75]), _unit(rng.standard_normal((n, 3)))
    for k in range(style.steps):
        t = (k + 1) / style.steps
        if style.comb == "bun":
            heading = _unit(heading + 1.2 * step * _unit(goal - points))
        heading = _unit(heading + style.fall * step * np.array([0, 1.0, 0]) * (0.6 + t))
        following = points + heading * step
        if style.comb == "bun":  # what has arrived winds round the knot
            arrived = np.linalg.norm(points - goal, axis=1, keepdims=True) < 0.5
            following = np.where(
                arrived, goal + 0.34 * _unit(points - goal + 0.8 * np.cross(points - goal, axis)), following
            )
        following = _settle(following, layer * np.minimum(1, 3 * t), scale, style.comb == "out")
        heading = _unit(0.35 * heading + 0.65 * (following - points))
        points = following
        path.append(points)
    curve = np.stack(path, 1)
    along = np.linspace(0, 1, style.steps + 1)[None, :, None]
    if style.curl or style.waves:
        turns = 5.0 if style.curl else 3.2
        angle = phase[:, None, None] + 2 * np.pi * turns * along
        side = _unit(np.cross(curve[:, -1] - curve[:, 0], normals))[:, None]
        amount = (style.curl or style.waves) * np.minimum(1, 2.5 * along)
        curve = curve + amount * (np.cos(angle) * side + (np.sin(angle) * normals[:, None] if style.curl else 0))
    return _segments(identity, style, curve, layer, clump, rng)


def _clumps(roots: np.ndarray, rng: np.random.Generator, count: int = 90) -> np.ndarray:
    """``[N, 4]`` noise shared by neighbouring roots: hair falls in locks, not one by one."""
    centres = roots[rng.integers(len(roots), size=min(count, len(roots)))]
    nearest = ((roots[:, None] - centres[None]) ** 2).sum(-1).argmin(1)
    return rng.standard_normal((len(centres), 4))[nearest]


def _segments(
    identity: Identity,
    style: Style,
    path: np.ndarray,
    layer: np.ndarray,
    clump: np.ndarray,
    rng: np.random.Generator,
) -> Strands:
    n, points = path.shape[:2]
    ends = np.stack([path[:, :-1], path[:, 1:]], 2).reshape(-1, 2, 3)
    tint = 1 + 0.16 * rng.standard_normal((n, 1)) + 0.10 * clump[:, 3:4]
    grey = rng.random((n, 1)) < np.clip((identity.age - 38) / 90, 0, 0.4)
    base = np.where(grey, 0.62, np.clip(identity.hair_color, 0, 1)) * np.clip(tint, 0.5, 1.5)
    t = (np.arange(points - 1) + 0.5) / (points - 1)
    color = srgb_to_linear(np.clip(base[:, None] * (0.88 + 0.2 * t[None, :, None]), 0, 1)).reshape(-1, 3)
    depth = np.clip(layer / max(style.volume, 1e-6), 0, 1)[:, None]
    shade = (0.42 + 0.58 * (0.35 + 0.65 * depth) * np.minimum(1, 0.45 + 1.3 * t[None])).reshape(-1)
    width = np.repeat(style.width * rng.uniform(0.7, 1.25, n), points - 1) * np.tile(1.0 - 0.55 * t**3, n)
    middle = ends.mean(1)
    axis = np.where(middle[:, 1:2] > 0.4, middle * (1, 0, 1) + np.array([0, 0, -0.95]), middle - SKULL_CENTRE)
    single = [np.ascontiguousarray(part, np.float32) for part in (ends, color, shade, width, _unit(axis))]
    return Strands(*single)


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def _draw(ends, color, shade, width, normal, rotation, translation, lights, depth, focal, out):
    size = depth.shape[0]
    count = 0
    a, b, n = np.empty(3), np.empty(3), np.empty(3)
    for i in range(ends.shape[0]):
        for k in range(3):
            a[k] = b[k] = translation[k]
            n[k] = 0.0
            for j in range(3):
                a[k] += rotation[k, j] * ends[i, 0, j]
                b[k] += rotation[k, j] * ends[i, 1, j]
                n[k] += rotation[k, j] * normal[i, j]
        x, y, z = 0.5 * (a[0] + b[0]), 0.5 * (a[1] + b[1]), 0.5 * (a[2] + b[2])
        px = min(max(int(focal * x / z + 0.5 * size), 0), size - 1)
        py = min(max(int(focal * y / z + 0.5 * size), 0), size - 1)
        if z > depth[py, px] + 0.06:
            continue
        tx, ty, tz = b[0] - a[0], b[1] - a[1], b[2] - a[2]
        length = np.sqrt(tx * tx + ty * ty + tz * tz) + 1e-9
        tx, ty, tz = tx / length, ty / length, tz / length
        row = out[count]
        row[0], row[1], row[2] = x, y, z
        # The quaternion that turns the x axis into the strand's direction.
        row[3], row[4], row[5], row[6] = 1 + tx, 0.0, -tz, ty
        if tx < -0.9999:
            row[3], row[6] = 0.0, 1.0
        row[7], row[8], row[9] = 0.42 * length, width[i], width[i]
        for k in range(3):
            row[10 + k] = lights[3, k] * color[i, k]
        for light in range(3):
            lx, ly, lz = lights[light, 0], lights[light, 1], lights[light, 2]
            broad = min(max(0.25 + 0.75 * (n[0] * lx + n[1] * ly + n[2] * lz), 0.0), 1.0)
            if broad == 0.0:
                continue
            along = tx * lx + ty * ly + tz * lz
            across = np.sqrt(max(1 - along * along, 0.0))
            half = (tx * lx + ty * ly + tz * (lz - 1)) / np.sqrt(lx * lx + ly * ly + (lz - 1) * (lz - 1))
            gloss = max(1 - half * half, 0.0)
            for _ in range(5):  # to the power 32
                gloss *= gloss
            for k in range(3):
                shine = 0.10 * gloss * broad * (0.15 + color[i, k])
                row[10 + k] += lights[light, 3 + k] * broad * (0.80 * across * color[i, k] + shine)
        for k in range(3):
            row[10 + k] *= shade[i]
        count += 1
    return count


def visible_gaussians(
    strands: Strands, rotation: np.ndarray, translation: np.ndarray, lights: Lights, depth: np.ndarray, focal: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Camera-space Gaussians of the strands that `depth` ``[H, H]`` of the mesh does not hide.

    Returns means ``[N, 3]``, quats ``[N, 4]`` wxyz, scales ``[N, 3]`` and linear colours ``[N, 3]``, float32. Lighting after Kajiya
    and Kay (1989): a strand is brightest across its direction, so that the highlight runs round the head.
    """
    table = np.zeros((4, 6))
    pairs = (lights.key, lights.key_color), (lights.fill, lights.fill_color), (lights.rim, lights.rim_color)
    for row, (direction, rgb) in zip(table, pairs, strict=False):
        row[:3], row[3:] = direction, rgb
    table[3, :3] = 0.375 * (lights.sky + lights.ground)
    out = np.empty((len(strands.ends), 13), np.float32)
    parts = strands.ends, strands.color, strands.shade, strands.width, strands.normal
    count = _draw(*parts, rotation, translation, table, depth, focal, out)
    kept = out[:count]
    return kept[:, :3], kept[:, 3:7], kept[:, 7:10], kept[:, 10:]
