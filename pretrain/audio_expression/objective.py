"""The denoising objective of audio-expression: windows of a face in motion, conditioned on sound and style."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pretrain.audio_expression import diffusion
from pretrain.audio_expression.model import ExpressionModel

PURE_NOISE = 0.33  # share of windows at the last training time · guess


class SequenceObjective(nn.Module):
    """``forward(batch)``: the denoising loss of a batch of windows.

    Loss: L2 on the targets plus Huber on frame-to-frame differences, components weighted by how far they move the
    face and the lips; L2 on opening and width of the mouth; L2 on the styles. Condition and style are dropped at random
    (Ho & Salimans 2022).
    """

    importance: Tensor
    mouth: Tensor

    def __init__(self, model: ExpressionModel) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("importance", torch.ones(model.dims))
        self.register_buffer("mouth", torch.zeros(model.dims, 2))

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and its parts.

        Args:
            batch: see :class:`pretrain.audio_expression.view.WindowView`.
        """
        people, denoiser = batch["person"].clamp_min(0), self.model.denoiser
        known = torch.rand(len(people), device=people.device) >= self.model.config.diffusion.style_drop
        style = denoiser.styles(people) * known[:, None]
        # In the mean style all have the mean resting face; otherwise the audio would have to identify the speaker.
        resting = denoiser.resting[people] * ~known[:, None]
        clean = self.model.encode(batch["targets"].float()) - resting[:, None]
        return self.step(batch["features"].float(), batch["mean"].float(), clean, style, batch["weight"].float())

    def step(
        self, features: Tensor, mean: Tensor, clean: Tensor, style: Tensor, weight: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Noise normalised windows ``[B, T, D]``, denoise them given features ``[B, T, C]`` and styles ``[B, S]``, and compare."""
        model, config = self.model, self.model.config
        features = model.normalise(features, mean)
        if self.training and config.augment.noise:
            features = features + config.augment.noise * torch.randn_like(features)
        count, device = len(clean), clean.device
        conditioned = torch.rand(count, device=device) >= config.diffusion.condition_drop
        t = torch.randint(0, config.diffusion.train_steps, (count,), device=device)
        # A third of the windows at pure noise: one-step means and the first sampling step both start there.
        last = torch.full_like(t, config.diffusion.train_steps - 1)
        t = torch.where(torch.rand(count, device=device) < PURE_NOISE, last, t)
        # A low temperature scales the noise down, so the model must be trained on less of it.
        noise_scale = torch.where(torch.rand(count, device=device) < 0.5, torch.rand(count, device=device), 1.0)
        white = torch.randn(count, clean.shape[1] + len(model.taps) - 1, clean.shape[2], device=device)
        noise = diffusion.smooth_noise(white, model.taps) * noise_scale[:, None, None]
        noisy = diffusion.add_noise(model.alpha, clean, noise, t)
        return self.losses(model.predict(noisy, t, features, style, conditioned), clean, style, weight)

    def losses(self, guess: Tensor, clean: Tensor, style: Tensor, weight: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and its parts for ``guess [B, T, D]`` and ``clean [B, T, D]``, normalised.

        ``weight [B]`` is zero for unusable windows.
        """
        config = self.model.config.loss
        weight = (weight / weight.sum().clamp_min(1.0))[:, None]
        frame = ((guess - clean).square().mean(1) * self.importance * weight).sum(0).mean()
        moves = F.huber_loss(guess.diff(dim=1), clean.diff(dim=1), reduction="none").mean(1)
        difference = (moves * self.importance * weight).sum(0).mean()
        # The mouth's motion within a window, which audio determines, without the resting face, which it does not.
        error = (guess - clean) @ self.mouth
        mouth = ((error - error.mean(1, keepdim=True)).square().mean(1) * weight).sum(0).mean()
        size = style.square().mean()
        parts = {"frame": frame, "difference": difference, "mouth": mouth, "style": size}
        loss = torch.stack([getattr(config, name) * value for name, value in parts.items()]).sum()
        return loss, {name: value.detach() for name, value in parts.items()}
