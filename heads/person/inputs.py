"""What moves a head, frame by frame: tracks (and sound) to :class:`HeadInputs`, the one input of every head and avatar.

Networks that depend on the frame (colours, residual offsets, track corrections, the body layer) read its ``vectors``:
pose, expression, eyelids and gaze of the frame and of its near neighbours, so that a small network can also smooth
tracking noise. They are a pure function of the track: an unseen frame is treated exactly as a training frame.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from heads.geometry.rotation import rotation_vector, turn_vectors

POSE = 6
"""Leading entries of a frame's vector: rotation vector (3, radians) and translation (3, rig units)."""
TRACKED = ("rotation", "translation", "expression", "eyelids", "gaze")
"""Entries of a track that move a head."""
BEHIND = ("body", "background")
"""Entries of a track that move what is behind the head, as far as they are known."""
SPANS = ((1, 1), (2, 4))  # (nearest, farthest) frames before and after, averaged and appended to a vector · guess
TRACK_CONTEXT = 4
"""Frames before and after a frame that its ``vectors`` depend on."""
AUDIO_CONTEXT = 12
"""Rows of audio features on either side of a frame that a model may use: half of AudioNet's 16-row window plus half of
the 8-frame attention (AD-NeRF, TalkingGaussian)."""


@dataclass
class HeadInputs:
    """A batch of ``B`` frames, float32 on the head's device.

    Attributes:
        rotation: ``[B, 3, 3]`` head to camera.
        translation: ``[B, 3]`` rig units.
        expression: ``[B, K]`` coefficients of the rig.
        eyelids: ``[B, 2]`` left, right; 0 open, 1 closed.
        gaze: ``[B, 2, 2]`` left, right eye; yaw, pitch in radians.
        vectors: ``[B, C]`` each frame and its neighbours as one vector, see :func:`neighbourhood`.
        intrinsics: ``[3, 3]`` px of the tracked frame size; ``None`` where nothing is projected.
        features: ``[B, 2 * AUDIO_CONTEXT + 1, F]`` audio rows around each frame; ``None`` without sound.
        body: ``[B, 6]`` displacement of the torso, see ``docs/dataset-format.md``; ``None``: the body follows the head.
        background: ``[B, 6]`` displacement of the background, likewise; ``None``: the camera stands still.
        index: ``[B]`` numbers of the training frames, for parameters of single frames; else ``None``.
    """

    rotation: Tensor
    translation: Tensor
    expression: Tensor
    eyelids: Tensor
    gaze: Tensor
    vectors: Tensor
    intrinsics: Tensor | None = None
    features: Tensor | None = None
    body: Tensor | None = None
    background: Tensor | None = None
    index: Tensor | None = None

    def __len__(self) -> int:
        return len(self.rotation)

    def to(self, device: torch.device | str) -> HeadInputs:
        """The same on another device."""
        moved: dict[str, Any] = {name: None if value is None else value.to(device) for name, value in self._items()}
        return HeadInputs(**moved)

    def with_(self, **changes: Any) -> HeadInputs:
        """A copy with some fields replaced."""
        return replace(self, **changes)

    def pick(self, frames: Sequence[int] | np.ndarray | Tensor | slice) -> HeadInputs:
        """Some of the frames, by number; the intrinsics are shared."""
        rows = frames
        if isinstance(frames, np.ndarray) and len(frames) == 1 and frames[0] >= 0:
            rows = slice(int(frames[0]), int(frames[0]) + 1)  # a view: nothing to launch
        elif not isinstance(frames, slice):
            rows = torch.as_tensor(frames if isinstance(frames, Tensor) else np.asarray(frames))
            rows = rows.to(self.rotation.device)
        picked: dict[str, Any] = {
            name: value if value is None or name == "intrinsics" else value[rows] for name, value in self._items()
        }
        return HeadInputs(**picked)

    def _items(self) -> list[tuple[str, Tensor | None]]:
        return [(field.name, getattr(self, field.name)) for field in fields(self)]


def head_inputs(track: Mapping[str, object], device: torch.device | str = "cpu", cut: int = 0) -> HeadInputs:
    """The inputs of consecutive frames of a track, without sound.

    Args:
        track: ``rotation, translation, expression, eyelids, gaze`` ``[T, ...]``, and if known ``body [T, 6]``,
            ``background [T, 6]`` and ``intrinsics [3, 3]``.
        device: of the result.
        cut: frames to leave out at either end; they serve only as neighbours of the others.

    Raises:
        ValueError: a missing entry, or entries with different numbers of frames.
    """
    parts = {name: as_tensor(track, name, device) for name in _given(track)}
    lengths = {name: len(value) for name, value in parts.items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"track: entries differ in frames: {lengths}")
    intrinsics = as_tensor(track, "intrinsics", device) if "intrinsics" in track else None
    inputs = HeadInputs(**parts, vectors=neighbourhood(frame_vectors(track, device)), intrinsics=intrinsics)
    return inputs.pick(slice(cut, len(inputs) - cut)) if cut else inputs


