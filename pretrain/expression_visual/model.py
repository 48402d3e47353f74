"""Frames to a UV map of Gaussians: unwrapped texture, image features and a mean head into a U-Net."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pretrain.expression_visual.config import ExpressionVisualConfig, VisualModelConfig
from pretrain.expression_visual.unwrap import TexelSurface, mirror_index, sample_pixels, visibility

CHANNELS = 14  # offset 3, quaternion 4, log-scale 3, colour 3, opacity 1
COLOUR = slice(10, 13)
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
        """(B, C, H, W) to (B, C', H, W)."""
        y = F.silu(self.norm_a(self.a(x)))
        return self.skip(x) + F.silu(self.norm_b(self.b(y)))


class UNet(nn.Module):
    """A U-Net (Ronneberger et al. 2015) with a summary of the whole face added at its bottom."""

    def __init__(self, before: int, after: int, config: VisualModelConfig) -> None:
        super().__init__()
        sizes = [config.channels << i for i in range(config.levels)]
        self.down = nn.ModuleList(Block(a, b) for a, b in zip([before, *sizes], sizes, strict=False))
        self.whole = nn.Linear(sizes[-1], sizes[-1])
        self.up = nn.ModuleList(Block(sizes[i + 1] + sizes[i], sizes[i]) for i in reversed(range(config.levels - 1)))
        self.out = nn.Conv2d(sizes[0], after, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C', H, W); zero at birth."""
        kept = []
        for i, block in enumerate(self.down):
            x = block(F.avg_pool2d(x, 2) if i else x)
            kept.append(x)
        x = x + self.whole(x.mean((2, 3)))[:, :, None, None]
        for block, skip in zip(self.up, reversed(kept[:-1]), strict=True):
            x = block(torch.cat([F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False), skip], 1))
        return self.out(x)


class ImageEncoder(nn.Module):
    """Pixel-aligned features at a quarter of the frame's size."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        sizes = [4, channels, 2 * channels, 2 * channels]
        strides = (2, 2, 1)
        self.layers = nn.ModuleList(
            nn.Conv2d(sizes[i], sizes[i + 1], 3, stride=strides[i], padding=1) for i in range(3)
        )
        self.norms = nn.ModuleList(nn.GroupNorm(8, size) for size in sizes[1:])
        self.out = nn.Conv2d(sizes[-1], channels, 1)

    def forward(self, image: Tensor, matte: Tensor) -> Tensor:
        """image (B, S, S, 3), matte (B, S, S) to (B, S/4, S/4, C)."""
        x = torch.cat([image * matte[..., None], matte[..., None]], -1).permute(0, 3, 1, 2)
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = F.silu(norm(layer(x)))
        return self.out(x).permute(0, 2, 3, 1)


class VisualModel(nn.Module):
    """The prior's network; its head is ``heads.UVGaussians`` on the default rig.

    With an untrained U-Net the map is: the frame's texture where it was seen, the mirrored side where only that was,
    the mean head in the person's tone elsewhere. Training learns what to change in that, and the mean head itself.
    """

    def __init__(self, config: ExpressionVisualConfig, rig: Any) -> None:
        super().__init__()
        from heads.gaussians import UVGaussians

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
        }
        for name, value in tables.items():
            self.register_buffer(name, value, persistent=False)
        self.register_buffer("neutral", self.binding.neutral(torch.full((3,), 0.5)).float(), persistent=False)
        self.mean_map = nn.Parameter(torch.zeros(count, CHANNELS))  # what the mean head adds to the neutral map
        self.register_buffer("mean_colour", torch.full((count, 3), 0.5))
        image = config.model.image_channels
        self.encoder = ImageEncoder(image)
        self.unet = UNet(3 + 1 + 3 + 1 + 3 + 3 + regions + image, CHANNELS, config.model)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.mean_map.device

    def vertices(self, identity: Tensor, pose: dict[str, Tensor]) -> Tensor:
        """Vertices (B, V, 3) of tracked heads."""
        rig = self.rig.to(self.device)
        return rig.vertices(identity, pose["expression"], pose["eyelids"], pose["gaze"])

    def look(
        self, image: Tensor, matte: Tensor, identity: Tensor, pose: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One frame each of B people: texel colours (B, N, 3), how well each is seen (B, N), features (B, N, C)."""
        surface = self.surface.to(self.device)
        pixels, seen = visibility(surface, self.vertices(identity, pose), pose, matte)
        features = self.encoder(image, matte)
        scale = features.shape[1] / image.shape[1]
        return sample_pixels(image, pixels), seen, sample_pixels(features, pixels * scale)

    def forward(self, sources: dict[str, Tensor], identity: Tensor, seen: Tensor) -> Tensor:
        """Maps (B, N, 14) from R references each.

        Args:
            sources: ``image`` (B, R, S, S, 3), ``matte`` (B, R, S, S) and pose fields (B, R, ...).
            identity: (B, K_id); seen: (B, R), 0 for references to pass over.
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

    def assemble(self, texture: Tensor, weight: Tensor, features: Tensor) -> Tensor:
        """Texture (B, N, 3), weight (B, N), features (B, N, C) to maps (B, N, 14)."""
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
        """The texture where seen, else the mirrored side's, else the mean head in this person's tone: (B, N, 3)."""
        known = weight[..., None]
        tone = ((texture - self.mean_colour) * known).sum(1, keepdim=True) / known.sum(1, keepdim=True).clamp_min(1e-6)
        fill = self.mean_colour + tone
        mirrored = known[:, self.mirror]
        fill = mirrored * texture[:, self.mirror] + (1 - mirrored) * fill
        return known * texture + (1 - known) * fill
