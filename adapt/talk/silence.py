"""Lips rest in silence: a resting face in frames without speech (see :mod:`adapt.talk.activity`).

In silence a regression or a prior gives some mean face, and that face's mouth is half open.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from adapt.talk.activity import SpeechActivity
from heads.measures.face import lip_gap
from shards.media.rates import SAMPLES_PER_FRAME

# Frames of silence before the lips begin to close: shorter gaps are stops and breaths within a sentence.
PAUSE_FRAMES = 8
CLOSING, OPENING = 1 / 5, 1 / 2  # share of the way to and from the resting face per frame
REST_SHARE = 0.1  # the resting face is the mean of the tenth of the clip with the smallest lip gap


def resting_expression(track: Mapping[str, np.ndarray]) -> np.ndarray:
    """``[K]``: the mean of the clip's expressions with the smallest lip gaps."""
    gaps = lip_gap(track["landmarks"])
    count = max(1, round(REST_SHARE * len(gaps)))
    return track["expression"][np.argsort(gaps)[:count]].mean(0)


def rested(expression: np.ndarray, sound: np.ndarray, track: Mapping[str, np.ndarray]) -> np.ndarray:
    """Expressions ``[T, K]`` of a whole recording ``[N]`` at 16 kHz, at rest in silence.

    Args:
        track: of the training clip, as :func:`resting_expression` takes it.
    """
    whole = np.pad(sound, (0, -len(sound) % SAMPLES_PER_FRAME))
    speech = SpeechActivity().push(whole)[: len(expression)]
    speech = np.pad(speech, (0, len(expression) - len(speech)))
    return Resting(resting_expression(track))(expression, speech)


class Resting:
    """Moves driven expressions to the resting face in pauses, and back when speech begins; stateful.

    Args:
        rest: ``[K]`` the resting expression.
    """

    def __init__(self, rest: np.ndarray) -> None:
        self.rest, self.share, self.silent, self._ignored = rest, 1.0, PAUSE_FRAMES, 0

    def __call__(self, expression: np.ndarray, speech: np.ndarray) -> np.ndarray:
        """The next frames' expressions ``[T, K]``; ``speech [T]`` bool says which of them contain speech."""
        shares = np.array([self._step(bool(active)) for active in speech], np.float32)[:, None]
        return (expression + shares * (self.rest - expression)).astype(np.float32)

    def pause(self, frames: int) -> None:
        """Close the lips from the next frame on, even if the next ``frames`` frames, already heard, contain speech."""
        self.silent, self._ignored = PAUSE_FRAMES, frames

    def _step(self, active: bool) -> float:
        active = active and not self._ignored
        self._ignored = max(0, self._ignored - 1)
        self.silent = 0 if active else self.silent + 1
        step = CLOSING if self.silent >= PAUSE_FRAMES else -OPENING
        self.share = float(np.clip(self.share + step, 0.0, 1.0))
        return self.share
