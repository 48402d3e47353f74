"""The convolutional networks: pictures to pixel-aligned features, and a U-Net over the UV map."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heads.raster import threads
from heads.raster.arrays import flat
from heads.raster.kernels import unwrapping
from pretrain.expression_visual.config import VisualModelConfig
from pretrain.expression_visual.fused.layers import convolved, normalised

PATCH = 4  # px along a side of the image encoder's patches


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(8, channels)


def pointwise(x: Tensor, convolution: nn.Conv2d) -> Tensor:
    """A 1 x 1 convolution of ``[B, C, H, W]`` as one matrix product, which is twice as fast where channels lie last."""
    weight = convolution.weight.flatten(1)
    return F.linear(x.permute(0, 2, 3, 1), weight, convolution.bias).permute(0, 3, 1, 2)


class Block(nn.Module):
    """Two 3×3 convolutions with a residual connection."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(before, after, 3, padding=1), nn.Conv2d(after, after, 3, padding=1)
        self.norm_a, self.norm_b = _norm(after), _norm(after)
        self.skip = nn.Conv2d(before, after, 1) if before != after else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]`` to ``[B, C', H, W]``."""
        y = normalised(convolved(x, self.a), self.norm_a)
        x = pointwise(x, self.skip) if isinstance(self.skip, nn.Conv2d) else x
        return normalised(convolved(y, self.b), self.norm_b, skip=x)


class UNet(nn.Module):
    """A U-Net (Ronneberger et al. 2015) over patches of texels, with a summary of the whole face added at its bottom.

    The texture bypasses it, so its first level may be coarser than the map: ``patch`` x ``patch`` texels are one cell of
    ``channels`` values, which costs a fraction of convolutions at the map's size. Skip connections are added.
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
        """``[B, C, H, W]`` to ``[B, C', H, W]``; zero at initialisation."""
        return F.pixel_shuffle(self.out(self.between(self.stem(F.pixel_unshuffle(x, self.patch)))), self.patch)

    def between(self, x: Tensor) -> Tensor:
        """From the stem's cells ``[B, channels, H / patch, W / patch]`` to the input of ``out``."""
        kept = []
        for i, block in enumerate(self.down):
            x = block(F.avg_pool2d(x, 2) if i else x)
            kept.append(x)
        x = x + self.whole(x.mean((2, 3)))[:, :, None, None]
        for narrow, block, skip in zip(self.narrow, self.up, reversed(kept[:-1]), strict=True):
            assert isinstance(narrow, nn.Conv2d)
            x = block(F.interpolate(pointwise(x, narrow), scale_factor=2, mode="bilinear", align_corners=False) + skip)
        return x

    def stem_weight(self) -> Tensor:
        """The stem's weight ``[channels, patch * patch, C]``: the texels of a cell, each with its channels."""
        return self.stem.weight.unflatten(1, (-1, self.patch**2)).squeeze((3, 4)).transpose(1, 2)

    def out_weight(self) -> tuple[Tensor, Tensor]:
        """Weight ``[patch * patch * C', channels]`` and bias of ``out`` in the same order."""
        cells = (-1, self.patch**2)
        weight = self.out.weight.squeeze((2, 3)).unflatten(0, cells).transpose(0, 1).flatten(0, 1)
        assert self.out.bias is not None
        return weight, self.out.bias.unflatten(0, cells).transpose(0, 1).flatten()


class ImageEncoder(nn.Module):
    """Pixel-aligned features at a quarter of the frame's size: patches of 4 x 4 pixels and their neighbours."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(4, 2 * channels, PATCH, stride=PATCH)
        self.block = Block(2 * channels, 2 * channels)
        self.out = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, image: Tensor, matte: Tensor) -> Tensor:
        """Features ``[B, S/4, S/4, C]`` of image ``[B, S, S, 3]`` and matte ``[B, S, S]``."""
        if image.device.type == "cpu" and image.dtype == matte.dtype == torch.float32:
            x = F.linear(_patches(image, matte), self.stem.weight.permute(0, 2, 3, 1).flatten(1), self.stem.bias)
            x = x.permute(0, 3, 1, 2)
        else:
            x = self.stem(torch.cat([image * matte[..., None], matte[..., None]], -1).permute(0, 3, 1, 2))
        return pointwise(self.block(x), self.out).permute(0, 2, 3, 1)


def _patches(image: Tensor, matte: Tensor) -> Tensor:
    """Patches ``[B, S/4, S/4, 64]`` of pictures ``[B, S, S, 3]`` and mattes ``[B, S, S]``, so that the stem is one product."""
    batch, size = matte.shape[:2]
    out = image.new_empty(batch, size // PATCH, size // PATCH, 4 * PATCH**2)
    pictures, mattes, results = (flat(t).reshape(batch, -1) for t in (image, matte, out))

    def job(b: int) -> None:
        unwrapping.patches(pictures[b], mattes[b], size, PATCH, results[b])

    threads.run(job, [(b,) for b in range(batch)], threads.get_num_threads())
    return out
