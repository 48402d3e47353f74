"""Whisper for live use: rows that look 120 ms ahead, for a third of the work of a window of their own.

The rows of :mod:`shards.features.whisper` come in blocks of seconds. Here the encoder goes along the sound with each frame
and computes the last ``TAIL`` positions anew, which have heard a little more of what follows than the frame before. What lies
further back keeps the keys and values that it had when it left the tail, as in a decoder's cache, and the tail attends to
``BEHIND`` of them. Half of the layers run, and the last of them only for the positions that a row holds.
docs/live.md has the time of a row and how well lips follow from it.

Whisper's positions are absolute, and what it says depends on them. So every ``BLOCK`` frames it starts over, with all of the
positions at once, and rows of a whole sound are as those of any four seconds in it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from shards.features.logmel import HOPS as MEL_HOPS
from shards.features.logmel import MELS, logmel_rows
from shards.features.logmel import REACH as MEL_REACH
from shards.features.whisper import EACH, HOP, POSITION, RANGE, WINDOW, Whisper, decades, standardised
from shards.media.rates import SAMPLES_PER_FRAME

if TYPE_CHECKING:
    from torch import Tensor

TAIL = 20  # positions that are computed with each frame · measured (docs/priors.md)
BEHIND = 200  # positions behind them that they attend to · measured (docs/priors.md)
BLOCK = 100  # frames after which it starts over · measured (docs/priors.md)
COLUMNS = POSITION // HOP  # of mel for a position
CUT = 2  # columns of mel at the end that see beyond the sound, and change when more of it comes
BEFORE = 1  # frames before its own whose encoder rows are in a row
MEL_SIDE = 2  # log-mel rows before its own, and at most after it, that are in a row
MEL_SIZE = MELS * MEL_HOPS


def samples(positions: int) -> int:
    """Of sound up to the end of the last position that this many see: the first one's convolutions begin two columns before it."""
    return positions * POSITION + HOP + WINDOW // 2


HEARD = samples(BEHIND + TAIL)


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

    All of them have heard what came up to three frames after frame t: the encoder's rows of the latest frames, which have
    not heard what follows, differ from those that the next frame has for them. C is the model's width, as for
    :class:`shards.features.whisper.Whisper`, whose weights they are.

    Attributes:
        layout: what a row holds.
    """

    name = "whisper-live"
    default_size = LAYOUT.encoded * 384 + LAYOUT.mels * MEL_SIZE
    revision = 2  # the first had a window of two seconds for each row
    layout: ClassVar[Layout] = LAYOUT

    @property
    def size(self) -> int:
        return self.layout.encoded * super().size + self.layout.mels * MEL_SIZE

    @property
    def reach(self) -> int:
        return round(self.layout.ahead * SAMPLES_PER_FRAME)

    def rows_at(self, sound: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """Rows ``[K, C]`` of some ``frames [K]`` of ``sound [N]``; blocks without any of them are left out."""
        rows, silence = np.zeros((len(frames), self.size), np.float32), HEARD - SAMPLES_PER_FRAME - self.reach
        padded = np.pad(np.asarray(sound, np.float32), (silence, self.reach + SAMPLES_PER_FRAME))
        for block in np.unique(frames // BLOCK):
            run = Run(self)
            for frame in range(block * BLOCK, int(frames[frames // BLOCK == block].max()) + 1):
                at = frame * SAMPLES_PER_FRAME
                rows[frames == frame] = run.row(padded[at : at + HEARD])
        return rows

    @cached_property
    def positions(self) -> int:
        return self._available(BEHIND + TAIL + EACH * (BLOCK - 1))

    def stream(self) -> LiveStream:
        return LiveStream(self)

    @cached_property
    def layers(self) -> Layers:
        """The encoder."""
        return Layers(self.encoder().state_dict(), self.files.positive("encoder_attention_heads")[0], self.depth)

    @cached_property
    def mels(self) -> np.ndarray:
        """Whisper's mel filters."""
        return self.filters()


