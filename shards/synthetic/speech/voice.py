"""Speech from phonemes: timing, pitch, and a formant synthesiser after Klatt (1980), at 16 kHz.

A voice is a source (glottal pulses, breath, friction noise) through resonators whose centres move from phoneme to
phoneme. It sounds like a synthesiser of the eighties, but mouth and sound match as in real speech: the same
phonemes, at the same times, drive `visemes`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from scipy.ndimage import gaussian_filter1d

from shards.media.rates import SAMPLE_RATE
from shards.synthetic.speech.lexicon import Phone, phonemes, sentence

_STEP = 80  # samples between two settings of the resonators: 5 ms
_NYQUIST_GUARD = 7600.0


@dataclass(frozen=True)
class Sound:
    """Acoustic target of a phoneme for a male tract: formants F1-F3 in Hz, duration in s, amplitudes in [0, 1]."""

    formants: tuple[float, float, float]
    duration: float
    voicing: float
    aspiration: float = 0.0
    friction: float = 0.0
    noise: tuple[float, float] = (4000.0, 1500.0)  # centre and bandwidth of the friction noise, Hz
    glide: tuple[float, float, float] | None = None  # where a diphthong goes
    burst: bool = False  # a stop: silence, then a burst in its last part


_V = 1.0
SOUNDS: dict[str, Sound] = {
    "SIL": Sound((500, 1500, 2500), 0.20, 0.0),
    "IY": Sound((270, 2290, 3010), 0.13, _V),
    "IH": Sound((390, 1990, 2550), 0.09, _V),
    "EH": Sound((530, 1840, 2480), 0.11, _V),
    "AE": Sound((660, 1720, 2410), 0.14, _V),
    "AA": Sound((730, 1090, 2440), 0.15, _V),
    "AO": Sound((570, 840, 2410), 0.15, _V),
    "UH": Sound((440, 1020, 2240), 0.09, _V),
    "UW": Sound((300, 870, 2240), 0.14, _V),
    "AH": Sound((600, 1190, 2390), 0.08, _V),
    "ER": Sound((490, 1350, 1690), 0.13, _V),
    "EY": Sound((500, 1900, 2500), 0.15, _V, glide=(310, 2200, 2900)),
    "AY": Sound((710, 1150, 2450), 0.18, _V, glide=(400, 1950, 2550)),
    "OY": Sound((560, 880, 2400), 0.20, _V, glide=(400, 1950, 2550)),
    "AW": Sound((710, 1200, 2450), 0.18, _V, glide=(420, 950, 2300)),
    "OW": Sound((540, 1000, 2300), 0.15, _V, glide=(360, 820, 2250)),
    "W": Sound((290, 610, 2150), 0.07, 0.75),
    "L": Sound((330, 1050, 2880), 0.07, 0.75),
    "R": Sound((320, 1100, 1450), 0.07, 0.75),
    "Y": Sound((270, 2100, 3000), 0.06, 0.75),
    "M": Sound((270, 950, 2200), 0.08, 0.40),
    "N": Sound((280, 1650, 2600), 0.07, 0.40),
    "NG": Sound((280, 2200, 2750), 0.09, 0.40),
    "F": Sound((340, 1100, 2080), 0.10, 0.0, friction=0.16, noise=(5200, 5000)),
    "V": Sound((320, 1100, 2080), 0.07, 0.45, friction=0.07, noise=(5200, 5000)),
    "TH": Sound((320, 1290, 2540), 0.10, 0.0, friction=0.13, noise=(6000, 4500)),
    "DH": Sound((320, 1290, 2540), 0.05, 0.50, friction=0.04, noise=(6000, 4500)),
    "S": Sound((320, 1390, 2530), 0.11, 0.0, friction=0.55, noise=(6000, 1600)),
    "Z": Sound((300, 1390, 2530), 0.08, 0.40, friction=0.28, noise=(6000, 1600)),
    "SH": Sound((300, 1840, 2750), 0.11, 0.0, friction=0.60, noise=(3100, 1100)),
    "ZH": Sound((300, 1840, 2750), 0.08, 0.40, friction=0.28, noise=(3100, 1100)),
    "HH": Sound((500, 1500, 2500), 0.06, 0.0, aspiration=0.5),
    "B": Sound((220, 1000, 2150), 0.075, 0.12, friction=0.25, noise=(900, 800), burst=True),
    "P": Sound((300, 1000, 2150), 0.095, 0.0, aspiration=0.35, friction=0.30, noise=(900, 800), burst=True),
    "D": Sound((250, 1650, 2600), 0.065, 0.12, friction=0.35, noise=(4200, 1800), burst=True),
    "T": Sound((320, 1650, 2600), 0.085, 0.0, aspiration=0.35, friction=0.50, noise=(4600, 2000), burst=True),
    "G": Sound((250, 1950, 2700), 0.075, 0.12, friction=0.35, noise=(2000, 700), burst=True),
    "K": Sound((300, 1950, 2700), 0.095, 0.0, aspiration=0.35, friction=0.45, noise=(2000, 700), burst=True),
    "CH": Sound((300, 1800, 2750), 0.13, 0.0, friction=0.60, noise=(3300, 1200), burst=True),
    "JH": Sound((280, 1800, 2750), 0.10, 0.20, friction=0.40, noise=(3300, 1200), burst=True),
}


@dataclass(frozen=True)
class VoiceStyle:
    """What makes one speaker's voice: pitch in Hz, tract length (1 = adult male; shorter = higher formants), manner."""

    pitch: float = 115.0
    range: float = 0.25  # relative excursion of an accent
    tract: float = 1.0
    rate: float = 1.0
    breath: float = 0.03
    tilt: float = 0.5  # 0 bright .. 1 dull
    pause: float = 0.35  # mean silence between sentences, s


