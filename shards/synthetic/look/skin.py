"""Faces painted from a seed: skin, lips, brows, lids, irises and teeth as one texture in the rig's UV atlas.

Details are painted on a canvas that looks at the mean face from the front, in rig units, and carried over to the
texels; what has no front (cranium, neck, ears) takes noise in three dimensions. So any rig whose first 478 vertices
are the FaceMesh points can be painted, whatever its atlas.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw
from scipy.ndimage import distance_transform_edt, gaussian_filter, map_coordinates

from heads.rig import Rig
from shards.synthetic.identity import Identity
from shards.synthetic.look.noise import fbm
from shards.synthetic.look.raster import interpolate, rasterize_mesh
from shards.synthetic.look.shading import CHANNELS, srgb_to_linear

TEXTURE_SIZE = 640
_CANVAS, _LEFT, _TOP, _SPAN = 1024, -1.75, -1.45, 3.5  # pixels, and the square of rig units that they cover

_UPPER_LID = ((33, 246, 161, 160, 159, 158, 157, 173, 133), (263, 466, 388, 387, 386, 385, 384, 398, 362))
_LOWER_LID = ((33, 7, 163, 144, 145, 153, 154, 155, 133), (263, 249, 390, 373, 374, 380, 381, 382, 362))
_CREASE = ((130, 247, 30, 29, 27, 28, 56, 190), (359, 467, 260, 259, 257, 258, 286, 414))
_BROW = ((70, 63, 105, 66, 107, 55, 65, 52, 53, 46), (300, 293, 334, 296, 336, 285, 295, 282, 283, 276))
_NASOLABIAL = ((129, 203, 206, 216, 212), (358, 423, 426, 436, 432))
_LIPS = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181, 91, 146)
_LIP_LINE = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308)
_NOSTRILS = ((20, 60, 99, 242), (250, 290, 328, 462))
_JAW = (234, 93, 132, 58, 172, 136, 150, 149, 176, 148, 152, 377, 400, 378, 379, 365, 397, 288, 361, 323, 454)

# Hairline on the skull: elevation in degrees above the skull's centre for angles around it (0 front, 180 back).
SKULL_CENTRE = np.array([0.0, -0.2, 1.1])
_AROUND = np.array([0, 20, 38, 52, 64, 74, 80, 87, 96, 112, 124, 140, 180.0])
_ELEVATION = np.array([30, 31, 29, 22, 11, -5, -13, -1, 6, 2, -22, -36, -44.0])


def hair_amount(points: np.ndarray, identity: Identity) -> np.ndarray:
    """How much hair grows at canonical points ``[..., 3]``: 0 below the hairline, 1 well inside; the style is not asked."""
    away = points - SKULL_CENTRE
    around = np.degrees(np.arctan2(np.abs(away[..., 0]), -away[..., 2]))
    elevation = np.degrees(np.arctan2(-away[..., 1], np.hypot(away[..., 0], away[..., 2])))
    recede = np.clip((identity.age - 30) / 40, 0, 1) * (1 - identity.female)
    corner = np.exp(-(((around - 36) / 16) ** 2)) * 9 * recede + 5 * recede * np.exp(-((around / 50) ** 2))
    line = np.interp(around, _AROUND, _ELEVATION) + corner
    ragged = 2.2 * fbm(points, 9.0, 2, identity.seed + 40)
    return np.clip((elevation - line + ragged) / 4.0, 0, 1)


# Canvas x, y of hairs to the direction in which they lie.
Direction = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


class Painter:
    """The part of painting that depends on the rig alone: which texel shows which point of the mean head."""

    def __init__(self, rig: Rig, size: int = TEXTURE_SIZE) -> None:
        with torch.no_grad():
            mean = rig.vertices(torch.zeros(1, rig.n_identity), torch.zeros(1, rig.n_expression))[0].double().numpy()
        self.points = rig.landmarks(torch.from_numpy(mean)).numpy()  # [478, 3]
        self.size = size
        faces = rig.faces.numpy()
        self.regions = rig.regions
        corners = np.arange(3 * len(faces)).reshape(-1, 3).astype(np.int32)
        flat = np.concatenate([rig.face_uvs.numpy().reshape(-1, 2) * size, np.zeros((3 * len(faces), 1))], 1)
        _, triangle, weights = rasterize_mesh(flat, corners, size, size)
        hole, (row, column) = distance_transform_edt(triangle < 0, return_indices=True)
        # Texels just outside a chart repeat its rim, so that bilinear lookups do not bleed.
        triangle, weights = triangle[row, column], weights[row, column]
        self.position = interpolate(
            mean, faces[triangle.reshape(-1)], weights.reshape(-1, 2).astype(np.float64)
        ).reshape(size, size, 3)
        self.region = rig.face_regions.numpy()[triangle]
        self.inside = hole < 3

    def is_region(self, *names: str) -> np.ndarray:
        """``[S, S]`` bool: texels of these regions."""
        return np.isin(self.region, [self.regions[n] for n in names]) & self.inside

    # ------------------------------------------------------------------------------------------- the canvas

    def blank(self) -> tuple[Image.Image, ImageDraw.ImageDraw]:
        image = Image.new("L", (_CANVAS, _CANVAS), 0)
        return image, ImageDraw.Draw(image)

    def pixels(self, points: np.ndarray) -> list[tuple[float, float]]:
        """Canvas coordinates of points ``[N, D]`` (D at least 2) in rig units."""
        xy = (np.asarray(points)[:, :2] - (_LEFT, _TOP)) * (_CANVAS / _SPAN)
        return [(float(x), float(y)) for x, y in xy]

    def curve(self, landmarks: Iterable[int], closed: bool = False, dense: int = 8) -> np.ndarray:
        """``[N, 2]`` smooth curve through landmarks (Catmull-Rom)."""
        p = self.points[list(landmarks), :2]
        ends = (p[-1:], p[:2]) if closed else (2 * p[:1] - p[1:2], 2 * p[-1:] - p[-2:-1])
        q = np.concatenate([ends[0], p, ends[1]])
        t = np.linspace(0, 1, dense, endpoint=False)[:, None]
        parts = []
        for i in range(1, len(q) - 2):
            a, b, c, d = q[i - 1 : i + 3]
            parts.append(
                0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
            )
        return np.concatenate(parts if closed else [*parts, p[-1:]])

    def polygon(self, outline: np.ndarray, blur: float) -> np.ndarray:
        """Filled outline ``[N, 2]``, softened by `blur` rig units: (canvas, canvas) in [0, 1]."""
        image, draw = self.blank()
        draw.polygon(self.pixels(outline), fill=255)
        return gaussian_filter(np.asarray(image, np.float32) / 255, blur * _CANVAS / _SPAN)

    def stroke(self, lines: list[np.ndarray], width: float, blur: float) -> np.ndarray:
        """Polylines of a width in rig units, softened."""
        image, draw = self.blank()
        for line in lines:
            draw.line(self.pixels(line), fill=255, width=max(1, round(width * _CANVAS / _SPAN)), joint="curve")
        return gaussian_filter(np.asarray(image, np.float32) / 255, blur * _CANVAS / _SPAN)

    def project(self, canvas: np.ndarray) -> np.ndarray:
        """A canvas onto the texels ``[S, S]``; zero for the back of the head."""
        xy = (self.position[..., :2] - (_LEFT, _TOP)) * (_CANVAS / _SPAN)
        seen = map_coordinates(canvas, [xy[..., 1], xy[..., 0]], order=1, mode="constant")
        return seen * np.clip((1.35 - self.position[..., 2]) / 0.5, 0, 1)

    def blob(self, x: float, y: float, sx: float, sy: float) -> np.ndarray:
        """A soft spot on both sides of the face, straight on the texels."""
        p = self.position
        return np.exp(-(((np.abs(p[..., 0]) - x) / sx) ** 2) - ((p[..., 1] - y) / sy) ** 2) * (p[..., 2] < 1.0)


def paint(painter: Painter, identity: Identity) -> np.ndarray:
    """The head's material texture ``[S, S, CHANNELS]`` of one identity; see `shading.CHANNELS`."""
    rng = np.random.default_rng([identity.seed, 0x5C1])
    position = painter.position
    color = _skin_tone(painter, identity)
    color = _wrinkles(painter, identity, color, rng)
    color = _lids(painter, identity, color)
    color, lips = _lips(painter, identity, color)
    color = _facial_hair(painter, identity, color, rng)
    hair = hair_amount(position, identity) * ~painter.is_region("neck")
    depth = {"bald": 0.05 + 0.10 * (identity.age < 50), "buzz": 0.80}.get(identity.hair, 0.92)
    color = color * (1 - depth * hair[..., None]) + (depth * hair)[..., None] * np.minimum(identity.hair_color * 0.7, 1)
    texture = np.zeros((painter.size, painter.size, CHANNELS), np.float32)
    texture[..., 3:6] = _pores(position, identity, lips)
    oily = 0.6 * painter.blob(0, 0.35, 0.14, 0.5) + 0.5 * painter.blob(0, -0.75, 0.7, 0.35)
    texture[..., 6] = 0.45 + 0.55 * identity.skin.mean()  # dark skin lets less light through
    texture[..., 7] = (0.075 + 0.07 * np.clip(oily, 0, 1)) * (1 - 0.6 * hair) + 0.13 * lips
    texture[..., 8] = (14 + 26 * lips) / 256
    texture[..., :3] = srgb_to_linear(np.clip(color, 0, 1))
    for part in (_eyeballs, _teeth, _mouth):
        part(painter, identity, texture)
    return texture


