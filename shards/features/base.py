"""The interface of an audio feature: a name, a width, its weights, and a stream of rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Protocol

import numpy as np

from configs.records import FeatureRecord, WeightsRecord


class RowStream(Protocol):
    """Takes sound and gives rows; the rows do not depend on how the sound is cut into pieces."""

    def push(self, sound: np.ndarray) -> np.ndarray:
        """Append sound ``[N]`` float32 at 16 kHz; returns the rows ``[K, C]`` that became final, possibly none."""
        ...

    def finish(self) -> np.ndarray:
        """The remaining rows ``[K, C]``, with silence after the end."""
        ...


class Feature(ABC):
    """One audio feature: one row ``[C]`` for each video frame, row t centred on 40 t + 20 ms.

    A subclass assigned to ``FEATURE`` in ``shards/features/NAME.py``, or registered in the entry-point group
    ``headstart.features``, is found by :func:`shards.features.registry.open_feature`.

    Attributes:
        name: what datasets, priors and ``--features`` call it; letters, digits, ``_`` and ``-``.
        default_weights: folder or hub name that is used when none is given; empty for a feature without weights.
        default_size: width C with the default weights.
        revision: raised whenever rows of the same name, width and weights get other values. Datasets, priors and avatars
            record it, and those of another revision are refused.
    """

    name: ClassVar[str]
    default_weights: ClassVar[str] = ""
    default_size: ClassVar[int] = 0
    revision: ClassVar[int] = 1

    def __init__(self, weights: str = "") -> None:
        """``weights``: folder or hub name; empty for the default."""
        self.weights = weights or self.default_weights

    @property
    @abstractmethod
    def size(self) -> int:
        """Width C of a row."""

    @property
    def record(self) -> FeatureRecord:
        """What datasets and priors store, with the revision if it is not the first."""
        record = FeatureRecord(name=self.name, size=self.size, weights=self.weights_record)
        if self.revision != 1:
            record["revision"] = self.revision
        return record

    @property
    def weights_record(self) -> WeightsRecord | None:
        """Source and sha256 of the weights; ``None`` for a feature without weights."""
        return None

    @property
    def reach(self) -> int:
        """Samples after the end of a frame that its row needs, at most."""
        return 0

    @abstractmethod
    def stream(self) -> RowStream:
        """A new stream.

        Raises:
            InputError: weights that cannot be loaded, or an optional package that is absent.
        """

    def load(self) -> None:
        """Load what the first row needs, so that a fault in it is found before any work.

        Raises:
            InputError: as :meth:`stream`.
        """
        self.stream()

    def extract(self, sound: np.ndarray) -> np.ndarray:
        """Rows ``[N // 640, C]`` float32 of ``sound [N]`` float32 at 16 kHz: those of a stream, joined."""
        stream = self.stream()
        return np.concatenate([stream.push(sound), stream.finish()])

    def rows_at(self, sound: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """Rows ``[K, C]`` of some ``frames [K]`` of ``sound [N]``; a feature whose rows are independent computes only those."""
        return self.extract(sound)[frames]