def sample_voice(rng: np.random.Generator, female: float) -> VoiceStyle:
    """A voice for one identity; `female` in [0, 1] moves pitch and tract between typical male and female values."""
    return VoiceStyle(
        pitch=float(np.exp(np.log(105) + female * np.log(1.9) + 0.10 * rng.standard_normal())),
        range=float(rng.uniform(0.14, 0.34)),
        tract=float(1.0 - 0.15 * female + 0.03 * rng.standard_normal()),
        rate=float(rng.uniform(0.88, 1.15)),
        breath=float(rng.uniform(0.01, 0.03) + 0.03 * female),
        tilt=float(rng.uniform(0.3, 0.75)),
        pause=float(rng.uniform(0.25, 0.5)),
    )


@dataclass(frozen=True)
class Utterance:
    """Phones in time order that cover [0, seconds] without gaps, and the words they say."""

    phones: list[Phone]
    words: list[str]
    seconds: float


def compose(seconds: float, rng: np.random.Generator, style: VoiceStyle) -> Utterance:
    """Sentences that fill `seconds`: stressed vowels longer, the last word of a sentence slower, then a pause."""
    phones, words, now = [], [], float(rng.uniform(0.1, 0.35))
    phones.append(Phone("SIL", 0.0, min(now, seconds)))
    while now < seconds:
        spoken = sentence(rng)
        for index, word in enumerate(spoken):
            last = index == len(spoken) - 1
            for symbol, stressed in phonemes(word):
                scale = (1.25 if stressed else 1.0) * (1.3 if last else 1.0) * rng.uniform(0.88, 1.14) / style.rate
                end = now + SOUNDS[symbol].duration * scale
                phones.append(Phone(symbol, now, end, stressed, last))
                now = end
            words.append(word)
        rest = now + max(0.12, rng.normal(style.pause, 0.12))
        phones.append(Phone("SIL", now, rest))
        now = rest
    kept = [p for p in phones if p.start < seconds]
    tail = kept[-1]
    kept[-1] = Phone(tail.symbol, tail.start, seconds, tail.stressed, tail.final)
    return Utterance(kept, words, seconds)


def _targets(utterance: Utterance, steps: int) -> dict[str, np.ndarray]:
    """Piecewise targets of every synthesis parameter on the 5 ms grid, before smoothing."""
    formants = np.zeros((steps, 3))
    curves = {name: np.zeros(steps) for name in ("voicing", "aspiration", "friction")}
    noise = np.zeros((steps, 2))
    noise[:] = (4000.0, 1500.0)
    scale = SAMPLE_RATE / _STEP
    phones = utterance.phones
    for i, phone in enumerate(phones):
        a, b = round(phone.start * scale), min(steps, round(phone.end * scale))
        if b <= a:
            continue
        sound = SOUNDS[phone.symbol]
        if phone.symbol == "HH" and i + 1 < len(phones):  # h is the next vowel, whispered
            formants[a:b] = SOUNDS[phones[i + 1].symbol].formants
        else:
            blend = np.linspace(0, 1, b - a)[:, None] ** 1.3
            formants[a:b] = (1 - blend) * np.array(sound.formants) + blend * np.array(sound.glide or sound.formants)
        start = a if not sound.burst else a + int((b - a) * (0.45 if phone.symbol in ("CH", "JH") else 0.68))
        curves["voicing"][a:b] = sound.voicing
        curves["friction"][start:b] = sound.friction
        curves["aspiration"][start:b] = sound.aspiration
        noise[a:b] = sound.noise
    return {"formants": formants, "noise": noise, **curves}


