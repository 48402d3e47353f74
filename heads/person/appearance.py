"""How a UV map changes with pose and expression: a basis learned from many people, with a code fitted to one.

Skin brightens and darkens as a head turns, a smile brings folds, an opening mouth shows teeth. Most of these changes are
common to all people. They are spanned by a shared basis of offsets and colours over the texels. A small network computes
each frame's coefficients from its pose and expression.

What is particular to a person, such as light from another side, is the person's *code*: a linear map from pose and
expression to further coefficients of the same basis. It has so few parameters that a few seconds of video determine it,
and it extrapolates to angles and mouth shapes that those seconds do not show.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from heads.person.residual import CoefficientNet
from heads.raster import threads
from heads.raster.arrays import flat
from heads.raster.kernels import unwrapping

CHANNELS = 6
"""Channels of a texel's change: offset 3, colour 3."""
STEP = 0.09  # triangle sizes (and colour) per unit of the basis; scales the optimiser's step too · guess
HIDDEN = 32  # units of the network's hidden layer · guess


class AppearanceBasis(nn.Module):
    """The basis and the network that all people share; the identity at initialisation.

    Args:
        size: entries of a frame's vector (:func:`heads.person.inputs.frame_vectors`).
        rank: number of basis vectors; 0 leaves every map unchanged.
        rows: number of texels that the basis changes.
        row: ``[N]`` each texel's row in the basis; ``rows`` for texels that do not change.
        noise: added to the vectors while training, in standard deviations.
    """

    row: Tensor

    def __init__(self, size: int, rank: int, rows: int, row: Tensor, noise: float = 0.0) -> None:
        super().__init__()
        self.size, self.rank, self.rows = size, rank, rows
        self.net = CoefficientNet(size, rank, HIDDEN, noise=noise)
        # The basis is zero and the network is not, so the change is zero and its gradient is not.
        self.basis = nn.Parameter(torch.zeros(rank, rows * CHANNELS))
        self.register_buffer("row", row, persistent=False)

    def coefficients(self, vectors: Tensor, code: Tensor | None = None) -> Tensor:
        """Coefficients ``[..., rank]`` for frames' vectors ``[..., size]``, plus those of a person's code ``[..., rank, size]``."""
        shared = self.net(vectors)
        return shared if code is None else shared + (code @ self.net.normalised(vectors)[..., None])[..., 0]

    def apply_to(self, maps: Tensor, coefficients: Tensor) -> Tensor:
        """Maps ``[B, G, N, 14]``: each of maps ``[B, N, 14]`` changed by its coefficients ``[B, G, rank]``."""
        if maps.device.type != "cpu" or maps.dtype != torch.float32:
            return changed(maps[:, None], self(coefficients))
        texels = (self.row < self.rows).nonzero()[:, 0]
        order = self.row[texels].argsort()
        held = (coefficients * STEP) @ self.basis
        return _Shown.apply(maps, held, texels[order])

    def forward(self, coefficients: Tensor) -> Tensor:
        """Changes ``[..., N, 6]`` for coefficients ``[..., rank]``."""
        held = ((coefficients * STEP) @ self.basis).unflatten(-1, (self.rows, CHANNELS))
        return F.pad(held, (0, 0, 0, 1))[..., self.row, :]


class PersonalAppearance(AppearanceBasis):
    """An :class:`AppearanceBasis` in one person's head: the person's code, and the frames for which the map needs no change.

    The network stays as the prior has it; the code and, slowly, the basis are fitted to the person.

    Args:
        size, rank, rows: see :class:`AppearanceBasis`.
        n: number of Gaussians.
    """

    here: Tensor
    origin: Tensor

    def __init__(self, size: int, rank: int, rows: int, n: int) -> None:
        super().__init__(size, rank, rows, torch.full((n,), rows))
        self.register_buffer("row", self.row)  # persistent here: each Gaussian's row is part of an avatar
        self.net.requires_grad_(False)
        self.code = nn.Parameter(torch.zeros(rank, size))
        self.register_buffer("here", torch.zeros(rank))
        self.register_buffer("origin", torch.zeros(size))

    @torch.no_grad()
    def take(self, shared: AppearanceBasis, vectors: Tensor, texel: Tensor) -> None:
        """Initialise from a prior.

        Args:
            shared: the prior's basis.
            vectors: ``[R, size]`` of the frames that the map was made from.
            texel: ``[N]`` the texel of the prior's map whose change each Gaussian takes.
        """
        self.net.load_state_dict(shared.net.state_dict())
        self.basis.copy_(shared.basis)
        self.here.copy_(self.net(vectors).mean(0))
        self.origin.copy_(self.net.normalised(vectors).mean(0))
        self.row.copy_(shared.row[texel.to(shared.row.device)])

    def at(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        """Changes of offsets and of colours, ``[N, 3]`` each, for one frame's vector ``[size]``."""
        offsets, colors = self(self.coefficients_at(vector)).split(3, dim=-1)
        return offsets, colors

    def coefficients_at(self, vector: Tensor) -> Tensor:
        """Coefficients ``[rank]`` of one frame's vector ``[size]``, less those for which the map was made."""
        return self.coefficients(vector, self.code) - self.here - self.code @ self.origin


def changed(maps: Tensor, change: Tensor) -> Tensor:
    """UV maps ``[..., N, 14]`` with changes ``[..., N, 6]`` of their offsets and colours."""
    parts = [maps[..., :3] + change[..., :3], maps[..., 3:10].expand(*change.shape[:-1], 7)]
    return torch.cat([*parts, maps[..., 10:13] + change[..., 3:], maps[..., 13:].expand(*change.shape[:-1], 1)], dim=-1)


class _Shown(torch.autograd.Function):
    """``changed(maps[:, None], basis(coefficients))``, but only the texels that the basis changes are computed."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, held: Tensor, texels: Tensor) -> Tensor:
        batch, shows, count = held.shape[0], held.shape[1], len(texels)
        out = maps.new_empty(batch, shows, *maps.shape[1:])
        which = texels.numpy()
        arrays = [flat(maps).reshape(batch, -1), flat(held).reshape(batch * shows, -1)]
        results = flat(out).reshape(batch * shows, -1)

        def job(i: int) -> None:
            unwrapping.change(arrays[0][i // shows], arrays[1][i], which, count, results[i])

        threads.run(job, [(i,) for i in range(batch * shows)], threads.get_num_threads())
        ctx.which, ctx.shapes = which, (maps.shape, held.shape)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor, None]:
        (batch, shows), count = ctx.shapes[1][:2], len(ctx.which)
        v_maps, v_held = (upstream.new_empty(shape) for shape in ctx.shapes)
        arrays = [flat(t).reshape(batch, -1) for t in (upstream, v_maps, v_held)]

        def job(b: int) -> None:
            unwrapping.change_backward(arrays[0][b], ctx.which, count, shows, arrays[1][b], arrays[2][b])

        threads.run(job, [(b,) for b in range(batch)], threads.get_num_threads())
        return v_maps, v_held, None
