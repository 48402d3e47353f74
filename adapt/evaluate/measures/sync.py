"""Whether lips and sound belong together, by our sync expert."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch

from adapt.evaluate.measures.base import Batch, Column, Measure, Tools, Tracks, Value

LEAST_FRAMES = 25


def why_not(expert: object, audio: object, tracks: Tracks) -> str | None:
    """Why this expert cannot judge these frames and this sound."""
    for reason in (expert, audio):
        if isinstance(reason, str):
            return reason
    if not tracks.valid.all():
        return "needs a face in every rendered frame"
    return "needs a second of video or more" if len(tracks.valid) < LEAST_FRAMES else None


class Sync(Measure):
    """Confidence (margin of the true offset over the others) and distance; ``sync_offset`` in frames."""

    place = 80
    columns: ClassVar[Mapping[str, Column]] = {
        "sync_c": Column("Sync-C", "", 3, "higher", "confidence of the sync expert"),
        "sync_d": Column("Sync-D", "", 3, "lower", "distance of the sync expert"),
    }

    def __init__(self, tools: Tools) -> None:
        super().__init__(tools)
        self.lips: list[torch.Tensor] = []

    def batch(self, batch: Batch) -> None:
        """Keep what the expert sees of the lips."""
        if not isinstance(self.tools.sync, str):
            lips = self.tools.sync.frame_features(batch.pictures, batch.landmarks)
            assert isinstance(lips, torch.Tensor)
            self.lips.append(lips)

    def whole(self, tracks: Tracks) -> Mapping[str, Value]:
        """Against the audio features that the expert was trained on."""
        expert, features = self.tools.sync, tracks.features
        reason = why_not(expert, features, tracks)
        if reason is not None or isinstance(expert, str) or isinstance(features, str):
            return dict.fromkeys(self.columns, reason)
        confidence, distance, offset = expert.confidence_of(torch.cat(self.lips), features)
        return {"sync_c": float(confidence), "sync_d": float(distance), "sync_offset": int(offset)}
