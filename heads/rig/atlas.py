"""One UV atlas for the completed head: no triangle flipped, none overlapping, most of the area for the face.

The skin (face, cranium, neck) is one chart whose outline, the base of the neck, is pinned to a rounded rectangle. A
Tutte embedding on a convex outline has no flips (Floater 2003); minimising the symmetric Dirichlet energy (Smith and
Schaefer 2015) from there keeps it so while every triangle grows towards the size its region deserves. Eyeballs, teeth
and the inside of the mouth are charts of their own in the strip below.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu

from heads.rig import facemesh
from heads.rig.completion import EYEBALL_RINGS, EYEBALL_SEGMENTS, REGIONS

# Length in the atlas of a unit of surface, relative to the face's · guess
DENSITY = {"face": 1.0, "lips": 2.3, "eye_left": 2.3, "eye_right": 2.3, "cranium": 0.28, "ear": 0.5, "neck": 0.1}
SKIN = tuple(DENSITY)
DESCENT_STEPS = 3000  # at most · guess
Energy = Callable[[np.ndarray], tuple[float, "np.ndarray | None"]]
SKIN_BOX = (0.006, 0.006, 0.994, 0.852)  # u0, v0, u1, v1
# Boxes (u0, v0, u1, v1) of the small charts in the strip below the skin.
BOXES = {
    "eyeball_left": (0.006, 0.864, 0.134, 0.992),
    "eyeball_right": (0.146, 0.864, 0.274, 0.992),
    "mouth_inside": (0.286, 0.864, 0.546, 0.992),
    "teeth_upper": (0.558, 0.864, 0.770, 0.992),
    "teeth_lower": (0.782, 0.864, 0.994, 0.992),
}


def build_atlas(vertices: np.ndarray, faces: np.ndarray, regions: np.ndarray, parts: dict[str, slice]) -> np.ndarray:
    """UV coordinates ``[F, 3, 2]`` in [0, 1], u to the right and v down, per triangle corner."""
    face_uvs = np.zeros((len(faces), 3, 2))
    skin = np.isin(regions, [REGIONS.index(name) for name in SKIN])
    face_uvs[skin] = _skin_chart(vertices, faces[skin], regions[skin])[faces[skin]]
    for name, box in BOXES.items():
        chart = regions == REGIONS.index(name)
        flat = np.zeros((len(vertices), 2))
        used, flat_used = _flat(name, vertices, parts)
        flat[used] = flat_used
        face_uvs[chart] = _into(flat, box)[faces[chart]]
    return face_uvs


def signed_areas(corners: np.ndarray) -> np.ndarray:
    """Areas ``[F]`` of UV triangles ``[F, 3, 2]``; positive for the winding that the skin has."""
    a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    return -0.5 * (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0])


def _into(points: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
    """Map points in [-1, 1]^2 to the box."""
    low, high = np.array(box[:2]), np.array(box[2:])
    return low + (points + 1) / 2 * (high - low)


def _flat(name: str, vertices: np.ndarray, parts: dict[str, slice]) -> tuple[np.ndarray, np.ndarray]:
    """The vertices of a small chart and where they lie in [-1, 1]^2."""
    index = np.arange(parts[name].start, parts[name].stop)
    if name.startswith("eyeball"):
        angle = np.arange(EYEBALL_SEGMENTS) / EYEBALL_SEGMENTS * 2 * np.pi
        radius = (np.minimum(EYEBALL_RINGS, np.deg2rad(90)) / np.deg2rad(90)) ** 0.85
        ring = radius[:, None, None] * np.stack([np.cos(angle), np.sin(angle)], -1)
        return index, np.concatenate([[[0, 0]], ring.reshape(-1, 2)])
    if name.startswith("teeth"):
        rows = len(index) // 21
        u, v = np.meshgrid(np.linspace(-1, 1, 21), _row_positions(name, rows))
        return index, np.stack([u, v], -1).reshape(-1, 2)
    lips = np.array(facemesh.LIPS_INNER)
    angle = np.arange(len(lips)) / len(lips) * 2 * np.pi
    around = np.stack([-np.cos(angle), -np.sin(angle)], -1)
    rings = [radius * around for radius in (1.0, 0.72, 0.45, 0.2)]
    return np.concatenate([lips, index]), np.concatenate([*rings, [[0, 0]]])


def _row_positions(name: str, rows: int) -> np.ndarray:
    """Heights of the teeth's rows: the fronts get most of the room."""
    across = np.array([-1, -0.25, 0.7, 1.0]) if name == "teeth_upper" else np.array([-1, -0.7, 0.25, 1.0])
    assert len(across) == rows
    return across


