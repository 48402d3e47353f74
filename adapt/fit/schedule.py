"""Schedules in fractions of the budget: where stages end, how rates fall, how much a short clip may change."""

from __future__ import annotations

import math

from heads.person.talking_head import FEW_FRAMES

# Share of the start that a rate falls to at the end of its schedule (a guess, kept since the first comparison).
FLOOR = 0.05


def shares_to_ends(**shares: float) -> dict[str, float]:
    """Where each stage ends, as fractions of the budget; stages that are off leave their share to the others."""
    total, end, ends = sum(shares.values()), 0.0, {}
    for name, share in shares.items():
        end += share / total
        ends[name] = end
    return ends


def cosine(fraction: float, begin: float = 0.0, until: float = 1.0, floor: float = FLOOR) -> float:
    """Factor on a rate at a fraction of the budget: 1 up to ``begin``, along a cosine to ``floor`` at ``until``."""
    spent = min(1.0, max(0.0, (fraction - begin) / max(1e-9, until - begin)))
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * spent))


def anchor_share(frames: int) -> float:
    """How much of the anchor a clip gets: all of it for a frame, a quarter for a second, next to nothing for ten."""
    return (FEW_FRAMES / (FEW_FRAMES + frames)) ** 2


def residual_share(frames: int) -> float:
    """How much of their rate the residuals get: none up to a second of video, all of it from ten seconds on.

    A second of video does not tell what follows pose and expression from the tracker's noise.
    """
    return min(1.0, max(0.0, (frames - FEW_FRAMES) / (9 * FEW_FRAMES)))
