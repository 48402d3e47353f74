"""Colour (and any other per-Gaussian property) that depends on expression and pose, cheap enough for a CPU.

A network evaluated for every Gaussian would cost more than rendering. Here a small MLP runs once per *frame* and gives
a few coefficients; each Gaussian has its own basis: residual = coefficients · basis. This is the bilinear special
case of the per-Gaussian colour MLP of GGTalker (2025), with the per-Gaussian input learned directly.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class CoefficientNet(nn.Module):
    """One frame's vector (expression, pose, …) to bounded coefficients: a linear layer plus a small MLP.

    Inputs are clamped to ``reach`` units of their own scale (see :meth:`calibrate`), so that a pose or an expression far
    from all training frames changes the output no further than one at that limit.

    In training, ``noise`` (standard deviations) is added to the inputs: with fewer frames than inputs the network
    would otherwise memorise them.

    Args:
        inputs: entries of the vector.
        rank: number of coefficients.
        hidden: width of the MLP; 0 leaves only the linear layer.
        reach, noise: in standard deviations of the inputs.
    """

    center: Tensor
    scale: Tensor

    def __init__(self, inputs: int, rank: int, hidden: int = 32, reach: float = 3.0, noise: float = 0.0) -> None:
        super().__init__()
        self.reach, self.noise = reach, noise
        self.register_buffer("center", torch.zeros(inputs))
        self.register_buffer("scale", torch.ones(inputs))
        self.linear = nn.Linear(inputs, rank, bias=False)
        nn.init.orthogonal_(self.linear.weight)
        self.mlp = nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, rank)) if hidden else None

    def calibrate(self, vectors: Tensor) -> None:
        """Set centre and scale from the training frames' vectors ``[T, C]``."""
        self.center.copy_(vectors.mean(dim=0))
        self.scale.copy_(vectors.std(dim=0, unbiased=False).clamp_min(1e-4))

    def forward(self, vectors: Tensor) -> Tensor:
        """Coefficients ``[..., rank]`` of vectors ``[..., C]``; NaN inputs count as the mean."""
        x = self.normalised(vectors)
        if self.noise and self.training and torch.is_grad_enabled():
            x = x.add(torch.randn_like(x), alpha=self.noise)
        return self.linear(x) if self.mlp is None else self.linear(x) + self.mlp(x)

    def normalised(self, vectors: Tensor) -> Tensor:
        """Vectors ``[..., C]``, centred and scaled, clamped to ``reach``; NaN entries count as the mean."""
        return torch.nan_to_num((vectors - self.center) / self.scale, nan=0.0).clamp(-self.reach, self.reach)


class LowRankResidual(nn.Module):
    """Per-Gaussian residual ``[..., N, channels]`` = coefficients(vector) · basis; zero at initialisation.

    Args:
        n: number of Gaussians.
        channels: values per Gaussian.
        inputs: entries of the vector.
        rank: basis vectors per Gaussian.
        hidden: width of the coefficient network.
        step: residual per unit of the basis; scales the optimiser's step too.
    """

    def __init__(self, n: int, channels: int, inputs: int, rank: int = 8, hidden: int = 32, step: float = 1.0) -> None:
        super().__init__()
        self.n, self.channels, self.rank, self.step = n, channels, rank, step
        self.net = CoefficientNet(inputs, rank, hidden)
        # The basis is zero and the network is not, so the residual is zero and its gradient is not.
        self.basis = nn.Parameter(torch.zeros(rank, n * channels))

    def forward(self, vectors: Tensor) -> Tensor:
        """Residual ``[..., N, channels]`` for vectors ``[..., C]``."""
        if vectors.shape[-1] != self.net.center.numel():
            raise ValueError(f"vectors: expected shape [..., {self.net.center.numel()}], got {tuple(vectors.shape)}")
        residual = (self.net(vectors) * self.step) @ self.basis
        return residual.view(*vectors.shape[:-1], self.n, self.channels)
