"""A small z-buffer for triangle meshes in numba: positions, texels and shadows of the synthetic talkers.

Deliberately not the Gaussian rasteriser: what priors and avatars are measured against must not be drawn by the
renderer that they themselves use.
"""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def _raster(points, faces, depth, triangle, weights):
    height, width = depth.shape
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        ax, ay, az = points[a, 0], points[a, 1], points[a, 2]
        bx, by, bz = points[b, 0], points[b, 1], points[b, 2]
        cx, cy, cz = points[c, 0], points[c, 1], points[c, 2]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if abs(area) < 1e-9:
            continue
        x0 = max(0, int(np.ceil(min(ax, bx, cx) - 0.5)))
        x1 = min(width - 1, int(np.floor(max(ax, bx, cx) - 0.5)))
        y0 = max(0, int(np.ceil(min(ay, by, cy) - 0.5)))
        y1 = min(height - 1, int(np.floor(max(ay, by, cy) - 0.5)))
        inverse = 1.0 / area
        for y in range(y0, y1 + 1):
            py = y + 0.5
            for x in range(x0, x1 + 1):
                px = x + 0.5
                wb = ((px - ax) * (cy - ay) - (py - ay) * (cx - ax)) * inverse
                wc = ((bx - ax) * (py - ay) - (by - ay) * (px - ax)) * inverse
                wa = 1.0 - wb - wc
                if wa < 0.0 or wb < 0.0 or wc < 0.0:
                    continue
                z = wa * az + wb * bz + wc * cz
                if z < depth[y, x]:
                    depth[y, x] = z
                    triangle[y, x] = f
                    weights[y, x, 0] = wb
                    weights[y, x, 1] = wc


def rasterize_mesh(
    points: np.ndarray, faces: np.ndarray, height: int, width: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nearest triangle at every pixel centre.

    points ``[V, 3]``: x, y in pixels, z depth (smaller is nearer); faces ``[F, 3]`` int32.
    Returns depth ``[H, W]`` float32 (inf where empty), triangle ``[H, W]`` int32 (-1 where empty), weights ``[H, W, 2]`` float32:
    barycentric weights of the second and third corner; affine, since at head distances perspective inside a triangle is
    negligible.
    """
    depth = np.full((height, width), np.inf, np.float32)
    triangle = np.full((height, width), -1, np.int32)
    weights = np.zeros((height, width, 2), np.float32)
    _raster(np.ascontiguousarray(points, np.float32), np.ascontiguousarray(faces, np.int32), depth, triangle, weights)
    return depth, triangle, weights


def interpolate(values: np.ndarray, corners: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Values ``[V, C]`` at covered pixels → ``[P, C]``: corners ``[P, 3]`` are vertices, weights ``[P, 2]``."""
    wb, wc = weights[:, :1], weights[:, 1:]
    return (1 - wb - wc) * values[corners[:, 0]] + wb * values[corners[:, 1]] + wc * values[corners[:, 2]]


def vertex_normals(points: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """``[V, 3]`` unit normals, area-weighted over the faces around each vertex; zero where a vertex has no area."""
    a, b, c = points[faces[:, 0]], points[faces[:, 1]], points[faces[:, 2]]
    normal = np.cross(b - a, c - a)
    result = np.zeros_like(points)
    for axis in range(3):
        total = np.zeros(len(points))
        for corner in range(3):
            total += np.bincount(faces[:, corner], normal[:, axis], minlength=len(points))
        result[:, axis] = total
    return result / np.maximum(np.linalg.norm(result, axis=1, keepdims=True), 1e-12)


class Subdivision:
    """One level of 1:4 subdivision that keeps every original vertex and rounds the edges between them.

    The midpoint of an edge is moved towards the planes of its ends (Phong tessellation, Boubekeur and Alexa 2008), so a
    coarse rig has a smooth outline, and tracked landmarks still lie exactly on the drawn surface.
    """

    def __init__(self, faces: np.ndarray, n_vertices: int, roundness: float = 0.6):
        corners = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
        self.edges, index = np.unique(corners, axis=0, return_inverse=True)
        self.coarse = faces
        self.roundness = roundness
        f = len(faces)
        mid = n_vertices + index.reshape(-1)
        ab, bc, ca = mid[:f], mid[f : 2 * f], mid[2 * f :]
        a, b, c = faces.T
        self.faces = np.concatenate(
            [np.stack(t, 1) for t in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))]
        ).astype(np.int32)
        self.parent = np.tile(np.arange(f), 4)  # coarse face of every fine face

    def corners(self, values: np.ndarray) -> np.ndarray:
        """Per-corner values ``[F, 3, C]`` of the coarse faces → ``[4 * F, 3, C]`` of the fine ones."""
        a, b, c = values[:, 0], values[:, 1], values[:, 2]
        ab, bc, ca = (a + b) / 2, (b + c) / 2, (c + a) / 2
        return np.concatenate([np.stack(t, 1) for t in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))])

    def values(self, values: np.ndarray) -> np.ndarray:
        """Per-vertex values ``[V, ...]`` → ``[V + E, ...]``: averages at the new vertices."""
        return np.concatenate([values, (values[self.edges[:, 0]] + values[self.edges[:, 1]]) / 2])

    def points(self, points: np.ndarray) -> np.ndarray:
        """Vertices ``[V, 3]`` → ``[V + E, 3]``."""
        normals = vertex_normals(points, self.coarse)
        a, b = points[self.edges[:, 0]], points[self.edges[:, 1]]
        na, nb = normals[self.edges[:, 0]], normals[self.edges[:, 1]]
        middle = (a + b) / 2
        to_a = -(((middle - a) * na).sum(1, keepdims=True)) * na
        to_b = -(((middle - b) * nb).sum(1, keepdims=True)) * nb
        return np.concatenate([points, middle + self.roundness * 0.5 * (to_a + to_b)])
