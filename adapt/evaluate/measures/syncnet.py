"""Whether lips and sound belong together, by the original SyncNet, where its weights were given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from adapt.evaluate.measures.base import Batch, Column, Measure, Tools, Tracks, Value
from adapt.evaluate.measures.sync import why_not


class SyncNetMeasure(Measure):
    """Chung & Zisserman (2016): confidence and distance; ``syncnet_offset`` in frames."""

    place = 90
    columns: ClassVar[Mapping[str, Column]] = {
        "syncnet_c": Column(
            "Sync-C, SyncNet", "", 3, "higher", "confidence of the original SyncNet; needs weights: syncnet=FILE"
        ),
        "syncnet_d": Column(
            "Sync-D, SyncNet", "", 3, "lower", "distance of the original SyncNet; needs weights: syncnet=FILE"
        ),
    }

    def __init__(self, tools: Tools) -> None:
        super().__init__(tools)
        self.faces: Any = None

    def batch(self, batch: Batch) -> None:
        """Keep what SyncNet sees of the faces."""
        expert: Any = self.tools.syncnet
        if not isinstance(expert, str):
            self.faces = self.faces or expert.face_windows()
            self.faces.add(batch.pictures, batch.landmarks)

    def whole(self, tracks: Tracks) -> Mapping[str, Value]:
        """Against the sound itself."""
        expert: Any = self.tools.syncnet
        reason = why_not(expert, tracks.sound, tracks)
        if reason is not None:
            return dict.fromkeys(self.columns, reason)
        confidence, distance, offset = expert.confidence_of(self.faces.finish(), tracks.sound)
        return {"syncnet_c": confidence, "syncnet_d": distance, "syncnet_offset": offset}