def _mix(color: np.ndarray, mask: np.ndarray, factor: ArrayLike) -> np.ndarray:
    """Multiplies the colour by `factor` ``[3]`` where the mask is 1."""
    return color * (1 + mask[..., None] * (np.asarray(factor) - 1))


def _skin_tone(painter: Painter, identity: Identity) -> np.ndarray:
    p, seed = painter.position, identity.seed
    blotch, mottle, fine = fbm(p, 2.6, 3, seed), fbm(p, 13.0, 3, seed + 1), fbm(p, 46.0, 2, seed + 2)
    color = identity.skin * (1 + 0.07 * blotch + 0.06 * mottle + 0.05 * fine)[..., None]
    color = color * (1 + 0.05 * fbm(p, 5.0, 3, seed + 3)[..., None] * np.array([0.1, 0.9, 1.0]))
    red = (
        0.9 * painter.blob(0.66, 0.62, 0.33, 0.28)
        + 0.9 * painter.blob(0, 0.52, 0.22, 0.16)
        + 0.4 * painter.blob(0, 1.5, 0.3, 0.15)
    )
    red = red + 0.9 * painter.is_region("ear")
    color = _mix(color, np.clip(red * identity.redness, 0, 1.2) * (0.25 + identity.skin.mean()), (1.02, 0.87, 0.86))
    color = _mix(color, painter.blob(0.48, 0.30, 0.26, 0.09) * np.clip(identity.age / 50, 0.4, 1.3), (0.90, 0.87, 0.91))
    if identity.freckles:
        spots = np.clip((fbm(p, 21.0, 1, seed + 9) - 0.42) * 6, 0, 1)
        where = painter.blob(0.5, 0.5, 0.45, 0.3) + painter.blob(0, 0.3, 0.3, 0.35)
        color = _mix(color, spots * np.clip(where, 0, 1) * identity.freckles, (0.80, 0.66, 0.55))
    return color


