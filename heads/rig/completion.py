"""Completes a FaceMesh face to a head: cranium with the ears' region, neck, eyeballs, teeth, inside of the mouth.

Everything here is built once, on the symmetric mean face, and shipped. Proportions are anthropometric means in rig
units (one eye distance, about 63 mm): skull half breadth 1.2, length 3, crown 1.83 above the eyes; eyeball radius 0.19.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from heads.rig import facemesh

REGIONS = (
    "face", "lips", "eye_left", "eye_right", "eyeball_left", "eyeball_right",
    "mouth_inside", "teeth_upper", "teeth_lower", "cranium", "ear", "neck",
)  # fmt: skip
EYEBALL_RADIUS, IRIS_RADIUS = 0.19, 0.093  # rig units · anatomy: 12 mm and 5.9 mm
SKULL_CENTRE, SKULL_AXES = np.array([0, -0.2, 1.1]), np.array([1.2, 1.4, 1.5])  # rig units
CRANIUM_ROWS, NECK_ROWS, EYEBALL_SEGMENTS = 14, 9, 24
EYEBALL_RINGS = np.deg2rad([10, 20, 29.3, 40, 55, 72, 90])  # from the pupil; the last closes the eye's corners
TOP_ARC = facemesh.OVAL[26:] + facemesh.OVAL[:11]  # right ear lobe, over the forehead, to the left ear lobe
JAW_ARC = facemesh.OVAL[10:27]  # left ear lobe, along the jaw, to the right ear lobe


@dataclass
class Head:
    """A mesh under construction: named vertex ranges, triangles with a region, and how the new vertices follow the face."""

    vertices: np.ndarray
    faces: list[np.ndarray] = field(default_factory=list)
    labels: list[np.ndarray] = field(default_factory=list)
    parts: dict[str, slice] = field(default_factory=dict)
    follow: dict[str, np.ndarray] = field(default_factory=dict)  # per part: share of the jaw's motion per vertex

    def add(self, part: str, points: np.ndarray) -> np.ndarray:
        """Append vertices ``[n, 3]`` and return their indices."""
        start = len(self.vertices)
        self.vertices = np.concatenate([self.vertices, points.reshape(-1, 3)])
        self.parts[part] = slice(start, len(self.vertices))
        return np.arange(start, len(self.vertices))

    def connect(self, faces: np.ndarray, region: str | np.ndarray) -> None:
        """Append triangles ``[n, 3]`` of one region, or with a region index each."""
        self.faces.append(np.asarray(faces))
        label = np.full(len(faces), REGIONS.index(region)) if isinstance(region, str) else region
        self.labels.append(label)


def complete(face: np.ndarray, triangles: np.ndarray) -> Head:
    """A head from the mean face.

    Args:
        face: ``[478, 3]`` symmetric, frontal landmarks in head space.
        triangles: ``[F, 3]`` of the face's surface, any orientation.
    """
    head = Head(face.copy())
    _skin(head, triangles)
    boundary = _cranium(head)
    _neck(head, boundary)
    for side in ("left", "right"):
        _eyeball(head, side)
    _mouth(head)
    _teeth(head)
    return head


def _skin(head: Head, triangles: np.ndarray) -> None:
    a, b, c = head.vertices[triangles].swapaxes(0, 1)
    # Outward is towards the viewer or sideways from the head's middle; on a face that is away from the skull's centre.
    inward = np.einsum("fi,fi->f", np.cross(b - a, c - a), (a + b + c) / 3 - SKULL_CENTRE) < 0
    triangles = np.where(inward[:, None], triangles[:, ::-1], triangles)
    triangles = _consistent(triangles)
    label = np.full(len(triangles), REGIONS.index("face"))
    lips = _within(triangles, _ring_vertices(triangles, facemesh.LIPS_INNER, facemesh.LIPS_OUTER))
    label[lips] = REGIONS.index("lips")
    for name, eye in (("eye_left", facemesh.EYE_LEFT), ("eye_right", facemesh.EYE_RIGHT)):
        label[np.isin(triangles, _grown(triangles, eye, 2)).all(1)] = REGIONS.index(name)
    head.connect(triangles, label)


def _consistent(triangles: np.ndarray) -> np.ndarray:
    """Orient all triangles consistently across shared edges, like the majority."""
    triangles = triangles.copy()
    owner: dict[tuple[int, int], list[int]] = {}
    for f, tri in enumerate(triangles):
        for k in range(3):
            owner.setdefault(_undirected(int(tri[k]), int(tri[k - 1])), []).append(f)
    flip = np.zeros(len(triangles), int)
    queue, flip[0] = [0], 1
    while queue:
        f = queue.pop()
        directed = {(int(triangles[f][k - 1]), int(triangles[f][k])) for k in range(3)}
        for edge in directed:
            for g in owner[_undirected(*edge)]:
                if flip[g] == 0:
                    same = edge in {(int(triangles[g][k - 1]), int(triangles[g][k])) for k in range(3)}
                    flip[g] = -flip[f] if same else flip[f]
                    queue.append(g)
    wanted = 1 if (flip == 1).sum() * 2 >= len(flip) else -1
    triangles[flip != wanted] = triangles[flip != wanted][:, ::-1]
    return triangles


def _undirected(a: int, b: int) -> tuple[int, int]:
    return (a, b) if a < b else (b, a)


def _grown(triangles: np.ndarray, seeds: tuple[int, ...], rings: int) -> np.ndarray:
    found = np.array(seeds)
    for _ in range(rings):
        found = np.unique(triangles[np.isin(triangles, found).any(1)])
    return found


def _ring_vertices(triangles: np.ndarray, inner: tuple[int, ...], outer: tuple[int, ...]) -> np.ndarray:
    """Vertices of the band between two loops: grown from the inner one, stopping at the outer one."""
    found, border = set(inner), set(outer)
    while True:
        inside = np.array(sorted(found - border))
        grown = found | set(np.unique(triangles[np.isin(triangles, inside).any(1)]).tolist())
        if grown == found:
            return np.array(sorted(found))
        found = grown


def _within(triangles: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    return np.isin(triangles, vertices).all(1)


def _grid_faces(index: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    """Two triangles per cell of a grid of vertex indices ``[R, C]``, split along the shorter diagonal.

    Splitting all cells the same way would make the mesh, and with it the atlas, twist to one side.
    """
    a, b, c, d = index[:-1, :-1].ravel(), index[:-1, 1:].ravel(), index[1:, :-1].ravel(), index[1:, 1:].ravel()
    length = np.linalg.norm(vertices[a] - vertices[d], axis=1), np.linalg.norm(vertices[b] - vertices[c], axis=1)
    falling = (length[0] < length[1] - 1e-9)[:, None]
    first = np.where(falling, np.stack([a, c, d], 1), np.stack([a, c, b], 1))
    second = np.where(falling, np.stack([a, d, b], 1), np.stack([b, c, d], 1))
    return np.concatenate([first, second])


def _slerp(a: np.ndarray, b: np.ndarray, t: np.ndarray) -> np.ndarray:
    angle = np.arccos(np.clip((a * b).sum(-1, keepdims=True), -1, 1))
    return (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def _skull_radius(direction: np.ndarray) -> np.ndarray:
    return 1 / np.linalg.norm(direction / SKULL_AXES, axis=-1, keepdims=True)


def _nape(n: int) -> np.ndarray:
    """The lower edge of the cranium ``[n, 3]``, from behind the right ear round the nape to behind the left ear."""
    angle = np.linspace(-np.deg2rad(80), np.deg2rad(80), n)
    return np.stack([0.98 * np.sin(angle), 1.25 - 0.1 * np.cos(angle) ** 2, 1.05 + 0.92 * np.cos(angle)], 1)


def _cranium(head: Head) -> np.ndarray:
    """Skin from the upper oval over the crown to the nape; returns the loop (n,) where the neck hangs."""
    start, end, n = head.vertices[list(TOP_ARC)], _nape(len(TOP_ARC)), len(TOP_ARC)
    phi = np.linspace(-np.deg2rad(140), np.deg2rad(140), n)
    coronal = np.stack([np.sin(phi), -np.cos(phi), 0.15 + 0.1 * np.cos(phi)], 1)
    s, m, e = _unit(start - SKULL_CENTRE), _unit(coronal), _unit(end - SKULL_CENTRE)
    t = np.linspace(0, 1, CRANIUM_ROWS + 1)[:, None, None]
    rows = np.where(t < 0.5, _slerp(s, m, np.minimum(2 * t, 1)), _slerp(m, e, np.maximum(2 * t - 1, 0)))
    ratio_s = np.linalg.norm(start - SKULL_CENTRE, axis=1, keepdims=True) / _skull_radius(s)
    ratio_e = np.linalg.norm(end - SKULL_CENTRE, axis=1, keepdims=True) / _skull_radius(e)
    # Over the crown the head is the ellipsoid; the outermost columns run below the ears, entirely outside it.
    side = np.abs(np.linspace(-1, 1, n))[:, None] ** 3
    near_start, near_end = side * (1 - t) + (1 - side) * (1 - t) ** 2, side * t + (1 - side) * t**3
    log_ratio = np.log(ratio_s) * near_start + np.log(ratio_e) * near_end
    for _ in range(60):  # smooths the kink where the two arcs of a column meet
        rows[1:-1, 1:-1] = _unit(
            rows[1:-1, 1:-1] * 2 + rows[:-2, 1:-1] + rows[2:, 1:-1] + rows[1:-1, :-2] + rows[1:-1, 2:]
        )
    points = SKULL_CENTRE + rows * _skull_radius(rows) * np.exp(log_ratio)
    points[1:] = _with_ears(points[1:], head.vertices)
    new = head.add("cranium", points[1:]).reshape(CRANIUM_ROWS, n)
    index = np.concatenate([np.array(TOP_ARC)[None], new])
    faces = _grid_faces(index, head.vertices)[:, ::-1]
    centre = head.vertices[faces].mean(1)
    ear = _ear_weight(centre, head.vertices) > 0.35
    head.connect(faces, np.where(ear, REGIONS.index("ear"), REGIONS.index("cranium")))
    return np.concatenate([index[:, 0], index[-1, 1:-1], index[::-1, -1]])


def _ear_weight(points: np.ndarray, face: np.ndarray) -> np.ndarray:
    """Weight ``[...]`` of the ear at points: an upright ellipse just behind the landmarks at the tragus."""
    tragus = np.abs(face[[facemesh.FACE_RIGHT, facemesh.FACE_LEFT]]).mean(0)
    x, y, z = np.abs(points[..., 0]), points[..., 1], points[..., 2]
    away = ((y - tragus[1] - 0.02) / 0.5) ** 2 + ((z - tragus[2] - 0.36) / 0.3) ** 2
    return np.exp(-(away**2)) * (x > 0.6)


def _with_ears(points: np.ndarray, face: np.ndarray) -> np.ndarray:
    lift = _ear_weight(points, face)[..., None] * np.array([0.16, 0, 0.06])
    return points + lift * np.concatenate([np.sign(points[..., :1]), np.ones_like(points[..., 1:])], -1)


def _neck(head: Head, cranium_loop: np.ndarray) -> None:
    """A tube from the jaw line and the cranium's lower edge down to the base of the neck."""
    # Around from the right ear lobe: behind the ears and the nape to the left lobe, then the jaw line back.
    loop = np.concatenate([cranium_loop[:-1], np.array(JAW_ARC)[:-1]])
    top = head.vertices[loop]
    t = np.linspace(0, 1, NECK_ROWS + 1)[1:, None]
    azimuth = _neck_azimuth(top)
    base = 3.15
    flare = 1 + 0.28 * t**3
    ring_x, ring_z = 0.86 * flare * np.sin(azimuth), 1.12 + 0.1 * t + 0.88 * flare * -np.cos(azimuth)
    blend = np.clip(t * 2.1, 0, 1)
    blend = blend * blend * (3 - 2 * blend)
    depth = t**1.25
    x = top[:, 0] * (1 - blend) + ring_x * blend
    z = top[:, 2] * (1 - blend) + ring_z * blend
    y = top[:, 1] * (1 - depth) + base * depth
    new = head.add("neck", np.stack(np.broadcast_arrays(x, y, z), -1)).reshape(NECK_ROWS, len(loop))
    index = np.concatenate([loop[None], new])
    faces = _grid_faces(np.concatenate([index, index[:, :1]], 1), head.vertices)
    head.connect(faces[:, ::-1], "neck")


