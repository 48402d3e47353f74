"""Audio-expression as a prior: sound to the motion of a face, in any person's style."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from cluster.registry.prior_folder import PriorInfo, Signature, feature_size
from pretrain.audio_expression.inference import AudioExpressionPrior
from pretrain.audio_expression.model import ExpressionModel
from pretrain.audio_expression.targets import target_sizes
from pretrain.audio_expression.task import AudioExpressionTask
from pretrain.prior import Headline, Prior, tensor
from pretrain.roles import MOTION
from pretrain.task import Task


class AudioExpression(Prior):
    """See :class:`pretrain.prior.Prior`."""

    task: ClassVar[type[Task]] = AudioExpressionTask
    learns: ClassVar[str] = "how a face moves to a voice: expression from sound"
    role: ClassVar[str] = MOTION
    headlines: ClassVar[tuple[Headline, ...]] = (
        Headline("r_prior", "lip opening, correlation", "the prior"),
        Headline("r_ridge", "lip opening, correlation", "ridge regression"),
        Headline("own_lip_error_prior", "lip error, eye distances", "the prior, style found"),
        Headline("own_lip_error_ridge", "lip error, eye distances", "ridge regression"),
        Headline("own_lip_error_mean", "lip error, eye distances", "a still face"),
    )
    budget_share: ClassVar[float] = 0.30

    @classmethod
    def restore(cls, info: PriorInfo, tensors: dict[str, Tensor], device: torch.device) -> AudioExpressionPrior:
        """From a prior folder's content."""
        config, people = cls.config_of(info), list(info["dataset"]["identities"])
        rest = sum(target_sizes(config.targets, 0).values())
        n_expression = tensors["target_mean"].numel() - rest
        size = feature_size(info)
        live = len(tensors.get("live.mean", ()))  # none in priors of earlier versions
        model = ExpressionModel(config, size, n_expression, len(people), tensors.get("alpha"), live)
        # Priors from before amplitudes were calibrated give their temperature in the configuration.
        model.load_state_dict({"amplitude": model.amplitude, **tensors})
        return AudioExpressionPrior(model.to(device), info, people)

    @classmethod
    def signature(cls, info: PriorInfo) -> Signature:
        """Features ``[T, C]`` at 25 fps to expression ``[T, K]`` and the configuration's other targets."""
        return {
            "inputs": [tensor("features", "float32", -1, feature_size(info))],
            "outputs": [tensor("expression", "float32", -1, -1)],
            "params": [{"name": "seed", "dtype": "long", "default": 0}],
        }

    @classmethod
    def predict(
        cls, ready: AudioExpressionPrior, data: Mapping[str, np.ndarray], params: Mapping[str, Any]
    ) -> dict[str, np.ndarray]:
        """One draw of the sampler."""
        return ready.sample(np.asarray(data["features"], np.float32), **params)


PRIOR = AudioExpression
