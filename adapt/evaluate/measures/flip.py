"""LDR-FLIP over the head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from adapt.evaluate.measures.base import Column, Frame, Measure, Tools, masked_mean

# Measured frames per evaluated one: FLIP costs ten times the other measures, and every fourth gives the same mean to 1 %.
EVERY = 4


def flip_map(picture: np.ndarray, real: np.ndarray, pixels_per_degree: float = 67.0) -> np.ndarray:
    """LDR-FLIP per pixel ``[H, W]``, 0 (same) to 1, of images ``[H, W, 3]`` in [0, 1] (Andersson et al. 2020, their package).

    Raises:
        ImportError: ``flip-evaluator`` is not installed (``pip install 'headstart[evaluate]'``).
    """
    import flip_evaluator

    error, _, _ = flip_evaluator.evaluate(
        np.ascontiguousarray(real, np.float32),
        np.ascontiguousarray(picture, np.float32),
        "LDR",
        inputsRGB=True,
        applyMagma=False,
        computeMeanError=False,
        parameters={"ppd": pixels_per_degree},
    )
    return np.asarray(error).reshape(picture.shape[:2])


class Flip(Measure):
    """Mean over the head, in every fourth measured frame."""

    place = 40
    columns: ClassVar[Mapping[str, Column]] = {
        "flip": Column("FLIP, head", "", 4, "lower", "LDR, 67 pixels per degree")
    }

    def __init__(self, tools: Tools) -> None:
        super().__init__(tools)
        self.missing = False

    def frame(self, frame: Frame) -> Mapping[str, float]:
        """Nothing in the frames between, and nothing without the package."""
        if self.missing or frame.number % EVERY:
            return {}
        try:
            return {"flip": masked_mean(flip_map(frame.picture, frame.real), frame.masks["head"])}
        except ImportError:
            self.missing = True
            return {}

    def absent(self, name: str) -> str:
        """Which package is missing."""
        return (
            "flip-evaluator is not installed (pip install 'headstart[evaluate]')"
            if self.missing
            else super().absent(name)
        )