def row_vectors(track: Mapping[str, np.ndarray]) -> np.ndarray:
    """:func:`frame_vectors` for a track of float32 arrays: ``[T, 6 + K + 6]`` as an array."""
    parts = [turn_vectors(track["rotation"])]
    parts += [track[name].reshape(len(parts[0]), -1) for name in TRACKED[1:]]
    return np.concatenate(parts, -1)


def _given(track: Mapping[str, object]) -> tuple[str, ...]:
    """What a track has of the entries that move the head and what is behind it."""
    return (*TRACKED, *(name for name in BEHIND if name in track))


def window_inputs(window: Mapping[str, np.ndarray], cut: int) -> HeadInputs:
    """:func:`head_inputs` of a few frames of float32 arrays, on the CPU, from vectors that are computed already.

    Args:
        window: the entries of a track, ``vectors [T, D]``, their :func:`row_vectors`, and if known ``body`` and
            ``background [T, 6]``.
        cut: frames at either end that serve only as neighbours, at least :data:`TRACK_CONTEXT`.
    """
    vectors, count = window["vectors"], len(window["vectors"]) - 2 * cut
    parts = [vectors[cut : cut + count]]
    for near, far in SPANS:
        rows = [vectors[cut + sign * k : cut + sign * k + count] for k in range(near, far + 1) for sign in (-1, 1)]
        parts.append(np.mean(rows, 0, dtype=np.float32))
    fields = {name: torch.from_numpy(window[name][cut : cut + count]) for name in _given(window)}
    return HeadInputs(**fields, vectors=torch.from_numpy(np.concatenate(parts, -1)))


def as_tensor(track: Mapping[str, object], name: str, device: torch.device | str = "cpu") -> Tensor:
    """One entry of a track as float32.

    Raises:
        ValueError: the entry is missing.
    """
    if name not in track:
        raise ValueError(f"track: no entry '{name}'; it has {', '.join(sorted(track))}")
    return torch.as_tensor(track[name], dtype=torch.float32, device=device)


def frame_vectors(track: Mapping[str, object], device: torch.device | str = "cpu") -> Tensor:
    """One vector ``[T, 6 + K + 6]`` per frame: rotation vector, translation, expression, eyelids, gaze."""
    rotation = as_tensor(track, "rotation", device)
    parts = [rotation_vector(rotation), as_tensor(track, "translation", device)]
    parts += [as_tensor(track, name, device).flatten(1) for name in ("expression", "eyelids", "gaze")]
    return torch.cat(parts, dim=-1)


def neighbourhood(vectors: Tensor, spans: tuple[tuple[int, int], ...] = SPANS) -> Tensor:
    """Vectors ``[T, D]`` beside the means of their neighbours: ``[T, D * (1 + len(spans))]``.

    A span ``(a, b)`` gives the mean over the frames a…b before and after; past the ends the last frame is repeated.
    """
    last = len(vectors) - 1
    here = torch.arange(len(vectors), device=vectors.device)
    parts = [vectors]
    for near, far in spans:
        steps = [sign * k for k in range(near, far + 1) for sign in (-1, 1)]
        rows = [vectors[(here + step).clamp(0, max(last, 0))] for step in steps]
        parts.append(torch.stack(rows).mean(dim=0))
    return torch.cat(parts, dim=-1)


def pose_vectors(vectors: Tensor) -> Tensor:
    """The head's pose in each frame and around it, ``[..., 3 * POSE]`` of ``vectors [..., C]``: input of the body layer."""
    blocks = vectors.unflatten(-1, (1 + len(SPANS), -1))[..., :POSE]
    return blocks.flatten(-2)


def behind_of(inputs: HeadInputs, index: int) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """What moves body and background in one frame: pose vector ``[C]``, and their tracks ``[6]``, if there are any."""
    body, background = (None if track is None else track[index] for track in (inputs.body, inputs.background))
    return pose_vectors(inputs.vectors[index]), body, background


def feature_windows(features: Tensor, frames: Tensor) -> Tensor:
    """Rows around frames: ``features [T, F]``, ``frames [B]`` to ``[B, 2 * AUDIO_CONTEXT + 1, F]``, ends repeated."""
    offsets = torch.arange(-AUDIO_CONTEXT, AUDIO_CONTEXT + 1, device=frames.device)
    rows = (frames[:, None] + offsets).clamp(0, len(features) - 1)
    return features[rows]
