"""Noise schedules and samplers, all from ``diffusers``; the only module that uses it.

Importing it takes seconds, so only training and sampling do so: a trained prior stores its schedule.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pretrain.audio_expression.config import DiffusionConfig

# The last time, as a share of the training times, is this over the number of steps · measured (tests/pretrain/test_sampler.py)
LAST_TIME = 0.24
CURVE = 1.5  # exponent of the spacing; 1 is even · measured likewise


def alphas(config: DiffusionConfig) -> Tensor:
    """ᾱ at every training time, ``[train_steps]`` float32."""
    from diffusers import DDPMScheduler

    schedule: Any = DDPMScheduler(num_train_timesteps=config.train_steps, beta_schedule=config.schedule)
    return torch.as_tensor(schedule.alphas_cumprod).float()


def smoothing(frames: float) -> Tensor:
    """Filter taps ``[2 * R + 1]`` of unit energy, which make white noise smooth over ``frames`` and keep unit variance.

    A tenth of its amplitude stays white, so that the model also learns to calm a trembling input.
    """
    if frames <= 0:
        return torch.ones(1)
    radius = int(3 * frames + 0.5)
    taps = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / frames) ** 2)
    taps = taps / taps.sum()
    taps[radius] += 0.05
    return taps / taps.norm()


def smooth_noise(white: Tensor, taps: Tensor) -> Tensor:
    """Filter noise ``white [B, M, D]``, M = T + N - 1, with ``taps [N]``: ``[B, T, D]``."""
    rows = white.transpose(1, 2)
    batch, size = rows.shape[:2]
    filtered = torch.nn.functional.conv1d(rows.reshape(batch * size, 1, -1), taps.to(rows)[None, None])
    return filtered.reshape(batch, size, -1).transpose(1, 2)


def add_noise(alpha: Tensor, clean: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """The forward process at times ``t [B]`` of a schedule ᾱ, ``alpha [S]`` (Ho et al. 2020, eq. 4); ``clean``'s shape."""
    kept = alpha[t].view(-1, *[1] * (clean.ndim - 1))
    return kept**0.5 * clean + (1 - kept) ** 0.5 * noise


def sample_times(train_steps: int, steps: int) -> list[int]:
    """Training times of a few-step sampler, from pure noise down, denser towards the end.

    The solver's last step goes from the last of them straight to the data: the noisier that time, the more of the data's
    spread is lost. Chosen so that 8 steps with a perfect model keep 0.97 to 1.03 of it, for data of standard deviation 0.2
    to 1 and the cosine schedule; evenly spaced times keep 0.68 to 0.96 (``tests/pretrain/test_sampler.py`` measures both).
    """
    last = max(1.0, LAST_TIME * train_steps / steps)
    shares = np.linspace(1.0, 0.0, steps)
    ends = (train_steps - 1) ** (1 / CURVE), last ** (1 / CURVE)
    return [round(time) for time in (ends[0] * shares + ends[1] * (1 - shares)) ** CURVE]


def _scheduler(config: DiffusionConfig, steps: int, device: torch.device) -> Any:
    from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

    schedule = {
        "num_train_timesteps": config.train_steps,
        "beta_schedule": config.schedule,
        "prediction_type": "sample",
    }
    if config.sampler == "ddim":
        scheduler: Any = DDIMScheduler(
            **schedule, timestep_spacing="trailing", clip_sample=False, set_alpha_to_one=True
        )
        scheduler.set_timesteps(steps, device=device)
    else:
        scheduler = DPMSolverMultistepScheduler(**schedule)
        scheduler.set_timesteps(timesteps=sample_times(config.train_steps, steps), device=device)
    return scheduler


def denoise(config: DiffusionConfig, noise: Tensor, steps: int, predict: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Run the sampler from ``noise`` ``[B, T, D]``; ``predict(noisy, t [B])`` returns x0. Deterministic (eta 0)."""
    if steps == 1:  # from pure noise straight to x0: the prediction is the result, whatever the sampler
        return predict(noise, torch.full((len(noise),), config.train_steps - 1, device=noise.device))
    scheduler = _scheduler(config, steps, noise.device)
    x = noise * float(getattr(scheduler, "init_noise_sigma", 1.0))
    for t in scheduler.timesteps:
        clean = predict(x, torch.full((len(x),), int(t), device=x.device))
        x = scheduler.step(clean, t, x).prev_sample
    return x
