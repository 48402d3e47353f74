"""Named controls as expression directions: the most probable expression with the desired changes of a few measures.

Coefficients have unit variance, so the shortest vector with these changes is the most probable one.
"""

from __future__ import annotations

import numpy as np

from heads.ridge import ridge_weights
from heads.rig import facemesh

LONGEST = 4.0  # standard deviations, norm of a direction at most · guess: beyond it faces look grotesque
# Desired change of each measure, rig units · guess; other measures are free, except that nothing moves sideways.
WANTED = {
    "jaw": {"chin": 0.26, "gap": 0.27, "brows": 0.0},
    "brows_up": {"brows": -0.13, "gap": 0.0, "chin": 0.0, "width": 0.0},
    "brows_down": {"brows": 0.07, "frown": -0.05, "gap": 0.0, "chin": 0.0, "width": 0.0},
    "smile": {"width": 0.2, "corners": -0.07, "gap": 0.0, "brows": 0.0},
    "pucker": {"width": -0.2, "protrude": -0.05, "gap": 0.0, "brows": 0.0},
}


def measures(vertices: np.ndarray) -> dict[str, np.ndarray]:
    """Linear measures ``[...]``, rig units, of vertices or displacements ``[..., V, 3]`` that begin with the landmarks."""
    brows = facemesh.BROW_LEFT + facemesh.BROW_RIGHT

    def height(landmarks: tuple[int, ...]) -> np.ndarray:
        return vertices[..., list(landmarks), 1].mean(-1)

    return {
        "chin": height(facemesh.CHIN_TIP),
        "gap": height(facemesh.INNER_LOWER) - height(facemesh.INNER_UPPER),
        "brows": height(brows),
        "frown": vertices[..., 285, 0] - vertices[..., 55, 0],
        "width": vertices[..., facemesh.LIP_CORNERS[1], 0] - vertices[..., facemesh.LIP_CORNERS[0], 0],
        "corners": height(facemesh.LIP_CORNERS),
        "protrude": vertices[..., list(facemesh.OUTER_MIDDLE + facemesh.INNER_MIDDLE), 2].mean(-1),
        "sideways": vertices[..., [*facemesh.INNER_MIDDLE, facemesh.CHIN], 0].mean(-1),
    }


def control_directions(expression: np.ndarray) -> dict[str, np.ndarray]:
    """Directions ``[K]`` per control from an expression basis ``[K, V, 3]``."""
    effect = measures(expression)
    directions = {}
    for name, wanted in WANTED.items():
        wanted = {**wanted, "sideways": 0.0}
        system = np.stack([effect[measure] for measure in wanted])
        direction = system.T @ ridge_weights(system @ system.T, np.array(list(wanted.values())), 1e-5)
        directions[name] = direction / max(1.0, np.linalg.norm(direction) / LONGEST)
    return directions
