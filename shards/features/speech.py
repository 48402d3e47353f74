"""Speech encoders as features: windows on a grid that starts with the stream, the same in training and in use."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from configs import InputError
from configs.records import WeightsRecord
from shards.features.base import Feature, RowStream
from shards.features.weights import Weights
from shards.media.rates import SAMPLES_PER_FRAME

Rows = Callable[[np.ndarray], np.ndarray]  # sound [T * 640] of a window to rows [T, C]


class SpeechFeature(Feature):
    """A pretrained encoder that sees windows of ``block`` frames with ``context`` frames on either side.

    Memory is constant, and a dataset stores what a live stream gives. A row may depend on its whole window, so windows
    always lie on the same grid: the first one begins with the stream.

    Attributes:
        block: frames of a window that become rows.
        context: frames that it sees on either side.
        model_types: values of ``model_type`` in ``config.json`` that are accepted.
    """

    block: ClassVar[int] = 50
    context: ClassVar[int] = 25
    model_types: ClassVar[tuple[str, ...]]

    @cached_property
    def files(self) -> Weights:
        """The files of the checkpoint.

        Raises:
            InputError: missing, or of another model type.
        """
        files = Weights(self.name, self.weights)
        files.expect(*self.model_types)
        return files

    @property
    def weights_record(self) -> WeightsRecord:
        return WeightsRecord(source=self.files.source, sha256=self.files.sha256)

    @property
    def reach(self) -> int:
        return (self.block + self.context - 1) * SAMPLES_PER_FRAME

    def stream(self) -> RowStream:
        return SpeechStream(self._rows, self.size, self.block, self.context)

    @cached_property
    def _rows(self) -> Rows:
        return self.open_encoder()

    @abstractmethod
    def open_encoder(self) -> Rows:
        """Load the model; returns a function from the sound ``[T * 640]`` of one window to its rows ``[T, C]`` float32.

        Raises:
            InputError: transformers is absent, or weights are missing or not finite.
        """


class SpeechStream:
    """Rows of an encoder, block by block."""

    def __init__(self, rows: Rows, size: int, block: int, context: int) -> None:
        self._encode, self._size, self._block, self._context = rows, size, block, context
        self._held = np.zeros(0, np.float32)
        self._lead = 0  # frames of context at the start of what is held

    def push(self, sound: np.ndarray) -> np.ndarray:
        """Append sound ``[N]``; returns the rows ``[K, C]`` of the blocks whose following context has arrived."""
        self._held = np.concatenate([self._held, np.asarray(sound, np.float32)])
        return self._emit(self._block + self._context)

    def finish(self) -> np.ndarray:
        """Rows ``[K, C]`` of the rest."""
        return self._emit(1)

    def _emit(self, needed: int) -> np.ndarray:
        """Encode blocks while at least ``needed`` frames follow the leading context."""
        rows = [np.zeros((0, self._size), np.float32)]
        while (ahead := len(self._held) // SAMPLES_PER_FRAME - self._lead) >= needed:
            block, seen = min(self._block, ahead), self._lead + min(self._block + self._context, ahead)
            window = self._encode(self._held[: seen * SAMPLES_PER_FRAME])
            rows.append(window[self._lead : self._lead + block])
            used = max(0, self._lead + block - self._context)
            self._held, self._lead = self._held[used * SAMPLES_PER_FRAME :], self._lead + block - used
        return np.concatenate(rows)


class ConvolutionalFeature(SpeechFeature):
    """Encoders of the wav2vec 2.0 family: convolutions over the samples, then a transformer; the last hidden state."""

    @property
    def size(self) -> int:
        return self.files.positive("hidden_size")[0]

    def open_encoder(self) -> Rows:
        model = self._model()
        stride, field = _grid(model.config)
        normalise = bool(self.files.preprocessor.get("do_normalize", True))

        def rows(sound: np.ndarray) -> np.ndarray:
            import torch

            if normalise:
                sound = (sound - sound.mean()) / np.sqrt(sound.var() + 1e-7)
            side = (field - stride) // 2  # so that row k of the model is centred on stride * (k + 0.5)
            padded = np.pad(sound, (side, max(0, field - stride - side))).astype(np.float32)
            with torch.inference_mode():
                hidden = model(torch.from_numpy(padded)[None]).last_hidden_state[0].numpy()
            return to_frames(hidden, stride, len(sound) // SAMPLES_PER_FRAME).astype(np.float32)

        return rows

    def _model(self) -> Any:
        """The model in float32, every one of its tensors read from the file."""
        try:
            from safetensors import SafetensorError
            from transformers import AutoModel
        except ImportError:
            raise InputError("speech features need transformers: pip install 'headstart[speech]'") from None
        files = self.files
        try:
            model, report = AutoModel.from_pretrained(
                files.folder, use_safetensors=True, local_files_only=True, output_loading_info=True
            )
        except (SafetensorError, OSError, ValueError, RuntimeError, KeyError) as error:
            raise files.unreadable(error) from None
        mismatched = [key[0] if isinstance(key, tuple) else key for key in report["mismatched_keys"]]
        # masked_spec_embed is used in pretraining only.
        missing = {*report["missing_keys"], *mismatched} - {"masked_spec_embed"}
        files.refuse([str(key) for key in missing])
        model = model.float().eval()  # checkpoints of half precision are loaded in their own type
        files.refuse(not_finite(model), "holds infinite or undefined numbers in")
        return model


def not_finite(model: Any) -> list[str]:
    """Names of the model's tensors that hold a number that is infinite or undefined."""
    return [name for name, value in model.named_parameters() if not bool(value.isfinite().all())]


def _grid(config: Any) -> tuple[int, int]:
    """Stride and receptive field of the convolutions, in samples."""
    stride, field = 1, 1
    for kernel, step in zip(config.conv_kernel, config.conv_stride):
        field += (kernel - 1) * stride
        stride *= step
    return stride, field


def to_frames(rows: np.ndarray, stride: int, frames: int) -> np.ndarray:
    """Model rows ``[K, C]`` to video frames ``[T, C]``: the mean of the rows inside a frame, else interpolated at its centre.

    Args:
        rows: row k is centred on sample ``stride * (k + 0.5)``.
        stride: samples between two rows.
        frames: T.
    """
    each, rest = divmod(SAMPLES_PER_FRAME, stride)
    if rest == 0 and len(rows) >= frames * each:
        return rows[: frames * each].reshape(frames, each, -1).mean(axis=1)
    place = (np.arange(frames) + 0.5) * SAMPLES_PER_FRAME / stride - 0.5
    place = np.clip(place, 0, len(rows) - 1)
    low = np.floor(place).astype(int)
    high = np.minimum(low + 1, len(rows) - 1)
    part = (place - low)[:, None]
    return rows[low] * (1 - part) + rows[high] * part
