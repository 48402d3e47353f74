"""What a recipe is given to build and optimise its model."""

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
from heads.person.inputs import HeadInputs, head_inputs, pose_vectors
from heads.rig import Rig

C = TypeVar("C", covariant=True)
# Frames that body and background are initialised from at most: more take longer and show little that is new.
PICTURES = 60
# Body and background are initialised again when the clip has grown by this factor: it then shows more of the body's motion.
GROWN, GROWN_BETWEEN_STAGES = 1.2, 1.5


@dataclass
class Context(Generic[C]):
    """One adaptation's data and settings.

    Attributes:
        clip: its training frames, perhaps still growing.
        rig: on ``device``.
        frames: how many training frames there will be.
        config: the recipe's ``Config``.
        priors: what ``--prior`` opened.
        seed: of everything random.
        pictured: how many frames there were when the backdrop was initialised.
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
        """``[K_id]`` the person's shape, as tracked so far."""
        return torch.from_numpy(np.array(self.clip.identity))

    def tracked(self) -> dict[str, np.ndarray]:
        """What moves the head and what is behind it in all frames tracked so far, see :meth:`Clip.motion`, and the intrinsics."""
        return self.clip.motion() | {"intrinsics": self.clip.intrinsics}

    def inputs(self) -> HeadInputs:
        """All frames tracked so far, without sound."""
        return head_inputs(self.tracked(), self.device)

    def start_backdrop(self, backdrop: Backdrop) -> None:
        """Initialise body and background from at most ``PICTURES`` of the frames tracked so far."""
        clip, self.pictured = self.clip, len(self.clip)
        some = np.unique(np.linspace(0, self.pictured - 1, PICTURES).astype(int))
        mattes = (clip.mattes(some) * 255).astype(np.uint8)
        heads = torch.from_numpy(clip.masks(some, names=("sure_head",))["sure_head"])
        inputs = self.inputs().pick(some).to(backdrop.center.device)
        poses = pose_vectors(inputs.vectors)
        tracks = (inputs.body, inputs.background)
        backdrop.initialise(list(clip.frames(some)), list(mattes), heads, range(len(some)), poses, *tracks)

    def complete_backdrop(self, model: HeadModel) -> None:
        """Initialise body and background again once the whole clip is tracked, if it has grown by ``GROWN``."""
        if len(self.clip) > GROWN * self.pictured:
            model.backdrop.calibrate(pose_vectors(self.inputs().vectors))
            self.start_backdrop(model.backdrop)

    def update_backdrop(self, model: HeadModel) -> None:
        """The same between stages, from ``GROWN_BETWEEN_STAGES`` on; the normalisation of poses stays."""
        if len(self.clip) > GROWN_BETWEEN_STAGES * self.pictured:
            self.start_backdrop(model.backdrop)

    def frontal_frame(self) -> int:
        """The frame with the smallest yaw and pitch among those tracked so far, which shows most of the face."""
        return int((rotation_to_euler(self.clip.track["rotation"])[:, :2] ** 2).sum(1).argmin())


def auto_resolution(size: int) -> int:
    """Side of the UV map: about one Gaussian per 2-3 pixels of a head that fills the frame."""
    return max(64, min(256, round(size * 0.5 / 16) * 16))
