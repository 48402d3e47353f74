"""The original SyncNet as a measure, from a weight file that the user provides (Chung & Zisserman 2016).

Network, face crop, audio features, offset search and confidence are those of the authors' ``syncnet_python``, so that
results can be compared with published ones. Two things differ: the box around a face comes from its landmarks instead
of the S3FD detector, and the crop is not compressed as a video in between.
It only measures: adaptation's loss is that of our own expert, which uses the same audio feature as avatars.
"""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from configs import InputError
from heads.lpips import load_weights
from pretrain.sync_expert.mfcc import mfcc

WINDOW = 5  # frames of a window; 20 rows of MFCC at 100 Hz
ROWS = 4  # rows of MFCC in a frame of 40 ms
SIDE = 224  # px of the face crop
REACH = 15  # frames searched to each side
MARGIN = 0.4  # of the face box, around it
SMOOTHING = 13  # frames of the median filter over boxes
GREY = 110  # of 255, beyond the picture's border
LEAST_FRAMES = 25  # a second
BLOCK = 8  # windows per forward pass · guess


def _conv(
    kind: Any, norm: Any, n_in: int, n_out: int, kernel: Any, stride: Any = 1, padding: Any = 0
) -> list[nn.Module]:
    return [kind(n_in, n_out, kernel, stride, padding), norm(n_out), nn.ReLU()]


def _sound_layers() -> nn.Sequential:
    def conv(n_in: int, n_out: int, kernel: object = 3, padding: int = 1) -> list[nn.Module]:
        return _conv(nn.Conv2d, nn.BatchNorm2d, n_in, n_out, kernel, 1, padding)

    return nn.Sequential(
        *conv(1, 64),
        nn.MaxPool2d(1, 1),
        *conv(64, 192),
        nn.MaxPool2d(3, (1, 2)),
        *conv(192, 384),
        *conv(384, 256),
        *conv(256, 256),
        nn.MaxPool2d(3, 2),
        *conv(256, 512, (5, 4), 0),
    )


def _face_layers() -> nn.Sequential:
    def conv(
        n_in: int, n_out: int, kernel: object = (1, 3, 3), stride: object = 1, padding: object = (0, 1, 1)
    ) -> list[nn.Module]:
        return _conv(nn.Conv3d, nn.BatchNorm3d, n_in, n_out, kernel, stride, padding)

    half = (1, 2, 2)
    return nn.Sequential(
        *conv(3, 96, (WINDOW, 7, 7), half, 0),
        nn.MaxPool3d((1, 3, 3), half),
        *conv(96, 256, (1, 5, 5), half),
        nn.MaxPool3d((1, 3, 3), half, (0, 1, 1)),
        *conv(256, 256),
        *conv(256, 256),
        *conv(256, 256),
        nn.MaxPool3d((1, 3, 3), half),
        *conv(256, 512, (1, 6, 6), 1, 0),
    )


def _head() -> nn.Sequential:
    return nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 1024))


