"""Corrections of the tracked pose and expression for each training frame, learned from the pixels with the head.

Trackers are off by a pixel or two, and a map optimised against wrong poses blurs. The corrections of a clip have zero
mean, so that the head stays where the tracker puts it in frames without a correction (talking, test frames).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from adapt.fit.optimizers import Group
from heads.person.inputs import POSE

# Adam's rate, and the weight of the penalty on corrections, both in units of typical tracking errors: guesses, kept since
# the first comparison.
RATE, PENALTY = 0.02, 1e-2


class TrackRefinement(nn.Module):
    """Corrections ``[6 + K + 6]`` (rotation vector, translation, expression, eyelids, gaze) for each of a clip's frames."""

    scale: Tensor

    def __init__(self, frames: int, n_expression: int) -> None:
        super().__init__()
        size = POSE + n_expression + 6
        self.rows = nn.Parameter(torch.zeros(frames, size))
        # Typical tracking errors: radians, rig units (depth is seen least), deviations, closure, radians.
        scale = torch.full((size,), 0.1)
        scale[:3], scale[3:5], scale[5], scale[-6:] = 0.005, 0.01, 0.05, 0.05
        self.register_buffer("scale", scale, persistent=False)

    def forward(self, frame: Tensor) -> Tensor:
        """The correction ``[6 + K + 6]`` of one training frame."""
        return (self.rows.index_select(0, frame.reshape(1)).squeeze(0) - self.rows.mean(0)) * self.scale

    def penalty(self, index: Tensor) -> Tensor:
        """A scalar that keeps corrections small, so that they explain tracking errors and not what the model lacks."""
        return PENALTY * self.rows[index].square().mean()

    def groups(self) -> list[Group]:
        """Adam group."""
        return [Group(params=[self.rows], lr=RATE, name="tracks")]
