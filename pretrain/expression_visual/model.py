"""Frames to a UV map of Gaussians: unwrapped texture, image features and a mean head into a U-Net."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heads.gaussians.uv import UVGaussians, triangle_frames
from heads.geometry.rotation import quaternions
from heads.person.appearance import AppearanceBasis, changed
from heads.person.inputs import POSE, frame_vectors
from heads.rig import Rig
from pretrain.expression_visual.config import ExpressionVisualConfig, VisualModelConfig
from pretrain.expression_visual.unwrap import TexelSurface, mirror_index, sample_pixels, visibility

CHANNELS = 14  # offset 3, quaternion 4, log-scale 3, colour 3, opacity 1
COLOUR = slice(10, 13)
# Regions whose Gaussians take the size of what they stand for; the face's texels are dense and keep their footprint.
SPREAD_OVER = ("cranium", "ear", "neck", "eyeball_left", "eyeball_right", "mouth_inside", "teeth_upper", "teeth_lower")
SPREAD = 0.6  # standard deviation over the width of the surface that a texel stands for
DEPTH = 0.3  # least thickness of such a Gaussian over its width
NOISE = 0.1  # of poses and expressions while training, standard deviations
CELLS = 6  # points along an edge of a triangle by which the surface is sampled
# How far the U-Net's unit output moves each channel: geometry gently, colour more.
REACH = torch.tensor([0.3] * 3 + [0.1] * 4 + [0.3] * 3 + [0.3] * 3 + [1.0])


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(8, channels)


class Block(nn.Module):
    """Two 3×3 convolutions with a short cut."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(before, after, 3, padding=1), nn.Conv2d(after, after, 3, padding=1)
        self.norm_a, self.norm_b = _norm(after), _norm(after)
        self.skip = nn.Conv2d(before, after, 1) if before != after else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """``x [B, C, H, W]`` to ``[B, D, H, W]``."""
        y = F.silu(self.norm_a(self.a(x)))
        return self.skip(x) + F.silu(self.norm_b(self.b(y)))


class UNet(nn.Module):
    """A U-Net (Ronneberger et al. 2015) over patches of texels, with a summary of the whole face added at its bottom.

    What the texture shows bypasses it, so its first level may be coarser than the map: ``patch`` x ``patch`` texels are
    one cell of ``channels`` values, which costs a fraction of convolutions at the map's size. Ways across are added.
    """

    def __init__(self, before: int, after: int, config: VisualModelConfig) -> None:
        super().__init__()
        self.patch = config.patch
        cells = config.patch**2
        sizes = [config.channels << i for i in range(config.levels)]
        self.stem = nn.Conv2d(before * cells, sizes[0], 1)
        self.down = nn.ModuleList(Block(a, b) for a, b in zip([sizes[0], *sizes], sizes, strict=False))
        self.whole = nn.Linear(sizes[-1], sizes[-1])
        self.narrow = nn.ModuleList(nn.Conv2d(sizes[i + 1], sizes[i], 1) for i in reversed(range(config.levels - 1)))
        self.up = nn.ModuleList(Block(sizes[i], sizes[i]) for i in reversed(range(config.levels - 1)))
        self.out = nn.Conv2d(sizes[0], after * cells, 1)
        nn.init.zeros_(self.out.weight)
        if self.out.bias is not None:
            nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> Tensor:
        """``x [B, C, H, W]`` to ``[B, D, H, W]``; zero at birth."""
        kept, x = [], self.stem(F.pixel_unshuffle(x, self.patch))
        for i, block in enumerate(self.down):
            x = block(F.avg_pool2d(x, 2) if i else x)
            kept.append(x)
        x = x + self.whole(x.mean((2, 3)))[:, :, None, None]
        for narrow, block, skip in zip(self.narrow, self.up, reversed(kept[:-1]), strict=True):
            x = block(F.interpolate(narrow(x), scale_factor=2, mode="bilinear", align_corners=False) + skip)
        return F.pixel_shuffle(self.out(x), self.patch)


