"""Noise schedules and samplers, all from ``diffusers``; the one module that touches it.

Loading it takes seconds, so only what begins a training or samples does: a trained prior carries its schedule.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pretrain.audio_expression.config import DiffusionConfig


def alphas(config: DiffusionConfig) -> Tensor:
    """ᾱ of every training time, [train_steps] float32."""
    from diffusers import DDPMScheduler

    schedule = DDPMScheduler(num_train_timesteps=config.train_steps, beta_schedule=config.schedule)
    return schedule.alphas_cumprod.float()


def smoothing(frames: float) -> Tensor:
    """Filter taps [2R+1] of unit energy: white noise through them has unit variance and is smooth over ``frames``.

    A tenth of the noise stays white, so that the model also learns to calm a trembling input.
    """
    if frames <= 0:
        return torch.ones(1)
    radius = int(3 * frames + 0.5)
    taps = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / frames) ** 2)
    taps = taps / taps.sum()
    taps[radius] += 0.05
    return taps / taps.norm()


def smooth_noise(white: Tensor, taps: Tensor) -> Tensor:
    """White noise (B, T + 2R, D) through the taps [2R+1]: (B, T, D)."""
    rows = white.transpose(1, 2)
    batch, size = rows.shape[:2]
    filtered = torch.nn.functional.conv1d(rows.reshape(batch * size, 1, -1), taps.to(rows)[None, None])
    return filtered.reshape(batch, size, -1).transpose(1, 2)


def add_noise(alpha: Tensor, clean: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """The forward process at times ``t`` [B] of a schedule ``alpha`` [train_steps] (Ho et al. 2020, eq. 4)."""
    kept = alpha[t].view(-1, *[1] * (clean.ndim - 1))
    return kept**0.5 * clean + (1 - kept) ** 0.5 * noise


def _sampler(config: DiffusionConfig) -> Any:
    from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

    kind = {"ddim": DDIMScheduler, "dpm++": DPMSolverMultistepScheduler}[config.sampler]
    extra = {"clip_sample": False, "set_alpha_to_one": True} if config.sampler == "ddim" else {}
    return kind(
        num_train_timesteps=config.train_steps,
        beta_schedule=config.schedule,
        prediction_type="sample",
        timestep_spacing="trailing",
        **extra,
    )


def denoise(config: DiffusionConfig, noise: Tensor, steps: int, predict: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Run the sampler from ``noise`` [B, T, D]; ``predict(noisy, t [B])`` gives x0. Deterministic (eta 0)."""
    if steps == 1:  # from pure noise straight to x0: what is predicted is the answer, whatever the sampler
        return predict(noise, torch.full((len(noise),), config.train_steps - 1, device=noise.device))
    scheduler = _sampler(config)
    scheduler.set_timesteps(steps, device=noise.device)
    x = noise * float(getattr(scheduler, "init_noise_sigma", 1.0))
    for t in scheduler.timesteps:
        clean = predict(x, torch.full((len(x),), int(t), device=x.device))
        x = scheduler.step(clean, t, x).prev_sample
    return x
