"""Lips that meet: a regression opens and closes too little, so lips are pressed where they should be shut.

A regression predicts a mean, and the mean of shut and nearly shut lips is half open. A prior that has a regression to
whether the lips are shut tells where they are to be pressed: driven lips are then shut about as often as real ones. Without
one, lips are pressed where the driven gap of the inner lips falls below ``SHUT`` times the person's mean gap, which must be
generous to meet the closures that the mean hides, so they are shut twice as often; from there to ``FREE`` the gap is
stretched, so that nothing jumps. Expressions move along the direction in which this person's face moves when their lips
open. docs/priors.md ("Lips that meet") has the figures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from adapt.drivers.base import Expressions, Stream
from heads.measures.closure import TOGETHER
from heads.measures.face import eye_distance, lip_motion
from heads.rig import Rig
from heads.rig.facemesh import INNER_MIDDLE

SHUT, FREE = 0.7, 1.0  # of the person's mean gap
PRESSED = 0.008  # gap of pressed lips, in eye distances
# By how much shut lips must be more probable than usual for lips to be pressed, and from where on they are pressed
# altogether; a narrow gap counts as this much evidence, in its share of the mean · measured (docs/priors.md)
DOUBTFUL, SURE, NARROW = 0.075, 0.225, 0.1


def pressed_where(closure: np.ndarray, gap: np.ndarray, mean: float) -> np.ndarray:
    """Gaps ``[T]`` of the inner lips, pressed where a prior hears shut lips; in eye distances.

    Args:
        closure: ``[T]`` by how much shut lips are more probable than usual.
        mean: of this person's gaps.
    """
    likely = closure + NARROW * (1 - gap / mean)
    share = np.clip((likely - DOUBTFUL) / (SURE - DOUBTFUL), 0, 1)
    return gap + share * np.minimum(min(PRESSED, SHUT * mean / 2) - gap, 0)


def pressed(gap: np.ndarray, mean: float) -> np.ndarray:
    """Gaps ``[T]`` of the inner lips with those well below their ``mean`` pressed; in eye distances."""
    low, high = SHUT * mean, FREE * mean
    shut = min(PRESSED, low / 2)
    stretched = shut + (gap - low) / max(high - low, 1e-9) * (high - shut)
    return np.where(gap < low, shut, np.where(gap < high, stretched, gap))


@dataclass(frozen=True)
class LipClosing:
    """One person's lips: how their gap follows from an expression, and along what they close.

    Attributes:
        rest: ``[K]`` the clip's mean expression.
        gap: of the inner lips at ``rest``, in eye distances.
        mean: mean gap over the clip, in eye distances.
        slope: ``[K]`` change of the gap with each component.
        direction: ``[K]`` by which an expression changes when the gap grows by one eye distance.
    """

    rest: np.ndarray
    gap: float
    mean: float
    slope: np.ndarray
    direction: np.ndarray

    @classmethod
    def fit(cls, rig: Rig, identity: np.ndarray, expression: np.ndarray) -> LipClosing | None:
        """Fit to a clip's ``identity [K_id]`` and ``expression [T, K]``.

        Returns:
            ``None`` for a person whose lips never meet in the clip.
        """
        rig = rig.to("cpu")  # a clip's arrays are there
        real = lip_motion(rig, identity, expression).gap
        if not (real < TOGETHER).any():
            return None
        rest = expression.mean(0).astype(np.float32)
        gap, slope = _slope(rig, identity, rest)
        moved = expression - rest
        along = moved.T @ (moved @ slope)
        direction = along / max(float(along @ slope), 1e-9)
        return cls(rest, gap, float(real.mean()), slope, direction.astype(np.float32))

    def __call__(self, expression: np.ndarray, closure: np.ndarray | None = None) -> np.ndarray:
        """Expressions ``[T, K]`` with the lips pressed.

        Args:
            closure: ``[T]`` by how much shut lips are more probable than usual; ``None``: lips that nearly meet are pressed.
        """
        gap = self.gap + (expression - self.rest) @ self.slope
        change = (pressed(gap, self.mean) if closure is None else pressed_where(closure, gap, self.mean)) - gap
        return (expression + change[:, None] * self.direction).astype(np.float32)

    def tensors(self) -> dict[str, torch.Tensor]:
        """What an avatar keeps of it."""
        sizes = torch.tensor([self.gap, self.mean])
        rows = {name: torch.from_numpy(np.asarray(getattr(self, name))) for name in ("rest", "slope", "direction")}
        return {"gap": sizes, **rows}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, torch.Tensor]) -> LipClosing:
        """The inverse of :meth:`tensors`."""
        gap, mean = tensors["gap"].tolist()
        rest, slope, direction = (tensors[name].float().numpy() for name in ("rest", "slope", "direction"))
        return cls(rest, gap, mean, slope, direction)


class ClosingStream:
    """A driver's stream whose lips are pressed where they nearly meet."""

    def __init__(self, stream: Stream, closing: LipClosing) -> None:
        self.live, self.closing = stream, closing

    def push(self, rows: np.ndarray) -> Expressions:
        """As :class:`adapt.drivers.base.Stream`."""
        return self._closed(self.live.push(rows))

    def finish(self) -> Expressions:
        """Expressions of the last frames."""
        return self._closed(self.live.finish())

    def _closed(self, found: Expressions) -> Expressions:
        if "expression" in found:
            found["expression"] = self.closing(found["expression"], found.pop("closure", None))
        return found


@torch.no_grad()
def _slope(rig: Rig, identity: np.ndarray, rest: np.ndarray) -> tuple[float, np.ndarray]:
    """Vertical gap of the middle of the inner lips at ``rest [K]``, in eye distances, and its change with each component."""
    faces = torch.from_numpy(np.concatenate([rest[None], rest + np.eye(len(rest), dtype=np.float32)])).to(rig.device)
    person = torch.tensor(identity, device=faces.device)[None].expand(len(faces), -1)
    points = rig.landmarks(rig.vertices(person, faces))
    upper, lower = INNER_MIDDLE
    gaps = ((points[:, lower, 1] - points[:, upper, 1]) / eye_distance(points)).cpu().numpy()
    return float(gaps[0]), (gaps[1:] - gaps[0]).astype(np.float32)
