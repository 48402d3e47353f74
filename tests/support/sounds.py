"""Sounds at 16 kHz that hold a voice, and many that hold none."""

from __future__ import annotations

import numpy as np

from shards.media.rates import SAMPLE_RATE
from shards.synthetic.speech import voice as speech

CHORDS = ((261.6, 329.6, 392.0), (220.0, 261.6, 329.6), (174.6, 220.0, 261.6), (196.0, 246.9, 293.7))


def voice(seconds: float, seed: int = 1) -> np.ndarray:
    """Synthetic speech ``[N]`` float32."""
    rng = np.random.default_rng(seed)
    style = speech.sample_voice(rng, 0.0)
    return speech.speak(speech.compose(seconds, rng, style), style, rng)


def white(seconds: float, level: float) -> np.ndarray:
    """White noise ``[N]`` of a root mean square of ``level``."""
    return scaled(np.random.default_rng(0).standard_normal(round(seconds * SAMPLE_RATE)), level)


def pink(seconds: float, level: float) -> np.ndarray:
    """Noise that falls by 3 dB an octave, as rooms have it."""
    spectrum = np.fft.rfft(white(seconds, 1.0))
    spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
    return scaled(np.fft.irfft(spectrum, round(seconds * SAMPLE_RATE)), level)


def breathing(seconds: float, level: float) -> np.ndarray:
    """Noise that swells every three seconds."""
    from scipy.signal import lfilter

    noise = lfilter([1.0], [1.0, -0.7], white(seconds, 1.0))
    return scaled(noise * np.clip(np.sin(2 * np.pi * 0.35 * _time(seconds)), 0, 1) ** 1.5, level)


def hum(seconds: float, level: float) -> np.ndarray:
    """Of the mains: 100 Hz and its octave."""
    time = _time(seconds)
    return scaled(np.sin(2 * np.pi * 100 * time) + 0.4 * np.sin(2 * np.pi * 200 * time), level)


def music(seconds: float, level: float, *, drums: bool = True) -> np.ndarray:
    """Chords that die away over a bass, two a second; with drums: kick, snare and hi-hat."""
    rng, total, beat = np.random.default_rng(0), np.zeros(round(seconds * SAMPLE_RATE)), SAMPLE_RATE // 2
    for number, at in enumerate(range(0, len(total) - beat, beat)):
        chord = CHORDS[number % len(CHORDS)]
        total[at : at + beat] += sum(_note(f, beat) for f in chord) + 1.5 * _note(chord[0] / 4, beat)
        if drums:
            time = np.arange(beat) / SAMPLE_RATE
            total[at : at + beat] += (
                4 * np.sin(2 * np.pi * (50 * time + 1.5 * (1 - np.exp(-20 * time)))) * np.exp(-12 * time)
            )
            hit = rng.standard_normal(beat) * (0.6 * np.exp(-60 * time) + 2 * (number % 2) * np.exp(-18 * time))
            total[at : at + beat] += hit
    return scaled(total, level)


def melody(seconds: float, level: float) -> np.ndarray:
    """One line with vibrato, three notes a second: what a periodicity takes for a voice."""
    rng, total, length = np.random.default_rng(0), np.zeros(round(seconds * SAMPLE_RATE)), SAMPLE_RATE // 3
    for at in range(0, len(total) - length, length):
        pitch = 220 * 2 ** (rng.choice([0, 2, 4, 5, 7, 9, 11, 12]) / 12)
        total[at : at + length] += _note(pitch, length, vibrato=0.3)
    return scaled(total, level)


def scaled(sound: np.ndarray, level: float) -> np.ndarray:
    """``sound`` with a root mean square of ``level``, float32."""
    return (level * sound / np.sqrt((sound**2).mean())).astype(np.float32)


def _time(seconds: float) -> np.ndarray:
    return np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE


def _note(pitch: float, length: int, vibrato: float = 0.0) -> np.ndarray:
    time = np.arange(length) / SAMPLE_RATE
    swing = vibrato * np.sin(2 * np.pi * 5 * time)
    harmonics = [np.sin(2 * np.pi * pitch * k * time + k * swing) / k**1.2 for k in range(1, 9)]
    return sum(harmonics) * np.exp(-3 * time)
