"""Public tensor functions of the priors have the shapes that their docstrings promise."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from configs import load_config
from heads.gaussians.uv import UVGaussians
from heads.measures import lips
from heads.rig import load_rig
from pretrain.audio_expression import diffusion, layers, windows
from pretrain.audio_expression.config import AudioExpressionConfig
from pretrain.audio_expression.model import ExpressionModel, LinearPart
from pretrain.audio_expression.objective import SequenceObjective
from pretrain.expression_visual import unwrap
from pretrain.expression_visual.model import farthest
from pretrain.expression_visual.networks import Block, ImageEncoder
from pretrain.sync_expert.config import SyncExpertConfig
from pretrain.sync_expert.mfcc import mfcc
from pretrain.sync_expert.model import SyncModel, sliding
from pretrain.sync_expert.objective import SyncObjective, prepare_lips
from tests.support.shapes import checked

R = torch.randn
SPEECH, RIG_SIZE = 160, 32
HEARD = torch.tensor([True, False])


def motion() -> ExpressionModel:
    config = load_config(AudioExpressionConfig, "pretrain/audio-expression/tiny")
    return ExpressionModel(config, SPEECH, RIG_SIZE, 2, alpha=torch.linspace(0.99, 0.01, config.diffusion.train_steps))


def sync() -> SyncModel:
    return SyncModel(load_config(SyncExpertConfig, "pretrain/sync-expert/tiny"), SPEECH)


def denoised() -> None:
    model = motion()
    style = R(2, model.config.model.style)
    rows = R(2, 9, SPEECH)
    checked(model.denoiser.mean)(rows, style, HEARD)
    noisy, t, alpha = R(2, 9, model.dims), torch.tensor([1, 2]), torch.tensor([0.5, 0.4])
    checked(model.denoiser.forward)(noisy, t, alpha, rows, style, HEARD)
    checked(model.denoiser.network)(noisy, noisy, t, rows, style, HEARD)


def motion_losses() -> None:
    model = motion()
    guess, clean = R(2, 9, model.dims), R(2, 9, model.dims)
    checked(SequenceObjective(model).losses)(guess, clean, R(2, model.config.model.style), torch.ones(2))


def lip_crops() -> None:
    config = sync().config
    big = torch.rand(2, 3, config.model.height + 8, config.model.breadth + 8, 3)
    assert checked(prepare_lips)(big, config, augment=False).shape[2:] == (config.model.height, config.model.breadth, 3)


def surface() -> unwrap.TexelSurface:
    return unwrap.TexelSurface(load_rig(), UVGaussians(load_rig(), 16))


CASES = {
    "LinearPart": lambda: checked(LinearPart(5, 4, 2).forward)(R(2, 9, 5)),
    "UtteranceEncoder": lambda: checked(motion().denoiser.audio.forward)(R(2, 9, SPEECH), HEARD),
    "Denoiser": denoised,
    "ExpressionModel.normalise": lambda: checked(motion().normalise)(
        R(2, 9, SPEECH), torch.ones(2, 2, SPEECH) if motion().config.scale else R(2, SPEECH)
    ),
    "ExpressionModel.encode": lambda: checked(motion().encode)(R(2, 9, motion().dims)),
    "SequenceObjective.losses": motion_losses,
    "FiLM": lambda: checked(layers.FiLM(6, 8).forward)(R(2, 9, 8), R(2, 6)),
    "sinusoid": lambda: checked(layers.sinusoid)(torch.tensor([1, 2]), 8),
    "smooth_noise": lambda: checked(diffusion.smooth_noise)(R(2, 13, 4), torch.ones(5)),
    "frame_noise": lambda: checked(windows.frame_noise)(0, 5, 9, 4),
    "LipEncoder.frames": lambda: checked(sync().lips.frames)(
        torch.rand(2, 5, sync().config.model.height, sync().config.model.breadth, 3)
    ),
    "LipEncoder.windows": lambda: checked(sync().lips.windows)(R(2, 5, sync().config.model.width)),
    "SpeechEncoder": lambda: checked(sync().audio.forward)(R(2, 3, 5, SPEECH)),
    "SyncModel.normalise": lambda: checked(sync().normalise)(R(2, 9, SPEECH), R(2, 1, SPEECH).expand(2, 9, SPEECH)),
    "sliding": lambda: checked(sliding)(R(2, 9, 4), 5),
    "SyncObjective.contrast": lambda: checked(SyncObjective(sync()).contrast)(R(2, 6, 4), R(2, 6, 4), torch.ones(2)),
    "prepare_lips": lip_crops,
    "lip_frame": lambda: checked(lips.lip_frame)(R(2, 478, 3)),
    "crop_lips": lambda: checked(lips.crop_lips)(torch.rand(2, 16, 16, 3), 8 + R(2, 478, 3), 6, 8),
    "lip_shape": lambda: checked(lips.lip_shape)(R(2, 478, 3)),
    "mfcc": lambda: checked(mfcc)(np.zeros(1600)),
    "Block": lambda: checked(Block(8, 16).forward)(R(2, 8, 4, 4)),
    "ImageEncoder": lambda: checked(ImageEncoder(8).forward)(torch.rand(2, 16, 16, 3), torch.rand(2, 16, 16)),
    "farthest": lambda: checked(farthest)(R(9, 3), 4),
    "TexelSurface.points": lambda: checked(surface().points)(load_rig().mean[None]),
    "mirror_index": lambda: checked(unwrap.mirror_index)(R(9, 3)),
    "within": lambda: checked(unwrap.within)(R(2, 9, 2), R(2, 5, 2)),
    "sample_pixels": lambda: checked(unwrap.sample_pixels)(torch.rand(2, 8, 8, 3), R(2, 9, 2)),
}


@pytest.mark.parametrize("name", CASES)
def test_a_call_has_the_shapes_that_the_docstring_promises(name):
    CASES[name]()
