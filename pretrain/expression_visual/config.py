"""Configuration of the expression-visual prior."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from configs import InputError
from configs.bounds import Count, Share, Within
from pretrain.config import PretrainConfig


@dataclass(frozen=True, kw_only=True)
class VisualModelConfig:
    """Sizes of the image encoder and the U-Net over the UV map."""

    resolution: Count = 64  # texels along a side of the UV map
    patch: Count = 2  # texels along a side of a cell of the U-Net's first level
    channels: Count = 32  # of the U-Net's first level; doubled at each further level
    levels: Annotated[int, Within(1, 8)] = 3
    image_channels: Count = 16  # of the image features at each texel
    # Visibility from which on a texel counts as seen; below it is mixed with the mirrored side and the mean head. The shipped
    # sizes set 0.125; 1 is what priors of earlier versions were trained with.
    seen_from: float = 1.0
    appearance_basis: int = 24  # basis vectors by which maps change with pose and expression; 0 leaves the basis out

    def check(self) -> None:
        """Raise ``InputError`` for maps that the U-Net cannot halve."""
        cell = self.patch << (self.levels - 1)
        if self.resolution % cell:
            raise InputError(
                f"model.resolution {self.resolution} does not divide into cells of {self.patch} texels (model.patch) that "
                f"halve {self.levels - 1} times (model.levels {self.levels}); make it a multiple of {cell}"
            )
        if not 0 < self.seen_from <= 1:
            raise InputError(f"model.seen_from is {self.seen_from:g}, expected a visibility above 0 and at most 1")
        if self.channels % 8:
            raise InputError(f"model.channels is {self.channels}, expected a multiple of 8 (group normalisation)")


@dataclass(frozen=True, kw_only=True)
class VisualLossConfig:
    """Weights of the training losses."""

    l1: float = 0.8
    d_ssim: float = 0.2
    perceptual: float = 0.0  # LPIPS; needs the weight files below
    lpips: str | None = None  # weight files BACKBONE,LINEAR (see heads.lpips)
    alpha: float = 0.1  # agreement of the head's outline with the matte
    offset: float = 0.05  # offsets beyond one triangle size
    scale: float = 0.2  # Gaussians larger than twice their neutral size
    code: float = 2e-4  # keeps the training people's codes near zero
    face: float = 2.0  # weight of the face's pixels; hair, neck and the background beside them count 1
    detail: float = 4.0  # weight of eyes and lips
    inside: float = 12.0  # weight of the inside of the mouth: few pixels, and only in some frames

    def check(self) -> None:
        """Raise ``InputError`` for a perceptual loss without its weights."""
        if self.perceptual and not self.lpips:
            raise InputError("loss.perceptual is set and loss.lpips is not: give the LPIPS weights, or set it to 0")
        if self.lpips and self.lpips.count(",") != 1:
            raise InputError(f"loss.lpips is '{self.lpips}', expected two weight files: BACKBONE,LINEAR")


@dataclass(frozen=True, kw_only=True)
class VisualAugmentConfig:
    """Augmentation in training, the same for source and target."""

    gain: float = 0.15  # of each colour channel, standard deviation of the logarithm
    gamma: float = 0.15  # standard deviation of the logarithm
    second: Share = 0.5  # probability that references after the first are used
    mirror: Share = 0.5  # probability that a person is mirrored, which gives further faces and lights


@dataclass(frozen=True, kw_only=True)
class ExpressionVisualConfig(PretrainConfig):
    """Keys of ``configs/pretrain/expression-visual/*.yaml``."""

    size: int = 128  # px of the frames, source and target
    references: Count = 2  # frames of the source, at most
    targets: Count = 2  # frames drawn and compared for each sample
    mean_rate: float = 10.0  # learning rate of mean head, appearance basis and codes over that of the networks
    across: Share = 0.7  # probability that targets come from another segment than the source
    wide: Share = 0.5  # probability that a target has one of the widest open mouths or most turned heads
    grouped: bool = (
        False  # targets from one group of pictures: a third of the requests to a store (shards.read.view.PairView)
    )
    model: VisualModelConfig = field(default_factory=VisualModelConfig)
    loss: VisualLossConfig = field(default_factory=VisualLossConfig)
    augment: VisualAugmentConfig = field(default_factory=VisualAugmentConfig)

    def check(self) -> None:
        """Raise ``InputError`` for sizes that the image encoder cannot halve."""
        super().check()
        if self.size < 32 or self.size % 8:
            raise InputError(f"size is {self.size} px, expected a multiple of 8 from 32")