def _neck_azimuth(top: np.ndarray) -> np.ndarray:
    """Angles around the neck, 0 at the front, evened out so that vertices do not bunch below the ears."""
    raw = np.unwrap(np.arctan2(top[:, 0], -(top[:, 2] - 1.12)))
    length = np.linalg.norm(np.roll(top, -1, 0)[:, [0, 2]] - top[:, [0, 2]], axis=1) + 0.03
    even = raw[0] + np.sign(raw[-1] - raw[0]) * 2 * np.pi * np.concatenate([[0], np.cumsum(length)[:-1]]) / length.sum()
    even += (raw - even).mean()
    return 0.5 * raw + 0.5 * even


def eye_contour(side: str) -> list[int]:
    """Landmarks around the opening of one eye."""
    return list(facemesh.EYE_LEFT if side == "left" else facemesh.EYE_RIGHT)


def _eyeball(head: Head, side: str) -> None:
    """A spherical cap behind the eye's opening; its pole is the pupil."""
    iris = list(facemesh.IRIS_LEFT if side == "left" else facemesh.IRIS_RIGHT)
    centre = eyeball_centre(head.vertices, side)
    angle = np.arange(EYEBALL_SEGMENTS) / EYEBALL_SEGMENTS * 2 * np.pi
    polar = EYEBALL_RINGS[:, None]
    ring = np.stack(
        np.broadcast_arrays(np.sin(polar) * np.cos(angle), np.sin(polar) * np.sin(angle), -np.cos(polar)), -1
    )
    ring[-1] = ring[-1] * 1.55 - [0, 0, 0.15]
    points = np.concatenate([[[0, 0, -1]], ring.reshape(-1, 3)]) * EYEBALL_RADIUS + centre
    new = head.add(f"eyeball_{side}", points)
    grid = new[1:].reshape(len(EYEBALL_RINGS), EYEBALL_SEGMENTS)
    grid = np.concatenate([grid, grid[:, :1]], 1)
    fan = np.stack([np.full(EYEBALL_SEGMENTS, new[0]), grid[0, 1:], grid[0, :-1]], 1)
    head.connect(np.concatenate([fan, _grid_faces(grid, head.vertices)[:, ::-1]]), f"eyeball_{side}")
    head.vertices[iris] = iris_points(centre)


