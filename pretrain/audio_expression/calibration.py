"""How strong the sampler's noise must be for lips to move as fast as real ones: what ``temperature: 1`` means.

Noise of the variance that the regression leaves unexplained makes lips 1.6 times too fast. Two things are behind it: that
variance is a mean over people, who differ, and lips move in bursts. Their mean speed is 0.52 of the root mean square
of their speed; that of Gaussian noise is 0.80 of it, so matching the variance cannot match the speed.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from heads.measures.face import LipMotion, lip_motion
from heads.rig import Rig
from pretrain.audio_expression.inference import AudioExpressionPrior
from pretrain.data.sequences import Sequence

AMPLITUDES = (0.2, 0.4, 0.7, 1.0, 1.4)  # that are tried; between them the speed is nearly linear
FRAMES = 80  # of a clip that are sampled: two windows
CLIPS = 32  # that are sampled, at most one a person; real speed is read off all


def lip_travel(motion: LipMotion) -> float:
    """Sum of the changes of the mouth opening from frame to frame, rig units."""
    return float(np.abs(np.diff(motion.opening)).sum())


def calibrate(prior: AudioExpressionPrior, runs: Iterable[Sequence], rig: Rig) -> float:
    """Set the model's ``amplitude`` so that sampled lips are as fast as real ones, pooled over people; returns it.

    Args:
        runs: the training people's sequences. Nothing is changed where they hold no motion.
    """
    travel, steps = 0.0, 0
    kept: dict[str, Sequence] = {}
    for run in runs:
        travel, steps = travel + _travel(rig, run.track["expression"]), steps + len(run) - 1
        kept.setdefault(run.identity, run)
    chosen = [kept[name] for name in sorted(kept)]
    chosen = [chosen[i] for i in np.linspace(0, len(chosen) - 1, min(CLIPS, len(chosen))).astype(int)]
    amplitude = prior.model.amplitude
    if travel > 0 and chosen:
        amplitude.fill_(1.0)
        speeds = [_speed(prior, chosen, rig, scale) for scale in AMPLITUDES]
        amplitude.fill_(float(np.interp(travel / steps, speeds, AMPLITUDES)))
    return float(amplitude)


def _travel(rig: Rig, expression: np.ndarray) -> float:
    """Of the rig's mean head: who moves does not matter to a ratio."""
    return lip_travel(lip_motion(rig, np.zeros(rig.n_identity, np.float32), np.ascontiguousarray(expression)))


def _speed(prior: AudioExpressionPrior, runs: list[Sequence], rig: Rig, scale: float) -> float:
    """Mean change of the mouth opening a frame with noise of this ``scale``."""
    travel, steps = 0.0, 0
    for number, run in enumerate(runs):
        mean = prior.utterance_statistics(run.features)
        drawn = prior.sample(run.features[:FRAMES], mean=mean, temperature=scale, seed=number)["expression"]
        travel += _travel(rig, drawn)
        steps += len(drawn) - 1
    return travel / max(steps, 1)
