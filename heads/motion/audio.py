"""Learned audio encoder: a window of speech features around each frame → one vector per frame, smoothed by attention.

Source: AD-NeRF (2021) section 4.1, as used by ER-NeRF and TalkingGaussian: a strided 1D convolution over a 16-row
window, then a softmax-weighted mean over eight neighbouring frames.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def frame_windows(features: Tensor, size: int) -> Tensor:
    """Windows ``[T, size, C]`` centred on each of the ``T`` rows of ``features [T, C]``; zeros past the ends.

    Row ``t`` of a window of even ``size`` covers the rows ``t - size // 2 … t + size // 2 - 1``.
    """
    if features.dim() != 2:
        raise ValueError(f"features: expected shape [T, C], got {tuple(features.shape)}")
    if features.shape[0] == 0:
        return features.new_zeros(0, size, features.shape[1])
    before = size // 2
    padded = nn.functional.pad(features, (0, 0, before, size - before - 1))
    return padded.unfold(0, size, 1).transpose(1, 2)


class AudioNet(nn.Module):
    """Window of features → one vector: four strided convolutions, then two linear layers.

    Args:
        in_features: size of one feature row (29 for DeepSpeech, 1024 for HuBERT).
        out_features: size of the result.
        window: rows per window, a power of two from 2 to 16 (16 in the papers).
    """

    def __init__(self, in_features: int, out_features: int = 32, window: int = 16) -> None:
        super().__init__()
        if window not in (2, 4, 8, 16):
            raise ValueError(f"audio window: expected 2, 4, 8 or 16 rows, got {window}")
        self.window = window
        channels, layers = [in_features, 32, 32, 64, 64], []
        for i in range(4):
            stride = 2 if window >> i > 1 else 1
            layers += [nn.Conv1d(channels[i], channels[i + 1], 3, stride, padding=1), nn.LeakyReLU(0.02)]
        self.convolutions = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Linear(64, 64), nn.LeakyReLU(0.02), nn.Linear(64, out_features))
        self.apply(_keep_variance)

    def forward(self, windows: Tensor) -> Tensor:
        """Vectors ``[B, out_features]`` of windows ``[B, window, in_features]``."""
        if windows.dim() != 3 or windows.shape[1] != self.window:
            raise ValueError(f"windows: expected shape [B, {self.window}, C], got {tuple(windows.shape)}")
        return self.head(self.convolutions(windows.transpose(1, 2)).mean(dim=-1))


def _keep_variance(layer: nn.Module) -> None:
    """He et al. (2015): PyTorch's own initialisation would leave a hundredth of what differs between two sounds."""
    if isinstance(layer, nn.Conv1d | nn.Linear):
        nn.init.kaiming_normal_(layer.weight, a=0.02)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


class AudioAttention(nn.Module):
    """Smooths a sequence: each frame becomes a softmax-weighted mean of ``span`` neighbouring vectors.

    Args:
        features: size of a vector.
        span: rows averaged, from ``span // 2`` before the frame on (8 in the papers).
    """

    def __init__(self, features: int = 32, span: int = 8) -> None:
        super().__init__()
        self.span = span
        channels, layers = [features, 16, 8, 4, 2, 1], []
        for i in range(5):
            layers += [nn.Conv1d(channels[i], channels[i + 1], 3, padding=1), nn.LeakyReLU(0.02)]
        self.convolutions = nn.Sequential(*layers)
        self.linear = nn.Linear(span, span)

    def weights(self, windows: Tensor) -> Tensor:
        """Softmax weights ``[B, span]`` for windows ``[B, span, C]``."""
        return self.linear(self.convolutions(windows.transpose(1, 2)).squeeze(1)).softmax(dim=-1)

    def forward(self, sequence: Tensor) -> Tensor:
        """Smoothed vectors ``[T, C]`` of vectors ``[T, C]``."""
        windows = frame_windows(sequence, self.span)
        return torch.einsum("ts,tsc->tc", self.weights(windows), windows)


class AudioWindowEncoder(nn.Module):
    """Feature rows ``[T, C]`` → smoothed vectors ``[T, out_features]``: :class:`AudioNet`, :class:`AudioAttention`.

    ``forward(features, frames)`` encodes only the frames asked for and their neighbours, so that one training step
    costs the same for a clip of any length.
    """

    def __init__(self, in_features: int, out_features: int = 32, window: int = 16, span: int = 8) -> None:
        super().__init__()
        self.net = AudioNet(in_features, out_features, window)
        self.attention = AudioAttention(out_features, span)

    def forward(self, features: Tensor, frames: Tensor | None = None) -> Tensor:
        """Vectors ``[T, out_features]``, or ``[len(frames), out_features]`` for the int64 frame indices ``frames``."""
        if frames is None:
            return self.attention(self.net(frame_windows(features, self.net.window)))
        neighbours = self._neighbours(frames)  # [M, span]
        encoded = self.net(self._windows(features, neighbours.reshape(-1)))
        inside = ((neighbours >= 0) & (neighbours < len(features))).to(encoded.dtype)
        windows = encoded.view(*neighbours.shape, -1) * inside[..., None]
        return torch.einsum("ts,tsc->tc", self.attention.weights(windows), windows)

    def _neighbours(self, frames: Tensor) -> Tensor:
        span = torch.arange(self.attention.span, device=frames.device) - self.attention.span // 2
        return frames[:, None] + span

    def _windows(self, features: Tensor, frames: Tensor) -> Tensor:
        size = self.net.window
        rows = frames[:, None] + torch.arange(size, device=frames.device) - size // 2
        inside = ((rows >= 0) & (rows < len(features))).to(features.dtype)
        return features[rows.clamp(0, max(len(features) - 1, 0))] * inside[..., None]
