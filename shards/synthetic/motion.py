"""What a talker does besides speaking: head turns, blinks, glances, brows and smiles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

from shards.synthetic.speech.lexicon import Phone


@dataclass(frozen=True)
class Manner:
    """How lively a person is: deviations of head turns in radians, blinks per minute, brow and smile levels."""

    yaw: float = 0.22
    pitch: float = 0.08
    roll: float = 0.05
    blinks: float = 16.0
    brows: float = 0.5
    smile: float = 0.2


def sample_manner(rng: np.random.Generator) -> Manner:
    """A manner for one identity."""
    return Manner(
        yaw=float(rng.uniform(0.14, 0.30)),
        pitch=float(rng.uniform(0.05, 0.11)),
        roll=float(rng.uniform(0.03, 0.07)),
        blinks=float(rng.uniform(9, 24)),
        brows=float(rng.uniform(0.2, 0.9)),
        smile=float(rng.uniform(-0.1, 0.6)),
    )


def _minimum_jerk(u: np.ndarray) -> np.ndarray:
    u = np.clip(u, 0, 1)
    return u**3 * (10 - 15 * u + 6 * u**2)


def poses(frames: int, spread: tuple[float, float, float], rng: np.random.Generator, fps: float = 25.0) -> np.ndarray:
    """``[T, 3]`` yaw, pitch, roll in radians: turns between held directions, with tremor on top.

    People hold a direction for a second or two and turn in about half a second; noise alone looks drunk.
    """
    time = np.arange(frames) / fps
    result = np.zeros((frames, 3))
    at, now = np.zeros(3), float(rng.uniform(0.2, 1.2))
    bounds = np.array([0.75, 0.28, 0.16])
    while now < time[-1] if frames else False:
        duration = rng.uniform(0.4, 1.1)
        goal = np.clip(rng.standard_normal(3) * spread, -bounds, bounds)
        result += _minimum_jerk((time - now) / duration)[:, None] * (goal - at)
        at, now = goal, now + duration + rng.exponential(1.1) + 0.3
    tremor = gaussian_filter1d(rng.standard_normal((frames, 3)), 6, axis=0, mode="nearest") * 0.05
    return result + tremor * np.array([0.8, 1.0, 0.6])


def nods(phones: list[Phone], frames: int, rng: np.random.Generator, fps: float = 25.0) -> np.ndarray:
    """``[T]`` pitch in radians (down positive): small beats of the head with some of the accents."""
    beats = np.zeros(frames)
    for phone in phones:
        if phone.stressed and rng.random() < 0.45:
            beats[min(frames - 1, int(phone.start * fps))] += rng.uniform(0.2, 0.6)
    return gaussian_filter1d(beats, 2.6, mode="constant") * 0.35


def eyelids(frames: int, blinks_per_minute: float, rng: np.random.Generator, fps: float = 25.0) -> np.ndarray:
    """``[T, 2]`` left, right closure in [0, 1]: blinks close in 80 ms and open in 160 ms, the two sides differ slightly."""
    time = (np.arange(frames) + 0.5) / fps
    closure = np.zeros((frames, 2))
    now = rng.exponential(30.0 / blinks_per_minute) + 0.2
    while frames and now < time[-1]:
        depth = rng.uniform(0.85, 1.0)
        for side in range(2):
            u = time - now - rng.uniform(0, 0.012)
            shape = np.where(u < 0.09, _minimum_jerk(u / 0.09), 1 - _minimum_jerk((u - 0.12) / 0.19))
            closure[:, side] = np.maximum(closure[:, side], depth * np.where(u < 0, 0, shape))
        now += 0.6 + rng.exponential(60.0 / blinks_per_minute)
    drift = gaussian_filter1d(rng.standard_normal(frames), 15, mode="nearest")[:, None] * 0.12 if frames else 0.0
    return np.clip(closure + drift * (1 - closure), 0, 1).astype(np.float32)


def glances(head: np.ndarray, rng: np.random.Generator, fps: float = 25.0) -> np.ndarray:
    """``[T, 2]`` yaw, pitch of both eyes in radians relative to the head, right and down positive.

    Mostly at the camera, against the head's turn; sometimes elsewhere, with jumps of one frame.
    """
    frames = len(head)
    goal = np.zeros((frames, 2))
    now = 0
    while now < frames:
        end = now + int(fps * (0.3 + rng.exponential(0.9)))
        away = rng.standard_normal(2) * np.array([0.16, 0.08]) if rng.random() < 0.35 else rng.standard_normal(2) * 0.02
        goal[now:end] = away
        now = end
    return np.clip(goal - 0.75 * head[:, :2], [-0.45, -0.28], [0.45, 0.28])


def accents(phones: list[Phone], frames: int, rng: np.random.Generator, fps: float = 25.0) -> np.ndarray:
    """``[T]`` in about [0, 1]: brows that rise with some accents."""
    pulses = np.zeros(frames)
    for phone in phones:
        if phone.stressed and rng.random() < 0.3:
            pulses[min(frames - 1, int(phone.start * fps)) :][: int(0.3 * fps)] += rng.uniform(0.4, 1.0)
    return np.clip(gaussian_filter1d(pulses, 2.5, mode="nearest"), 0, 1.2)


def slow(frames: int, rng: np.random.Generator, seconds: float = 1.5, fps: float = 25.0) -> np.ndarray:
    """``[T]`` smooth noise of about unit variance that changes over `seconds`: moods."""
    sigma = seconds * fps / 2
    padded = gaussian_filter1d(rng.standard_normal(frames + int(6 * sigma)), sigma)
    return padded[int(3 * sigma) :][:frames] * np.sqrt(2 * np.sqrt(np.pi) * sigma)


def rotations(angles: np.ndarray) -> np.ndarray:
    """``[T, 3, 3]`` head → camera from ``[T, 3]`` yaw, pitch, roll in radians: nose right, nose down, tilt clockwise."""
    yaw, pitch, roll = angles.T
    one, zero = np.ones_like(yaw), np.zeros_like(yaw)

    def matrix(*rows: tuple[np.ndarray, ...]) -> np.ndarray:
        return np.stack([np.stack(row, -1) for row in rows], -2)

    # Nose is at -z: turning it to +x is a rotation about y that takes -z to +x.
    ry = matrix((np.cos(yaw), zero, -np.sin(yaw)), (zero, one, zero), (np.sin(yaw), zero, np.cos(yaw)))
    rx = matrix((one, zero, zero), (zero, np.cos(pitch), -np.sin(pitch)), (zero, np.sin(pitch), np.cos(pitch)))
    rz = matrix((np.cos(roll), -np.sin(roll), zero), (np.sin(roll), np.cos(roll), zero), (zero, zero, one))
    return (ry @ rx @ rz).astype(np.float32)
