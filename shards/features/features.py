"""Audio features: one vector per video frame, the same from a file and from a stream."""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from configs import InputError
from shards.media.rates import SAMPLE_RATE, SAMPLES_PER_FRAME

MELS = 40
HOPS = 4  # 10 ms steps per 40 ms frame
WINDOW = 400  # samples, 25 ms
FFT = 512
HOP = SAMPLES_PER_FRAME // HOPS
REACH = (WINDOW - HOP) // 2  # samples that a frame's features need before and after it: 120, 7.5 ms
FLOOR = 1e-6

FEATURES = {"logmel": MELS * HOPS, "wav2vec2": 768, "hubert": 768}
CHECKPOINTS = {"wav2vec2": "facebook/wav2vec2-base-960h", "hubert": "facebook/hubert-base-ls960"}
BLOCK, CONTEXT = 50, 25  # frames that a speech model turns into rows at a time, and that it sees on either side


def logmel(audio: np.ndarray) -> np.ndarray:
    """(N,) audio to (T, 160) float32, T = N // 640: 4 steps of 10 ms with 40 mel bands each, earliest step first.

    Row t looks at samples 640 t - 120 to 640 t + 760: the frame's 40 ms and 7.5 ms on either side, centred; silence is
    assumed outside. Nothing is normalised over the file, so a stream gives the same rows (:class:`FeatureStream`).
    Values: digital silence is -1.2, loud speech about 1.
    """
    edge = np.zeros(REACH, np.float32)
    padded = np.concatenate([edge, np.asarray(audio, np.float32), edge])
    return _logmel_rows(padded, len(audio) // SAMPLES_PER_FRAME)


def _logmel_rows(padded: np.ndarray, frames: int) -> np.ndarray:
    if frames == 0:
        return np.zeros((0, MELS * HOPS), np.float32)
    steps = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP][: frames * HOPS]
    power = np.abs(np.fft.rfft(steps * _hann(), FFT)).astype(np.float32) ** 2 / WINDOW
    energy = np.log10(power @ _mel_filters() + FLOOR)
    return ((energy + 3.0) / 2.5).reshape(frames, HOPS * MELS).astype(np.float32)


class LogMel:
    """Streaming log-mel: push sound, get the rows that are final; together they are :func:`logmel` of all of it."""

    def __init__(self) -> None:
        self._held = np.zeros(REACH, np.float32)

    def push(self, audio: np.ndarray) -> np.ndarray:
        """Rows (n, 160) that became final: those whose 7.5 ms after the frame have arrived."""
        self._held = np.concatenate([self._held, np.asarray(audio, np.float32)])
        ready = max(0, (len(self._held) - 2 * REACH) // SAMPLES_PER_FRAME)
        rows = _logmel_rows(self._held, ready)
        self._held = self._held[ready * SAMPLES_PER_FRAME :]
        return rows

    def finish(self) -> np.ndarray:
        """The last rows, with silence after the end."""
        frames = (len(self._held) - REACH) // SAMPLES_PER_FRAME
        return _logmel_rows(np.concatenate([self._held, np.zeros(REACH, np.float32)]), frames)


@lru_cache
def _hann() -> np.ndarray:
    return (0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(WINDOW) + 0.5) / WINDOW)).astype(np.float32)


