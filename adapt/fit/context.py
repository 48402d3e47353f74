"""What a recipe is given to build and run with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adapt.clip import Clip
from adapt.models.base import HeadModel
from adapt.models.drive import DRIVEN, Drive, drive_of
from adapt.priors import Priors


@dataclass
class Context:
    """One adaptation's circumstances.

    Attributes:
        clip: its training frames, perhaps still growing; rig: on ``device``.
        frames: how many training frames there will be.
        pictured: how many there were when the backdrop was begun.
        config: the recipe's ``Config``; priors: what ``--prior`` opened.
    """

    clip: Clip
    rig: Any
    frames: int
    config: Any
    priors: Priors
    device: torch.device
    seed: int = 0
    pictured: int = 0

    @property
    def intrinsics(self) -> Tensor:
        """``[3, 3]`` of the clip's frames."""
        return torch.from_numpy(self.clip.intrinsics)

    @property
    def identity(self) -> Tensor:
        """``[K_id]`` of the person, as tracked so far."""
        return torch.from_numpy(np.array(self.clip.identity))

    def tracked(self) -> dict[str, np.ndarray]:
        """What drives a head in all frames tracked so far."""
        return {name: self.clip.track[name].copy() for name in DRIVEN} | {"intrinsics": self.clip.intrinsics}

    def drive(self) -> Drive:
        """All frames tracked so far, without sound."""
        return drive_of(self.tracked(), self.device)

    def start_backdrop(self, backdrop: Any) -> None:
        """Body and background from up to 60 of the frames tracked so far."""
        clip, self.pictured = self.clip, len(self.clip)
        some = np.unique(np.linspace(0, self.pictured - 1, 60).astype(int))
        mattes = (clip.mattes(some) * 255).astype(np.uint8)
        heads = torch.from_numpy(clip.masks(some)["head"])
        poses = HeadModel.pose_condition(self.drive().pick(some)).to(backdrop.center.device)
        backdrop.initialise(clip.frames(some), mattes, heads, range(len(some)), poses)

    def complete_backdrop(self, model: HeadModel) -> None:
        """Body and background anew, once the whole clip is tracked: how a body moves takes all of its poses to know."""
        if len(self.clip) > 1.2 * self.pictured:
            model.backdrop.calibrate(model.pose_condition(self.drive()))
            self.start_backdrop(model.backdrop)

    def frontal_frame(self) -> int:
        """The frame that sees most of the face: nearest to no yaw and pitch, among those tracked so far."""
        from heads.geometry.rotation import rotation_to_euler

        return int((rotation_to_euler(self.clip.track["rotation"])[:, :2] ** 2).sum(1).argmin())


def auto_resolution(size: int) -> int:
    """Side of the UV map: about one Gaussian per 2-3 pixels of a head that fills the frame."""
    return max(64, min(256, round(size * 0.5 / 16) * 16))
