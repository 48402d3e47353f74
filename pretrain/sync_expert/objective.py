"""The contrastive objective: which of a clip's own audio windows belongs to these lips."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pretrain.sync_expert.config import SyncExpertConfig
from pretrain.sync_expert.model import SyncModel, sliding
from shards.format.small import MARGIN

LEVELS_STD = math.sqrt((256**2 - 1) / 12)  # standard deviation of the whole numbers 0 to 255, all equally likely


class SyncObjective(nn.Module):
    """``forward(batch)``: InfoNCE over the windows of a run, both ways, plus lip geometry predicted from each modality.

    Unless ``loss.foreign`` is set, all negatives of a window are the same voice and face at other times, so that neither
    the speaker nor the room reveals the answer.
    """

    def __init__(self, model: SyncModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """batch: see :class:`pretrain.sync_expert.view.LipRunView`; returns the loss and its parts."""
        model, config = self.model, self.model.config
        lips = prepare_lips(batch["lips"], config, augment=self.training)
        frames = model.lips.frames(lips)
        seen = model.lips.windows(sliding(frames, config.window))
        mean = batch["mean"].float()[:, None] if config.centre else None
        sound, predicted = model.audio.run(model.normalise(batch["features"].float(), mean), config.window)
        weight = batch["weight"].float()
        contrast, accuracy = self.contrast(seen, sound, weight)
        shape = batch["shape"].float() / model.shape_std
        middle = shape[:, config.window // 2 :][:, : predicted.shape[1]]
        of_lips = F.smooth_l1_loss(model.lips.shape(frames), shape, reduction="none").mean((1, 2))
        of_sound = F.smooth_l1_loss(predicted, middle, reduction="none").mean((1, 2))
        geometry = ((of_lips + of_sound) * weight).sum() / weight.sum().clamp_min(1.0)
        loss = config.loss.contrast * contrast + config.loss.shape * geometry
        return loss, {"contrast": contrast.detach(), "shape": geometry.detach(), "accuracy": accuracy.detach()}

    def contrast(self, seen: Tensor, sound: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy both ways, and the share of windows that are matched correctly.

        Args:
            seen: ``[B, N, E]``, unit vectors.
            sound: ``[B, N, E]``, unit vectors.
            weight: ``[B]``.
        """
        config = self.model.config.loss
        sharpness = self.model.sharpness.clamp(max=4.0).exp()
        scores = sharpness * torch.einsum("bne,bme->bnm", seen, sound)
        count = scores.shape[1]
        at = torch.arange(count, device=scores.device)
        distance = (at[:, None] - at[None]).abs()
        scores = scores.masked_fill((distance > 0) & (distance <= config.guard), -1e4)
        right = torch.arange(count, device=scores.device).expand(len(scores), -1)
        both = [(_with_foreign(scores, seen, sound, sharpness, config.foreign)), scores.transpose(1, 2)]
        losses = sum(F.cross_entropy(s.transpose(1, 2), right, reduction="none").mean(1) for s in both) / 2
        matched = (scores.argmax(-1) == right).float().mean(1)
        total = weight.sum().clamp_min(1.0)
        return (losses * weight).sum() / total, (matched * weight).sum() / total


def _with_foreign(scores: Tensor, seen: Tensor, sound: Tensor, sharpness: Tensor, share: float) -> Tensor:
    """Add other people's audio as further negatives, which then make up ``share`` of all negatives."""
    batch, count = scores.shape[:2]
    extra = round(share * count / max(1e-6, 1 - share)) if share and batch > 1 else 0
    if not extra:
        return scores
    others = sound.roll(1, 0)[:, torch.randperm(count, device=sound.device)[:extra]]
    return torch.cat([scores, sharpness * torch.einsum("bne,bme->bnm", seen, others)], -1)


def prepare_lips(lips: Tensor, config: SyncExpertConfig, *, augment: bool) -> Tensor:
    """``lips [B, R, H, W, 3]`` uint8 with margin to ``[B, R, h, w, 3]`` RGB in [0, 1]: the centre.

    With ``augment`` it is jittered, mirrored and relit, all frames of a run in the same way, and noise is added.
    """
    batch, run = lips.shape[:2]
    # A run's frames as channels of one picture: they share the places where they are sampled.
    planes = lips.permute(0, 1, 4, 2, 3).flatten(1, 2).float()
    size = [batch, planes.shape[1], config.model.height, config.model.breadth]
    grid = F.affine_grid(placement(batch, config, lips.device, augment=augment), size, align_corners=False)
    cut = F.grid_sample(planes, grid, padding_mode="border", align_corners=False).unflatten(1, (run, 3))
    cut = relight(cut, config) if augment else cut / 255
    return cut.permute(0, 1, 3, 4, 2)


def placement(batch: int, config: SyncExpertConfig, device: torch.device, *, augment: bool) -> Tensor:
    """Maps ``[B, 2, 3]`` from a network's crop to one with margin, as of ``affine_grid``; varied with ``augment``."""
    zoom = torch.full((batch,), 1 / MARGIN, device=device)
    shift, roll = torch.zeros(batch, 2, device=device), torch.zeros(batch, device=device)
    mirror = torch.ones(batch, device=device)
    if augment:
        zoom = zoom * (config.augment.scale * torch.randn(batch, device=device)).clamp(-0.25, 0.25).exp()
        shift = (config.augment.shift * torch.randn(batch, 2, device=device)).clamp(-0.15, 0.15)
        roll = config.augment.roll * torch.randn(batch, device=device)
        mirror = torch.where(torch.rand(batch, device=device) < config.augment.mirror, -1.0, 1.0)
    aspect = config.model.breadth / config.model.height
    cos, sin = zoom * roll.cos(), zoom * roll.sin()
    rows = [
        torch.stack([cos * mirror, -sin / aspect, shift[:, 0]], -1),
        torch.stack([sin * aspect * mirror, cos, shift[:, 1]], -1),
    ]
    return torch.stack(rows, 1)


def relight(lips: Tensor, config: SyncExpertConfig) -> Tensor:
    """``lips [B, R, 3, h, w]`` in 0..255 to about [0, 1].

    Contrast, brightness and tint are varied, all frames of a run in the same way, and noise is added.
    """
    batch, device, augment = len(lips), lips.device, config.augment
    contrast = (augment.light * torch.randn(batch, 1, 1, 1, 1, device=device)).exp()
    gain = contrast * (1 + augment.colour * torch.randn(batch, 1, 3, 1, 1, device=device))
    bright = 0.3 * 0.5 * augment.light * torch.randn(batch, 1, 1, 1, 1, device=device)
    mean = lips.mean((1, 2, 3, 4), keepdim=True) / 255
    noise = augment.noise / LEVELS_STD  # of one level
    # (lips - mean) * gain + mean + bright, and the mean of the noise
    lips = torch.addcmul(mean * (1 - gain) + bright - 127.5 * noise, lips, gain / 255)
    return lips.add_(random_levels(lips).to(lips.dtype), alpha=noise)


def random_levels(like: Tensor) -> Tensor:
    """uint8 values shaped as ``like``, all equally likely: noise in a fifth of the time of normal noise on a CPU."""
    whole = torch.empty(-(-like.numel() // 8), dtype=torch.int64, device=like.device).random_(-(2**63), None)
    return whole.view(torch.uint8)[: like.numel()].view(like.shape)
