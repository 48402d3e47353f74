"""Configuration of the audio-expression prior."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from configs import InputError
from configs.bounds import Count, Decay, Share
from pretrain.config import PretrainConfig
from pretrain.data.spectrum import SpectrumConfig

MOST_LAG = 10  # frames, largest ``align``
TARGETS = ("expression", "eyelids", "gaze", "motion")


@dataclass(frozen=True, kw_only=True)
class DenoiserConfig:
    """Sizes of the diffusion transformer."""

    width: Count = 128
    layers: Count = 4  # each: self-attention, cross-attention to the audio, feed-forward
    audio_layers: int = 2  # the shallow transformer over the speech features
    heads: Count = 4
    style: Count = 64  # size of an identity's style vector
    dropout: Decay = 0.1
    reach: Count = 32  # frames: attention does not distinguish larger distances

    def check(self) -> None:
        """Raise ``InputError`` for a width that ``heads`` does not divide."""
        if self.width % self.heads:
            raise InputError(
                f"model.width {self.width} does not divide by model.heads {self.heads}; make it a multiple"
            )


@dataclass(frozen=True, kw_only=True)
class DiffusionConfig:
    """The noise schedule (``diffusers``) and the sampler."""

    train_steps: Count = 1000
    schedule: Literal["squaredcos_cap_v2", "linear", "scaled_linear"] = "squaredcos_cap_v2"
    sampler: Literal["ddim", "dpm++"] = "dpm++"  # DPM-Solver++ 2M; ddim loses spread and costs as much
    sample_steps: Count = 8
    guidance: float = 1.0  # classifier-free guidance; 1 is the conditional model alone
    correction_weight: float = (
        1.0  # share of the network's correction in the one-step mean; the regression counts in full
    )
    smooth: float = 1.5  # frames, standard deviation of the noise's smoothing in time: faces do not tremble
    temperature: float = (
        1.0  # scale of the starting noise: at 1 lips are as fast as real ones, at 0 the motion is calmest
    )
    condition_drop: Share = 0.1  # share of training windows without audio
    style_drop: Share = 0.3  # share of training windows in the mean style, with the mean resting face


@dataclass(frozen=True, kw_only=True)
class SequenceLossConfig:
    """Weights of the training losses."""

    frame: float = 1.0  # L2 on the targets
    difference: float = 1.0  # Huber on frame-to-frame differences
    mouth: float = 2.0  # L2 on opening and width of the mouth, without each window's mean
    lips: Share = 0.7  # share of a component's weight that comes from how far it moves the lips
    style: float = 1e-3  # L2 on the style vectors: keeps the mean style at the origin


@dataclass(frozen=True, kw_only=True)
class AugmentConfig(SpectrumConfig):
    """Augmentation of the training windows."""

    speed: float = 0.12  # relative change of tempo, of audio and face together
    noise: float = 0.4  # standard deviations of noise on the normalised features


@dataclass(frozen=True, kw_only=True)
class AudioExpressionConfig(PretrainConfig):
    """Keys of ``configs/pretrain/audio-expression/*.yaml``."""

    features: str = "logmel"
    live: str = ""  # feature of a second regression for live use, which needs no audio but the next 120 ms; '': none
    targets: list[str] = field(default_factory=lambda: ["expression", "eyelids"])
    window: int = 48  # frames of a training window; segments have up to 50
    overlap: int = 16  # frames that two sampling windows share
    centre: bool = True  # subtract the mean spectrum of the last seconds: removes microphone and loudness
    scale: bool = False  # divide by the spread of the last seconds as well: removes the room and a voice's liveliness
    memory: int = 250  # frames of that mean and spread when sampling
    linear_context: int = 5  # frames to each side that the linear part uses; 0 leaves it out
    linear_columns: Count = 48  # of the features' principal directions that it uses
    linear_unit_columns: bool = True  # fit it on columns scaled to unit spread; false: columns as they are
    closure: bool = False  # regressions to whether the lips are shut as well, by which drivers close them
    align: float = (
        0.0  # frames by which training clips may be out of sync; the regression learns from clips put in sync
    )
    unreliable: list[str] = field(default_factory=list)  # clips whose sound and lips are not known to agree
    model: DenoiserConfig = field(default_factory=DenoiserConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    loss: SequenceLossConfig = field(default_factory=SequenceLossConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def check(self) -> None:
        """Raise ``InputError`` for unknown targets, windows that cannot overlap, and other values that do not fit."""
        super().check()
        for target in self.targets:
            if target not in TARGETS:
                raise InputError(f"targets names '{target}', expected some of {', '.join(TARGETS)}")
        if "expression" not in self.targets:
            raise InputError("targets leaves out 'expression', which every avatar is driven by; add it")
        if not 8 <= self.window <= 50:
            raise InputError(f"window is {self.window} frames, expected 8 to 50: a segment holds at most 50")
        if self.scale and not self.centre:
            raise InputError("scale is true and centre is false; a spread is taken around the mean, so set centre=true")
        if not 0 <= self.align <= MOST_LAG:
            raise InputError(
                f"align is {self.align:g} frames, expected 0 to {MOST_LAG}: no clip is further out of step"
            )
        if self.closure and not self.linear_context:
            raise InputError("closure needs the built-in regression, but linear_context is 0; set it, or closure=false")
        if self.memory < self.window:
            raise InputError(f"memory is {self.memory} frames, expected at least the window ({self.window})")
        if not 0 < self.overlap <= self.window // 2:
            raise InputError(f"overlap is {self.overlap}, expected 1 to half the window ({self.window // 2})")
