"""The interface of a measure: what it is given, and what it returns.

A measure sees single frames (:meth:`Measure.frame`, whose values are averaged) or, at the end, the landmarks of all
frames and the sound (:meth:`Measure.whole`). For a value that cannot be computed it returns a sentence that says why.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Protocol

import numpy as np

NO_LPIPS = "no weights given: pass the backbone's and LPIPS's own files (lpips=BACKBONE,LINEAR)"
NO_SYNC = "no sync expert: none given and none registered as champion"
NO_SYNCNET = "no weights given: pass the original SyncNet's file (syncnet=FILE)"
Value = float | str | None


class Expert(Protocol):
    """Judges whether lips and sound belong together."""

    def frame_features(self, frames: np.ndarray, landmarks: np.ndarray) -> object:
        """Its features of frames ``[T, H, W, 3]`` uint8 with landmarks ``[T, 478, 3]`` px."""

    def confidence_of(self, lips: object, features: np.ndarray) -> tuple[float, float, int]:
        """Confidence, distance and offset (frames; positive: the sound is late) of these against audio ``[T, C]``."""


@dataclass
class Tools:
    """What scoring needs besides the frames; in place of a tool that is absent stands a sentence that says why.

    Attributes:
        detect: frames ``[T, H, W, 3]`` uint8 -> landmarks ``[T, 478, 3]`` px and found ``[T]`` bool.
        lpips: distance of two images ``[H, W, 3]`` float32 in [0, 1].
        sync: the sync expert.
        syncnet: the original SyncNet.
    """

    detect: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
    lpips: Callable[[np.ndarray, np.ndarray], float] | str = NO_LPIPS
    sync: Expert | str = NO_SYNC
    syncnet: object | str = NO_SYNCNET


@dataclass(frozen=True)
class Column:
    """How a number is shown.

    Attributes:
        label: name for people.
        unit: such as ``dB``; may be empty.
        decimals: number of decimals shown.
        better: ``higher``, ``lower``, or the best value, such as ``1``.
        explanation: one line.
    """

    label: str
    unit: str
    decimals: int
    better: str
    explanation: str = ""


@dataclass(frozen=True)
class Frame:
    """One frame for the per-image measures.

    Attributes:
        number: its position among the measured frames.
        picture8, real8: rendered and real ``[H, W, 3]`` uint8, as a viewer gets them.
        masks: ``face``, ``head``, ``mouth_inside``, ``[H, W]`` in [0, 1]; with a body that was rendered also ``body``, the
            person outside the head region.
    """

    number: int
    picture8: np.ndarray
    real8: np.ndarray
    masks: Mapping[str, np.ndarray]

    @cached_property
    def picture(self) -> np.ndarray:
        """Rendered, ``[H, W, 3]`` float32 in [0, 1]."""
        return self.picture8.astype(np.float32) / 255.0

    @cached_property
    def real(self) -> np.ndarray:
        """Real, ``[H, W, 3]`` float32 in [0, 1]."""
        return self.real8.astype(np.float32) / 255.0


@dataclass(frozen=True)
class Batch:
    """Consecutive frames, for measures that look at all of them.

    Attributes:
        pictures, reals: ``[T, H, W, 3]`` uint8.
        landmarks: of the rendered frames where a face was found in them, else of the real ones, ``[T, 478, 3]`` px.
    """

    pictures: np.ndarray
    reals: np.ndarray
    landmarks: np.ndarray


@dataclass(frozen=True)
class Tracks:
    """All frames' landmarks, found in the rendered and in the real frames by the same detector, and the sound.

    Attributes:
        found, real: ``[T, 478, 3]`` px.
        valid: ``[T]`` bool, whether a face was found in the rendered frame.
        width: of the frames, px.
        features: audio features ``[T, C]`` that the sync expert was trained on, or why there are none.
        sound: ``[N]`` float32 at 16 kHz, or why there is none.
    """

    found: np.ndarray
    real: np.ndarray
    valid: np.ndarray
    width: int
    features: np.ndarray | str
    sound: np.ndarray | str

    @property
    def filled(self) -> np.ndarray:
        """``found``, and the real landmarks where nothing was found."""
        return np.where(self.valid[:, None, None], self.found, self.real)


class Measure:
    """Base class: override :meth:`frame`, or :meth:`batch` and :meth:`whole`.

    Attributes:
        columns: the numbers that it gives, in the order of the table.
        place: where its columns stand among the others; smaller is earlier.
    """

    columns: ClassVar[Mapping[str, Column]] = {}
    place: ClassVar[int] = 1000

    def __init__(self, tools: Tools) -> None:
        self.tools = tools
        self._sums: dict[str, float] = defaultdict(float)
        self._counts: dict[str, int] = defaultdict(int)

    def add(self, frame: Frame) -> None:
        """Take one frame's numbers into the means; those that are NaN are left out."""
        for name, value in self.frame(frame).items():
            if value == value:
                self._sums[name] += value
                self._counts[name] += 1

    def frame(self, frame: Frame) -> Mapping[str, float]:
        """Numbers of one frame."""
        return {}

    def batch(self, batch: Batch) -> None:
        """Look at frames as they come."""

    def whole(self, tracks: Tracks) -> Mapping[str, Value]:
        """Numbers of the whole video, or sentences that say why there are none; called once, at the end."""
        return {}

    def absent(self, name: str) -> str:
        """Why a column has no number, if :meth:`whole` gave no reason."""
        return "not finite"

    def result(self, tracks: Tracks) -> dict[str, Value]:
        """Every column: a number, or the sentence that says why there is none."""
        means: dict[str, Value] = {name: self._sums[name] / self._counts[name] for name in self._sums}
        found = {**means, **self.whole(tracks)}
        return {name: self._told(name, found.get(name)) for name in self.columns} | {
            name: value for name, value in found.items() if name not in self.columns
        }

    def _told(self, name: str, value: Value) -> Value:
        if isinstance(value, str):
            return value
        return self.absent(name) if value is None or not np.isfinite(value) else float(value)


def masked_mean(values: np.ndarray, mask: np.ndarray | None) -> float:
    """Weighted mean of a map ``[H, W]``; NaN where the mask is empty."""
    if mask is None:
        return float(values.mean())
    weight = float(mask.sum())
    return float((values * mask).sum() / weight) if weight > 0 else float("nan")
