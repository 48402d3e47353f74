"""Lips rest while nobody speaks: which frames hold speech, and a face at rest where none do.

No driver is asked about silence by its training data alone: a regression or a prior gives some mean face there, and
that face is half open.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from heads.measures.face import lip_gap
from shards.media.rates import SAMPLE_RATE, SAMPLES_PER_FRAME

# Levels in dB of full scale (choices, tried on five voices over white, pink and room noise).
INAUDIBLE = -65.0  # below it nothing counts as speech
FLOOR_FRAMES = 75  # the noise floor is the lowest level of the last 3 s
HIGHEST_FLOOR = -40.0
VOICED_ABOVE, UNVOICED_ABOVE = 6.0, 20.0  # over the floor, for voiced and for any sound
PERIODIC = 0.45  # normalised autocorrelation of a voiced sound
PITCH = (70.0, 400.0)  # Hz
# Silence counts from so many frames on: shorter gaps are stops and breaths within a sentence.
PAUSE_FRAMES = 8
CLOSING, OPENING = 1 / 5, 1 / 2  # share of the way to and from the resting face in a frame
REST_SHARE = 0.1  # the resting face is the mean of the tenth of the clip with the smallest lip gap


class SpeechActivity:
    """Which frames hold speech, as a stream; the same for sound in any pieces of whole frames."""

    def __init__(self) -> None:
        self._before = np.zeros(SAMPLES_PER_FRAME, np.float32)
        self._levels = np.full(FLOOR_FRAMES, HIGHEST_FLOOR)

    def push(self, sound: np.ndarray) -> np.ndarray:
        """``[T]`` bool for ``sound [T * 640]``, float32 at 16 kHz."""
        frames = np.asarray(sound, np.float32).reshape(-1, SAMPLES_PER_FRAME)
        return np.array([self._frame(frame) for frame in frames], bool)

    def _frame(self, frame: np.ndarray) -> bool:
        level = 10 * np.log10(float((frame.astype(np.float64) ** 2).mean()) + 1e-10)
        window, self._before = np.concatenate([self._before, frame]), frame
        self._levels = np.append(self._levels[1:], level)
        above = level - min(float(self._levels.min()), HIGHEST_FLOOR)
        if level < INAUDIBLE or above < VOICED_ABOVE:
            return False
        return above > UNVOICED_ABOVE or periodicity(window) > PERIODIC


def periodicity(window: np.ndarray) -> float:
    """Largest normalised autocorrelation of ``window [N]`` at the lags of a voice's pitch, at most 1."""
    centred = window - window.mean()
    power = np.abs(np.fft.rfft(centred, 2 * len(centred))) ** 2
    correlation = np.fft.irfft(power)[: len(centred)]
    lags = np.arange(int(SAMPLE_RATE / PITCH[1]), int(SAMPLE_RATE / PITCH[0]))
    # Unbiased: a lag leaves fewer samples to correlate.
    scale = len(centred) / (len(centred) - lags)
    return float((correlation[lags] * scale).max() / max(float(correlation[0]), 1e-9))


def resting_expression(track: Mapping[str, np.ndarray]) -> np.ndarray:
    """``[K]``: the mean of the clip's expressions with the smallest lip gaps."""
    gaps = lip_gap(track["landmarks"])
    count = max(1, round(REST_SHARE * len(gaps)))
    return track["expression"][np.argsort(gaps)[:count]].mean(0)


def rested(expression: np.ndarray, sound: np.ndarray, track: Mapping[str, np.ndarray]) -> np.ndarray:
    """Expressions ``[T, K]`` of a whole recording ``[N]`` at 16 kHz, at rest where nobody speaks.

    Args:
        track: of the training clip, as :func:`resting_expression` takes it.
    """
    whole = np.pad(sound, (0, -len(sound) % SAMPLES_PER_FRAME))
    speech = SpeechActivity().push(whole)[: len(expression)]
    speech = np.pad(speech, (0, len(expression) - len(speech)))
    return Resting(resting_expression(track))(expression, speech)


class Resting:
    """Carries driven expressions to the resting face through pauses, and back before speech; a stream.

    Args:
        rest: ``[K]``.
    """

    def __init__(self, rest: np.ndarray) -> None:
        self.rest, self.share, self.silent, self._ignored = rest, 1.0, PAUSE_FRAMES, 0

    def __call__(self, expression: np.ndarray, speech: np.ndarray) -> np.ndarray:
        """Expressions ``[T, K]`` of frames of which ``speech [T]`` says whether they hold any."""
        shares = np.array([self._step(bool(active)) for active in speech], np.float32)[:, None]
        return (expression + shares * (self.rest - expression)).astype(np.float32)

    def pause(self, frames: int) -> None:
        """Close the lips from the next frame on, whatever the next ``frames`` hold, which were heard already."""
        self.silent, self._ignored = PAUSE_FRAMES, frames

    def _step(self, active: bool) -> float:
        active = active and not self._ignored
        self._ignored = max(0, self._ignored - 1)
        self.silent = 0 if active else self.silent + 1
        step = CLOSING if self.silent >= PAUSE_FRAMES else -OPENING
        self.share = float(np.clip(self.share + step, 0.0, 1.0))
        return self.share
