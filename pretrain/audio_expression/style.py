"""Fits the style of a person to a clip; the network stays frozen."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from configs.seeds import derive
from heads.adam import Adam
from pretrain.audio_expression import diffusion
from pretrain.audio_expression.model import ExpressionModel

CERTAINTY = 20.0  # inverse variance of a clip's mean as the resting face, in normalised targets · guess


def fit_style(model: ExpressionModel, features: Tensor, clean: Tensor, iterations: int, seed: int) -> np.ndarray:
    """The style ``[S]``: the resting face in closed form, then ``iterations`` of Adam on the style alone at high noise.

    Windows ``features [B, T, C]`` and ``clean [B, T, D]`` are normalised.
    """
    device = clean.device
    generator = torch.Generator().manual_seed(derive(seed, "style"))
    with torch.no_grad():
        first = model.denoiser.resting_style((clean - _motion(model, features)).mean((0, 1)), CERTAINTY)
    if not iterations:
        return first.cpu().numpy()
    style = first[None].clone().requires_grad_()
    optimizer = Adam([{"params": [style], "lr": 0.02}])
    steps, batch = len(model.alpha), min(8, len(clean))
    frozen = [p for p in model.parameters() if p.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        with torch.enable_grad():
            for _ in range(iterations):
                pick = torch.randperm(len(clean), generator=generator)[:batch].to(device)
                t = torch.randint(steps // 2, steps, (batch,), generator=generator).to(device)
                noise = torch.randn(clean[pick].shape, generator=generator).to(device)
                noisy = diffusion.add_noise(model.alpha, clean[pick], noise, t)
                conditioned = torch.ones(batch, dtype=torch.bool, device=device)
                guess = model.predict(noisy, t, features[pick], style.expand(batch, -1), conditioned)
                loss = (guess - clean[pick]).square().mean() + 0.05 * (style - first).square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)
    return style.detach()[0].cpu().numpy()


def _motion(model: ExpressionModel, features: Tensor) -> Tensor:
    """Normalised motion predicted in the mean style for features ``[B, T, C]``: speech without the resting face."""
    count, device = len(features), features.device
    t = torch.full((count,), len(model.alpha) - 1, device=device)
    noisy = torch.zeros(*features.shape[:2], model.dims, device=device)
    style = torch.zeros(count, model.config.model.style, device=device)
    return model.predict(noisy, t, features, style, torch.ones(count, dtype=torch.bool, device=device))
