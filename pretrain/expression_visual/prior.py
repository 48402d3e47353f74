"""Expression-visual as a prior: one frame of a person to a head of Gaussians."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from cluster.registry.prior_folder import PriorInfo, Signature
from pretrain.data.rigs import recorded_rig
from pretrain.expression_visual.inference import ExpressionVisualPrior
from pretrain.expression_visual.model import CHANNELS, VisualModel
from pretrain.expression_visual.task import ExpressionVisualTask
from pretrain.prior import Headline, Prior, tensor
from pretrain.roles import APPEARANCE
from pretrain.task import Task


class ExpressionVisual(Prior):
    """See :class:`pretrain.prior.Prior`."""

    task: ClassVar[type[Task]] = ExpressionVisualTask
    learns: ClassVar[str] = "what a head looks like from one frame: Gaussians from a picture"
    role: ClassVar[str] = APPEARANCE
    headlines: ClassVar[tuple[Headline, ...]] = (
        Headline("psnr_prior", "PSNR of the face, dB", "the prior"),
        Headline("psnr_copy", "PSNR of the face, dB", "texture copy"),
        Headline("head_prior", "PSNR of the head, dB", "the prior"),
        Headline("head_copy", "PSNR of the head, dB", "texture copy"),
    )
    budget_share: ClassVar[float] = 0.48  # pictures take the longest to show anything

    @classmethod
    def restore(cls, info: PriorInfo, tensors: dict[str, Tensor], device: torch.device) -> ExpressionVisualPrior:
        """From a prior folder's content.

        Raises:
            InputError: the rig that it was trained on is not here.
        """
        rig = recorded_rig(info["rig"], "expression-visual prior")
        model = VisualModel(cls.config_of(info), rig)
        model.load_state_dict(tensors)
        return ExpressionVisualPrior(model.to(device), info)

    @classmethod
    def signature(cls, info: PriorInfo) -> Signature:
        """R frames of one person, their mattes and tracks to a map ``[N, 14]`` of UV Gaussians."""
        inputs = [
            tensor("frames", "uint8", -1, -1, -1, 3),
            tensor("mattes", "uint8", -1, -1, -1),
            tensor("identity", "float32", -1),
            tensor("intrinsics", "float32", 3, 3),
            tensor("rotation", "float32", -1, 3, 3),
            tensor("translation", "float32", -1, 3),
            tensor("expression", "float32", -1, -1),
            tensor("eyelids", "float32", -1, 2),
            tensor("gaze", "float32", -1, 2, 2),
        ]
        return {"inputs": inputs, "outputs": [tensor("maps", "float32", -1, CHANNELS)]}

    @classmethod
    def predict(
        cls, ready: ExpressionVisualPrior, data: Mapping[str, np.ndarray], params: Mapping[str, Any]
    ) -> dict[str, np.ndarray]:
        """One map for one person."""
        tracks = {name: value for name, value in data.items() if name not in ("frames", "mattes")}
        return {"maps": ready.predict(data["frames"], data["mattes"], tracks).cpu().numpy()}


PRIOR = ExpressionVisual
