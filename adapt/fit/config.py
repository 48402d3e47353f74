"""What recipes' configurations have in common. Values, with unit and source, are in ``configs/adapt/NAME.yaml``."""

from __future__ import annotations

import math
from dataclasses import dataclass

from configs import InputError
from configs.bounds import Count, Share


@dataclass(frozen=True, kw_only=True)
class RecipeConfig:
    """What every recipe has: side of the frames (px), a factor on all rates, weights of D-SSIM and of the silhouette."""

    size: int
    rate: float
    ssim: Share
    coverage: float

    def check(self) -> None:
        """Refuse values that nothing can be trained with.

        Raises:
            InputError: a number that is negative or not finite, or an impossible size.
        """
        for name, value in vars(self).items():
            if isinstance(value, int | float) and not 0 <= value < math.inf:
                raise InputError(f"{name} is {value:g}, expected a number from 0 on")
        if self.size and (self.size < 64 or self.size % 16):
            raise InputError(f"size is {self.size}, expected a multiple of 16 from 64 on, or 0 to choose")


@dataclass(frozen=True, kw_only=True)
class RiggedConfig(RecipeConfig):
    """Recipes of a rigged head, which is driven through expressions."""

    resolution: int
    visual_prior: bool
    audio_prior: bool
    audio_finetune: bool
    color_mlp: bool
    track_refinement: bool
    inpainter: bool
    inpainter_share: float
    voice_share: float
    anchor: float
    smoothness: float
    boost_face: float
    boost_eyes: float
    boost_mouth: float

    def boosts(self) -> dict[str, float]:
        """Extra weight of pixels by region."""
        mouth = {"mouth_inside": self.boost_mouth, "lips": self.boost_mouth}
        return {"face": self.boost_face, "eyes": self.boost_eyes, **mouth}


@dataclass(frozen=True, kw_only=True)
class CloudConfig:
    """How a cloud of free Gaussians learns and grows.

    Attributes:
        means, scales, quats, opacities, colors: Adam's rates.
        refine_from, refine_every: steps before the first densification, and between densifications.
        gradient: of a projected mean, above which a Gaussian is split or cloned.
        faint, faint_end: opacity below which a Gaussian is pruned, at the beginning and at the end of the stage.
        settle: share of the stage after which nothing is split or pruned.
        most: number of Gaussians above which none is split or cloned.
    """

    means: float
    scales: float
    quats: float
    opacities: float
    colors: float
    refine_from: int
    refine_every: Count
    gradient: float
    faint: Share
    faint_end: Share
    settle: Share
    most: int

    def rates(self) -> dict[str, float]:
        """Adam's rate per part."""
        return {name: getattr(self, name) for name in ("means", "scales", "quats", "opacities", "colors")}


@dataclass(frozen=True, kw_only=True)
class MotionConfig:
    """Adam's rates of a branch's motion: the field's network and hash grid, the audio encoder and its attention."""

    network: float
    grid: float
    audio: float
    attention: float


@dataclass(frozen=True, kw_only=True)
class BranchConfig(RecipeConfig):
    """Recipes of branches of free Gaussians, which take audio features as input."""

    face_points: Count
    mouth_points: Count
    densify: bool
    incremental_sampling: bool
    mouth_branch: bool
    face_share: float
    mouth_share: float
    fuse_share: float
    still_share: float
    fuse_backdrop: float
    eye_window: float
    eye_every: Count
    mouth_every: Count
    face_boost: float
    mouth_free: float
    mouth_filled: float
    mouth_away: float
    lpips: str
    lpips_weight: float
    motion: MotionConfig
    clouds: CloudConfig
