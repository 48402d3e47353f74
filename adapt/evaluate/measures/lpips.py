"""LPIPS, where its weight files were given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from adapt.evaluate.measures.base import Column, Frame, Measure


class Lpips(Measure):
    """Perceptual distance (Zhang et al. 2018) of the whole frame."""

    place = 30
    columns: ClassVar[Mapping[str, Column]] = {"lpips": Column("LPIPS", "", 4, "lower", "needs weights: lpips=PATH")}

    def frame(self, frame: Frame) -> Mapping[str, float]:
        """Nothing without weights."""
        return {} if isinstance(self.tools.lpips, str) else {"lpips": self.tools.lpips(frame.picture, frame.real)}

    def absent(self, name: str) -> str:
        """The sentence that stands where the weights should."""
        return self.tools.lpips if isinstance(self.tools.lpips, str) else super().absent(name)