def _skin_chart(vertices: np.ndarray, faces: np.ndarray, regions: np.ndarray) -> np.ndarray:
    """UV ``[V, 2]`` of the skin; vertices that no skin triangle uses stay at zero."""
    filled, extra = _fill_holes(faces, len(vertices))
    rest = np.concatenate([vertices, [vertices[list(loop)].mean(0) for loop in extra]])
    used, local = np.unique(filled, return_inverse=True)
    local = local.reshape(filled.shape)
    ring = _outline(faces)
    pinned = np.searchsorted(used, ring)
    uv = np.zeros((len(used), 2))
    uv[pinned] = _rounded_rectangle(rest[ring])
    density = np.array([DENSITY.get(name, 1.0) for name in REGIONS])[regions]
    density = np.concatenate([density, np.full(len(filled) - len(faces), 1.6)])
    uv = _tutte(local, pinned, uv)
    uv = _symmetric_dirichlet(rest[used], local, pinned, uv, density)
    result = np.zeros((len(vertices), 2))
    real = used < len(vertices)
    result[used[real]] = uv[real]
    return result


def _fill_holes(faces: np.ndarray, n: int) -> tuple[np.ndarray, list[tuple[int, ...]]]:
    """Close both eyes and the mouth, each with a fan around an added vertex."""
    holes = [facemesh.EYE_LEFT, facemesh.EYE_RIGHT, facemesh.LIPS_INNER]
    directed = {(int(a), int(b)) for tri in faces for a, b in zip(tri, np.roll(tri, -1), strict=True)}
    fans = [faces]
    for k, loop in enumerate(holes):
        edges = facemesh.loop_edges(loop)
        if (int(edges[0, 0]), int(edges[0, 1])) in directed:
            edges = edges[:, ::-1]
        fans.append(np.column_stack([edges, np.full(len(edges), n + k)]))
    return np.concatenate(fans), holes


def _outline(faces: np.ndarray) -> np.ndarray:
    """The outermost boundary loop of the skin, in order: the base of the neck."""
    directed = {(int(a), int(b)) for tri in faces for a, b in zip(tri, np.roll(tri, -1), strict=True)}
    follow = {a: b for a, b in directed if (b, a) not in directed}
    start = max(follow)  # the neck's last ring has the highest indices of the skin
    loop = [start]
    while follow[loop[-1]] != start:
        loop.append(follow[loop[-1]])
    return np.array(loop)


def _rounded_rectangle(ring: np.ndarray) -> np.ndarray:
    """Positions of the neck's base on a superellipse: its front at the bottom middle, its back at the top middle."""
    angle = np.arctan2(ring[:, 0], -(ring[:, 2] - ring[:, 2].mean()))  # 0 at the front
    step = np.unwrap(np.concatenate([angle, angle[:1]]))
    even = np.linspace(0, step[-1] - step[0], len(ring) + 1)[:-1]
    even += (step[:-1] - even).mean()
    c, s = np.sin(even), np.cos(even)
    norm = (np.abs(c) ** 5 + np.abs(s) ** 5) ** (1 / 5)
    return _into(np.stack([c / norm, s / norm], -1), SKIN_BOX)


def _laplacian(edges: np.ndarray, n: int) -> sparse.csc_matrix:
    """Graph Laplacian ``[n, n]`` of edges ``[E, 2]``."""
    (i, j), both = edges.T, np.ones(2 * len(edges))
    adjacency = sparse.coo_matrix((both, (np.concatenate([i, j]), np.concatenate([j, i]))), (n, n)).tocsr()
    return sparse.csc_matrix(sparse.diags(np.asarray(adjacency.sum(1)).ravel()) - adjacency)


def _edges_of(faces: np.ndarray) -> np.ndarray:
    """Every undirected edge ``[E, 2]`` once."""
    return np.unique(np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1), axis=0)


