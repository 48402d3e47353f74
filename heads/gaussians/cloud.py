"""A batch of Gaussians, ready to render."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Gaussians:
    """A batch of B scenes of N Gaussians, ready to render (activations applied).

    Attributes:
        means: ``[B, N, 3]`` centres, rig units.
        quats: ``[B, N, 4]`` wxyz, of any length.
        scales: ``[B, N, 3]`` standard deviations, rig units.
        opacities: ``[B, N]`` in [0, 1].
        colors: ``[B, N, D]``; for D = 3, RGB in [0, 1] as in the pictures.
    """

    means: Tensor
    quats: Tensor
    scales: Tensor
    opacities: Tensor
    colors: Tensor

    @property
    def n(self) -> int:
        """Gaussians per scene."""
        return self.means.shape[-2]

    def replace(self, **parts: Tensor) -> Gaussians:
        """A copy with some parts replaced."""
        return replace(self, **parts)

    def to(self, device: torch.device | str) -> Gaussians:
        """A copy on a device."""
        return Gaussians(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    @staticmethod
    def join(*groups: Gaussians) -> Gaussians:
        """The Gaussians of all groups in one cloud per scene; a group of batch 1 is repeated in every scene."""
        batch = max(group.means.shape[0] for group in groups)
        parts = {}
        for field in fields(Gaussians):
            tensors = [getattr(group, field.name) for group in groups]
            parts[field.name] = torch.cat([t.expand(batch, *t.shape[1:]) for t in tensors], 1)
        return Gaussians(**parts)
