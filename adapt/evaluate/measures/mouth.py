"""The mouth over time: whether it opens with the real one, and whether the lips meet when the real lips do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from adapt.evaluate.measures.base import Column, Measure, Tracks, Value
from heads.measures.closure import closure_f1
from heads.measures.face import lip_gap

NO_FACE = "needs a face in every rendered frame"
NO_CLOSURE = "the real lips never close in the test frames"


class Mouth(Measure):
    """Over all frames; needs a face in each."""

    place = 70
    columns: ClassVar[Mapping[str, Column]] = {
        "opening_r": Column("mouth opening, correlation", "", 3, "higher", "inner lip gap over frames, Pearson"),
        "closure_f1": Column("lip closures, F1", "", 3, "higher", "lips together within one frame of the real ones"),
    }

    def whole(self, tracks: Tracks) -> Mapping[str, Value]:
        """Both."""
        if not tracks.valid.all() or not len(tracks.valid):
            return dict.fromkeys(self.columns, NO_FACE)
        rendered, real = lip_gap(tracks.found), lip_gap(tracks.real)
        if len(real) < 3 or min(rendered.std(), real.std()) < 1e-9:
            correlation: Value = "a mouth that never moves has no correlation"
        else:
            correlation = float(np.corrcoef(rendered, real)[0, 1])
        f1 = closure_f1(rendered, real)
        return {"opening_r": correlation, "closure_f1": NO_CLOSURE if f1 is None else f1}
