"""Heads of free Gaussians in branches (face, inside of the mouth, eyes), each with its own motion field.

Used by ``talkinggaussian`` (two branches) and ``fg3dgs`` (three). A branch is a canonical cloud in head space that is
densified while it is static, and a field that moves it with the audio and the upper face. Branches are rendered
separately and composed front to back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from adapt.avatar.document import AvatarContent, ModelShape
from adapt.models.action_units import upper_units
from adapt.models.base import HeadModel, Window
from heads.compose import over
from heads.gaussians.cloud import Gaussians
from heads.gaussians.free import PARTS, FreeGaussians
from heads.gaussians.render import render_head
from heads.motion.audio import AudioWindowEncoder
from heads.motion.fields import Motion, MotionField
from heads.person.backdrop import Backdrop
from heads.person.inputs import AUDIO_CONTEXT, POSE, HeadInputs
from heads.person.talking_head import moved
from heads.rig import Rig
from heads.rig.holder import RigModule

AUDIO_SIZE = 32  # width of the encoded audio
# Regions of the rig that each branch's cloud is seeded on.
MOUTH = ("mouth_inside", "teeth_upper", "teeth_lower")
EYES = ("eyeball_left", "eyeball_right", "eye_left", "eye_right")


@dataclass(frozen=True)
class Field:
    """A branch's motion field and the names of what it is given: ``audio``, ``units``, ``eyes``."""

    module: MotionField
    inputs: tuple[str, ...]


class BranchHead(RigModule, HeadModel):
    """A head of branches; see the module's docstring.

    Args:
        rig: the rig, for the upper-face units.
        clouds: branch -> canonical Gaussians, the front-most first.
        fields: branch -> motion field.
        identity: ``[K_id]``, for the upper-face units.
        audio_features: width of a row of audio features.

    Attributes:
        active: branches that are rendered.
        still: whether the clouds are rendered without motion.
        metas: rasterisation metadata of each branch's last rendering, for densification.
    """

    uses_audio = True
    identity: Tensor

    def __init__(
        self,
        size: int,
        intrinsics: Tensor,
        *,
        rig: Rig,
        identity: Tensor,
        clouds: dict[str, FreeGaussians],
        fields: Mapping[str, Field],
        audio_features: int,
    ) -> None:
        super().__init__(size, intrinsics)
        self.rig = rig
        self.backdrop = Backdrop(size, size, 3 * POSE)
        self.clouds = nn.ModuleDict(clouds)
        self.fields = nn.ModuleDict({name: field.module for name, field in fields.items()})
        self.given = {name: field.inputs for name, field in fields.items()}
        self.audio = AudioWindowEncoder(audio_features, AUDIO_SIZE)
        self.register_buffer("identity", identity.float().clone())
        self.active = tuple(clouds)
        self.still = True
        self.metas: dict[str, dict[str, Any]] = {}

    @classmethod
    def empty(
        cls, fields: Mapping[str, Field], document: AvatarContent, tensors: Mapping[str, Tensor], rig: Rig
    ) -> BranchHead:
        """A model of the right shapes for an avatar's weights."""
        counts = document["model"]["gaussians"]
        model = cls(
            document["size"],
            tensors["intrinsics"],
            rig=rig,
            identity=tensors["identity"],
            clouds={name: FreeGaussians(torch.zeros(counts[name], 3), scale=1.0) for name in fields},
            fields=fields,
            audio_features=document["features"]["size"],
        )
        model.still = False
        return model

    def shape(self) -> ModelShape:
        """The number of Gaussians in each branch."""
        return {"gaussians": {name: self.cloud(name).n for name in self.clouds}}

    def cloud(self, name: str) -> FreeGaussians:
        """The canonical Gaussians of a branch."""
        return cast(FreeGaussians, self.clouds[name])

    def field(self, name: str) -> MotionField:
        """The motion field of a branch."""
        return cast(MotionField, self.fields[name])

    def conditions(self, inputs: HeadInputs) -> dict[str, Tensor]:
        """The fields' inputs: ``audio [B, 32]``, ``units [B, 7]``, ``eyes [B, 6]``."""
        centre = torch.full((1,), AUDIO_CONTEXT, device=inputs.rotation.device)
        if inputs.features is None:
            audio = torch.zeros(len(inputs), AUDIO_SIZE, device=inputs.rotation.device)
        else:
            audio = torch.cat([self.audio(rows, centre) for rows in inputs.features])
        eyes = torch.cat([inputs.eyelids, inputs.gaze.flatten(1)], 1)
        return {"audio": audio, "units": upper_units(self.rig, self.identity, inputs), "eyes": eyes}

    def motion(self, branch: str, condition: dict[str, Tensor], means: Tensor) -> Motion:
        """The motion of one branch's ``means [N, 3]`` under a condition."""
        return self.field(branch)(means, **{name: condition[name] for name in self.given[branch]})

    def branch(self, name: str, condition: dict[str, Tensor] | None) -> Gaussians:
        """The Gaussians of a branch ``[B or 1, N, ...]`` under a condition; canonical for ``None``."""
        cloud = self.cloud(name).gaussians()
        if condition is None:
            return cloud
        count = len(condition["audio"])
        shared = cloud.replace(
            **{part: getattr(cloud, part).expand(count, *getattr(cloud, part).shape[1:]) for part in PARTS}
        )
        return moved(shared, self.motion(name, condition, cloud.means[0]))

    def gaussians(self, inputs: HeadInputs | None) -> Gaussians:
        """All branches in one scene."""
        condition = None if inputs is None else self.conditions(inputs)
        return Gaussians.join(*(self.branch(name, condition) for name in self.clouds))

    def layers(
        self, inputs: HeadInputs, window: Window | None = None, shrink: int = 1
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Premultiplied colour ``[B, H, W, 3]`` and alpha ``[B, H, W, 1]`` of every active branch, rendered separately."""
        condition = None if self.still else self.conditions(inputs)
        intrinsics, height, width = self.view(window, shrink)
        views = (inputs.rotation, inputs.translation, intrinsics.expand(len(inputs), 3, 3), width, height)
        found = {}
        for name in self.active:
            color, alpha, self.metas[name] = render_head(self.branch(name, condition), *views)
            found[name] = (color, alpha)
        return found

    def head(self, inputs: HeadInputs, window: Window | None = None, shrink: int = 1) -> tuple[Tensor, Tensor]:
        """Front-to-back composition of the branches; see :class:`HeadModel`."""
        return over(list(self.layers(inputs, window, shrink).values()))
