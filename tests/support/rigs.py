"""What tests of rigs share."""

from __future__ import annotations

import torch

from heads.rig import Rig

REGIONS = {
    "face", "lips", "eye_left", "eye_right", "eyeball_left", "eyeball_right",
    "mouth_inside", "teeth_upper", "teeth_lower", "cranium", "ear", "neck",
}  # fmt: skip


def posed(rig: Rig, **controls: float) -> torch.Tensor:
    """Vertices (V, 3) of the mean head under named controls."""
    expression, eyelids, gaze = torch.zeros(1, rig.n_expression), torch.zeros(1, 2), torch.zeros(1, 2, 2)
    for name, amount in controls.items():
        delta = rig.control(name, amount)
        expression, eyelids, gaze = expression + delta["expression"], eyelids + delta["eyelids"], gaze + delta["gaze"]
    return rig.vertices(torch.zeros(1, rig.n_identity), expression, eyelids, gaze)[0]


def part(rig: Rig, *names: str) -> torch.Tensor:
    """Indices of the vertices that only the named regions use."""
    return rig.faces[rig.region_faces(*names)].unique()
