"""The trained expression-visual prior: from one or more frames of a person to an animatable head of Gaussians."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cluster.registry.prior_folder import PriorInfo
from configs import InputError
from pretrain.expression_visual.model import VisualModel
from pretrain.expression_visual.view import POSE


class ExpressionVisualPrior:
    """Ready-to-use prior.

    Attributes:
        info: the ``prior.json`` dictionary.
        resolution: texels along a side of the UV map.
        size: px to which frames are resized.
        binding: the ``heads.UVGaussians`` of its maps.
        rig: the rig that they are bound to.
        appearance_basis: how its maps change with pose and expression
            (:class:`heads.person.appearance.AppearanceBasis`).
    """

    def __init__(self, model: VisualModel, info: PriorInfo) -> None:
        self.model, self.info, self.config = model.eval(), info, model.config
        self.resolution, self.size = model.config.model.resolution, model.config.size
        self.binding, self.rig, self.appearance_basis = model.binding, model.rig, model.appearance_basis

    @torch.no_grad()
    def predict(
        self, frames: np.ndarray | Tensor, mattes: np.ndarray | Tensor, tracks: dict[str, np.ndarray]
    ) -> Tensor:
        """A UV map ``[N, 14]`` for ``heads.UVGaussians(rig, prior.resolution)`` from R frames of one person.

        It is valid at the mean pose and expression of those frames; ``appearance_basis`` changes it for others.

        Args:
            frames: ``[R, H, W, 3]`` or ``[H, W, 3]``, uint8 or float RGB in [0, 1]; mattes: ``[R, H, W]`` or ``[H, W]``, likewise.
            tracks: fields of those frames: ``identity`` ``[K_id]``, ``intrinsics`` ``[3, 3]`` px, and with or without a
                leading R ``rotation, translation, expression, eyelids, gaze``.

        Raises:
            InputError: shapes that do not fit each other.
        """
        image, matte = _unit(frames, 4), _unit(mattes, 3)
        if image.shape[:3] != matte.shape:
            raise InputError(
                f"frames {tuple(image.shape)} and mattes {tuple(matte.shape)} differ in number or size; give a matte a frame"
            )
        references, height = len(image), image.shape[1]
        device = self.model.device
        pose = {name: self._field(tracks, name, references) for name in POSE}
        pose["intrinsics"] = pose["intrinsics"] * torch.tensor(
            [[self.size / image.shape[2]], [self.size / height], [1.0]], device=device
        )
        identity = _shared(tracks["identity"]).to(device, torch.float32).reshape(1, -1)
        sources = {
            "image": _resized(image.to(device), self.size),
            "matte": _resized(matte[..., None].to(device), self.size)[..., 0],
        }
        batch = {name: value[None] for name, value in (sources | pose).items()}
        return self.model(batch, identity, torch.ones(1, references, device=device))[0]

    def _field(self, tracks: Mapping[str, np.ndarray], name: str, references: int) -> Tensor:
        value = _shared(tracks[name]).to(self.model.device, torch.float32)
        shape = {"rotation": (3, 3), "intrinsics": (3, 3), "translation": (3,), "gaze": (2, 2)}.get(
            name, value.shape[-1:]
        )
        if value.shape == shape:
            return value.expand(references, *shape)
        if value.shape != (references, *shape):
            raise InputError(
                f"track field '{name}' has shape {tuple(value.shape)}, expected ({references}, {', '.join(map(str, shape))})"
            )
        return value


def _shared(value: object) -> Tensor:
    """An array as a tensor that shares its memory; read-only arrays are copied, as PyTorch requires."""
    return torch.from_numpy(np.require(np.asarray(value), requirements="W"))


def _unit(value: object, dims: int) -> Tensor:
    """uint8 or float pictures to float32 in [0, 1] with a leading axis."""
    given = value if isinstance(value, Tensor) else _shared(value)
    tensor = given.float() / 255 if given.dtype == torch.uint8 else given.float()
    return tensor[None] if tensor.ndim == dims - 1 else tensor


def _resized(images: Tensor, size: int) -> Tensor:
    """``[R, H, W, C]`` to ``[R, size, size, C]``, area-averaged when shrinking."""
    if images.shape[1:3] == (size, size):
        return images
    planes = images.permute(0, 3, 1, 2)
    if min(images.shape[1:3]) >= size:
        planes = F.interpolate(planes, size=(size, size), mode="area")
    else:
        planes = F.interpolate(planes, size=(size, size), mode="bilinear", align_corners=False)
    return planes.permute(0, 2, 3, 1)
