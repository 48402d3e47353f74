"""Loudness opens the jaw: the driver of a clip without sound, and of an avatar whose adaptation is not finished."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch

from adapt.drivers.base import Expressions, Stream, WindowStream
from heads.rig import Rig
from shards.features.logmel import HOPS, MELS


class LoudnessDriver:
    """Opens the jaw with the loudness of log-mel features; rows of another width say nothing of it, and the face rests.

    Args:
        rest: ``[K]`` expression in silence.
        jaw: ``[K]`` the rig's control ``jaw`` at amount 1; the loudest speech adds half of it.
    """

    kind: ClassVar[str] = "loudness"
    by_sound: ClassVar[bool] = True
    name = "loudness to jaw (the clip has no sound and no audio-expression prior was given)"
    lookahead = 1
    feature = "logmel"

    def __init__(self, rest: np.ndarray, jaw: np.ndarray) -> None:
        self.rest, self.jaw = rest, jaw

    @classmethod
    def of(cls, rig: Rig, expression: np.ndarray) -> LoudnessDriver:
        """Around the median face of a clip's expressions ``[T, K]``."""
        jaw = rig.control("jaw", 1.0)["expression"].cpu().numpy()
        return cls(np.median(expression, 0).astype(np.float32), jaw.astype(np.float32))

    def stream(self) -> Stream:
        """A new stream."""
        return WindowStream(self.lookahead, self._apply)

    def _apply(self, windows: np.ndarray) -> Expressions:
        # Log-mel rows are absolute: silence is about -1.2, loud speech 1 (shards.features.logmel).
        amount = np.clip((windows.mean((1, 2)) + 0.7) / 1.2, 0.0, 1.0) * 0.5
        if windows.shape[2] != HOPS * MELS:
            amount = np.zeros_like(amount)
        return {"expression": (self.rest + amount[:, None] * self.jaw).astype(np.float32)}

    def tensors(self) -> dict[str, torch.Tensor]:
        """What an avatar keeps of it."""
        return {name: torch.from_numpy(np.ascontiguousarray(getattr(self, name))) for name in ("rest", "jaw")}

    @classmethod
    def from_tensors(cls, tensors: dict[str, torch.Tensor]) -> LoudnessDriver:
        """The inverse of :meth:`tensors`."""
        return cls(*(tensors[name].float().numpy() for name in ("rest", "jaw")))