def _tutte(faces: np.ndarray, pinned: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Every free vertex at the mean of its neighbours."""
    edges, free, uv = _edges_of(faces), np.setdiff1d(np.arange(len(uv)), pinned), uv.copy()
    laplacian = _laplacian(edges, len(uv))
    uv[free] = splu(laplacian[free][:, free].tocsc()).solve(-(laplacian[free][:, pinned] @ uv[pinned]))
    return uv


def _symmetric_dirichlet(
    rest: np.ndarray, faces: np.ndarray, pinned: np.ndarray, uv: np.ndarray, density: np.ndarray
) -> np.ndarray:
    """Minimise the sum of area * (|J|^2 + |J^-1|^2) over the free vertices; J maps the desired to the actual triangle."""
    wanted = _flattened(rest[faces]) * density[:, None, None]
    area = 0.5 * np.abs(np.linalg.det(wanted))
    wanted = wanted * np.sqrt(np.abs(signed_areas(uv[faces])).sum() / area.sum())
    inverse, area = np.linalg.inv(wanted), area / area.sum()
    orientation = np.sign(np.linalg.det(_edges(uv[faces]) @ inverse).sum())

    def energy(current: np.ndarray) -> tuple[float, np.ndarray | None]:
        jacobian = _edges(current[faces]) @ inverse
        det = np.linalg.det(jacobian) * orientation
        if det.min() <= 1e-9:
            return np.inf, None
        square = (jacobian**2).sum((1, 2))
        cofactor = np.stack([jacobian[:, 1, 1], -jacobian[:, 1, 0], -jacobian[:, 0, 1], jacobian[:, 0, 0]], -1)
        slope = 2 * jacobian * (1 + 1 / det**2)[:, None, None]
        slope -= 2 * (square / det**3)[:, None, None] * cofactor.reshape(-1, 2, 2) * orientation
        per_edge = area[:, None, None] * slope @ inverse.transpose(0, 2, 1)
        gradient = np.zeros_like(current)
        np.add.at(gradient, faces[:, 1], per_edge[:, :, 0])
        np.add.at(gradient, faces[:, 2], per_edge[:, :, 1])
        np.add.at(gradient, faces[:, 0], -per_edge.sum(2))
        gradient[pinned] = 0
        return float((area * (square + square / det**2)).sum()), gradient

    edges, free = _edges_of(faces), np.setdiff1d(np.arange(len(uv)), pinned)
    # The Laplacian of the desired shape is close to the energy's Hessian: a good initial metric for the descent.
    stiffness = _laplacian(edges, len(uv))[free][:, free].tocsc()
    return _descend(energy, uv, free, splu(stiffness))


def _descend(energy: Energy, uv: np.ndarray, free: np.ndarray, metric: object) -> np.ndarray:
    """L-BFGS from a feasible start; a step that would flip a triangle has infinite energy and is halved."""
    value, gradient = energy(uv)
    if gradient is None:
        raise ValueError("the atlas starts with a flipped triangle")
    history: list[tuple[np.ndarray, np.ndarray]] = []
    for _ in range(DESCENT_STEPS):
        direction = np.zeros_like(uv)
        direction[free] = -_two_loop(gradient[free], history, metric)
        slope, step = float((gradient * direction).sum()), 1.0
        trial_value, trial_gradient = energy(uv + step * direction)
        while trial_value > value + 1e-4 * step * slope and step > 1e-12:
            step /= 2
            trial_value, trial_gradient = energy(uv + step * direction)
        if trial_gradient is None or value - trial_value < 1e-9 * value:
            break
        history = [*history[-19:], (step * direction[free], (trial_gradient - gradient)[free])]
        uv, value, gradient = uv + step * direction, trial_value, trial_gradient
    return uv


def _two_loop(gradient: np.ndarray, history: list[tuple[np.ndarray, np.ndarray]], metric: Any) -> np.ndarray:
    """The inverse Hessian's estimate times a gradient (Nocedal 1980), with ``metric`` solved in the middle."""
    q, kept = gradient.copy(), [(s, y, (s * y).sum()) for s, y in history]
    kept = [entry for entry in kept if entry[2] > 1e-18]
    alphas = []
    for s, y, sy in reversed(kept):
        alphas.append((s * q).sum() / sy)
        q -= alphas[-1] * y
    solved = metric.solve(q)
    if kept:
        s, y, sy = kept[-1]
        solved *= sy / max((y * metric.solve(y)).sum(), 1e-30)
    for (s, y, sy), alpha in zip(kept, reversed(alphas), strict=True):
        solved += (alpha - (y * solved).sum() / sy) * s
    return solved


def _flattened(corners: np.ndarray) -> np.ndarray:
    """Edge matrices ``[F, 2, 2]``, columns b-a and c-a, of 3D triangles ``[F, 3, 3]`` laid flat."""
    b, c = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    length = np.linalg.norm(b, axis=1)
    along = (b * c).sum(1) / length
    height = np.sqrt(np.maximum((c**2).sum(1) - along**2, 1e-12))
    return np.stack([np.stack([length, along], -1), np.stack([0 * length, height], -1)], 1)


def _edges(corners: np.ndarray) -> np.ndarray:
    return np.stack([corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]], -1)