def _wrinkles(painter: Painter, identity: Identity, color: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    old = float(np.clip((identity.age - 26) / 40, 0.12, 1))
    folds = painter.stroke([painter.curve(line) for line in _NASOLABIAL], 0.02, 0.018)
    color = _mix(color, painter.project(folds) * (0.35 + 1.6 * old), (0.86, 0.78, 0.76))
    if old > 0.35:
        x = np.linspace(-0.6, 0.6, 24)
        lines = []
        for row in range(3):
            y = -0.62 - 0.13 * row + 0.05 * x**2 + 0.015 * np.sin(5 * x + rng.uniform(0, 6))
            cut = slice(int(rng.integers(0, 5)), 24 - int(rng.integers(0, 5)))
            lines.append(np.stack([x, y], 1)[cut])
        for side in (-1, 1):
            for k in range(3):
                t = np.linspace(0, 1, 8)
                lines.append(np.stack([side * (0.80 + 0.16 * t), 0.02 + (k - 1) * (0.05 + 0.07 * t)], 1))
        color = _mix(
            color, painter.project(painter.stroke(lines, 0.012, 0.009)) * 1.3 * (old - 0.2), (0.82, 0.75, 0.73)
        )
    spots = [
        np.array([[x, y], [x + 0.012, y]])
        for x, y in rng.uniform((-0.9, -0.7), (0.9, 1.5), (int(rng.integers(0, 4)), 2))
    ]
    if spots:
        color = _mix(
            color, np.clip(1.6 * painter.project(painter.stroke(spots, 0.028, 0.006)), 0, 1), (0.55, 0.42, 0.38)
        )
    nostrils = [painter.points[list(n), :2].mean(0) + np.array([[-0.035, 0.0], [0.035, -0.006]]) for n in _NOSTRILS]
    return _mix(color, np.clip(1.5 * painter.project(painter.stroke(nostrils, 0.05, 0.016)), 0, 1), (0.36, 0.24, 0.22))


def _lids(painter: Painter, identity: Identity, color: np.ndarray) -> np.ndarray:
    crease = painter.stroke([painter.curve(line) for line in _CREASE], 0.018, 0.012)
    color = _mix(color, painter.project(crease) * 1.2, (0.72, 0.62, 0.60))
    shade = painter.polygon(np.zeros((1, 2)).repeat(3, 0), 0.01)
    for upper, crease_line in zip(_UPPER_LID, _CREASE, strict=True):
        shade += painter.polygon(np.concatenate([painter.curve(upper), painter.curve(crease_line)[::-1]]), 0.02)
    makeup = identity.female * (identity.lips > 0.95)
    color = _mix(
        color, painter.project(np.clip(shade, 0, 1)), (0.93 - 0.12 * makeup, 0.86 - 0.14 * makeup, 0.86 - 0.10 * makeup)
    )
    lashes = painter.stroke(
        [painter.curve(line) - (0, 0.006) for line in _UPPER_LID], 0.020 + 0.012 * identity.female, 0.006
    )
    lower = painter.stroke([painter.curve(line) - (0, -0.008) for line in _LOWER_LID], 0.012, 0.007)
    color = _mix(color, np.clip(1.25 * painter.project(lashes), 0, 1), (0.22, 0.18, 0.17))
    return _mix(color, painter.project(lower) * (0.5 + 0.3 * identity.female), (0.45, 0.36, 0.34))


def _lips(painter: Painter, identity: Identity, color: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    outline = painter.project(painter.polygon(painter.curve(_LIPS, closed=True), 0.012))
    lips = np.maximum(outline, painter.is_region("lips") * np.clip(outline * 2, 0, 1)) * painter.is_region(
        "face", "lips"
    )
    creases = fbm(painter.position, (30.0, 4.0, 8.0), 2, identity.seed + 11)
    strength = np.clip(identity.lips, 0.4, 1.5)
    tint = np.array([1 - 0.12 * strength, 1 - 0.36 * strength, 1 - 0.32 * strength])
    painted = _mix(color, lips * 0.9, tint) * (1 + 0.10 * creases * lips)[..., None]
    edge = np.clip(1.3 * painter.project(painter.stroke([painter.curve(_LIP_LINE)], 0.014, 0.010)), 0, 1)
    return _mix(painted, edge * 0.7, (0.45, 0.30, 0.30)), lips


def _hairs(
    painter: Painter,
    mask: np.ndarray,
    count: int,
    length: float,
    direction: Direction,
    rng: np.random.Generator,
    width: float,
) -> np.ndarray:
    """Short strokes that start where the canvas mask is high and run along direction(x, y) -> (dx, dy)."""
    rows, columns = np.nonzero(mask > 0.4)
    if not len(rows):
        return np.zeros_like(mask)
    pick = rng.integers(len(rows), size=count)
    start = np.stack([columns[pick], rows[pick]], 1) * (_SPAN / _CANVAS) + (_LEFT, _TOP)
    ahead = np.asarray(direction(start[:, 0], start[:, 1])).T + 0.25 * rng.standard_normal((count, 2))
    ahead /= np.linalg.norm(ahead, axis=1, keepdims=True)
    ends = start + ahead * length * rng.uniform(0.6, 1.2, (count, 1))
    return painter.stroke([np.stack(pair) for pair in zip(start, ends, strict=True)], width, 0.003)


def _facial_hair(painter: Painter, identity: Identity, color: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    brow_color = np.clip(identity.hair_color * (0.85 if identity.hair_color.mean() < 0.45 else 0.62), 0, 1)
    strands, soft = np.zeros((_CANVAS, _CANVAS), np.float32), np.zeros((_CANVAS, _CANVAS), np.float32)
    for line in _BROW:
        outline = painter.curve(line, closed=True)
        middle = outline.mean(0)
        outline = middle + (outline - middle) * (1.02, 0.80 * identity.brow)
        mask = painter.polygon(outline, 0.012)
        side = np.sign(middle[0])
        inner = middle[0] - side * 0.3

        def lie(
            x: np.ndarray, y: np.ndarray, side: float = side, inner: float = inner
        ) -> tuple[np.ndarray, np.ndarray]:  # upright at the nose, flat at the temple
            outwards = np.abs(x - inner)
            return side * (0.35 + 1.3 * outwards), -0.75 + 0.9 * outwards

        strands += _hairs(painter, mask, 260, 0.085, lie, rng, 0.006)
        soft += mask
    alpha = np.clip(
        painter.project(np.clip(0.46 * soft + 0.55 * np.clip(strands, 0, 1) * (soft > 0.02), 0, 0.93)), 0, 1
    )[..., None]
    color = color * (1 - alpha) + alpha * brow_color
    if identity.beard == "none":
        if identity.female < 0.5:  # shaved, and it shows
            color = _mix(color, painter.project(beard_mask(painter, "full")) * 0.5, (0.90, 0.92, 0.94))
        return color
    mask = beard_mask(painter, "full" if identity.beard == "stubble" else identity.beard)
    count, length, cover = {"stubble": (5200, 0.014, 0.30), "full": (3500, 0.05, 0.88)}.get(
        identity.beard, (2500, 0.05, 0.84)
    )
    points = _hairs(painter, mask, count, length, lambda x, y: (0.5 * x, 1.0 + 0 * y), rng, 0.005)
    alpha = painter.project(np.clip(cover * mask * 0.75 + 0.55 * points * np.clip(mask * 2, 0, 1), 0, 0.95))[..., None]
    return color * (1 - alpha) + alpha * np.clip(
        identity.hair_color * (0.8 if identity.hair_color.mean() < 0.35 else 0.6), 0, 1
    )


def beard_mask(painter: Painter, style: str) -> np.ndarray:
    """Where a beard of this style grows, on the canvas, in [0, 1]."""
    p = painter.points
    nose, lip_top, lip_low, chin = p[2], p[0], p[17], p[152]
    left, right = p[291], p[61]
    lips = painter.polygon(painter.curve(_LIPS, closed=True), 0.01)
    moustache = np.array([
        [right[0] - 0.06, right[1] + 0.02], [right[0] + 0.12, (nose[1] + lip_top[1]) / 2], [nose[0], nose[1] + 0.10],
        [left[0] - 0.12, (nose[1] + lip_top[1]) / 2], [left[0] + 0.06, left[1] + 0.02], [nose[0], lip_top[1] + 0.05],
    ])  # fmt: skip
    mask = painter.polygon(moustache, 0.03)
    if style in ("goatee", "full"):
        half = 0.34
        goatee = np.array([
            [right[0] - 0.06, right[1] - 0.02], [-half, (lip_low[1] + chin[1]) / 2], [-half * 0.8, chin[1] + 0.1],
            [half * 0.8, chin[1] + 0.1], [half, (lip_low[1] + chin[1]) / 2], [left[0] + 0.06, left[1] - 0.02],
            [lip_low[0] + 0.15, lip_low[1] + 0.05], [lip_low[0] - 0.15, lip_low[1] + 0.05],
        ])  # fmt: skip
        mask = np.maximum(mask, painter.polygon(goatee, 0.035))
    if style == "full":
        jaw = p[list(_JAW), :2] * (1.04, 1.0) + (0, 0.06)
        cheek = np.array([[0.50, 0.45 - left[1]], [0.32, -0.12], [0.0, 0.02]])
        below = np.array([[lip_low[0], lip_low[1] + 0.1]])
        inner = np.concatenate([left[:2] + cheek, below, right[:2] + cheek[::-1] * (-1, 1)])
        mask = np.maximum(mask, painter.polygon(np.concatenate([jaw, inner]), 0.05))
    return np.clip(mask - 1.2 * lips, 0, 1)


def _pores(position: np.ndarray, identity: Identity, lips: np.ndarray) -> np.ndarray:
    """Object-space bump of the skin ``[S, S, 3]``: minus the gradient of a fine height field."""
    step = 0.006
    height = fbm(position, 30.0, 2, identity.seed + 20)
    gradient = (
        np.stack([fbm(position + step * axis, 30.0, 2, identity.seed + 20) - height for axis in np.eye(3)], -1) / step
    )
    rough = 0.0022 + 0.004 * np.clip((identity.age - 25) / 50, 0, 1)
    return -gradient * (rough * (1 - 0.5 * lips))[..., None]


def _eyeballs(painter: Painter, identity: Identity, texture: np.ndarray) -> None:
    for side, iris in (("eyeball_left", range(473, 478)), ("eyeball_right", range(468, 473))):
        where = painter.is_region(side)
        ring = painter.points[list(iris)]
        radius = np.linalg.norm(ring[1:, :2] - ring[0, :2], axis=1).mean()
        offset = painter.position[where] - ring[0]
        r = np.hypot(offset[:, 0], offset[:, 1]) / radius
        angle = np.arctan2(offset[:, 1], offset[:, 0])
        spokes = fbm(np.stack([np.cos(angle) * 3, np.sin(angle) * 3, 0.7 * r], 1), (4, 4, 1.5), 3, identity.seed + 60)
        white = np.array([0.90, 0.875, 0.86]) * (1 - 0.10 * np.clip((r - 1.3) / 1.5, 0, 1))[:, None]
        white[:, 1:] *= (1 - 0.10 * np.clip((r - 1.6), 0, 1))[:, None]
        iris_color = identity.iris * (1.15 + 0.75 * spokes + 0.35 * np.exp(-(((r - 0.55) / 0.15) ** 2)))[:, None]
        iris_color *= (1 - 0.65 * np.clip((r - 0.80) / 0.2, 0, 1))[:, None]
        inside = np.clip((1.04 - r) / 0.09, 0, 1)[:, None]
        pupil = np.clip((r - 0.36) / 0.07, 0, 1)[:, None]
        color = white * (1 - inside) + inside * iris_color * pupil
        texture[where, :3] = srgb_to_linear(np.clip(color, 0, 1))
        texture[where, 3:6] = 0
        texture[where, 6] = 0.5
        texture[where, 7] = 0.55
        texture[where, 8] = 250 / 256


def _teeth(painter: Painter, identity: Identity, texture: np.ndarray) -> None:
    for name, widths in (
        ("teeth_upper", (0.135, 0.105, 0.118, 0.11, 0.11, 0.13)),
        ("teeth_lower", (0.085, 0.092, 0.105, 0.11, 0.11, 0.13)),
    ):
        where = painter.is_region(name)
        p = painter.position[where]
        # Position along the arch: teeth at the sides are seen end on, so x alone would squeeze them.
        along = np.abs(p[:, 0]) + 0.75 * np.clip(p[:, 2] - p[:, 2].min() - 0.06, 0, None)
        edges = np.cumsum((0, *widths))
        gap = np.min(np.abs(along[:, None] - edges[None]), axis=1)
        y = (p[:, 1] - p[:, 1].min()) / np.ptp(p[:, 1])
        root = y if name == "teeth_lower" else 1 - y
        gum = np.clip((root - 0.70 + 0.10 * np.cos(gap * 40)) / 0.06, 0, 1)[:, None]
        ivory = np.array([0.90, 0.86, 0.77]) * (1 - 0.05 * np.clip((identity.age - 30) / 40, 0, 1))
        color = ivory * (0.62 + 0.38 * np.clip(gap / 0.018, 0, 1) ** 0.6)[:, None] * (1 - 0.12 * root[:, None])
        color = color * (1 - gum) + gum * np.array([0.62, 0.30, 0.29])
        texture[where, :3] = srgb_to_linear(np.clip(color, 0, 1))
        texture[where, 3:6] = 0
        texture[where, 6:8] = (0.5, 0.22)
        texture[where, 8] = 60 / 256


def _mouth(painter: Painter, identity: Identity, texture: np.ndarray) -> None:
    where = painter.is_region("mouth_inside")
    p = painter.position[where]
    front = np.clip(1 - (p[:, 2] - painter.points[13, 2]) / 0.7, 0, 1)[:, None]
    low = np.clip((p[:, 1] - painter.points[13, 1]) / 0.15, 0, 1)[:, None]
    color = np.array([0.42, 0.15, 0.15]) * (0.30 + 0.5 * front + 0.25 * low)
    texture[where, :3] = srgb_to_linear(np.clip(color, 0, 1))
    texture[where, 3:6] = 0
    texture[where, 6:8] = (0.6, 0.10)
    texture[where, 8] = 30 / 256
