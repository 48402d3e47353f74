"""One protocol for every video: all measures over its frames, landmarks found again in the rendered frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from adapt.evaluate.measures import Frame, Tools, Tracks
from adapt.evaluate.measures.action_units import unit_curves
from adapt.evaluate.measures.base import Batch
from adapt.evaluate.measures.registry import measures
from heads.measures.face import lip_gap
from heads.rig.facemesh import UPPER_UNITS
from shards.media.encode import as_uint8

KEPT_PICTURES = 6


@dataclass
class Picked:
    """A frame kept for the report: what was rendered, what was real (uint8), the face's landmarks."""

    index: int
    picture: np.ndarray
    real: np.ndarray
    landmarks: np.ndarray


class Scorer:
    """Collects one drive's scores; memory grows by landmarks (12 kB per frame) and the lips that sync experts keep.

    Args:
        tools: landmark detector, LPIPS, sync experts.
        expected: number of frames, to spread the kept pictures over.
        every: compute the per-image measures (PSNR, SSIM, seam, FLIP, LPIPS) in every ``every``-th frame only.

    Attributes:
        picked: frames for the report.
    """

    def __init__(self, tools: Tools, expected: int, every: int = 1) -> None:
        self.tools, self.expected, self.every = tools, expected, every
        self.measures = [measure(tools) for measure in measures()]
        self.picked: list[Picked] = []
        self.width = 0
        self._found: list[np.ndarray] = []
        self._valid: list[np.ndarray] = []
        self._real: list[np.ndarray] = []
        self._count = 0

    def add(
        self, pictures: np.ndarray, reals: np.ndarray, landmarks: np.ndarray, masks: Mapping[str, np.ndarray]
    ) -> None:
        """A batch of frames.

        Args:
            pictures: rendered ``[T, H, W, 3]`` float in [0, 1].
            reals: the real frames ``[T, H, W, 3]`` uint8.
            landmarks: as tracked in the real frames ``[T, 478, 3]`` px.
            masks: ``face``, ``head``, ``mouth_inside`` and perhaps ``body``, each ``[T, H, W]`` in [0, 1].
        """
        self.width = pictures.shape[2]
        pictures = as_uint8(pictures)  # what a viewer gets
        found, valid = self.tools.detect(pictures)
        # The real frames go through the same detector: its noise must not count as a difference.
        real, seen = self.tools.detect(reals)
        real = np.where(seen[:, None, None], real, landmarks)
        self._found.append(found.astype(np.float32))
        self._valid.append(valid)
        self._real.append(real.astype(np.float32))
        batch = Batch(pictures, reals, np.where(valid[:, None, None], found, landmarks))
        for measure in self.measures:
            measure.batch(batch)
        for i in range(len(pictures)):
            if self._count % self.every == 0:
                self._score(pictures[i], reals[i], {name: mask[i] for name, mask in masks.items()})
                self._keep(Picked(self._count, pictures[i], reals[i], landmarks[i]))
            self._count += 1

    def _score(self, picture: np.ndarray, real: np.ndarray, masks: Mapping[str, np.ndarray]) -> None:
        frame = Frame(self._count // self.every, picture, real, masks)
        for measure in self.measures:
            measure.add(frame)

    def _keep(self, frame: Picked) -> None:
        # Rounded up, so that the last of them come from the end.
        if self._count % max(1, -(-self.expected // KEPT_PICTURES)) == 0 and len(self.picked) < KEPT_PICTURES:
            self.picked.append(frame)

    def curves(self) -> dict[str, np.ndarray]:
        """Lip gap over frames, real and rendered, for the report."""
        tracks = self._tracks()
        if not tracks.valid.any():
            return {}
        return {"real": lip_gap(tracks.real), "rendered": np.where(tracks.valid, lip_gap(tracks.filled), 0.0)}

    def eye_curves(self) -> dict[str, np.ndarray]:
        """Eye opening (percent of the eye distance) over frames, real and rendered."""
        tracks = self._tracks()
        if not tracks.valid.any():
            return {}
        units = {"eyes": UPPER_UNITS["AU5/45 eye opening"]}
        rendered = unit_curves(tracks.filled, units)["eyes"]
        return {"real": unit_curves(tracks.real, units)["eyes"], "rendered": np.where(tracks.valid, rendered, 0.0)}

    def _tracks(self, features: np.ndarray | str = "no sound", sound: np.ndarray | str = "no sound") -> Tracks:
        found, real, valid = (np.concatenate(rows) for rows in (self._found, self._real, self._valid))
        return Tracks(found, real, valid, self.width, features, sound)

    def result(self, features: np.ndarray | str, sound: np.ndarray | str = "no sound") -> dict[str, object]:
        """Every column of every measure; one that cannot be computed is ``None``, with its reason.

        Args:
            features: audio features ``[T, C]`` of the frames for the sync expert, or why there are none.
            sound: the frames' sound ``[N]`` at 16 kHz for the original SyncNet, or why there is none.
        """
        tracks = self._tracks(features, sound)
        found = {name: value for measure in self.measures for name, value in measure.result(tracks).items()}
        scores: dict[str, object] = {name: None if isinstance(value, str) else value for name, value in found.items()}
        scores["null_reasons"] = {name: value for name, value in found.items() if isinstance(value, str)}
        return scores
