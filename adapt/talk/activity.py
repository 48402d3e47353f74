"""Which frames hold speech: the network of Silero VAD 6.2 (Silero Team, MIT licence, see ``data/LICENSE-silero-vad``).

Levels and periodicity cannot tell a voice from music. The network is small (309,000 weights, stored in half precision)
and recurrent: it takes 32 ms of sound at a time.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from shards.media.rates import SAMPLES_PER_FRAME

WEIGHTS = Path(__file__).parent / "data" / "silero_vad.npz"
CHUNK, CONTEXT, REFLECTED = 512, 64, 64  # samples: new ones, those before them, padding mirrored at the end
BINS = 129  # of the short-time spectrum: windows of 256 samples, 128 apart
STRIDES = (1, 2, 2, 1)  # of the four convolutions
UNITS = 128  # of the LSTM cell
# The network stays active for some frames after a voice, so frames no louder than the noise floor are excluded. In frames
# and dB of full scale: the floor is the lowest level of the last 3 s, -40 at most; speech is above -65 and at least 6 above
# the floor. Without that bound, of the voiced frames of six clips with noise 10 dB below the speech a third were excluded.
FLOOR_FRAMES, HIGHEST_FLOOR, INAUDIBLE, ABOVE = 75, -40.0, -65.0, 6.0
# Probabilities from which a voice begins and below which it ends (the network's authors' choice).
ENTER, LEAVE = 0.5, 0.35


class VoiceProbability:
    """Probability that each piece of 512 samples at 16 kHz contains a voice; stateful."""

    def __init__(self) -> None:
        self._weights = voice_weights()
        self._before = torch.zeros(CONTEXT)
        self._memory = torch.zeros(1, UNITS), torch.zeros(1, UNITS)

    @torch.no_grad()
    def __call__(self, chunk: np.ndarray) -> float:
        """In [0, 1], of ``chunk [512]`` float32."""
        sound = torch.cat([self._before, torch.from_numpy(chunk)])
        self._before = sound[-CONTEXT:]
        rows = F.pad(sound[None, None], (0, REFLECTED), "reflect")
        spectrum = F.conv1d(rows, self._weights["stft_conv.weight"], stride=128)
        rows = (spectrum[:, :BINS].square() + spectrum[:, BINS:].square()).sqrt()
        for k, stride in enumerate(STRIDES, 1):
            weight, bias = self._weights[f"conv{k}.weight"], self._weights[f"conv{k}.bias"]
            rows = F.conv1d(rows, weight, bias, stride=stride, padding=1).relu()
        state, cell = self._step(rows[:, :, 0])
        self._memory = state, cell
        logit = F.conv1d(state.relu()[..., None], self._weights["final_conv.weight"], self._weights["final_conv.bias"])
        return float(logit.sigmoid())

    def _step(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """One step of a long short-term memory: state and cell ``[1, 128]``."""
        parts = [self._weights[f"lstm_cell.{name}"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
        return torch.lstm_cell(rows, self._memory, *parts)


@lru_cache(maxsize=1)
def voice_weights() -> dict[str, Tensor]:
    """The network's weights by name, float32."""
    with np.load(WEIGHTS, allow_pickle=False) as stored:
        return {name: torch.from_numpy(stored[name].astype(np.float32)) for name in stored.files}


class SpeechActivity:
    """Which frames contain speech, as a stream; independent of how sound is cut into whole frames."""

    def __init__(self) -> None:
        self._probability = VoiceProbability()
        self._rest = np.zeros(0, np.float32)  # sound after the last chunk
        self._active = False
        self._levels = np.full(FLOOR_FRAMES, HIGHEST_FLOOR)

    def push(self, sound: np.ndarray) -> np.ndarray:
        """``[T]`` bool for ``sound [T * 640]``, float32 at 16 kHz."""
        frames = np.asarray(sound, np.float32).reshape(-1, SAMPLES_PER_FRAME)
        return np.array([self._frame(frame) for frame in frames], bool)

    def _frame(self, frame: np.ndarray) -> bool:
        """By the chunks that end within the frame: one or two."""
        held, voiced = np.concatenate([self._rest, frame]), False
        while len(held) >= CHUNK:
            probability = self._probability(held[:CHUNK])
            self._active = probability > (LEAVE if self._active else ENTER)
            voiced, held = voiced or self._active, held[CHUNK:]
        self._rest = held
        loud = self._loud(frame)  # always asked: it keeps the levels
        return voiced and loud

    def _loud(self, frame: np.ndarray) -> bool:
        level = 10 * np.log10(float((frame.astype(np.float64) ** 2).mean()) + 1e-10)
        self._levels = np.append(self._levels[1:], level)
        return level > max(INAUDIBLE, min(HIGHEST_FLOOR, float(self._levels.min())) + ABOVE)
