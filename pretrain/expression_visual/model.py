"""Frames to a UV map of Gaussians: unwrapped texture, image features and a mean head into a U-Net."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heads.gaussians.covering import covering
from heads.gaussians.uv import UVGaussians
from heads.person.appearance import AppearanceBasis
from heads.person.inputs import POSE, frame_vectors
from heads.raster import threads
from heads.raster.arrays import flat
from heads.raster.kernels import unwrapping
from heads.rig import Rig
from pretrain.expression_visual.config import ExpressionVisualConfig, VisualModelConfig
from pretrain.expression_visual.networks import ImageEncoder, UNet
from pretrain.expression_visual.unwrap import TexelSurface, mean_under, mirror_index, sample_pixels, visibility

CHANNELS = 14  # offset 3, quaternion 4, log-scale 3, colour 3, opacity 1
COLOUR = slice(10, 13)
SHOWN = (
    11  # channels of the U-Net's input from the pictures: texture 3, weight 1, both of the mirrored side, base colour 3
)
NOISE = 0.1  # on poses and expressions while training, standard deviations · guess
# Change of each map channel per unit of the U-Net's output · guess
REACH = torch.tensor([0.3] * 3 + [0.1] * 4 + [0.3] * 3 + [0.3] * 3 + [1.0])


# Unseen texels are coloured from seen ones of the same kind first: skin, hair, neck with clothes, eyes and mouth interior.
KINDS = (
    ("face", "lips", "eye_left", "eye_right", "ear"),
    ("cranium",),
    ("neck",),
    ("mouth_inside", "teeth_upper", "teeth_lower", "eyeball_left", "eyeball_right"),
)
# Regions of the appearance basis. Hair and neck move independently, so other people's clips do not predict them.
FOLLOWERS = KINDS[0] + KINDS[3]
ANCHORS = 192  # at most · guess
APART = 0.01  # weight of texels of another kind, for use where none of the same kind was seen · guess
NEAR = 0.15  # rig units: distance below which weights hardly rise · guess


class Spread:
    """Inverse-distance weights (Shepard 1968) over the mean head, through a few anchors so that large maps stay cheap."""

    @staticmethod
    def tables(points: Tensor, regions: Tensor, names: dict[str, int]) -> dict[str, Tensor]:
        """``to_anchors`` ``[A, N]`` and ``from_anchors`` ``[N, A]``.

        The first is to be normalised by its sum over the known texels; the rows of the second sum to 1.
        """
        kinds = torch.zeros_like(regions)
        for kind, members in enumerate(KINDS):
            labels = torch.tensor([names[name] for name in members if name in names])
            kinds = torch.where(torch.isin(regions, labels), kind, kinds)
        anchors = farthest(points, min(ANCHORS, len(points)))
        square = torch.cdist(points[anchors], points).square() + NEAR**2
        apart = torch.where(kinds[anchors, None] != kinds[None], APART, 1.0)
        near = square.pow(-3) * apart
        return {"to_anchors": square.pow(-2) * apart, "from_anchors": (near / near.sum(0)).T.contiguous()}


def farthest(points: Tensor, count: int) -> Tensor:
    """Indices ``[count]`` of ``points [N, 3]`` by farthest-point sampling."""
    chosen, distance = [0], (points - points[0]).square().sum(-1)
    while len(chosen) < count:
        chosen.append(int(distance.argmax()))
        distance = torch.minimum(distance, (points - points[chosen[-1]]).square().sum(-1))
    return torch.tensor(chosen)


class VisualModel(nn.Module):
    """The prior's network; its head is ``heads.UVGaussians`` on the rig that it is given.

    With an untrained U-Net a map has the frame's texture where it is visible, the mirrored side where only that is visible,
    and elsewhere the mean head, shifted by how the person's nearest visible texels differ from it (hair by hair, neck by
    neck). Training learns changes to that, the mean head itself, and how all maps change with pose and expression.
    """

    mirror: Tensor
    reach: Tensor
    to_anchors: Tensor
    from_anchors: Tensor
    neutral: Tensor
    mean_colour: Tensor
    slot: Tensor
    constant: Tensor

    def __init__(self, config: ExpressionVisualConfig, rig: Rig) -> None:
        super().__init__()
        self.config, self.rig = config, rig
        self.binding = UVGaussians(rig, config.model.resolution)
        self.surface = TexelSurface(rig, self.binding)
        points, _ = self.surface.points(rig.mean[None])
        count, regions = len(self.surface.regions), max(rig.regions.values()) + 1
        tables = {
            "mirror": mirror_index(points[0]),
            "reach": REACH,
            "slot": self._slots(config.model),
            **Spread.tables(points[0], self.surface.regions, rig.regions),
        }
        for name, value in tables.items():
            self.register_buffer(name, value, persistent=False)
        place, kind = points[0] / points[0].abs().amax(0), F.one_hot(self.surface.regions.long(), regions).float()
        constant = torch.cat([place, kind], -1)  # of a texel, in all people
        self.register_buffer("constant", self._cells(constant[None]), persistent=False)
        self.register_buffer("neutral", covering(self.binding, rig, torch.full((3,), 0.5)), persistent=False)
        self.mean_map = nn.Parameter(torch.zeros(count, CHANNELS))  # the mean head minus the neutral map
        self.register_buffer("mean_colour", torch.full((count, 3), 0.5))
        image = config.model.image_channels
        self.encoder = ImageEncoder(image)
        self.unet = UNet(3 + 1 + 3 + 1 + 3 + 3 + regions + image, CHANNELS, config.model)
        size = POSE + rig.n_expression + 6
        self.appearance_basis = AppearanceBasis(size, config.model.appearance_basis, *self._followers(), NOISE)

    def _followers(self) -> tuple[int, Tensor]:
        """Number of texels in the appearance basis, and each texel's row in it ``[N]``."""
        labels = torch.tensor([self.rig.regions[name] for name in FOLLOWERS if name in self.rig.regions])
        follows = torch.isin(self.surface.regions.cpu().long(), labels)
        count = int(follows.sum())
        return count, torch.where(follows, follows.cumsum(0) - 1, count)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.mean_map.device

    def vertices(self, identity: Tensor, pose: dict[str, Tensor]) -> Tensor:
        """Vertices ``[B, V, 3]`` of tracked heads."""
        rig = self.rig.to(self.device)
        return rig.vertices(identity, pose["expression"], pose["eyelids"], pose["gaze"])

    def look(
        self, image: Tensor, matte: Tensor, identity: Tensor, pose: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One frame each of B people: texel colours ``[B, N, 3]``, visibility ``[B, N]`` in 0..1, image features ``[B, N, C]``."""
        surface = self.surface.to(self.device)
        pixels, seen = visibility(surface, self.vertices(identity, pose), pose, matte)
        features = self.encoder(image, matte)
        scale = features.shape[1] / image.shape[1]
        return sample_pixels(image, pixels), seen, sample_pixels(features, pixels * scale)

    def forward(self, sources: dict[str, Tensor], identity: Tensor, seen: Tensor) -> Tensor:
        """Maps ``[B, N, 14]`` from R references each.

        Args:
            sources: ``image`` ``[B, R, S, S, 3]``, ``matte`` ``[B, R, S, S]`` and pose fields ``[B, R, ...]``.
            identity: ``[B, K_id]``; seen: ``[B, R]``, 0 for references to ignore.
        """
        references = seen.shape[1]
        flat = {name: value.flatten(0, 1) for name, value in sources.items()}
        people, given = identity.repeat_interleave(references, 0), seen.flatten()
        owners = list(range(0, len(given) + 1, references))
        if self.device.type == "cpu" and bool((given == 0).any()):
            # Ignored references are not computed; on an accelerator they are, since counting them would make the host wait.
            rows = given.nonzero()[:, 0]
            flat = {name: value[rows] for name, value in flat.items()}
            people, owners = people[rows], [0, *(seen > 0).sum(1).cumsum(0).tolist()]
            given = given[rows]
        image, matte = flat.pop("image"), flat.pop("matte")
        pixels, weight = visibility(self.surface.to(self.device), self.vertices(people, flat), flat, matte)
        weight = weight * given[:, None]
        features = self.encoder(image, matte)
        texture = mean_under(image, pixels, weight, owners, 1.0)
        watched = mean_under(features, pixels, weight, owners, features.shape[1] / image.shape[1])
        best = torch.stack([weight[first:last].amax(0) for first, last in pairwise(owners)])
        return self.assemble(texture, (best / self.config.model.seen_from).clamp_max(1), watched)

    def follow(
        self,
        maps: Tensor,
        here: dict[str, Tensor],
        seen: Tensor,
        there: dict[str, Tensor],
        code: Tensor | None = None,
    ) -> Tensor:
        """Maps ``[B, G, N, 14]`` at poses and expressions other than those of the references.

        Args:
            maps: ``[B, N, 14]`` from :meth:`forward`; here: pose fields ``[B, R, ...]`` of its references; seen: ``[B, R]``.
            there: pose fields ``[B, G, ...]``; code: ``[B, K, C]`` the people's codes, if known.
        """
        code = None if code is None else code[:, None]
        start, end = (self.appearance_basis.coefficients(_vectors(pose), code) for pose in (here, there))
        share = seen / seen.sum(1, keepdim=True).clamp_min(1e-6)
        return self.appearance_basis.apply_to(maps, end - (start * share[..., None]).sum(1, keepdim=True))

    def assemble(self, texture: Tensor, weight: Tensor, features: Tensor) -> Tensor:
        """Texture ``[B, N, 3]``, weight ``[B, N]``, features ``[B, N, C]`` to maps ``[B, N, 14]``."""
        shown, base = self.shown(texture, weight)
        common = self.neutral + self.mean_map * self.reach
        maps = torch.addcmul(common, self.change(shown, features), self.reach)
        with (
            torch.no_grad()
        ):  # base colours need no gradient: added in place, which the product's gradient does not read
            maps[..., COLOUR] += base - self.neutral[:, COLOUR]
        return maps

    def shown(self, texture: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The U-Net's input from the pictures, by cells ``[B, H * W, 11]``, and the base colours ``[B, N, 3]``."""
        if texture.device.type == "cpu" and texture.dtype == torch.float32:
            return self._shown_by_kernels(texture, weight)
        known = weight[..., None]
        other, other_known = texture[:, self.mirror], known[:, self.mirror]
        base = self.base_colour(texture, weight)
        parts = [texture * known, known, other * other_known, other_known, base]
        return self._cells(torch.cat(parts, -1)), base

    @torch.no_grad()
    def _shown_by_kernels(self, texture: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        batch, count = weight.shape
        both, base = texture.new_empty(count, batch * 4), torch.empty_like(texture)
        cells = texture.new_zeros(batch, self.config.model.resolution**2, SHOWN)
        colours, weights, out, start = (flat(t).reshape(batch, -1) for t in (texture, weight, cells, base))
        mirror, mean, slot, sums = (flat(t) for t in (self.mirror, self.mean_colour, self.slot, both))

        def gather(b: int) -> None:
            unwrapping.both_sides(colours[b], weights[b], mirror, mean, b, batch, sums)

        threads.run(gather, [(b,) for b in range(batch)], threads.get_num_threads())
        fill = flat(self._by_anchors(both, batch).float())

        def show(b: int) -> None:
            unwrapping.filled(colours[b], weights[b], mirror, mean, fill, b, batch, slot, out[b], start[b])

        threads.run(show, [(b,) for b in range(batch)], threads.get_num_threads())
        return cells, base

    def change(self, shown: Tensor, features: Tensor) -> Tensor:
        """The U-Net's output ``[B, N, 14]`` for ``shown``, by cells ``[B, H * W, C]``, and features ``[B, N, C']``.

        The same as its ``forward`` on a map of shown, position, region and features. Here the texels of a cell are
        contiguous, so that nothing is shuffled, and what is constant over people goes through the stem once.
        """
        unet = self.unet
        patch, side = unet.patch, self.config.model.resolution // unet.patch
        splits = [shown.shape[-1], self.constant.shape[-1], features.shape[-1]]
        weights = [weight.flatten(1) for weight in unet.stem_weight().split(splits, -1)]
        cells = (values.unflatten(1, (-1, patch**2)).flatten(2) for values in (shown, self._cells(features)))
        x = F.linear(self.constant.unflatten(1, (-1, patch**2)).flatten(2), weights[1], unet.stem.bias)
        for values, weight in zip(cells, (weights[0], weights[2]), strict=True):
            x = x + F.linear(values, weight)
        x = x.unflatten(1, (side, side)).permute(0, 3, 1, 2)
        y = F.linear(unet.between(x).permute(0, 2, 3, 1), *unet.out_weight())
        return _FromCells.apply(y.reshape(len(y), side * side * patch**2, CHANNELS), self.slot, self._cells)

    def _cells(self, values: Tensor) -> Tensor:
        """Values ``[B, N, C]`` of texels in the order of cells ``[B, H * W, C]``, zero where there is no texel."""
        batch, _, channels = values.shape
        return values.new_zeros(batch, self.config.model.resolution**2, channels).index_copy_(1, self.slot, values)

    def _slots(self, config: VisualModelConfig) -> Tensor:
        """Position ``[N]`` of each texel in the order of cells of ``patch`` x ``patch`` texels."""
        row, column = self.binding.texels.cpu().unbind(-1)
        patch, side = config.patch, config.resolution // config.patch
        cell = row.div(patch, rounding_mode="floor") * side + column.div(patch, rounding_mode="floor")
        return cell * patch**2 + row % patch * patch + column % patch

    def base_colour(self, texture: Tensor, weight: Tensor) -> Tensor:
        """``texture [B, N, 3]`` where ``weight [B, N]`` is 1, else the mirrored side's, else the mean head: ``[B, N, 3]``."""
        known = weight[..., None]
        mirrored = known[:, self.mirror]
        fill = self.mean_colour + self.spread(texture - self.mean_colour, known)
        fill = mirrored * texture[:, self.mirror] + (1 - mirrored) * fill
        return known * texture + (1 - known) * fill

    def spread(self, values: Tensor, known: Tensor) -> Tensor:
        """``values [B, N, 3]``, ``known [B, N, 1]`` in 0..1 there and on the mirrored side, over all texels ``[B, N, 3]``."""
        both = torch.cat([values * known, known], -1)
        both = both + 0.5 * both[:, self.mirror]
        spread = self._by_anchors(both.transpose(0, 1).flatten(1), len(both))
        return spread.unflatten(1, (len(both), 3)).transpose(0, 1)

    def _by_anchors(self, both: Tensor, people: int) -> Tensor:
        """Values and weights ``[N, people * 4]`` to values ``[N, people * 3]`` in one product: the tables are large."""
        held = (self.to_anchors @ both).unflatten(1, (people, 4))
        means = (held[..., :3] / held[..., 3:].clamp_min(1e-6)).flatten(1)
        return F.linear(self.from_anchors, means.T.contiguous())  # twice as fast as with few columns on the right


class _FromCells(torch.autograd.Function):
    """Texel rows from cells; the gradient is a copy, faster than ``index_select``'s, which adds row by row."""

    @staticmethod
    def forward(ctx: Any, cells: Tensor, slot: Tensor, back: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.back = back
        return cells.index_select(1, slot)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        return ctx.back(upstream), None, None


def _vectors(pose: dict[str, Tensor]) -> Tensor:
    """Frames' vectors ``[B, T, C]`` of pose fields ``[B, T, ...]``."""
    frames = pose["rotation"].shape[:2]
    flat = {name: value.flatten(0, 1) for name, value in pose.items()}
    return frame_vectors(flat, pose["rotation"].device).unflatten(0, frames)