class ImageEncoder(nn.Module):
    """Pixel-aligned features at a quarter of the frame's size: patches of 4 x 4 pixels and their neighbours."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(4, 2 * channels, 4, stride=4)
        self.block = Block(2 * channels, 2 * channels)
        self.out = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, image: Tensor, matte: Tensor) -> Tensor:
        """``image [B, S, S, 3]``, ``matte [B, S, S]`` to ``[B, S // 4, S // 4, C]``."""
        x = torch.cat([image * matte[..., None], matte[..., None]], -1).permute(0, 3, 1, 2)
        return self.out(self.block(self.stem(x))).permute(0, 2, 3, 1)


# Texels of one kind tell about each other first: skin, hair, neck with clothes, and what lies inside.
KINDS = (
    ("face", "lips", "eye_left", "eye_right", "ear"),
    ("cranium",),
    ("neck",),
    ("mouth_inside", "teeth_upper", "teeth_lower", "eyeball_left", "eyeball_right"),
)
# Hair and neck move by themselves: what they did in other people's clips says nothing.
FOLLOWERS = KINDS[0] + KINDS[3]
ANCHORS = 192
APART = 0.01  # what texels of another kind weigh: they tell where nothing of the same kind was seen
NEAR = 0.15  # rig units: texels nearer than this count the same


class Spread:
    """Inverse-distance weights (Shepard 1968) over the mean head, by way of a few anchors so that large maps stay cheap."""

    @staticmethod
    def tables(points: Tensor, regions: Tensor, names: dict[str, int]) -> dict[str, Tensor]:
        """``to_anchors`` ``[A, N]`` and ``from_anchors`` ``[N, A]``.

        The first is to be divided by its sum over what is known; the rows of the second sum to 1.
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
    """Indices ``[count]`` of ``points [N, 3]``, each the farthest from those before it."""
    chosen, distance = [0], (points - points[0]).square().sum(-1)
    while len(chosen) < count:
        chosen.append(int(distance.argmax()))
        distance = torch.minimum(distance, (points - points[chosen[-1]]).square().sum(-1))
    return torch.tensor(chosen)


def covering(neutral: Tensor, binding: UVGaussians, rig: Rig) -> Tensor:
    """The neutral map ``[N, 14]`` with each Gaussian beyond the face spread over the surface that is nearest to its texel.

    At low resolution the atlas has triangles of the neck, the cranium and the eyeballs without any texel, and texels
    whose footprint is held to a triangle smaller than they are: gaps. Here every point of a region of the mean head
    belongs to the region's nearest texel, and a Gaussian takes the mean and the spread of what belongs to it.
    """
    mean, faces = rig.mean.cpu(), rig.faces.cpu().long()
    frames, units = (x[0] for x in triangle_frames(mean[None], faces))
    texels = (mean[faces[binding.triangles]] * binding.barycentric.cpu()[..., None]).sum(1)
    grown = neutral.clone()
    for name in SPREAD_OVER:
        of = torch.where(binding.regions == rig.regions.get(name, -1))[0]
        surface = torch.where(rig.face_regions.cpu() == rig.regions.get(name, -1))[0]
        if len(of) < 4 or not len(surface):
            continue
        centre, spread, axes, owns = _cells(texels[of], *_sampled(mean[faces[surface]]))
        to, k = frames[binding.triangles[of]], units[binding.triangles[of]][:, None]
        least = (neutral[of, 7:9].mean(-1, keepdim=True).exp() * k).clamp_min(1e-6)
        spread = torch.maximum(spread * SPREAD, least * torch.tensor([0.8, 0.8, DEPTH]))
        cells = grown[of]
        cells[:, :3] = (to.transpose(1, 2) @ (centre - texels[of])[..., None])[..., 0] / k
        cells[:, 3:7] = quaternions(to.transpose(1, 2) @ axes)
        cells[:, 7:10] = (spread / k).log()
        grown[of] = torch.where(owns[:, None], cells, grown[of])
    return grown


def _sampled(corners: Tensor) -> tuple[Tensor, Tensor]:
    """Points ``[P, 3]`` spread over triangles ``[F, 3, 3]``, and the area ``[P, 1]`` that each stands for, up to a factor."""
    steps = range(CELLS)
    grid = [((i + 1 / 3) / CELLS, (j + 1 / 3) / CELLS) for i in steps for j in steps if i + j < CELLS]
    weights = torch.tensor([[1 - u - v, u, v] for u, v in grid])
    area = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).norm(dim=-1)
    return (weights @ corners).flatten(0, 1), area.repeat_interleave(len(weights))[:, None]


def _cells(texels: Tensor, points: Tensor, mass: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What is nearest to each texel ``[N, 3]`` of weighted points ``[P, 3]``, ``[P, 1]``.

    Returns:
        centres ``[N, 3]``, widths ``[N, 3]`` along the axes from broad to flat, axes ``[N, 3, 3]`` as columns of a rotation, and
        whether there were points enough to say ``[N]``.
    """
    from scipy.spatial import cKDTree

    count = len(texels)
    owner = torch.from_numpy(cKDTree(texels.numpy()).query(points.numpy())[1])
    total = torch.zeros(count, 1).index_add(0, owner, mass).clamp_min(1e-12)
    centre = torch.zeros(count, 3).index_add(0, owner, mass * points) / total
    off = points - centre[owner]
    square = torch.zeros(count, 3, 3).index_add(0, owner, mass[..., None] * off[:, :, None] * off[:, None])
    variance, axes = torch.linalg.eigh(square / total[..., None])
    variance, axes = variance.flip(-1).clamp_min(0), axes.flip(-1)
    axes = axes * torch.linalg.det(axes).sign()[:, None, None]
    # A square of width w has the variance w^2 / 12 along each side.
    return centre, (12 * variance).sqrt(), axes, torch.bincount(owner, minlength=count) >= 3


class VisualModel(nn.Module):
    """The prior's network; its head is ``heads.UVGaussians`` on the default rig.

    With an untrained U-Net the map is: the frame's texture where it was seen, the mirrored side where only that was,
    the mean head elsewhere, shifted by how the person's nearest seen texels differ from it (hair by hair, neck by neck).
    Training learns what to change in that, the mean head itself, and how all maps follow pose and expression.
    """

    mirror: Tensor
    place: Tensor
    region: Tensor
    reach: Tensor
    to_anchors: Tensor
    from_anchors: Tensor
    neutral: Tensor
    mean_colour: Tensor

    def __init__(self, config: ExpressionVisualConfig, rig: Rig) -> None:
        super().__init__()
        self.config, self.rig = config, rig
        self.binding = UVGaussians(rig, config.model.resolution)
        self.surface = TexelSurface(rig, self.binding)
        points, _ = self.surface.points(rig.mean[None])
        count, regions = len(self.surface.regions), max(rig.regions.values()) + 1
        tables = {
            "mirror": mirror_index(points[0]),
            "place": points[0] / points[0].abs().amax(0),
            "region": F.one_hot(self.surface.regions.long(), regions).float(),
            "reach": REACH,
            **Spread.tables(points[0], self.surface.regions, rig.regions),
        }
        for name, value in tables.items():
            self.register_buffer(name, value, persistent=False)
        neutral = self.binding.neutral(torch.full((3,), 0.5)).float()
        self.register_buffer("neutral", covering(neutral, self.binding, rig), persistent=False)
        self.mean_map = nn.Parameter(torch.zeros(count, CHANNELS))  # what the mean head adds to the neutral map
        self.register_buffer("mean_colour", torch.full((count, 3), 0.5))
        image = config.model.image_channels
        self.encoder = ImageEncoder(image)
        self.unet = UNet(3 + 1 + 3 + 1 + 3 + 3 + regions + image, CHANNELS, config.model)
        size = POSE + rig.n_expression + 6
        self.appearance_basis = AppearanceBasis(size, config.model.appearance_basis, *self._followers(), NOISE)

    def _followers(self) -> tuple[int, Tensor]:
        """How many texels follow pose and expression, and which of them each texel ``[N]`` is."""
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
        """One frame each of B people: texel colours ``[B, N, 3]``, how well each is seen ``[B, N]``, features ``[B, N, C]``."""
        surface = self.surface.to(self.device)
        pixels, seen = visibility(surface, self.vertices(identity, pose), pose, matte)
        features = self.encoder(image, matte)
        scale = features.shape[1] / image.shape[1]
        return sample_pixels(image, pixels), seen, sample_pixels(features, pixels * scale)

    def forward(self, sources: dict[str, Tensor], identity: Tensor, seen: Tensor) -> Tensor:
        """Maps ``[B, N, 14]`` from R references each.

        Args:
            sources: ``image`` ``[B, R, S, S, 3]``, ``matte`` ``[B, R, S, S]`` and pose fields ``[B, R, ...]``.
            identity: ``[B, K_id]``; seen: ``[B, R]``, 0 for references to pass over.
        """
        batch, references = seen.shape
        flat = {name: value.flatten(0, 1) for name, value in sources.items()}
        colour, weight, features = self.look(
            flat.pop("image"), flat.pop("matte"), identity.repeat_interleave(references, 0), flat
        )
        weight = weight.unflatten(0, (batch, references)) * seen[..., None]
        share = weight / weight.sum(1, keepdim=True).clamp_min(1e-6)
        texture = (colour.unflatten(0, (batch, references)) * share[..., None]).sum(1)
        watched = (features.unflatten(0, (batch, references)) * share[..., None]).sum(1)
        return self.assemble(texture, weight.amax(1), watched)

    def follow(
        self,
        maps: Tensor,
        here: dict[str, Tensor],
        seen: Tensor,
        there: dict[str, Tensor],
        code: Tensor | None = None,
    ) -> Tensor:
        """Maps ``[B, G, N, 14]`` at other poses and expressions than those of the references.

        Args:
            maps: ``[B, N, 14]`` from :meth:`forward`; here: pose fields ``[B, R, ...]`` of its references; seen: ``[B, R]``.
            there: pose fields ``[B, G, ...]``; code: ``[B, K, C]`` of people of whom one is known.
        """
        code = None if code is None else code[:, None]
        start, end = (self.appearance_basis.coefficients(_vectors(pose), code) for pose in (here, there))
        share = seen / seen.sum(1, keepdim=True).clamp_min(1e-6)
        return changed(maps[:, None], self.appearance_basis(end - (start * share[..., None]).sum(1, keepdim=True)))

    def assemble(self, texture: Tensor, weight: Tensor, features: Tensor) -> Tensor:
        """Texture ``[B, N, 3]``, weight ``[B, N]``, features ``[B, N, C]`` to maps ``[B, N, 14]``."""
        batch = len(texture)
        base = self.base_colour(texture, weight)
        other, other_weight = texture[:, self.mirror], weight[:, self.mirror]
        parts = [
            texture * weight[..., None],
            weight[..., None],
            other * other_weight[..., None],
            other_weight[..., None],
        ]
        parts += [base, self.place.expand(batch, -1, -1), self.region.expand(batch, -1, -1), features]
        change = self.binding.gather(self.unet(self.binding.scatter(torch.cat(parts, -1)))) * self.reach
        maps = self.neutral + self.mean_map * self.reach + change
        colour = base + maps[..., COLOUR] - self.neutral[:, COLOUR]
        return torch.cat([maps[..., : COLOUR.start], colour, maps[..., COLOUR.stop :]], -1)

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
        held = self.to_anchors @ both
        return self.from_anchors @ (held[..., :3] / held[..., 3:].clamp_min(1e-6))


def _vectors(pose: dict[str, Tensor]) -> Tensor:
    """Frames' vectors ``[B, T, C]`` of pose fields ``[B, T, ...]``."""
    frames = pose["rotation"].shape[:2]
    flat = {name: value.flatten(0, 1) for name, value in pose.items()}
    return frame_vectors(flat, pose["rotation"].device).unflatten(0, frames)
