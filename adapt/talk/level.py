"""How loud speech was recorded; speech far quieter than the avatar's clip is raised to it for the lips.

Log-mel follows the level of the sound, so a regression that learned from a clip at -23 dB hardly opens the lips to a
recording at -45 dB, such as of a distant microphone (features of Whisper do not). The sound of the output is left as it is.

The level is the mean square of the frames that pass two gates, as in ITU-R BS.1770-5, without its weighting of frequencies.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from configs.progress import say, warn
from shards.media.rates import SAMPLES_PER_FRAME
from shards.media.sound import stream_audio

# Gates: mean square (-70 dB), and share of the mean of what is above it (-10 dB) · BS.1770-5
SILENCE, BELOW = 1e-7, 0.1
# dB, where an avatar does not say its clip's: the median of 19 people's clips, which reach from -28 to -13 dB
USUAL = -23.0
# dB below the clip from which sound is raised. At 10 dB below their own clip's level, lips of 19 people moved 0.79 times as far
# as at it, at 20 dB 0.57 and at 30 dB 0.37 times (a regression on log-mel; correlation with the real opening 0.37 at the
# clip's level, 0.35, 0.28 and 0.20) · a script on clips of real people
QUIETER = 10.0


def speech_level(blocks: Iterable[np.ndarray]) -> float | None:
    """Level of speech in sound that comes in blocks ``[n]``, dB of full scale; ``None`` if all of it is silence."""
    held, powers = np.zeros(0, np.float32), [np.zeros(0)]
    for block in blocks:
        held = np.concatenate([held, block])
        whole = len(held) // SAMPLES_PER_FRAME * SAMPLES_PER_FRAME
        powers.append(np.square(held[:whole].reshape(-1, SAMPLES_PER_FRAME), dtype=np.float64).mean(1))
        held = held[whole:]
    power = np.concatenate(powers)
    power = power[power > SILENCE]
    return 10 * math.log10(power[power > BELOW * power.mean()].mean()) if len(power) else None


def gain_for(audio: str | Path, clip: float | None) -> float:
    """Factor by which the lips hear a recording: 1, or more for one that is far quieter than the clip; a line says so.

    Args:
        clip: level of the avatar's clip, dB; ``None`` where it is not known.

    Raises:
        InputError: sound that cannot be read.
    """
    wanted, level = USUAL if clip is None else clip, speech_level(stream_audio(audio))
    if level is None:
        warn(f"{audio}: all of it is quieter than -70 dB, so the lips rest; give a louder recording")
        return 1.0
    if level > wanted - QUIETER:
        return 1.0
    say(
        f"{audio}: its speech is quiet ({level:.0f} dB); the lips follow it raised to {wanted:.0f} dB, its sound stays as it is"
    )
    return float(10 ** ((wanted - level) / 20))