class LiveStream:
    """One row for each frame, as soon as what follows it has arrived."""

    def __init__(self, feature: WhisperLive) -> None:
        self._feature, self._ahead, self._frame = feature, feature.reach, 0
        # Silence before the beginning.
        self._held = np.zeros(HEARD - SAMPLES_PER_FRAME - self._ahead, np.float32)
        self._run = Run(feature)

    def push(self, sound: np.ndarray) -> np.ndarray:
        """Append sound ``[N]``; returns the rows ``[K, C]`` of the frames whose look-ahead has arrived."""
        self._held = np.concatenate([self._held, np.asarray(sound, np.float32)])
        rows = [np.zeros((0, self._feature.size), np.float32)]
        while len(self._held) >= HEARD:
            if self._frame % BLOCK == 0:
                self._run = Run(self._feature)
            rows.append(self._run.row(self._held[:HEARD])[None])
            self._held, self._frame = self._held[SAMPLES_PER_FRAME:], self._frame + 1
        return np.concatenate(rows)

    def finish(self) -> np.ndarray:
        """The remaining rows ``[K, C]``, with silence after the end."""
        begun = (len(self._held) - HEARD + SAMPLES_PER_FRAME + self._ahead) % SAMPLES_PER_FRAME
        return self.push(np.zeros(self._ahead - begun, np.float32))