def eyeball_centre(vertices: np.ndarray, side: str) -> np.ndarray:
    """Centre of rotation ``[3]``, at the depth at which the cornea touches the plane of the lids."""
    contour = vertices[eye_contour(side)]
    iris = vertices[facemesh.IRIS_LEFT[0] if side == "left" else facemesh.IRIS_RIGHT[0]]
    lids = contour[[3, 4, 5, 11, 12, 13], 2].mean()
    return np.array([iris[0], iris[1], lids + EYEBALL_RADIUS + 0.012])


def iris_points(centre: np.ndarray) -> np.ndarray:
    """The five iris landmarks ``[5, 3]`` of an eye that looks straight ahead: centre, then +x, up, -x, down."""
    depth = -np.sqrt(EYEBALL_RADIUS**2 - IRIS_RADIUS**2)
    around = IRIS_RADIUS * np.array([[1, 0], [0, -1], [-1, 0], [0, 1]])
    return centre + np.concatenate([[[0, 0, -EYEBALL_RADIUS]], np.column_stack([around, np.full(4, depth)])])


def _mouth(head: Head) -> None:
    """A bag behind the inner lips: around the gums, along palate and floor, closed at the throat."""
    lips = head.vertices[list(facemesh.LIPS_INNER)]
    n, line = len(lips), lips[[0, 10]].mean(0)
    angle = np.arange(n) / n * 2 * np.pi  # 0 at the right corner, a quarter at the upper middle
    across, up = -np.cos(angle), np.sin(angle)
    rings = []
    for half_width, upper, lower, depth in ((0.44, 0.2, 0.26, 0.1), (0.46, 0.28, 0.34, 0.4), (0.36, 0.2, 0.3, 0.85)):
        y = line[1] - np.where(up > 0, upper, lower) * up
        z = line[2] - 0.16 + depth + 0.2 * across**2 * (depth < 0.3)
        rings.append(np.stack(np.broadcast_arrays(half_width * across, y, z), -1))
    throat = rings[-1].mean(0) + np.array([0, 0, 0.12])
    new = head.add("mouth_inside", np.concatenate([*rings, throat[None]]))
    grid = np.concatenate([np.array(facemesh.LIPS_INNER)[None], new[:-1].reshape(len(rings), n)])
    grid = np.concatenate([grid, grid[:, :1]], 1)
    fan = np.stack([grid[-1, :-1], np.full(n, new[-1]), grid[-1, 1:]], 1)
    head.connect(np.concatenate([_grid_faces(grid, head.vertices), fan]), "mouth_inside")
    share = np.clip(0.5 - 0.5 * np.tile(up, len(rings)) * 1.6, 0, 1)
    head.follow["mouth_inside"] = np.concatenate([share, [0.3]])


def _teeth(head: Head) -> None:
    """Two dental arches: upper fixed to the skull, lower to the jaw."""
    lips = head.vertices[list(facemesh.LIPS_INNER)]
    upper, lower = lips[5], lips[15]
    parting = (upper[1] + lower[1]) / 2
    u = np.linspace(-1, 1, 21)
    for part, front, rows in (
        ("teeth_upper", lips[:, 2].min() + 0.13, ((-0.2, 0.03), (-0.1, 0.0), (0.02, 0.0), (0.025, 0.07))),
        ("teeth_lower", lips[:, 2].min() + 0.18, ((0.045, 0.06), (0.04, 0.0), (0.15, 0.0), (0.26, 0.03))),
    ):
        width = 0.4 if part == "teeth_upper" else 0.37
        arch = np.stack([width * np.sin(u * 1.35) / np.sin(1.35), 0 * u, 0.55 * np.abs(u) ** 2.2], -1)
        grid = np.stack([arch + np.array([0, parting + y, front + z]) for y, z in rows])
        new = head.add(part, grid).reshape(grid.shape[:2])
        head.connect(_grid_faces(new, head.vertices), part)
        head.follow[part] = np.full(new.size, float(part == "teeth_lower"))