@lru_cache
def _mel_filters() -> np.ndarray:
    """(FFT // 2 + 1, MELS) triangles between 50 Hz and 7.6 kHz on the HTK mel scale, each of unit sum."""
    mel = np.linspace(_mel(50.0), _mel(7600.0), MELS + 2)
    edges = 700.0 * (10.0 ** (mel / 2595.0) - 1.0)
    hertz = np.linspace(0.0, SAMPLE_RATE / 2, FFT // 2 + 1)[:, None]
    rise = (hertz - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - hertz) / (edges[2:] - edges[1:-1])
    filters = np.maximum(0.0, np.minimum(rise, fall))
    return (filters / np.maximum(filters.sum(axis=0), 1e-9)).astype(np.float32)


def _mel(hertz: float) -> float:
    return 2595.0 * math.log10(1.0 + hertz / 700.0)


# ---------------------------------------------------------------------------------------------------- by name


def parse_feature(name: str) -> tuple[str, str]:
    """``"hubert"`` or ``"hubert=folder-or-hub-name"`` to the stored name and the checkpoint ('' for logmel).

    Raises:
        InputError: a name that no extractor has.
    """
    kind, _, checkpoint = name.partition("=")
    if kind not in FEATURES or (kind == "logmel" and checkpoint):
        raise InputError(f"audio features '{name}': expected logmel, wav2vec2, hubert, or wav2vec2=FOLDER_OR_HUB_NAME")
    return kind, checkpoint or CHECKPOINTS.get(kind, "")


def extract_features(name: str, audio: np.ndarray) -> np.ndarray:
    """(N,) audio to (N // 640, C) float32: exactly one row per video frame, row t centred on its 40 ms.

    Args:
        name: ``logmel``, ``wav2vec2``, ``hubert``, or ``wav2vec2=FOLDER`` for a checkpoint of one's own.

    Raises:
        InputError: unknown name, transformers absent, or a checkpoint that cannot be loaded.
    """
    stream = FeatureStream(name)
    return np.concatenate([stream.push(audio), stream.finish()])


class FeatureStream:
    """Any feature as a stream; rows are the same however the sound is cut, and those of :func:`extract_features`.

    Speech models see blocks of 50 frames with 25 frames on either side, so their memory is constant and what a dataset
    stores is what a live stream gives.
    """

    def __init__(self, name: str) -> None:
        kind, checkpoint = parse_feature(name)
        self._stream = LogMel() if kind == "logmel" else SpeechStream(checkpoint)

    def push(self, audio: np.ndarray) -> np.ndarray:
        """Append sound (n,) float32 at 16 kHz; the rows (k, C) that became final, possibly none."""
        return self._stream.push(audio)

    def finish(self) -> np.ndarray:
        """The last rows (k, C)."""
        return self._stream.finish()


def feature_size(name: str) -> int:
    """Width C of a feature; asks the checkpoint's configuration where it is not our default."""
    kind, checkpoint = parse_feature(name)
    if checkpoint == CHECKPOINTS.get(kind, ""):
        return FEATURES[kind]
    return int(_speech_model(checkpoint)[0].config.hidden_size)


class SpeechStream:
    """Rows of a speech model, block by block on a grid that starts with the stream."""

    def __init__(self, checkpoint: str) -> None:
        self._checkpoint = checkpoint
        self._held = np.zeros(0, np.float32)
        self._lead = 0  # frames of context at the start of what is held

    def push(self, audio: np.ndarray) -> np.ndarray:
        """Rows of the blocks whose context after them has arrived."""
        self._held = np.concatenate([self._held, np.asarray(audio, np.float32)])
        return self._rows(BLOCK + CONTEXT)

    def finish(self) -> np.ndarray:
        """Rows of the rest."""
        return self._rows(1)

    def _rows(self, needed: int) -> np.ndarray:
        """Emit blocks while ``needed`` frames lie behind the context."""
        size = int(_speech_model(self._checkpoint)[0].config.hidden_size)
        rows = [np.zeros((0, size), np.float32)]
        while (ahead := len(self._held) // SAMPLES_PER_FRAME - self._lead) >= needed:
            block, seen = min(BLOCK, ahead), self._lead + min(BLOCK + CONTEXT, ahead)
            window = _speech_rows(self._checkpoint, self._held[: seen * SAMPLES_PER_FRAME])
            rows.append(window[self._lead : self._lead + block])
            used = max(0, self._lead + block - CONTEXT)
            self._held, self._lead = self._held[used * SAMPLES_PER_FRAME :], self._lead + block - used
        return np.concatenate(rows)


def _speech_rows(checkpoint: str, sound: np.ndarray) -> np.ndarray:
    """(T * 640,) to (T, C): the model's rows inside each frame, averaged."""
    import torch

    model, normalise = _speech_model(checkpoint)
    if normalise:
        sound = (sound - sound.mean()) / np.sqrt(sound.var() + 1e-7)
    stride, field = _grid(model.config)
    side = (field - stride) // 2  # so that row k of the model is centred on stride * (k + 0.5)
    padded = np.pad(sound, (side, max(0, field - stride - side))).astype(np.float32)
    with torch.inference_mode():
        rows = model(torch.from_numpy(padded)[None]).last_hidden_state[0].numpy()
    return _to_frames(rows, stride, len(sound) // SAMPLES_PER_FRAME).astype(np.float32)


def _grid(config: Any) -> tuple[int, int]:
    """Samples between two rows of the model, and samples that one row sees."""
    stride, field = 1, 1
    for kernel, step in zip(config.conv_kernel, config.conv_stride):
        field += (kernel - 1) * stride
        stride *= step
    return stride, field


def _to_frames(rows: np.ndarray, stride: int, frames: int) -> np.ndarray:
    """Model rows to video frames: the mean of the rows inside a frame, or interpolation at its centre."""
    each, rest = divmod(SAMPLES_PER_FRAME, stride)
    if rest == 0 and len(rows) >= frames * each:
        return rows[: frames * each].reshape(frames, each, -1).mean(axis=1)
    place = (np.arange(frames) + 0.5) * SAMPLES_PER_FRAME / stride - 0.5
    place = np.clip(place, 0, len(rows) - 1)
    low = np.floor(place).astype(int)
    high = np.minimum(low + 1, len(rows) - 1)
    part = (place - low)[:, None]
    return rows[low] * (1 - part) + rows[high] * part


@lru_cache(maxsize=2)
def _speech_model(checkpoint: str) -> tuple[Any, bool]:
    """The model and whether it wants its input at zero mean and unit variance."""
    import json

    try:
        from transformers import AutoConfig, AutoModel
    except ImportError:
        raise InputError("speech features need transformers; install headstart[speech]") from None
    try:
        config = AutoConfig.from_pretrained(checkpoint)
        if config.model_type not in ("wav2vec2", "hubert"):
            raise InputError(f"{checkpoint}: is a {config.model_type} model, expected wav2vec2 or hubert")
        model = AutoModel.from_pretrained(checkpoint, config=config, use_safetensors=True).eval()
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"speech checkpoint '{checkpoint}' cannot be loaded ({reason}); give a local folder with config.json and "
            "model.safetensors, or a hub name when online"
        ) from None
    folder = Path(checkpoint) / "preprocessor_config.json"
    normalise = json.loads(folder.read_text()).get("do_normalize", True) if folder.is_file() else True
    return model, bool(normalise)
