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
    """Factor on the anchor's weight: nearly 1 for one frame, a quarter for one second, almost 0 for ten seconds."""
    return (FEW_FRAMES / (FEW_FRAMES + frames)) ** 2


def residual_share(frames: int) -> float:
    """Factor on the residuals' rates: 0 up to one second of video, 1 from ten seconds on.

    One second of video cannot tell what depends on pose and expression from tracking noise.
    """
    return min(1.0, max(0.0, (frames - FEW_FRAMES) / (9 * FEW_FRAMES)))
