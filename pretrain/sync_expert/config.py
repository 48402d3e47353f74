"""Configuration of the sync-expert prior."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from configs import InputError
from configs.bounds import Count, Decay, Share, Within
from pretrain.config import PretrainConfig
from pretrain.data.spectrum import SpectrumConfig


@dataclass(frozen=True, kw_only=True)
class SyncModelConfig:
    """Sizes of the two encoders."""

    channels: Count = 24  # of the first convolution; doubled by each further one, at most fourfold
    patches: bool = False  # convolutions of 4, 2 and 2 px that do not overlap, instead of four of 3 px with stride 2
    width: Count = 192  # of the layers after the convolutions
    embedding: Count = 96
    height: int = 36  # px of the lip crop
    breadth: int = 48
    dropout: Decay = 0.2

    def check(self) -> None:
        """Raise ``InputError`` for crops too small for four halvings."""
        if min(self.height, self.breadth) < 16:
            raise InputError(f"model.height {self.height} and model.breadth {self.breadth}: expected 16 px or more")


@dataclass(frozen=True, kw_only=True)
class SyncLossConfig:
    """Weights of the training losses."""

    contrast: float = 1.0  # InfoNCE between the windows of lips and audio, both ways
    shape: float = 0.5  # lip geometry predicted from the picture and from the audio
    foreign: Share = 0.0  # share of negatives from other people, which teach voices rather than lips
    guard: int = 1  # frames around the positive that are neither positive nor negative


@dataclass(frozen=True, kw_only=True)
class SyncAugmentConfig(SpectrumConfig):
    """Augmentation in training; standard deviations unless noted."""

    shift: float = 0.06  # of the crop, in half widths of the picture with margin
    scale: float = 0.1  # log of the crop's size
    roll: float = 0.12  # radians
    light: float = 0.25  # log contrast; brightness in proportion
    colour: float = 0.1  # relative gain of each channel
    noise: float = 0.03  # of each value, in [0, 1]
    mirror: Share = 0.5  # probability


@dataclass(frozen=True, kw_only=True)
class SyncExpertConfig(PretrainConfig):
    """Keys of ``configs/pretrain/sync-expert/*.yaml``."""

    features: str = "logmel"
    window: Count = 5  # frames
    run: int = 24  # consecutive frames of lips from a segment; windows start at each of them but the last few
    size: Annotated[int, Within(32)] = 256  # px at which frames are decoded before the lips are cut out
    centre: bool = True  # subtract a segment's mean spectrum
    cache_mb: int = 512  # MB for decoded lip crops
    unreliable: list[str] = field(default_factory=list)  # clips whose sound and lips are not known to agree
    model: SyncModelConfig = field(default_factory=SyncModelConfig)
    loss: SyncLossConfig = field(default_factory=SyncLossConfig)
    augment: SyncAugmentConfig = field(default_factory=SyncAugmentConfig)

    def check(self) -> None:
        """Raise ``InputError`` for runs too short to hold a negative."""
        super().check()
        if self.run < self.window + 2 * self.loss.guard + 2 or self.run > 50:
            raise InputError(
                f"run is {self.run} frames and window {self.window}: expected run from window + 2·loss.guard + 2 "
                f"({self.window + 2 * self.loss.guard + 2}) to 50, or a window has no wrong sound to be compared with"
            )
