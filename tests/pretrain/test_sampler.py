"""Few-step sampling keeps the spread of the data: temperature 1 means the model's own."""

from __future__ import annotations

import pytest
import torch

from pretrain.audio_expression import diffusion
from pretrain.audio_expression.config import DiffusionConfig


def kept(config: DiffusionConfig, spread: float, steps: int) -> float:
    """Share of a Gaussian's standard deviation that sampling with its perfect model keeps."""
    alpha = diffusion.alphas(config)

    def predict(noisy: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        a = alpha[t].view(-1, 1, 1)
        return a.sqrt() * spread**2 / (a * spread**2 + 1 - a) * noisy

    noise = torch.randn(1, 2000, 10, generator=torch.Generator().manual_seed(0))
    return float(diffusion.denoise(config, noise, steps, predict).std()) / spread


@pytest.mark.parametrize("spread", [1.0, 0.7, 0.5, 0.3, 0.2])
def test_eight_steps_keep_the_spread_of_the_data_within_five_percent(spread):
    config = DiffusionConfig()
    assert config.sampler == "dpm++"
    assert 0.95 <= kept(config, spread, config.sample_steps) <= 1.05
    assert 0.97 <= kept(config, spread, 20) <= 1.03


def test_ddim_at_the_same_cost_loses_more():
    for spread in (1.0, 0.5, 0.2):
        assert kept(DiffusionConfig(sampler="ddim"), spread, 8) < 0.9


def test_times_fall_from_pure_noise_and_get_denser():
    times = diffusion.sample_times(1000, 8)
    assert times == [999, 812, 638, 479, 336, 211, 107, 30]
    assert diffusion.sample_times(1000, 2) == [999, 120]
    for steps in range(2, 40):
        found = diffusion.sample_times(1000, steps)
        assert len(set(found)) == steps
        assert found == sorted(found, reverse=True)