class Run:
    """The rows of a block of frames, one after the other.

    Args:
        feature: whose rows.
    """

    def __init__(self, feature: WhisperLive) -> None:
        self._layers, self._filters, self._layout = feature.layers, feature.mels, feature.layout
        self._ahead, self._past, self._at = feature.reach, feature.layers.empty_past(), 0
        # What of the last row's sound is in the next one's as well: mel columns of the tail, and rows of log-mel.
        self._columns = np.zeros((0, self._filters.shape[1]), np.float32)
        self._near = np.zeros((0, MEL_SIZE), np.float32)
        self._loudest: deque[float] = deque(maxlen=(BEHIND + TAIL) // EACH)

    def row(self, sound: np.ndarray) -> np.ndarray:
        """The next frame's row ``[C]`` from the last ``HEARD`` samples, those that it looks ahead included."""
        layout, count = self._layout, TAIL if self._at else BEHIND + TAIL
        kept = EACH * (BEFORE + 1) + int(EACH * layout.ahead)
        hidden = self._layers(self._levels(sound), self._at, self._past, kept)
        self._at += count - TAIL + EACH
        encoded = standardised(hidden)[: EACH * layout.encoded].reshape(layout.encoded, EACH, -1).mean(axis=1)
        return np.concatenate([encoded.ravel(), self._log_mel(sound).ravel()])

    def _levels(self, sound: np.ndarray) -> np.ndarray:
        """Mel ``[2 P + 3, M]`` of P positions as Whisper scales it, with the loudest of the last seconds as its maximum."""
        known = self._columns[EACH * COLUMNS : -CUT]
        new = COLUMNS * (BEHIND + TAIL + 1) - len(known) if not self._at else EACH * COLUMNS + CUT
        heard = sound[len(sound) + WINDOW // 2 - WINDOW - (new - 1) * HOP :]
        found = decades(np.concatenate([heard, np.zeros(WINDOW // 2, np.float32)]), self._filters)
        for at in range(0, new - CUT, EACH * COLUMNS):
            self._loudest.append(float(found[at : at + EACH * COLUMNS + CUT].max()))
        found = np.concatenate([known, found])
        self._columns = found[-COLUMNS * (TAIL + 1) :]
        levels = np.zeros((len(found) + 1, found.shape[1]), np.float32)  # the last column is the convolution's padding
        levels[:-1] = (np.maximum(found, max(self._loudest) - RANGE) + 4.0) / 4.0
        return levels

    def _log_mel(self, sound: np.ndarray) -> np.ndarray:
        """Rows ``[mels, 160]`` of log-mel."""
        total = self._layout.mels
        new = total - len(self._near[1:])
        first = len(sound) - self._ahead + (total - new - MEL_SIDE - 1) * SAMPLES_PER_FRAME - MEL_REACH
        rows = logmel_rows(sound[first : first + new * SAMPLES_PER_FRAME + 2 * MEL_REACH], new)
        self._near = np.concatenate([self._near[1:], rows])
        return self._near


class Layers:
    """Whisper's encoder over the tail, with what lies behind from a cache.

    Args:
        tensors: those of transformers' encoder by name, its position table truncated to a run.
        heads: of its attention.
        depth: layers.
    """

    def __init__(self, tensors: Mapping[str, Tensor], heads: int, depth: int) -> None:
        import torch

        self.heads, self.depth = heads, depth
        self.state = {name: value.detach().contiguous() for name, value in tensors.items()}
        for name in ("conv1", "conv2"):  # as matrices over a position's columns
            self.state[f"{name}.weight"] = self.state[f"{name}.weight"].transpose(1, 2).flatten(1)
        linear = [name for name, value in self.state.items() if value.ndim == 2 and "embed_" not in name]
        for name in linear:  # as ``[inputs, outputs]``, with which a product over few rows takes a third less
            self.state[name] = self.state[name].T.contiguous()
        for i in range(self.depth):
            parts = [f"layers.{i}.self_attn.{name}_proj" for name in ("k", "v")]
            weights = [self.state[f"{part}.weight"] for part in parts]
            biases = [self.state.get(f"{part}.bias", torch.zeros(weights[0].shape[1])) for part in parts]
            self.state[f"layers.{i}.kv.weight"] = torch.cat(weights, 1)
            self.state[f"layers.{i}.kv.bias"] = torch.cat(biases)

    def empty_past(self) -> Tensor:
        """Room for keys and values ``[depth, positions, 2 C]``."""
        import torch

        positions, width = self.state["embed_positions.weight"].shape
        return torch.empty(self.depth, positions, 2 * width)

    def __call__(self, levels: np.ndarray, at: int, past: Tensor, count: int) -> np.ndarray:
        """Hidden states ``[count, C]`` of the last of P positions, before the final norm.

        Args:
            levels: ``[2 P + 3, M]`` their mel, as Whisper scales it.
            at: number of the first.
            past: from :meth:`empty_past`; the positions' keys and values are written, those before are read.
        """
        import torch
        from torch.nn.functional import gelu

        with torch.inference_mode():
            x = gelu(self._linear("conv1", windows(torch.from_numpy(levels), 3, 1)))
            x = gelu(self._linear("conv2", windows(x, 3, COLUMNS)))
            x = x + self.state["embed_positions.weight"][at : at + len(x)]
            for i in range(self.depth):
                x = self._layer(i, x, at, past[i], count if i == self.depth - 1 else len(x))
        return x.numpy()

    def _layer(self, i: int, x: Tensor, at: int, past: Tensor, count: int) -> Tensor:
        """One layer over ``x [P, C]``; the last ``count`` positions."""
        import torch
        from torch.nn import functional as F

        normal, (total, width) = self._norm(f"layers.{i}.self_attn_layer_norm", x), x.shape
        query = self._linear(f"layers.{i}.self_attn.q_proj", normal[total - count :])
        bias, weight = self.state[f"layers.{i}.kv.bias"], self.state[f"layers.{i}.kv.weight"]
        torch.addmm(bias, normal, weight, out=past[at : at + total])
        known = past[max(0, at - BEHIND) : at + total]
        key, value = known.unflatten(1, (2, self.heads, -1)).permute(1, 2, 0, 3)[:, None]
        query = query.unflatten(1, (self.heads, -1)).transpose(0, 1)[None]
        heard = F.scaled_dot_product_attention(query, key, value)[0].transpose(0, 1).reshape(count, width)
        x = x[total - count :] + self._linear(f"layers.{i}.self_attn.out_proj", heard)
        hidden = F.gelu(self._linear(f"layers.{i}.fc1", self._norm(f"layers.{i}.final_layer_norm", x)))
        return x + self._linear(f"layers.{i}.fc2", hidden)

    def _linear(self, name: str, x: Tensor) -> Tensor:
        import torch

        return torch.addmm(self.state[f"{name}.bias"], x, self.state[f"{name}.weight"])

    def _norm(self, name: str, x: Tensor) -> Tensor:
        from torch.nn.functional import layer_norm

        return layer_norm(x, (x.shape[-1],), self.state[f"{name}.weight"], self.state[f"{name}.bias"])


def windows(rows: Tensor, size: int, step: int) -> Tensor:
    """``[K, size * C]``: ``size`` neighbours of ``rows [T, C]``, from every ``step``-th on."""
    width = rows.shape[1]
    return rows.as_strided(((len(rows) - size) // step + 1, size * width), (step * width, 1))


FEATURE = WhisperLive
