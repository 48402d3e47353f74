"""Whisper for live use: rows that look 120 ms ahead, each from a window of two seconds of its own.

The rows of :mod:`shards.features.whisper` come in blocks of seconds. Here the encoder takes in, for every frame, the two
seconds that end 120 ms after it. That costs 25 times the sound's length in encoded sound, so only what the row needs is
computed: half of the layers, and in the last of them only the positions that are kept (keys and values of all, queries of
ten). docs/live.md has the time of a row and how well lips follow from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from shards.features.logmel import HOPS as MEL_HOPS
from shards.features.logmel import MELS, logmel_rows
from shards.features.logmel import REACH as MEL_REACH
from shards.features.speech import Rows
from shards.features.whisper import EACH, Whisper, log_mel, standardised
from shards.media.rates import SAMPLES_PER_FRAME

if TYPE_CHECKING:
    from torch import Tensor

SEEN = 50  # frames of a window · measured (docs/priors.md)
BEFORE = 1  # frames before its own whose encoder rows are in a row
MEL_SIDE = 2  # log-mel rows before its own, and at most after it, that are in a row
MEL_SIZE = MELS * MEL_HOPS


@dataclass(frozen=True)
class Layout:
    """What a row holds, by its look-ahead.

    Attributes:
        ahead: frames after its own that a row takes in, a multiple of a half.
    """

    ahead: float = 3

    @property
    def encoded(self) -> int:
        """Frames whose encoder rows are in a row; the frame itself is number ``BEFORE``."""
        return BEFORE + 1 + int(self.ahead)

    @property
    def mels(self) -> int:
        """Frames whose log-mel is in a row, 7.5 ms after them included; the frame itself is number ``MEL_SIDE``."""
        return MEL_SIDE + 1 + min(MEL_SIDE, int(self.ahead - MEL_REACH / SAMPLES_PER_FRAME))

    def width(self, size: int) -> int:
        """C of the encoder in a row of ``size`` columns."""
        return (size - self.mels * MEL_SIZE) // self.encoded

    def loudness(self, row: np.ndarray) -> float:
        """Mean log-mel of the frame that a row ``[C]`` belongs to: digital silence is -1.2, loud speech about 0."""
        own = len(row) - (self.mels - MEL_SIDE) * MEL_SIZE
        return float(row[own : own + MEL_SIZE].mean())


LAYOUT = Layout()


class WhisperLive(Whisper):
    """Rows ``[T, 5 C + 800]``: the encoder's rows of the frames t - 1 to t + 3, then log-mel of t - 2 to t + 2.

    All of them are computed from the window that ends three frames after frame t: the encoder's rows of the latest
    frames, which have not heard what follows, differ from those that later windows give. C is the model's width, as for
    :class:`shards.features.whisper.Whisper`, whose weights they are.

    Attributes:
        layout: what a row holds.
    """

    name = "whisper-live"
    default_size = LAYOUT.encoded * 384 + LAYOUT.mels * MEL_SIZE
    layout: ClassVar[Layout] = LAYOUT

    @property
    def size(self) -> int:
        return self.layout.encoded * super().size + self.layout.mels * MEL_SIZE

    @property
    def reach(self) -> int:
        return round(self.layout.ahead * SAMPLES_PER_FRAME)

    def rows_at(self, sound: np.ndarray, frames: np.ndarray) -> np.ndarray:
        window = SEEN * SAMPLES_PER_FRAME
        before = window - SAMPLES_PER_FRAME - self.reach
        padded = np.pad(np.asarray(sound, np.float32), (before, self.reach + SAMPLES_PER_FRAME))
        return np.concatenate([self._rows(padded[at : at + window]) for at in frames * SAMPLES_PER_FRAME])

    @cached_property
    def positions(self) -> int:
        return EACH * SEEN + 1

    def stream(self) -> LiveStream:
        return LiveStream(self._rows, self.size, self.reach)

    def open_encoder(self) -> Rows:
        """The function from the sound of a window to its row ``[1, C']``."""
        filters, layout = self.filters(), self.layout
        last = LastPositions(self.encoder().state_dict(), self.files.positive("encoder_attention_heads")[0], self.depth)
        kept = EACH * (BEFORE + 1) + int(EACH * layout.ahead)
        own = (SEEN - 1) * SAMPLES_PER_FRAME - self.reach
        first = own - MEL_SIDE * SAMPLES_PER_FRAME - MEL_REACH
        near = slice(first, first + layout.mels * SAMPLES_PER_FRAME + 2 * MEL_REACH)

        def row(sound: np.ndarray) -> np.ndarray:
            hidden = standardised(last(log_mel(sound, filters, 2 * self.positions), kept))[: EACH * layout.encoded]
            encoded = hidden.reshape(layout.encoded, EACH, -1).mean(axis=1)
            return np.concatenate([encoded.ravel(), logmel_rows(sound[near], layout.mels).ravel()])[None]

        return row


class LiveStream:
    """One row for each frame, as soon as what follows it has arrived."""

    def __init__(self, row: Rows, size: int, reach: int) -> None:
        self._row, self._size, self._ahead = row, size, reach
        self._window = SEEN * SAMPLES_PER_FRAME
        # Silence before the beginning.
        self._held = np.zeros(self._window - SAMPLES_PER_FRAME - self._ahead, np.float32)

    def push(self, sound: np.ndarray) -> np.ndarray:
        """Append sound ``[N]``; returns the rows ``[K, C]`` of the frames whose look-ahead has arrived."""
        self._held = np.concatenate([self._held, np.asarray(sound, np.float32)])
        rows = [np.zeros((0, self._size), np.float32)]
        while len(self._held) >= self._window:
            rows.append(self._row(self._held[: self._window]))
            self._held = self._held[SAMPLES_PER_FRAME:]
        return np.concatenate(rows)

    def finish(self) -> np.ndarray:
        """The remaining rows ``[K, C]``, with silence after the end."""
        begun = (len(self._held) - self._window + SAMPLES_PER_FRAME + self._ahead) % SAMPLES_PER_FRAME
        return self.push(np.zeros(self._ahead - begun, np.float32))


class LastPositions:
    """The hidden states of the last positions of an encoder's window, before the final norm.

    Args:
        tensors: those of transformers' encoder by name, its position table truncated to the window.
        heads: of its attention.
        depth: layers.
    """

    def __init__(self, tensors: Mapping[str, Tensor], heads: int, depth: int) -> None:
        import torch

        self.heads, self.depth = heads, depth
        self.state = {name: value.detach().contiguous() for name, value in tensors.items()}
        for i in range(self.depth):
            parts = [f"layers.{i}.self_attn.{name}_proj" for name in ("q", "k", "v")]
            weights = [self.state[f"{part}.weight"] for part in parts]
            biases = [self.state.get(f"{part}.bias", torch.zeros(len(weights[0]))) for part in parts]
            self.state[f"layers.{i}.qkv.weight"] = torch.cat(weights)
            self.state[f"layers.{i}.qkv.bias"] = torch.cat(biases)

    def __call__(self, mel: np.ndarray, count: int) -> np.ndarray:
        """``mel [2 P, M]`` of a window of P positions to the hidden states ``[count, C]`` of its last ones."""
        import torch
        from torch.nn import functional as F

        state = self.state
        with torch.inference_mode():
            x = torch.from_numpy(mel.T.copy())[None]
            x = F.gelu(F.conv1d(x, state["conv1.weight"], state["conv1.bias"], padding=1))
            x = F.gelu(F.conv1d(x, state["conv2.weight"], state["conv2.bias"], stride=2, padding=1))
            x = x[0].T + state["embed_positions.weight"]
            for i in range(self.depth):
                x = self._layer(i, x, count if i == self.depth - 1 else len(x))
        return x.numpy()

    def _layer(self, i: int, x: Tensor, count: int) -> Tensor:
        """One layer over ``x [P, C]``; the last ``count`` positions."""
        from torch.nn import functional as F

        normal, width = self._linear(f"layers.{i}.self_attn_layer_norm", x, norm=True), x.shape[1]
        weight, bias = self.state[f"layers.{i}.qkv.weight"], self.state[f"layers.{i}.qkv.bias"]
        query = F.linear(normal[len(x) - count :], weight[:width], bias[:width])
        key, value = F.linear(normal, weight[width:], bias[width:]).split(width, dim=1)
        q, k, v = (rows.reshape(len(rows), self.heads, -1).transpose(0, 1)[None] for rows in (query, key, value))
        heard = F.scaled_dot_product_attention(q, k, v)[0].transpose(0, 1).reshape(count, width)
        x = x[len(x) - count :] + self._linear(f"layers.{i}.self_attn.out_proj", heard)
        hidden = F.gelu(self._linear(f"layers.{i}.fc1", self._linear(f"layers.{i}.final_layer_norm", x, norm=True)))
        return x + self._linear(f"layers.{i}.fc2", hidden)

    def _linear(self, name: str, x: Tensor, norm: bool = False) -> Tensor:
        from torch.nn import functional as F

        weight, bias = self.state[f"{name}.weight"], self.state[f"{name}.bias"]
        return F.layer_norm(x, (x.shape[-1],), weight, bias) if norm else F.linear(x, weight, bias)


FEATURE = WhisperLive
