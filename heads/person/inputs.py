"""What drives a head, frame by frame: tracks → a :class:`Drive` with one condition vector per frame.

The condition is what colours, residual offsets, track corrections and the body layer listen to: expression, eyelids,
gaze and pose of the frame and of its near neighbours, so that a small network can also smooth tracking noise away.
It is a pure function of the track: an unseen frame is treated exactly as a training frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from heads.geometry.rotation import rotation_vector

POSE = 6
"""Leading entries of a frame's vector: rotation vector (3, radians) and translation (3, rig units)."""


@dataclass
class Drive:
    """Per-frame inputs of a head, ``T`` rows each, float32 on the head's device."""

    rotation: Tensor  # (T, 3, 3) head to camera
    translation: Tensor  # (T, 3) rig units
    intrinsics: Tensor  # (3, 3) px of the tracked frame size
    expression: Tensor  # (T, K)
    eyelids: Tensor  # (T, 2)
    gaze: Tensor  # (T, 2, 2)
    condition: Tensor  # (T, C)

    def __len__(self) -> int:
        return len(self.rotation)

    def to(self, device: torch.device | str) -> Drive:
        return Drive(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})


def as_tensor(track: Mapping[str, Any], name: str, device: torch.device | str = "cpu") -> Tensor:
    """One entry of a track as float32.

    Raises:
        ValueError: the entry is missing.
    """
    if name not in track:
        raise ValueError(f"track: no entry '{name}'; it has {', '.join(sorted(track))}")
    return torch.as_tensor(track[name], dtype=torch.float32, device=device)


def frame_vectors(track: Mapping[str, Any], device: torch.device | str = "cpu") -> Tensor:
    """One vector ``[T, 6 + K + 6]`` per frame: rotation vector, translation, expression, eyelids, gaze."""
    rotation = as_tensor(track, "rotation", device)
    parts = [rotation_vector(rotation), as_tensor(track, "translation", device)]
    parts += [as_tensor(track, name, device).flatten(1) for name in ("expression", "eyelids", "gaze")]
    return torch.cat(parts, dim=-1)


def neighbourhood(vectors: Tensor, spans: tuple[tuple[int, int], ...] = ((1, 1), (2, 4))) -> Tensor:
    """Vectors ``[T, D]`` beside the means of their neighbours: ``[T, D * (1 + len(spans))]``.

    A span ``(a, b)`` is the mean over the frames a…b before and after; past the ends the last frame counts.
    """
    last = len(vectors) - 1
    here = torch.arange(len(vectors), device=vectors.device)
    parts = [vectors]
    for near, far in spans:
        steps = [sign * k for k in range(near, far + 1) for sign in (-1, 1)]
        rows = [vectors[(here + step).clamp(0, max(last, 0))] for step in steps]
        parts.append(torch.stack(rows).mean(dim=0))
    return torch.cat(parts, dim=-1)


def make_drive(track: Mapping[str, Any], device: torch.device | str = "cpu") -> Drive:
    """A :class:`Drive` from a track (DESIGN section 4: rotation, translation, intrinsics, expression, eyelids, gaze).

    Raises:
        ValueError: a missing entry, or entries with different numbers of frames.
    """
    names = ("rotation", "translation", "expression", "eyelids", "gaze")
    parts = {name: as_tensor(track, name, device) for name in names}
    lengths = {name: len(value) for name, value in parts.items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"track: entries differ in frames: {lengths}")
    condition = neighbourhood(frame_vectors(track, device))
    return Drive(**parts, intrinsics=as_tensor(track, "intrinsics", device), condition=condition)
