"""The amplitude of a person's expressions: gains of predicted components, by a regression of tracked on predicted ones."""

from __future__ import annotations

import numpy as np
import torch

from heads.rig import Rig
from heads.rig.facemesh import LIPS

MOST_GAIN = 1.2  # largest factor on a component's amplitude
# Weight, in frames, of one gain common to all components against each component's own.
COMMON_FRAMES = 100.0


def calibration(
    sampled: np.ndarray, true: np.ndarray, weight: np.ndarray, rest: np.ndarray | None = None
) -> np.ndarray:
    """``[3, K]``: gain, centre and rest of a voice, from its expressions ``[T, K]`` and the tracked ones ``[T, K]``.

    Args:
        weight: ``[K]`` of each component in the common gain, see :func:`lip_weights`.
        rest: ``[K]`` the person's resting face; the mean of ``true`` by default.
    """
    centre, mean = sampled.mean(0), true.mean(0)
    p, t = sampled - centre, true - mean
    power, shared = (p * p).sum(0), (p * t).sum(0)
    common = float((weight * shared).sum() / max(float((weight * power).sum()), 1e-9))
    prior_power = COMMON_FRAMES * power / max(len(p), 1)
    gain = (shared + prior_power * max(common, 0.0)) / np.maximum(power + prior_power, 1e-9)
    return np.stack([np.clip(gain, 0.0, MOST_GAIN), centre, mean if rest is None else rest]).astype(np.float32)


def lip_weights(rig: Rig, components: int) -> np.ndarray:
    """How much each expression component deforms the lips (their common motion removed), ``[K]`` with mean 1."""
    basis = torch.cat([torch.zeros(1, components), torch.eye(components)]).to(rig.device)
    with torch.no_grad():
        identity = torch.zeros(len(basis), rig.n_identity, device=basis.device)
        points = rig.vertices(identity, basis)[:, list(LIPS), :2]
    moved = points[1:] - points[:1]
    energy = ((moved - moved.mean(1, keepdim=True)).flatten(1).cpu().numpy() ** 2).sum(1)
    return energy / energy.mean()
