"""Estimates by how much a video's sound is late against the lips, so that it can be put in step before training.

A linear filter predicts the lips (:func:`lip_shape`: opening, width, height) from the sound. It was learned on other people
(``python -m benchmarks av_offset --clips CLIPS --learn FILE``); the lag at which it agrees best with the lips is the
offset. The likelihood over all lags and a prior over the offsets of videos give its probability. Short clips, mouths that
hardly move and voices that are not the face's stay as they are.

From log-mel, which needs no speech encoder, an offset is believed if it is a frame or more and nearly certain
(:data:`PLAIN`). Where the clip's audio feature is Whisper tiny.en, the filters take its rows and tell fractions of a
frame (:data:`SPEECH`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from configs.records import FeatureRecord
from heads.measures.lips import lip_shape
from heads.ridge import apply_ridge
from shards.features.base import Feature
from shards.features.logmel import HOPS, MELS, logmel
from shards.media.rates import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from shards.media.sound import stream_audio
from shards.tracking.first_pass import FirstPass

WEIGHTS, PLAIN_FILE, SPEECH_FILE = Path(__file__).parent / "data", "av_offset.npz", "av_offset_whisper.npz"
MOST = 10.0  # frames: lags are searched up to 400 ms
NEAR = 1.0  # frames around the likeliest lag that count as the same
USUAL = 3.0  # frames, standard deviation of the prior; 70 clips, with film and television, have 1.3
INDEPENDENT = 5.0  # successive frames that count as one independent observation
LEAST_FRAMES = 60  # shorter runs are not used
HEARD = 1500  # most frames used: a minute
SPREAD = 0.2  # added to a column's standard deviation, in units of log-mel


@dataclass(frozen=True)
class Trust:
    """When an offset is applied: at a probability of ``sure`` or more, if it is ``least`` frames or more."""

    sure: float
    least: float


PLAIN = Trust(sure=0.9, least=1.0)  # of filters on log-mel
SPEECH = Trust(sure=0.5, least=0.25)  # of filters on Whisper rows · by benchmarks av_offset


@dataclass(frozen=True)
class AvOffset:
    """Sound that is late by ``seconds`` (negative: early), and the probability that this is right to within a frame."""

    seconds: float = 0.0
    confidence: float = 0.0

    def __str__(self) -> str:
        late = "late" if self.seconds > 0 else "early"
        return f"sound is {abs(1000 * self.seconds):.0f} ms {late}; put in step"


IN_STEP = AvOffset()


class SoundReader:
    """Reads a file's sound forward from ``start`` s on; silence before its beginning and after its end."""

    def __init__(self, path: Path, start: float) -> None:
        self._blocks = stream_audio(path)
        self._held = np.zeros(0, np.float32)
        self._at = -round(start * SAMPLE_RATE)  # which sample the held ones begin with

    def take(self, first: int, count: int) -> np.ndarray:
        """Samples ``[count]`` from ``first`` on, which must not decrease from call to call."""
        while self._at + len(self._held) < first + count:
            block = next(self._blocks, None)
            if block is None:
                break
            self._held = np.concatenate([self._held, block])
            drop = min(max(0, first - self._at), len(self._held))
            self._held, self._at = self._held[drop:], self._at + drop
        before = min(max(0, self._at - first), count)
        part = self._held[max(0, first - self._at) :][: count - before]
        return np.pad(part, (before, count - before - len(part)))