class SyncNet(nn.Module):
    """Windows of faces and of audio to one 1024-dimensional space; layers are named as in the weight file."""

    def __init__(self) -> None:
        super().__init__()
        self.netcnnaud, self.netfcaud = _sound_layers(), _head()
        self.netcnnlip, self.netfclip = _face_layers(), _head()
        self.requires_grad_(False).eval()

    @classmethod
    def open(cls, path: str | Path) -> SyncNet:
        """Load ``syncnet_v2.model``, or the same tensors as ``.safetensors``.

        Raises:
            InputError: no such file, a pickle that holds more than tensors, tensors of another network.
        """
        network = cls()
        network.fill(load_weights(path), path)
        return network

    def fill(self, weights: dict[str, Tensor], path: str | Path) -> None:
        """Fill the weights from a file's tensors, by name.

        Raises:
            InputError: a tensor is missing, unknown or of another shape.
        """
        own = self.state_dict()
        for name in [*own, *weights]:
            got = tuple(weights[name].shape) if name in weights else "no such tensor"
            expected = tuple(own[name].shape) if name in own else "no such tensor"
            counter = name.endswith("num_batches_tracked")  # files of old versions of PyTorch lack it; unused here
            if got != expected and not (counter and name not in weights):
                raise InputError(
                    f"SyncNet weights '{path}': {name}: got {got}, expected {expected}; "
                    "give the authors' syncnet_v2.model, or its tensors as .safetensors"
                )
        self.load_state_dict(weights, strict=False)

    def sound_embedding(self, rows: Tensor) -> Tensor:
        """Windows of MFCC ``[N, 20, 13]`` to ``[N, 1024]``."""
        return self.netfcaud(self.netcnnaud(rows.transpose(1, 2)[:, None]).flatten(1))

    def face_embedding(self, faces: Tensor) -> Tensor:
        """Windows of face crops ``[N, 5, 224, 224, 3]``, RGB 0..255, to ``[N, 1024]``."""
        return self.netfclip(self.netcnnlip(faces.flip(-1).permute(0, 4, 1, 2, 3)).flatten(1))  # trained on BGR

    def face_windows(self) -> FaceWindows:
        """A stream of frames through the face encoder."""
        return FaceWindows(self)

    @torch.no_grad()
    def sound_windows(self, sound: np.ndarray, count: int) -> Tensor:
        """Embeddings ``[count, 1024]`` of audio, ``[N]`` float in [-1, 1] at 16 kHz, at the first ``count`` frames."""
        rows = torch.from_numpy(mfcc(sound).astype(np.float32))
        starts = torch.arange(count)[:, None] * ROWS + torch.arange(WINDOW * ROWS)[None]
        parts = rows[starts].to(next(self.netfcaud.parameters()).device).split(64)
        return torch.cat([self.sound_embedding(part) for part in parts]).cpu()

    def confidence_of(self, faces: Tensor, sound: np.ndarray) -> tuple[float, float, int]:
        """Sync-C, Sync-D and the offset in frames (positive: the audio is late).

        Args:
            faces: embeddings ``[T - 4, 1024]`` of the clip's face windows, from :class:`FaceWindows`.
            sound: the clip's audio ``[N]``, float in [-1, 1] at 16 kHz.

        Raises:
            InputError: less than a second of both.
        """
        frames = min(len(faces) + WINDOW - 1, len(sound) // 640)
        if frames < LEAST_FRAMES:
            raise InputError(f"SyncNet needs {LEAST_FRAMES} frames or more, got {frames}; give a longer clip")
        count = frames - WINDOW  # as the authors count
        return confidence(offset_distances(faces[:count], self.sound_windows(sound, count)))


def offset_distances(faces: Tensor, sounds: Tensor, reach: int = REACH) -> Tensor:
    """Distances ``[N, 2 * reach + 1]`` of face windows to the audio ``-reach..reach`` frames later, zero vectors past the ends."""
    padded = F.pad(sounds, (0, 0, reach, reach))
    return torch.stack([F.pairwise_distance(faces, padded[i : i + len(faces)]) for i in range(2 * reach + 1)], 1)


def confidence(distances: Tensor) -> tuple[float, float, int]:
    """Sync-C (median over offsets minus least), Sync-D (least) and the offset, from distances ``[N, 2 * reach + 1]``."""
    mean = distances.mean(0)
    best = int(mean.argmin())
    return float(mean.median() - mean[best]), float(mean[best]), best - len(mean) // 2


def face_boxes(landmarks: np.ndarray) -> np.ndarray:
    """Centre x, centre y and half side, px, ``[T, 3]`` of the box around ``landmarks [T, 478, 2 or 3]``."""
    low, high = landmarks[..., :2].min(1), landmarks[..., :2].max(1)
    return np.concatenate([(low + high) / 2, (high - low).max(-1, keepdims=True) / 2], 1)


def crop_face(frame: np.ndarray, box: np.ndarray) -> Tensor:
    """The authors' crop ``[224, 224, 3]`` uint8 of a frame ``[H, W, 3]`` uint8, with more room below the face than above."""
    height, width = frame.shape[:2]
    x, y, half = (float(v) for v in box)
    x, y = min(max(x, 0.0), width - 1.0), min(max(y, 0.0), height - 1.0)
    half = max(half, 2.0)
    pad = int(half * (1 + 2 * MARGIN)) + 1
    padded = np.pad(frame, ((pad, pad), (pad, pad), (0, 0)), constant_values=GREY)
    top, bottom = int(y + pad - half), int(y + pad + half * (1 + 2 * MARGIN))
    left, right = int(x + pad - half * (1 + MARGIN)), int(x + pad + half * (1 + MARGIN))
    cut = torch.from_numpy(padded[top:bottom, left:right]).permute(2, 0, 1)[None].float()
    sized = F.interpolate(cut, (SIDE, SIDE), mode="bilinear", align_corners=False)
    return sized[0].permute(1, 2, 0).round().to(torch.uint8)


class FaceWindows:
    """Frames in, embeddings of face windows out; it buffers about a dozen frames, however long the clip."""

    def __init__(self, network: SyncNet) -> None:
        self._network = network
        self._boxes: list[np.ndarray] = []
        self._waiting: deque[np.ndarray] = deque()
        self._crops: list[Tensor] = []
        self._found: list[Tensor] = []
        self._done = 0

    def add(self, frames: np.ndarray, landmarks: np.ndarray) -> None:
        """Add frames ``[T, H, W, 3]`` uint8 and their landmarks ``[T, 478, 3]`` px."""
        self._boxes += list(face_boxes(landmarks))
        self._waiting += list(frames)
        while len(self._boxes) - self._done > SMOOTHING // 2:
            self._next()

    def finish(self) -> Tensor:
        """Embeddings ``[T - 4, 1024]`` of all frames added."""
        while self._done < len(self._boxes):
            self._next()
        self._embed()
        return torch.cat(self._found) if self._found else torch.zeros(0, 1024)

    def _next(self) -> None:
        around = np.arange(self._done - SMOOTHING // 2, self._done + SMOOTHING // 2 + 1)
        boxes = np.stack([self._boxes[i] for i in around.clip(0, len(self._boxes) - 1)])
        self._crops.append(crop_face(self._waiting.popleft(), np.median(boxes, 0)))
        self._done += 1
        if len(self._crops) == BLOCK + WINDOW - 1:
            self._embed()

    @torch.no_grad()
    def _embed(self) -> None:
        if len(self._crops) >= WINDOW:
            windows = torch.stack(self._crops).unfold(0, WINDOW, 1).permute(0, 4, 1, 2, 3)
            device = next(self._network.netfclip.parameters()).device
            self._found.append(self._network.face_embedding(windows.to(device).float()).cpu())
            self._crops = self._crops[1 - WINDOW :]
