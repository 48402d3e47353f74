"""Sync-expert as a prior: whether lips and audio agree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from cluster.registry.prior_folder import PriorInfo, Signature, feature_size
from pretrain.prior import Headline, Prior, tensor
from pretrain.roles import SYNC
from pretrain.sync_expert.inference import SyncExpert
from pretrain.sync_expert.model import SyncModel
from pretrain.sync_expert.task import SyncExpertTask
from pretrain.task import Task

OUTPUTS = ("sync_c", "sync_d", "offset")


class Sync(Prior):
    """See :class:`pretrain.prior.Prior`."""

    task: ClassVar[type[Task]] = SyncExpertTask
    learns: ClassVar[str] = "whether these lips and this sound belong together"
    role: ClassVar[str] = SYNC
    headlines: ClassVar[tuple[Headline, ...]] = (
        Headline("auc_window", "AUC, one window", "0.5 is chance"),
        Headline("auc_second", "AUC, one second", "0.5 is chance"),
        Headline("offset_accuracy", "clips whose offset is found", "1 is all"),
    )
    budget_share: ClassVar[float] = 0.22

    @classmethod
    def restore(cls, info: PriorInfo, tensors: dict[str, Tensor], device: torch.device) -> SyncExpert:
        """From a prior folder's content."""
        model = SyncModel(cls.config_of(info), feature_size(info))
        model.load_state_dict(tensors)
        return SyncExpert(model.to(device), info)

    @classmethod
    def signature(cls, info: PriorInfo) -> Signature:
        """Frames ``[T, H, W, 3]`` uint8, landmarks ``[T, 478, 3]`` px and features ``[T, C]`` to Sync-C, Sync-D and the offset."""
        inputs = [
            tensor("frames", "uint8", -1, -1, -1, 3),
            tensor("landmarks", "float32", -1, -1, 3),
            tensor("features", "float32", -1, feature_size(info)),
        ]
        return {"inputs": inputs, "outputs": [tensor(name, "float32", 1) for name in OUTPUTS]}

    @classmethod
    def predict(
        cls, ready: SyncExpert, data: Mapping[str, np.ndarray], params: Mapping[str, Any]
    ) -> dict[str, np.ndarray]:
        """Confidence, distance and offset of one clip."""
        figures = ready.confidence(data["frames"], data["landmarks"], data["features"])
        return {name: np.asarray([value], np.float32) for name, value in zip(OUTPUTS, figures)}


PRIOR = Sync
