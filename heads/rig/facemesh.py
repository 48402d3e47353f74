"""Landmark indices of the 478-point FaceMesh topology by name; the only place where they are listed.

"left" is the person's left, which has the larger x in an unmirrored picture. Indices are those that MediaPipe
publishes for its face mesh with refined lips and irises; this module needs no MediaPipe.
"""

from __future__ import annotations

import numpy as np

N_LANDMARKS = 478
N_SURFACE = 468  # the irises, 468-477, float on the eyeballs

# Clockwise in the picture, from the middle of the forehead over the person's left to the chin and back.
OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
    152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip
CHIN, FOREHEAD = 152, 10
CHIN_TIP = (152, 148, 377)
JAW = (152, 148, 377, 176, 400, 149, 378, 175, 199, 200, 208, 428, 171, 396)  # chin and below the lower lip
FACE_LEFT, FACE_RIGHT = 454, 234  # the outline at the height of the ears
NOSE_BRIDGE, NOSE_BASE = 168, 2

# Each lip loop: from the person's right corner along the upper side to the left corner, and back below.
LIPS_OUTER = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181, 91, 146)
LIPS_INNER = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95)
LIPS = LIPS_OUTER + LIPS_INNER
LIP_CORNERS = (61, 291)  # right, left
INNER_MIDDLE, OUTER_MIDDLE = (13, 14), (0, 17)  # upper, lower lip on the face's middle line
# Three pairs across the inner lips, from the middle to the right and to the left.
INNER_UPPER, INNER_LOWER = (13, 82, 312), (14, 87, 317)

# Each eye: the upper lid from the outer to the inner corner, then the lower lid back.
EYE_LEFT = (263, 466, 388, 387, 386, 385, 384, 398, 362, 382, 381, 380, 374, 373, 390, 249)
EYE_RIGHT = (33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7)
# Each lid from the outer to the inner corner, both corners included.
UPPER_LID_LEFT, UPPER_LID_RIGHT = EYE_LEFT[:9], EYE_RIGHT[:9]
LOWER_LID_LEFT, LOWER_LID_RIGHT = (EYE_LEFT[0], *EYE_LEFT[:7:-1]), (EYE_RIGHT[0], *EYE_RIGHT[:7:-1])
CORNERS_LEFT, CORNERS_RIGHT = (362, 263), (33, 133)
EYE_CORNERS = CORNERS_RIGHT + CORNERS_LEFT
OUTER_CORNERS = (33, 263)  # right, left
IRIS_LEFT, IRIS_RIGHT = (473, 474, 475, 476, 477), (468, 469, 470, 471, 472)  # centre first

# (upper, lower) landmarks across the middle of each eye, left eye first.
LID_PAIRS = (((386, 374), (385, 380), (387, 373)), ((159, 145), (158, 153), (160, 144)))

BROW_LEFT = (276, 283, 282, 295, 285, 300, 293, 334, 296, 336)
BROW_RIGHT = (46, 53, 52, 65, 55, 70, 63, 105, 66, 107)

# Points that expressions hardly move: top of the forehead, temples, eye corners, bridge of the nose.
STABLE = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 109, 67, 103, 54, 21, 162, 127, 234,
    33, 133, 362, 263, 168, 6, 197, 195, 5, 151,
)  # fmt: skip
# The smaller set on which evaluation measures jitter. Published results depend on it, so it stays besides STABLE.
STABLE_FOR_JITTER = (10, 151, 9, 8, 168, 6, 197, 33, 133, 362, 263, 127, 356, 54, 284)

# Geometric action units: name to pairs of landmarks whose mean distance (eye distances) is the unit's signal.
# Numbering follows FACS; left and right are averaged, as in OpenFace.
UPPER_UNITS = {
    "AU1 inner brow": ((55, 133), (285, 362)),
    "AU2 outer brow": ((70, 33), (300, 263)),
    "AU4 brows together": ((55, 285),),
    "AU5/45 eye opening": ((159, 145), (386, 374)),
    "AU6 cheek": ((145, 50), (374, 280)),
    "AU9 nose wrinkle": ((55, 129), (285, 358)),
}
LOWER_UNITS = {
    "AU10 upper lip": ((2, 0),),
    "AU12 lip corners": ((61, 33), (291, 263)),
    "AU15 corners to chin": ((61, 152), (291, 152)),
    "AU17 chin": ((17, 152),),
    "AU20 mouth width": ((61, 291),),
    "AU23/24 lip thickness": ((0, 13), (14, 17)),
    "AU25 lips part": ((13, 14),),
    "AU26 jaw": ((1, 152),),
}


def loop_edges(loop: tuple[int, ...]) -> np.ndarray:
    """Edges ``[n, 2]`` of the closed loop of vertices."""
    ring = np.asarray(loop)
    return np.stack([ring, np.roll(ring, -1)], axis=1)


def triangles_of(edges: np.ndarray) -> np.ndarray:
    """Triangles ``[F, 3]`` of a planar triangulation given by its edges ``[E, 2]``.

    A 3-cycle is a triangle unless it has a vertex inside, which shows as an edge that belongs to more than two
    3-cycles; of those the ones whose corners share a common neighbour of degree three are dropped.
    """
    neighbours: dict[int, set[int]] = {}
    for a, b in np.asarray(edges):
        neighbours.setdefault(int(a), set()).add(int(b))
        neighbours.setdefault(int(b), set()).add(int(a))
    found = {tuple(sorted((a, b, c))) for a in neighbours for b in neighbours[a] for c in neighbours[a] & neighbours[b]}
    enclosing = {tuple(sorted(around)) for around in neighbours.values() if len(around) == 3}
    return np.array(sorted(found - enclosing))


def mirror_pairs(points: np.ndarray) -> np.ndarray:
    """Index ``[N]`` of the mirror partner of each of ``points [N, 3]`` of a roughly symmetric, frontal face, x to the side."""
    from scipy.optimize import linear_sum_assignment

    centre = points[list(OVAL), 0].mean()
    flipped = points * [-1, 1, 1] + [2 * centre, 0, 0]
    partner = np.empty(len(points), dtype=int)
    for part in (slice(0, N_SURFACE), slice(N_SURFACE, len(points))):
        cost = np.linalg.norm(points[part, None] - flipped[None, part], axis=-1)
        partner[part] = linear_sum_assignment(cost)[1] + part.start
    return partner