class LipFilters:
    """Linear filters from sound to lips.

    Args:
        weight: ``[3, C, 2 * context + 1]``.
        feature: whose rows the filters take; ``None``: standardised log-mel.
    """

    def __init__(self, weight: np.ndarray, feature: Feature | None = None) -> None:
        self.weight, self.feature = weight, feature
        self.trust = PLAIN if feature is None else SPEECH

    def rows(self, sound: np.ndarray) -> np.ndarray:
        """The filters' input ``[T, C]`` of ``sound [T * 640]``."""
        return lip_rows(sound) if self.feature is None else self.feature.extract(sound)

    def lips(self, rows: np.ndarray) -> np.ndarray:
        """Lips ``[L, T, 3]`` at every lag of :func:`lag_grid`; the ends are repeated."""
        if self.feature is None:
            # One filtering per step of log-mel within a frame.
            phases = [apply_ridge(self.weight, shifted(rows, phase), centre=False) for phase in range(HOPS)]
        else:
            phases = _between_frames(apply_ridge(self.weight, rows))
        steps = np.round(lag_grid() * HOPS).astype(int)
        at = np.clip(np.arange(len(rows)) + (steps // HOPS)[:, None], 0, len(rows) - 1)
        return np.stack([phases[step % HOPS][frames] for step, frames in zip(steps, at)])


def _between_frames(lips: np.ndarray) -> list[np.ndarray]:
    """Lips ``[T, 3]`` at each step of log-mel after their frames, linearly interpolated."""
    after = np.concatenate([lips[1:], lips[-1:]])
    return [lips + (after - lips) * (phase / HOPS) for phase in range(HOPS)]


def estimate_offset(sound: Path, found: FirstPass, start: float = 0.0, feature: Feature | None = None) -> AvOffset:
    """The offset of a video after its first pass.

    Args:
        sound: the video, or the file that holds its sound.
        found: the first pass.
        start: s of the video at which frame 0 of the first pass lies.
        feature: the clip's audio feature; with filters of its own the offset is finer.
    """
    reader, filters = SoundReader(sound, start), filters_for(feature)
    parts = [
        (lips, filters.rows(reader.take(first * SAMPLES_PER_FRAME, len(lips) * SAMPLES_PER_FRAME)))
        for first, lips in _runs(found)
    ]
    return offset_of(parts, filters)


def _runs(found: FirstPass) -> Iterator[tuple[int, np.ndarray]]:
    """First frame and lips ``[T, 3]`` of the runs that are used."""
    left = HEARD
    for run in found.runs:
        end = min(run.end, run.start + left)
        if end - run.start >= LEAST_FRAMES:
            landmarks, _ = found.landmarks(run.start, end)
            yield run.start, lip_shape(torch.from_numpy(landmarks)).numpy()
            left -= end - run.start


def offset_of(parts: list[tuple[np.ndarray, np.ndarray]], filters: LipFilters) -> AvOffset:
    """The offset of lips ``[T, 3]`` and the filters' rows ``[T, C]`` of their sound, in parts of one video.

    Returns:
        By how much to move the sound back: 0 s if it is in step, or if too little is known.
    """
    lag, confidence = likeliest_lag([(lips, filters.lips(rows)) for lips, rows in parts])
    return AvOffset(round(believed(lag, confidence, filters.trust) / FPS, 4), round(confidence, 3))


def believed(lag: float, confidence: float, trust: Trust) -> float:
    """The frames by which a sound is moved that seems ``lag`` frames late: all of them, or none."""
    return lag if confidence >= trust.sure and trust.least <= abs(lag) < MOST - NEAR else 0.0


def likeliest_lag(parts: Iterable[tuple[np.ndarray, np.ndarray]]) -> tuple[float, float]:
    """Frames by which the sound seems late, and the probability that it is so within ``NEAR``.

    Args:
        parts: lips ``[T, 3]`` of one video, and those predicted from its sound at every lag ``[L, T, 3]``.
    """
    lags = lag_grid()
    score = -0.5 * (lags / USUAL) ** 2
    for lips, predicted in parts:
        score += likelihood(predicted, lips)
    chance = np.exp(score - score.max())
    near = np.abs(lags - lags[score.argmax()]) <= NEAR
    return float((chance * lags)[near].sum() / chance[near].sum()), float(chance[near].sum() / chance.sum())


def lag_grid() -> np.ndarray:
    """The lags that are tried, ``[L]`` frames: one step of log-mel (10 ms) apart."""
    return np.arange(-round(MOST * HOPS), round(MOST * HOPS) + 1) / HOPS


def lip_rows(sound: np.ndarray) -> np.ndarray:
    """Standardised log-mel ``[T, 160]`` of ``sound [T * 640]``, the input of the filters."""
    rows = logmel(sound)
    return (rows - rows.mean(0)) / (rows.std(0) + SPREAD)


def shifted(rows: np.ndarray, steps: int) -> np.ndarray:
    """Rows of log-mel ``[T, 160]`` taken ``steps`` of 10 ms later; the last step is repeated."""
    parts = rows.reshape(-1, MELS)
    at = np.clip(np.arange(len(parts)) + steps, 0, len(parts) - 1)
    return parts[at].reshape(rows.shape)


def likelihood(guess: np.ndarray, lips: np.ndarray) -> np.ndarray:
    """Log-likelihood ``[L]`` of every lag, from ``guess [L, T, 3]`` and ``lips [T, 3]``.

    Only frames that every lag has are compared, so that no lag wins by its ends.
    """
    edge = int(np.ceil(MOST))
    a, b = (x - x.mean(-2, keepdims=True) for x in (guess[:, edge:-edge], lips[edge:-edge]))
    r = (a * b).sum(1) / np.maximum(np.sqrt((a * a).sum(1) * (b * b).sum(0)), 1e-9)
    return -0.5 * (len(b) / INDEPENDENT) * np.log(1 - np.clip(r, 0.0, 0.99) ** 2).sum(-1)


@lru_cache(maxsize=2)
def _stored(name: str) -> tuple[np.ndarray, str]:
    """Shipped filters ``[3, C, 2 * context + 1]``, and the sha256 of the encoder's weights that they belong to."""
    with np.load(WEIGHTS / name, allow_pickle=False) as stored:
        return stored["weight"].astype(np.float32), str(stored["sha256"]) if "sha256" in stored else ""


def has_filters(record: FeatureRecord) -> bool:
    """Whether there are filters on this audio feature: it is Whisper with the weights that they were learned on."""
    weights = record["weights"]
    return record["name"] == "whisper" and weights is not None and weights["sha256"] == _stored(SPEECH_FILE)[1]


def filters_for(feature: Feature | None = None) -> LipFilters:
    """The shipped filters: on ``feature`` if it has some, else on log-mel."""
    if feature is not None and has_filters(feature.record):
        return LipFilters(_stored(SPEECH_FILE)[0], feature)
    return LipFilters(_stored(PLAIN_FILE)[0])
