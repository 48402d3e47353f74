"""What surrounds the rig: shoulders in clothes, a collar, glasses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shards.synthetic.identity import Identity
from shards.synthetic.look.noise import fbm
from shards.synthetic.look.shading import CHANNELS, srgb_to_linear

NECK_Z, NECK_TOP = 1.02, 2.08  # axis and upper rim of the collar line in rig units
CLOTH_SIZE = 384


@dataclass(frozen=True)
class Mesh:
    """Triangles with texture: points ``[V, 3]`` in rig units, faces ``[F, 3]``, uv ``[F, 3, 2]`` in [0, 1] of its own texture."""

    points: np.ndarray
    faces: np.ndarray
    uv: np.ndarray


def grid_mesh(points: np.ndarray, uv: np.ndarray) -> Mesh:
    """Mesh of a ``[R, C]`` grid: points ``[R, C, 3]``, uv ``[R, C, 2]``."""
    rows, columns = points.shape[:2]
    index = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = (x.reshape(-1) for x in (index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]))
    faces = np.concatenate([np.stack([a, b, c], 1), np.stack([b, d, c], 1)]).astype(np.int32)
    return Mesh(points.reshape(-1, 3), faces, uv.reshape(-1, 2)[faces])


def merge(meshes: list[Mesh]) -> Mesh:
    """One mesh of several that share a texture."""
    offsets = np.cumsum([0] + [len(m.points) for m in meshes])
    return Mesh(
        np.concatenate([m.points for m in meshes]),
        np.concatenate([m.faces + o for m, o in zip(meshes, offsets, strict=False)]).astype(np.int32),
        np.concatenate([m.uv for m in meshes]),
    )


def _torso_points(theta: np.ndarray, s: np.ndarray, shoulders: float) -> np.ndarray:
    """Skin of neck root, shoulders and chest: theta 0 is the front, s grows from the neck outwards and then down."""
    t = np.clip(s, 0.0, 1.0)
    side, front = np.sin(theta), np.cos(theta)
    width = 0.80 + (2.45 * shoulders - 0.1) * t**1.05
    depth = 0.78 + 0.85 * t
    y_side = NECK_TOP + 0.12 + 1.10 * t**0.8 + 0.25 * np.maximum(t - 0.75, 0) ** 2 * 8
    y_front = NECK_TOP + 0.42 + 1.75 * t
    y_back = NECK_TOP - 0.05 + 1.3 * t
    y = y_side * side**2 + np.where(front > 0, y_front, y_back) * front**2 + 3.2 * np.maximum(s - 1.0, 0)
    return np.stack([width * side, y, NECK_Z + 0.15 * t - depth * front], -1)


def _neckline(identity: Identity, theta: np.ndarray) -> np.ndarray:
    """s at which cloth begins, per direction."""
    front = np.maximum(np.cos(theta), 0)
    if identity.top == "vneck":
        return 0.10 + 0.42 * np.clip(1 - np.abs(theta) / 0.62, 0, 1)
    if identity.top == "shirt":
        return 0.03 + 0.30 * np.clip(1 - np.abs(theta) / 0.42, 0, 1)
    if identity.top in ("tee", "stripes"):
        return 0.13 + 0.05 * front
    return 0.03 + 0.0 * theta


def _tube(path: np.ndarray, radius: float, sides: int = 6, closed: bool = False, flat: float = 1.0) -> Mesh:
    """Tube around a polyline ``[P, 3]``; `flat` scales it along z."""
    ahead = np.roll(path, -1, 0) - path if closed else np.gradient(path, axis=0)
    ahead /= np.linalg.norm(ahead, axis=1, keepdims=True) + 1e-9
    up = np.where(np.abs(ahead[:, 1:2]) > 0.9, [[1.0, 0, 0]], [[0, 1.0, 0]])
    across = np.cross(ahead, up)
    across /= np.linalg.norm(across, axis=1, keepdims=True) + 1e-9
    over = np.cross(across, ahead)
    angle = np.linspace(0, 2 * np.pi, sides + 1)
    ring = radius * (np.cos(angle)[None, :, None] * across[:, None] + np.sin(angle)[None, :, None] * over[:, None])
    ring[..., 2] *= flat
    points = path[:, None] + ring
    if closed:
        points = np.concatenate([points, points[:1]])
    return grid_mesh(points, np.full((*points.shape[:2], 2), 0.5))


def torso(identity: Identity) -> Mesh:
    """Shoulders and collar; u is the angle around (0.5 = front), v is s / 1.6; the collar uses v in [0.94, 1]."""
    theta = np.linspace(-np.pi, np.pi, 49)
    s = np.concatenate([np.linspace(-0.04, 0.5, 14), np.linspace(0.58, 1.0, 7), [1.2, 1.45]])
    grid_theta, grid_s = np.meshgrid(theta, s)
    uv = np.stack([grid_theta / (2 * np.pi) + 0.5, np.clip(grid_s / 1.6, 0, 0.93)], -1)
    points = _torso_points(grid_theta, grid_s, identity.shoulders)
    cloth = grid_s > _neckline(identity, grid_theta)
    # Cloth stands off the skin by its thickness.
    points += np.where(cloth, 0.035, 0.0)[..., None] * np.stack(
        [np.sin(grid_theta), -0.4 + 0 * grid_theta, -np.cos(grid_theta)], -1
    )
    return merge([grid_mesh(points, uv), *_collar(identity, theta)])


def _collar(identity: Identity, theta: np.ndarray) -> list[Mesh]:
    front = np.cos(theta)
    edge = _torso_points(theta, _neckline(identity, theta), identity.shoulders)
    out = np.stack([np.sin(theta), 0 * theta, -front], -1)
    down = np.array([0.0, 1.0, 0.0])
    if identity.top == "turtleneck":
        profile = [(0.14, 0.25), (0.19, 0.0), (0.19, -0.22), (0.15, -0.36), (0.05, -0.34)]
        base = _torso_points(theta, 0 * theta, identity.shoulders)
        base = base + (-0.20 * np.maximum(front, 0))[:, None] * down
    elif identity.top == "hoodie":
        profile = [(0.10, 0.35), (0.34, 0.12), (0.38, -0.08), (0.24, -0.24), (0.04, -0.12)]
        base = _torso_points(theta, 0.10 + 0 * theta, identity.shoulders)
    elif identity.top == "shirt":
        gap = np.clip(1 - np.abs(theta) / 0.42, 0, 1)
        # A shirt collar: a band up the neck that folds over; it opens at the front.
        rise = (-0.20 + 0.16 * gap)[:, None] * down
        fold = (0.10 + 0.16 * np.exp(-(((np.abs(theta) - 0.50) / 0.22) ** 2)))[:, None] * down
        rows = [edge + 0.02 * out, edge + rise + 0.05 * out, edge + rise + 0.10 * out, edge + fold + 0.19 * out]
        return [_collar_mesh(np.stack(rows), theta)]
    else:
        profile = [(0.05, 0.07), (0.065, 0.03), (0.06, -0.03), (0.01, -0.05)]
        base = edge
    rows = [base + o * out + y * down for o, y in profile]
    return [_collar_mesh(np.stack(rows), theta)]


def _collar_mesh(points: np.ndarray, theta: np.ndarray) -> Mesh:
    v = np.linspace(0.95, 0.99, len(points))
    return grid_mesh(points, np.stack(np.broadcast_arrays(theta[None] / (2 * np.pi) + 0.5, v[:, None]), -1))


def cloth_texture(identity: Identity) -> np.ndarray:
    """``[384, 384, CHANNELS]`` material of the torso: skin inside the neckline, cloth with folds and weave outside."""
    v, u = np.meshgrid(np.linspace(0, 1, CLOTH_SIZE), np.linspace(0, 1, CLOTH_SIZE), indexing="ij")
    theta, s = (u - 0.5) * 2 * np.pi, v * 1.6
    points = _torso_points(theta, s, identity.shoulders)
    around = np.stack([0.9 * np.sin(theta), 8 * (v - 0.94), -0.9 * np.cos(theta)], -1)
    points = np.where((v > 0.94)[..., None], around, points)  # the collar's strip has a place of its own
    color = np.broadcast_to(identity.cloth, (*u.shape, 3)).copy()
    if identity.top == "stripes":
        color[(np.sin(points[..., 1] * 21) > 0.1) & (v < 0.94)] = identity.cloth2
    if identity.top == "shirt":
        color *= 1 - 0.10 * ((np.abs(points[..., 0]) < 0.085) & (np.cos(theta) > 0) & (v < 0.94))[..., None]
        button = (np.hypot(points[..., 0], (points[..., 1] * 1.7) % 1.0 / 1.7 - 0.3) < 0.035) & (np.cos(theta) > 0)
        color[button & (v < 0.94)] = identity.cloth2
    folds = fbm(points, (1.1, 0.7, 1.1), 3, identity.seed + 5)
    weave = fbm(points, 34.0, 2, identity.seed + 6)
    color *= (1 + 0.16 * folds + 0.07 * weave)[..., None]
    color = np.where((v > 0.94)[..., None], color * 0.94, color)
    skin = (s < _neckline(identity, theta)) & (v < 0.94)
    blotch = (1 + 0.05 * fbm(points, 3.0, 3, identity.seed + 7))[..., None]
    texture = np.zeros((*u.shape, CHANNELS), np.float32)
    texture[..., :3] = srgb_to_linear(np.clip(np.where(skin[..., None], identity.skin * blotch, color), 0, 1))
    step = 0.05
    for axis in range(3):
        shifted = points + step * np.eye(3)[axis]
        texture[..., 3 + axis] = (
            -(fbm(shifted, (1.1, 0.7, 1.1), 3, identity.seed + 5) - folds) / step * np.where(skin, 0.0, 0.14)
        )
    texture[..., 6] = np.where(skin, 0.9, 0.25)
    texture[..., 7] = np.where(skin, 0.05, 0.012)
    texture[..., 8] = 16 / 256
    return texture


_EYES = (
    (33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7),
    (263, 466, 388, 387, 386, 385, 384, 398, 362, 382, 381, 380, 374, 373, 390, 249),
)


def socket_points(head: np.ndarray) -> np.ndarray:
    """Points ``[66, 3]`` of bags behind the lids of rig vertices `head`, so that the eye sockets are closed from the side."""
    parts = []
    for eye in _EYES:
        rim = head[list(eye)]
        middle = rim.mean(0)
        back = middle + 0.75 * (rim - middle) + (0, 0, 0.16)
        parts += [rim, back, middle[None] + (0, 0, 0.20)]
    return np.concatenate(parts)


def sockets(head: np.ndarray) -> Mesh:
    """The bags as a mesh; the caller sets texture coordinates."""
    n = len(_EYES[0])
    i = np.arange(n)
    j = (i + 1) % n
    rim = np.concatenate([np.stack(t, 1) for t in ((i, j, i + n), (j, j + n, i + n), (i + n, j + n, 0 * i + 2 * n))])
    faces = np.concatenate([rim, rim + 2 * n + 1]).astype(np.int32)
    return Mesh(socket_points(head), faces, np.zeros((len(faces), 3, 2)))


def glasses(points: np.ndarray) -> Mesh:
    """Frames that sit on this person's nose: points ``[V, 3]`` are neutral vertices in head space. One flat colour."""
    left, right, bridge = points[473], points[468], points[168]
    angle = np.linspace(0, 2 * np.pi, 33)[:-1]
    parts = []
    rim_z = bridge[2] - 0.07
    for eye in (right, left):
        side = np.sign(eye[0])
        # A superellipse: between a circle and a rectangle.
        x = 0.37 * np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** 0.7
        y = 0.27 * np.sign(np.sin(angle)) * np.abs(np.sin(angle)) ** 0.75
        centre_x = eye[0] + 0.02 * side
        rim = np.stack([centre_x + x, eye[1] + 0.06 + y, rim_z + 0.10 * ((centre_x + x) / 0.85) ** 2], 1)
        parts.append(_tube(rim, 0.026, closed=True))
        hinge = np.array([centre_x + 0.39 * side, eye[1] - 0.06, rim_z + 0.20])
        ear = points[454 if side > 0 else 234] + np.array([0.06 * side, -0.30, 0.25])
        middle = (hinge + ear) / 2 + np.array([0.10 * side, 0, -0.05])
        t = np.linspace(0, 1, 10)[:, None]
        parts.append(_tube((1 - t) ** 2 * hinge + 2 * t * (1 - t) * middle + t**2 * ear, 0.028, flat=0.6))
    inner = 0.37 - 0.02
    t = np.linspace(-1, 1, 7)
    gap = (left[0] - right[0]) / 2 - inner
    arch = np.stack(
        [t * gap + (left[0] + right[0]) / 2, (left[1] + right[1]) / 2 - 0.02 - 0.05 * (1 - t**2), rim_z - 0.02 + 0 * t],
        1,
    )
    parts.append(_tube(arch, 0.026))
    return merge(parts)
