"""Heads of free Gaussians in branches (face, inside of the mouth, eyes), each with its own motion field.

Used by ``talkinggaussian`` (two branches) and ``fg3dgs`` (three). A branch is a canonical cloud in head space that is
densified while it is static, and a field that moves it with the audio and the upper face. Branches are rendered
separately and composed front to back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from adapt.avatar.document import AvatarContent, ModelShape
from adapt.models.action_units import upper_units
from adapt.models.base import HeadModel
from configs.devices import constant
from heads.compose import over
from heads.gaussians.cloud import Gaussians
from heads.gaussians.free import PARTS, FreeGaussians
from heads.gaussians.render import render_head
from heads.geometry.rotation import rotation_matrix
from heads.motion.audio import AudioWindowEncoder
from heads.motion.fields import MotionField
from heads.person.backdrop import Backdrop
from heads.person.inputs import AUDIO_CONTEXT, POSE, SPANS, HeadInputs
from heads.person.layers import Window
from heads.person.residual import LowRankResidual
from heads.person.talking_head import moved
from heads.rig import Rig
from heads.rig.holder import RigModule

AUDIO_SIZE = 32  # width of the encoded audio
# Regions of the rig that each branch's cloud is seeded on.
MOUTH = ("mouth_inside", "teeth_upper", "teeth_lower")
# Of the pose's correction: basis vectors, and typical tracking errors (radians, rig units; depth is seen least) · guesses
CORRECTION_RANK, POSE_ERROR = 16, (0.005, 0.005, 0.005, 0.01, 0.01, 0.05)
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
        active: branches that steps render; without gradients all are shown.
        still: whether the clouds are rendered without motion.
        frozen: whether only colours and opacities get gradients.
        metas: rasterisation metadata of each branch's last rendering, for densification.
    """

    uses_audio = True
    identity: Tensor
    audio_center: Tensor
    audio_scale: Tensor

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
        self.correction = LowRankResidual(1, POSE, (1 + len(SPANS)) * (POSE + rig.n_expression + 6), CORRECTION_RANK)
        # Branches are trained one after the other, so none may share an encoder with a branch that is finished.
        listening = [name for name, field in fields.items() if "audio" in field.inputs]
        self.audio = nn.ModuleDict({name: AudioWindowEncoder(audio_features, AUDIO_SIZE) for name in listening})
        self.register_buffer("identity", identity.float().clone())
        self.register_buffer("audio_center", torch.zeros(audio_features))
        self.register_buffer("audio_scale", torch.ones(audio_features))
        self.active = tuple(clouds)
        self.still = True
        self.frozen = False
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

    def conditions(self, inputs: HeadInputs, branches: Iterable[str]) -> dict[str, dict[str, Tensor]]:
        """What the fields of branches are given: ``audio [B, 32]``, ``units [B, 7]``, ``eyes [B, 6]``."""
        eyes = torch.cat([inputs.eyelids, inputs.gaze.flatten(1)], 1)
        shared = {"units": upper_units(self.rig, self.identity, inputs), "eyes": eyes}
        return {
            name: {given: self.heard(name, inputs) if given == "audio" else shared[given] for given in self.given[name]}
            for name in branches
        }

    def pose(self, inputs: HeadInputs) -> tuple[Tensor, Tensor]:
        """Rotation ``[B, 3, 3]`` and translation ``[B, 3]`` of the head, less what tracks tell of the tracker's errors."""
        if self.still:
            return inputs.rotation, inputs.translation
        change = self.correction(inputs.vectors)[:, 0] * constant(POSE_ERROR, inputs.vectors)
        turn, shift = change.split(3, 1)
        return inputs.rotation @ rotation_matrix(turn), inputs.translation + shift

    def heard(self, branch: str, inputs: HeadInputs) -> Tensor:
        """A branch's encoding of the sound ``[B, 32]``; zeros in a silent clip."""
        if inputs.features is None:
            return torch.zeros(len(inputs), AUDIO_SIZE, device=inputs.rotation.device)
        centre = torch.full((1,), AUDIO_CONTEXT, device=inputs.rotation.device)
        features = (inputs.features - self.audio_center) / self.audio_scale
        return torch.cat([self.audio[branch](rows, centre) for rows in features])

    def branch(self, name: str, condition: dict[str, Tensor] | None) -> Gaussians:
        """The Gaussians of a branch ``[B or 1, N, ...]`` under a condition; canonical for ``None``."""
        cloud = self.cloud(name).gaussians()
        if condition is None:
            return cloud
        count = len(next(iter(condition.values())))
        shared = cloud.replace(
            **{part: getattr(cloud, part).expand(count, *getattr(cloud, part).shape[1:]) for part in PARTS}
        )
        return moved(shared, self.field(name)(cloud.means[0], **condition))

    def shown(self, name: str, condition: dict[str, Tensor] | None) -> Gaussians:
        """:meth:`branch` for a step: without gradients of places, shapes and motion if they are frozen."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            gaussians = self.branch(name, condition)
        if not self.frozen:
            return gaussians
        cloud = self.cloud(name).gaussians()
        trained = {part: getattr(cloud, part).expand_as(getattr(gaussians, part)) for part in ("opacities", "colors")}
        return gaussians.replace(**trained)

    def gaussians(self, inputs: HeadInputs | None) -> Gaussians:
        """All branches in one scene."""
        conditions = {} if inputs is None else self.conditions(inputs, self.clouds)
        return Gaussians.join(*(self.branch(name, conditions.get(name)) for name in self.clouds))

    def layers(
        self, inputs: HeadInputs, window: Window | None = None, shrink: int = 1
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Premultiplied colour ``[B, H, W, 3]`` and alpha ``[B, H, W, 1]`` of every active branch, rendered separately."""
        active = self.active if torch.is_grad_enabled() else tuple(self.clouds)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            conditions = {} if self.still else self.conditions(inputs, active)
            pose = self.pose(inputs)
        intrinsics, height, width = self.view(window, shrink)
        views = (*pose, intrinsics.expand(len(inputs), 3, 3), width, height)
        found = {}
        for name in active:
            color, alpha, self.metas[name] = render_head(self.shown(name, conditions.get(name)), *views)
            found[name] = (color, alpha)
        return found

    def head(self, inputs: HeadInputs, window: Window | None = None, shrink: int = 1) -> tuple[Tensor, Tensor]:
        """Front-to-back composition of the branches; see :class:`HeadModel`."""
        return over(list(self.layers(inputs, window, shrink).values()))
