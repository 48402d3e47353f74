"""Colour (and any other per-Gaussian property) that depends on expression and pose, cheap enough for a CPU.

A network that ran once per Gaussian would cost more than rendering. Here a small MLP runs once per *frame* and gives
a few coefficients; each Gaussian keeps its own basis: residual = coefficients · basis. This is the bilinear special
case of the per-Gaussian colour MLP of GGTalker (2025), with the per-Gaussian input learned outright.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ConditionNet(nn.Module):
    """One frame's condition (expression, pose, …) → bounded coefficients; a linear part beside a small MLP.

    Inputs beyond ``reach`` (in units of their own scale, see :meth:`calibrate`) are held there, so that a pose or an
    expression far from all training frames bends the colours no further than the farthest one seen.

    In training, ``noise`` (standard deviations) is added to the inputs: with fewer frames than inputs the network
    would otherwise learn the frames by heart.

    Args:
        conditions: size of the condition vector.
        rank: number of coefficients.
        hidden: width of the MLP; 0 leaves the linear part alone.
    """

    def __init__(self, conditions: int, rank: int, hidden: int = 32, reach: float = 3.0, noise: float = 0.0) -> None:
        super().__init__()
        self.reach, self.noise = reach, noise
        self.register_buffer("center", torch.zeros(conditions))
        self.register_buffer("scale", torch.ones(conditions))
        self.linear = nn.Linear(conditions, rank, bias=False)
        nn.init.orthogonal_(self.linear.weight)
        self.mlp = nn.Sequential(nn.Linear(conditions, hidden), nn.GELU(), nn.Linear(hidden, rank)) if hidden else None

    def calibrate(self, conditions: Tensor) -> None:
        """Set centre and scale from the training frames' conditions ``[T, C]``."""
        self.center.copy_(conditions.mean(dim=0))
        self.scale.copy_(conditions.std(dim=0, unbiased=False).clamp_min(1e-4))

    def forward(self, condition: Tensor) -> Tensor:
        """Coefficients ``[..., rank]`` of conditions ``[..., C]``; non-finite inputs count as the mean."""
        x = self.normalised(condition)
        if self.noise and self.training and torch.is_grad_enabled():
            x = x + self.noise * torch.randn_like(x)
        return self.linear(x) if self.mlp is None else self.linear(x) + self.mlp(x)

    def normalised(self, condition: Tensor) -> Tensor:
        """Conditions ``[..., C]`` in units of their own scale, held within ``reach``; non-finite ones are the mean."""
        return torch.nan_to_num((condition - self.center) / self.scale, nan=0.0).clamp(-self.reach, self.reach)


class LowRankResidual(nn.Module):
    """Per-Gaussian residual ``[..., N, channels]`` = coefficients(condition) · basis; zero when new.

    Args:
        n: number of Gaussians.
        channels: values per Gaussian.
        conditions: size of the condition vector.
        rank: basis vectors per Gaussian.
        hidden: width of the coefficient network.
        step: size of a residual per unit of basis; scales the optimiser's step too.
    """

    def __init__(
        self, n: int, channels: int, conditions: int, rank: int = 8, hidden: int = 32, step: float = 1.0
    ) -> None:
        super().__init__()
        self.n, self.channels, self.rank, self.step = n, channels, rank, step
        self.net = ConditionNet(conditions, rank, hidden)
        # The basis is zero and the network is not: a zero residual whose gradient is not zero.
        self.basis = nn.Parameter(torch.zeros(rank, n * channels))

    def forward(self, condition: Tensor) -> Tensor:
        """Residual ``[..., N, channels]`` for conditions ``[..., C]``."""
        if condition.shape[-1] != self.net.center.numel():
            raise ValueError(
                f"condition: expected shape [..., {self.net.center.numel()}], got {tuple(condition.shape)}"
            )
        residual = (self.net(condition) * self.step) @ self.basis
        return residual.view(*condition.shape[:-1], self.n, self.channels)


class ColorMLP(LowRankResidual):
    """Base colour + expression + pose → colour, as a low-rank residual that is zero when new.

    Args:
        n: number of Gaussians.
        expression: size of the expression vector (with eyelids and gaze where given).
        pose: size of the pose vector (rotation vector 3 and translation 3 by default).
        rank, hidden: see :class:`LowRankResidual`.
    """

    def __init__(self, n: int, expression: int, pose: int = 6, rank: int = 8, hidden: int = 32) -> None:
        super().__init__(n, 3, expression + pose, rank, hidden)

    def forward(self, base: Tensor, expression: Tensor, pose: Tensor) -> Tensor:
        """Colours ``[(B,) N, 3]`` (linear, not clamped) of ``base [N, 3]`` or ``[B, N, 3]``.

        Args:
            base: each Gaussian's own colour.
            expression, pose: ``[(B,) E]`` and ``[(B,) P]`` of the frame.
        """
        if base.shape[-2:] != (self.n, 3):
            raise ValueError(f"base colours: expected shape [..., {self.n}, 3], got {tuple(base.shape)}")
        return base + super().forward(torch.cat([expression, pose], dim=-1))
