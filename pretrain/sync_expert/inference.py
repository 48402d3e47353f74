"""The trained sync expert: whether lips and audio agree, as a measure and as a loss."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cluster.registry.prior_folder import PriorInfo
from configs import InputError
from heads.measures.lips import crop_lips
from pretrain.sync_expert.model import SyncModel, sliding

OFFSETS = 15  # frames searched to each side, as SyncNet's evaluation does


class SyncExpert:
    """Ready-to-use expert. Frames are RGB in [0, 1], landmarks are in px of those frames, feature rows are 40 ms apart.

    Attributes:
        info: the ``prior.json`` dictionary.
        features_name, features_size: the audio feature that it uses.
        window: frames of a window.
    """

    def __init__(self, model: SyncModel, info: PriorInfo) -> None:
        self.model, self.info, self.config = model.eval(), info, model.config
        self.features_name, self.features_size, self.window = model.config.features, model.size, model.config.window
        for parameter in model.parameters():
            parameter.requires_grad_(False)

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.model.feature_mean.device

    def check_features(self, features: Tensor, name: str | None = None) -> None:
        """Raise ``InputError`` for features of another name or width."""
        if name is not None and name != self.features_name:
            raise InputError(f"audio features '{name}': this sync expert uses '{self.features_name}'; extract those")
        if features.shape[-1] != self.features_size:
            raise InputError(
                f"audio features have {features.shape[-1]} columns: this sync expert expects {self.features_size} of "
                f"'{self.features_name}'; extract those"
            )

    def crop_lips(self, frames: Tensor, landmarks: Tensor) -> Tensor:
        """frames ``[..., H, W, 3]``, landmarks ``[..., 478, 3]`` px to ``[..., h, w, 3]``; differentiable in the frames."""
        return crop_lips(frames, landmarks, self.config.model.height, self.config.model.breadth)

    def audio_embedding(self, features: Tensor, mean: Tensor | None = None) -> Tensor:
        """Windows ``[B, 5, C]`` to unit vectors ``[B, E]``.

        Args:
            mean: ``[C]`` or ``[B, 1, C]``: mean feature row of the utterance, which removes the microphone; by default that
                of the window itself. Ignored by priors without ``centre``, which use the training mean.
        """
        self.check_features(features)
        if not self.config.centre:
            mean = None
        elif mean is None:
            mean = features.mean(-2, keepdim=True)
        return self.model.audio(self.model.normalise(features, mean))[0]

    def lip_embedding(self, lips: Tensor) -> Tensor:
        """Windows of lips ``[B, 5, h, w, 3]`` to unit vectors ``[B, E]``, differentiable."""
        return self.model.lips.windows(self.model.lips.frames(lips))

    def distance(self, audio: Tensor, lips: Tensor) -> Tensor:
        """Euclidean distance ``[B]`` of unit embeddings ``[B, E]``: 0 if they agree, 2 if they are opposite."""
        return (2 - 2 * (audio * lips).sum(-1)).clamp_min(1e-8).sqrt()

    def loss(self, frames: Tensor, landmarks: Tensor, features: Tensor, mean: Tensor | None = None) -> Tensor:
        """Mean distance of windows: frames ``[B, 5, H, W, 3]``, landmarks ``[B, 5, 478, 3]``, features ``[B, 5, C]``.

        Gradients reach the frames; the expert itself is frozen (FG-3DGS, post-render alignment).
        """
        return self.distance(
            self.audio_embedding(features, mean), self.lip_embedding(self.crop_lips(frames, landmarks))
        ).mean()

    @torch.no_grad()
    def frame_features(self, frames: np.ndarray | Tensor, landmarks: np.ndarray | Tensor, block: int = 32) -> Tensor:
        """Per-frame lip features ``[T, W]`` of frames ``[T, H, W, 3]``, uint8 or float in [0, 1]."""
        parts = []
        for start in range(0, len(frames), block):
            picture = torch.as_tensor(np.asarray(frames[start : start + block])).to(self.device)
            picture = picture.float() / 255 if picture.dtype == torch.uint8 else picture.float()
            points = torch.as_tensor(np.asarray(landmarks[start : start + block])).to(self.device).float()
            parts.append(self.model.lips.frames(self.crop_lips(picture, points)))
        return torch.cat(parts)

    @torch.no_grad()
    def distances(self, frame_features: Tensor, features: np.ndarray | Tensor, reach: int = OFFSETS) -> Tensor:
        """Distances ``[N, 2 * reach + 1]`` of N lip windows to the audio ``-reach..reach`` frames later; NaN beyond the ends."""
        rows = torch.as_tensor(features).float().to(frame_features.device)
        lips = self.model.lips.windows(sliding(frame_features[None], self.window)[0])
        sound = self.audio_embedding(sliding(rows[None], self.window)[0], rows.mean(0))
        count = min(len(lips), len(sound))
        lips, sound = lips[:count], sound[:count]
        at = (
            torch.arange(count, device=rows.device)[:, None] + torch.arange(-reach, reach + 1, device=rows.device)[None]
        )
        inside = (at >= 0) & (at < count)
        found = self.distance(sound[at.clamp(0, count - 1)], lips[:, None])
        return found.masked_fill(~inside, float("nan"))

    def confidence(
        self, frames: np.ndarray | Tensor, landmarks: np.ndarray | Tensor, features: np.ndarray | Tensor
    ) -> tuple[float, float, int]:
        """Sync-C, Sync-D and the offset in frames (positive: the audio is late) of a clip.

        Sync-D is the least mean distance over the offsets, Sync-C the median over the offsets minus it
        (Chung & Zisserman 2016). Distances are those of this expert (0..2), not of the original SyncNet.

        Raises:
            InputError: fewer than 25 frames.
        """
        return self.confidence_of(self.frame_features(frames, landmarks), features)

    def confidence_of(self, frame_features: Tensor, features: np.ndarray | Tensor) -> tuple[float, float, int]:
        """The same from :meth:`frame_features`, for callers that stream their frames.

        The offset is that of the least mean distance :func:`without_hubs`.

        Raises:
            InputError: fewer than 25 frames (1 s), too short to determine an offset.
        """
        if len(frame_features) < 25 or len(features) < 25:
            raise InputError(
                f"sync needs 25 frames or more, got {min(len(frame_features), len(features))}; give a longer clip"
            )
        distances = self.distances(frame_features, features)
        mean, corrected = (d.nanmean(0) for d in (distances, without_hubs(distances)))
        known = ~mean.isnan()
        mean, corrected = mean[known], corrected[known]
        return float(mean.median() - mean.min()), float(mean.min()), int(corrected.argmin()) - len(mean) // 2


def without_hubs(distances: Tensor) -> Tensor:
    """Distances ``[N, 2 * reach + 1]`` of lips to sound, corrected for sound that is near the lips of every frame.

    Such windows are hubs of the embedding and would win whatever the lips show. Each window of sound loses its mean distance
    to the lips within reach (as in CSLS, Conneau et al. 2018); the mean over all windows stays. What it gains: docs/priors.md.
    """
    count, reach = len(distances), distances.shape[1] // 2
    steps = torch.arange(-reach, reach + 1, device=distances.device)
    sound = torch.arange(count, device=distances.device)[:, None] + steps[None]
    known = ~distances.isnan()
    totals, counts = distances.new_zeros(count), distances.new_zeros(count)
    totals.index_add_(0, sound[known], distances[known])
    counts.index_add_(0, sound[known], torch.ones_like(distances[known]))
    means = totals / counts.clamp_min(1)
    return distances - means[sound.clamp(0, count - 1)] + distances.nanmean()
