"""Whisper: the first half of the encoder of any Whisper model, two of its 50 Hz rows per frame.

Whisper takes 30 s at a time and pads shorter sound with silence. Here it takes windows of ``block`` + 2 ``context``
frames, 10 s: its position table is truncated to the window, and a shorter window (the first and the last of a stream)
is padded with silence at the end. Rows are the hidden states after half of the layers, which tell more about lips than
the last layer, at half the cost. docs/shards.md has the figures behind both choices.
"""

from __future__ import annotations

import contextlib
from functools import cached_property
from typing import Any

import numpy as np

from configs import InputError
from shards.features.speech import Rows, SpeechFeature, not_finite
from shards.media.rates import SAMPLE_RATE, SAMPLES_PER_FRAME

HOP = 160  # samples between two mel columns (Radford et al. 2022, section 2.2)
WINDOW = 400  # samples that a mel column sees
POSITION = 2 * HOP  # samples between two rows of the encoder: its second convolution has stride 2
EACH = SAMPLES_PER_FRAME // POSITION  # rows in a frame
# Mel column i is centred on sample 160 i, row k on column 2 k. With 160 samples in front, rows 2 t + 1 and 2 t + 2 are
# centred 10 and 30 ms into frame t, and so is their mean on the frame.
FRONT = POSITION // 2
QUIET = 1e-10  # floor of the energy before its logarithm, as in Whisper
RANGE = 8.0  # decades below the maximum of the window at which Whisper clips


