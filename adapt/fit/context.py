"""What a recipe is given to build and run with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from adapt.clip import Clip
from adapt.models.base import HeadModel
from adapt.priors import Priors
from heads.geometry.rotation import rotation_to_euler
from heads.person.backdrop import Backdrop
from heads.person.inputs import TRACKED, HeadInputs, head_inputs, pose_vectors
from heads.rig import Rig

C = TypeVar("C", covariant=True)
# Frames that body and background are begun from: more tell little new and take longer.
PICTURES = 60
# A clip that has grown by this factor since body and background were begun shows more of how the body moves.
GROWN, GROWN_BETWEEN_STAGES = 1.2, 1.5


@dataclass
class Context(Generic[C]):
    """One adaptation's circumstances.

    Attributes:
        clip: its training frames, perhaps still growing.
        rig: on ``device``.
        frames: how many training frames there will be.
        config: the recipe's ``Config``.
        priors: what ``--prior`` opened.
        pictured: how many frames there were when the backdrop was begun.
    """

    clip: Clip
    rig: Rig
    frames: int
    config: C
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
        """What moves a head in all frames tracked so far."""
        return {name: self.clip.track[name].copy() for name in TRACKED} | {"intrinsics": self.clip.intrinsics}

    def inputs(self) -> HeadInputs:
        """All frames tracked so far, without sound."""
        return head_inputs(self.tracked(), self.device)

    def start_backdrop(self, backdrop: Backdrop) -> None:
        """Body and background from some of the frames tracked so far."""
        clip, self.pictured = self.clip, len(self.clip)
        some = np.unique(np.linspace(0, self.pictured - 1, PICTURES).astype(int))
        mattes = (clip.mattes(some) * 255).astype(np.uint8)
        heads = torch.from_numpy(clip.masks(some)["head"])
        poses = pose_vectors(self.inputs().pick(some).vectors).to(backdrop.center.device)
        backdrop.initialise(list(clip.frames(some)), list(mattes), heads, range(len(some)), poses)

    def complete_backdrop(self, model: HeadModel) -> None:
        """Start body and background again once the whole clip is tracked: only all poses show how the body moves."""
        if len(self.clip) > GROWN * self.pictured:
            model.backdrop.calibrate(pose_vectors(self.inputs().vectors))
            self.start_backdrop(model.backdrop)

    def update_backdrop(self, model: HeadModel) -> None:
        """The same between stages, while the clip is still growing; the pose's usual range stays."""
        if len(self.clip) > GROWN_BETWEEN_STAGES * self.pictured:
            self.start_backdrop(model.backdrop)

    def frontal_frame(self) -> int:
        """The frame that sees most of the face: nearest to no yaw and pitch, among those tracked so far."""
        return int((rotation_to_euler(self.clip.track["rotation"])[:, :2] ** 2).sum(1).argmin())


def auto_resolution(size: int) -> int:
    """Side of the UV map: about one Gaussian per 2-3 pixels of a head that fills the frame."""
    return max(64, min(256, round(size * 0.5 / 16) * 16))