def _pitch(utterance: Utterance, steps: int, style: VoiceStyle, rng: np.random.Generator) -> np.ndarray:
    """Fundamental in Hz on the 5 ms grid: declination over a sentence, a peak on each stressed vowel, a final fall."""
    scale = SAMPLE_RATE / _STEP
    contour = np.zeros(steps)
    accents = np.zeros(steps)
    sentence_start = 0.0
    for phone in utterance.phones:
        a, b = round(phone.start * scale), min(steps, round(phone.end * scale))
        if phone.symbol == "SIL":
            sentence_start = phone.end
        since = np.arange(a, b) / scale - sentence_start
        contour[a:b] = 0.10 - 0.07 * since - (0.14 if phone.final else 0.0)
        if phone.stressed and b > a:
            accents[a:b] = style.range * rng.uniform(0.5, 1.25) * 2.2
    wander = gaussian_filter1d(rng.standard_normal(steps), 40) * 0.25
    curve = gaussian_filter1d(contour, 10) + gaussian_filter1d(accents, 14) * 0.5 + wander
    return style.pitch * np.exp(np.clip(curve, -0.5, 0.7))


@numba.njit(cache=True, error_model="numpy")
def _resonator(frequency, bandwidth):
    c = -np.exp(-2 * np.pi * bandwidth / SAMPLE_RATE)
    b = 2 * np.exp(-np.pi * bandwidth / SAMPLE_RATE) * np.cos(2 * np.pi * frequency / SAMPLE_RATE)
    return 1 - b - c, b, c


@numba.njit(cache=True, error_model="numpy")
def _filter(f0, formants, bandwidths, voicing, aspiration, friction, noise, white, breath, tilt):
    """Source and resonators, sample by sample: the filters change under the signal, so no library filter fits."""
    n = white.shape[0]
    k = formants.shape[1]
    out = np.zeros(n)
    state = np.zeros((k + 1, 2))
    coefficient = np.zeros((k + 1, 3))
    phase, tilted, previous, jitter = 0.0, 0.0, 0.0, 1.0
    for i in range(n):
        step = min(i // _STEP, f0.shape[0] - 1)
        if i % _STEP == 0:
            for j in range(k):
                coefficient[j] = _resonator(formants[step, j], bandwidths[j])
            coefficient[k] = _resonator(noise[step, 0], noise[step, 1])
        phase += f0[step] * jitter / SAMPLE_RATE
        if phase >= 1.0:
            phase -= 1.0
            jitter = 1.0 + 0.012 * white[i]  # irregular periods: a perfectly regular voice buzzes
        # Rosenberg (1971) glottal flow: opens over 40 % of the period, closes over 16 %.
        if phase < 0.40:
            flow = 0.5 * (1 - np.cos(np.pi * phase / 0.40))
        elif phase < 0.56:
            flow = np.cos(0.5 * np.pi * (phase - 0.40) / 0.16)
        else:
            flow = 0.0
        derivative = flow - previous
        previous = flow
        tilted = tilt * tilted + (1 - tilt) * derivative * 6.0
        hiss = white[i] * (breath * voicing[step] * (0.4 + flow) + 0.10 * aspiration[step])
        x = tilted * voicing[step] + hiss
        for j in range(k):
            y = coefficient[j, 0] * x + coefficient[j, 1] * state[j, 0] + coefficient[j, 2] * state[j, 1]
            state[j, 1] = state[j, 0]
            state[j, 0] = y
            x = y
        f = white[i] * friction[step]
        y = coefficient[k, 0] * f + coefficient[k, 1] * state[k, 0] + coefficient[k, 2] * state[k, 1]
        state[k, 1] = state[k, 0]
        state[k, 0] = y
        out[i] = x + 0.10 * y + 0.008 * f
    return out


def speak(utterance: Utterance, style: VoiceStyle, rng: np.random.Generator) -> np.ndarray:
    """Synthesise an utterance: ``[N]`` float32 mono at 16 kHz in [-0.8, 0.8], N = round(seconds * 16000)."""
    samples = round(utterance.seconds * SAMPLE_RATE)
    steps = samples // _STEP + 1
    target = _targets(utterance, steps)
    # Coarticulation: the tract moves in about 30 ms, so every parameter is the smoothed sequence of its targets.
    formants = gaussian_filter1d(target["formants"], 5.0, axis=0, mode="nearest") / style.tract
    upper = np.full((steps, 1), 3500.0 / style.tract)
    formants = np.concatenate([formants, upper, np.full((steps, 1), 4500.0 / style.tract)], axis=1)
    smooth = {k: gaussian_filter1d(target[k], 1.6, mode="nearest") for k in ("voicing", "aspiration", "friction")}
    wave = _filter(
        _pitch(utterance, steps, style, rng),
        np.minimum(formants, _NYQUIST_GUARD),
        np.array([70.0, 95.0, 140.0, 220.0, 300.0]),
        smooth["voicing"],
        smooth["aspiration"],
        smooth["friction"],
        np.minimum(gaussian_filter1d(target["noise"], 1.5, axis=0, mode="nearest"), _NYQUIST_GUARD),
        rng.standard_normal(samples),
        style.breath,
        style.tilt,
    )
    loud = np.quantile(np.abs(wave), 0.999) + 1e-9
    return np.clip(wave * (0.6 / loud), -0.8, 0.8).astype(np.float32)