class Whisper(SpeechFeature):
    """Rows ``[T, C]``, each the mean of two rows of the model that have mean 0 and variance 1.

    C is the model's width: 384 for tiny, 512 base, 768 small, 1024 medium, 1280 large.
    """

    block = 150
    context = 50
    name = "whisper"
    default_weights = "openai/whisper-tiny.en"
    default_size = 384
    model_types = ("whisper",)

    @property
    def size(self) -> int:
        return self.files.positive("d_model")[0]

    @property
    def depth(self) -> int:
        """Layers of the encoder that are run."""
        return -(-self.files.positive("encoder_layers")[0] // 2)

    @cached_property
    def positions(self) -> int:
        """Rows of the encoder for a whole window: those of its frames and one in front of them.

        Raises:
            InputError: the checkpoint has fewer positions.
        """
        return self._available(EACH * (self.block + 2 * self.context) + 1)

    def _available(self, needed: int) -> int:
        """``needed``, if the checkpoint has so many positions.

        Raises:
            InputError: it has fewer.
        """
        (available,) = self.files.positive("max_source_positions")
        if available < needed:
            raise InputError(
                f"{self.files.source}: has {available} positions, a window needs {needed}; use a Whisper checkpoint"
            )
        return needed

    def open_encoder(self) -> Rows:
        positions, encoder, filters = self.positions, self.encoder(), self.filters()

        def rows(sound: np.ndarray) -> np.ndarray:
            import torch

            frames = len(sound) // SAMPLES_PER_FRAME
            mel = log_mel(sound, filters, 2 * positions)
            with torch.inference_mode():
                hidden = encoder(torch.from_numpy(mel.T.copy())[None]).last_hidden_state[0].numpy()
            return standardised(hidden[1 : 1 + EACH * frames]).reshape(frames, EACH, -1).mean(axis=1)

        return rows

    def encoder(self) -> Any:
        """The encoder's lower half in float32, its position table truncated to a window, without the final norm."""
        import torch

        try:
            from transformers import WhisperConfig
            from transformers.models.whisper.modeling_whisper import WhisperEncoder
        except ImportError:
            raise InputError("speech features need transformers: pip install 'headstart[speech]'") from None
        state = self._state()
        try:
            config = WhisperConfig.from_dict(self.files.config)
            config.max_source_positions, config.encoder_layers = self.positions, self.depth
            if (table := state.get("embed_positions.weight")) is not None:
                state["embed_positions.weight"] = table[: self.positions]
            encoder: Any = WhisperEncoder(config).float()  # whatever type its config.json names
            encoder.layer_norm = torch.nn.Identity()
            report = encoder.load_state_dict(state, strict=False)
        except (RuntimeError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise self.files.unreadable(error) from None
        self.files.refuse(report.missing_keys)
        self.files.refuse(report.unexpected_keys, "holds, beyond those of its config.json,")
        self.files.refuse(not_finite(encoder), "holds infinite or undefined numbers in")
        return encoder.requires_grad_(False).eval()

    def _state(self) -> dict[str, Any]:
        """The encoder's tensors in float32, by their names in the encoder; the decoder is not read."""
        from safetensors import SafetensorError, safe_open

        state: dict[str, object] = {}
        for path in self.files.files:
            try:
                with safe_open(path, framework="pt") as file:
                    for name in file.keys():  # noqa: SIM118  (not a mapping)
                        _, within, rest = name.rpartition("encoder.") if "decoder." not in name else ("", "", "")
                        if within and self._is_run(rest):
                            state[rest] = file.get_tensor(name).float()
            except (SafetensorError, OSError, ValueError) as error:
                raise self.files.unreadable(error) from None
        return state

    def _is_run(self, name: str) -> bool:
        """Whether a tensor belongs to the lower half."""
        kind, _, rest = name.partition(".")
        number = rest.partition(".")[0]
        return kind != "layer_norm" and not (kind == "layers" and number.isdigit() and int(number) >= self.depth)

    def filters(self) -> np.ndarray:
        """Whisper's mel filters ``[201, M]``, M = ``num_mel_bins`` of ``config.json``."""
        with contextlib.suppress(ImportError):
            from transformers.audio_utils import mel_filter_bank

            (bands,) = self.files.positive("num_mel_bins")
            filters = mel_filter_bank(
                num_frequency_bins=1 + WINDOW // 2,
                num_mel_filters=bands,
                min_frequency=0.0,
                max_frequency=SAMPLE_RATE / 2,
                sampling_rate=SAMPLE_RATE,
                norm="slaney",
                mel_scale="slaney",
            )
            return np.asarray(filters, np.float32)
        raise InputError("speech features need transformers: pip install 'headstart[speech]'")


def standardised(rows: np.ndarray) -> np.ndarray:
    """``rows [K, C]`` as ``[K, C]``, each with mean 0 and variance 1 (a layer norm without weights), so that it fits float16."""
    centred = rows - rows.mean(axis=1, keepdims=True)
    return (centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-5)).astype(np.float32)


def log_mel(sound: np.ndarray, filters: np.ndarray, columns: int) -> np.ndarray:
    """Whisper's spectrogram ``[T, M]``, T = ``columns``, of a window ``sound [N]`` at 16 kHz, with silence before and after it.

    ``filters [F, M]`` are those of the model. Column i is centred on sample ``160 i - 160`` of the window.
    """
    before = FRONT + WINDOW // 2
    padded = np.zeros((columns - 1) * HOP + WINDOW, np.float32)
    kept = sound[: len(padded) - before]
    padded[before : before + len(kept)] = kept
    energy = decades(padded, filters)
    return ((np.maximum(energy, energy.max() - RANGE) + 4.0) / 4.0).astype(np.float32)


def decades(sound: np.ndarray, filters: np.ndarray) -> np.ndarray:
    """Decimal logarithms ``[T, M]`` of the energy in windows of ``sound [(T - 1) HOP + WINDOW]``; ``filters [F, M]``."""
    steps = np.lib.stride_tricks.sliding_window_view(sound, WINDOW)[::HOP]
    power = np.abs(np.fft.rfft(steps * _hann())).astype(np.float32) ** 2
    return np.log10(np.maximum(power @ filters, QUIET))


def _hann() -> np.ndarray:
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)).astype(np.float32)


FEATURE = Whisper
