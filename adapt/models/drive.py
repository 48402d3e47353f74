"""What moves a head in a batch of frames, whatever the recipe: the one input of every avatar model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

# Rows of audio features on either side of a frame that a model may hear: half of AudioNet's 16-row window plus half
# of the 8-frame attention (AD-NeRF, TalkingGaussian).
AUDIO_CONTEXT = 12
# Frames before and after that a condition looks at (heads.person.inputs.neighbourhood).
TRACK_CONTEXT = 4
DRIVEN = ("rotation", "translation", "expression", "eyelids", "gaze")


@dataclass
class Drive:
    """A batch of ``B`` frames.

    Attributes:
        rotation, translation: head -> camera, ``[B, 3, 3]``, ``[B, 3]`` rig units.
        expression: ``[B, K]``; eyelids ``[B, 2]``, 0 open .. 1 closed; gaze ``[B, 2, 2]`` radians.
        condition: ``[B, C]`` the frame and its neighbours as one vector (:func:`heads.person.inputs.head_inputs`).
        features: audio rows around each frame ``[B, 2 * AUDIO_CONTEXT + 1, F]``; ``None`` without sound.
        index: the training frame's number ``[B]`` while training (track refinement), else ``None``.
    """

    rotation: Tensor
    translation: Tensor
    expression: Tensor
    eyelids: Tensor
    gaze: Tensor
    condition: Tensor
    features: Tensor | None = None
    index: Tensor | None = None

    def __len__(self) -> int:
        return len(self.expression)

    def to(self, device: torch.device | str) -> Drive:
        """The same on another device."""
        return Drive(**{f.name: _moved(getattr(self, f.name), device) for f in fields(self)})

    def with_(self, **changes: Tensor | None) -> Drive:
        """A copy with some fields replaced."""
        return replace(self, **changes)

    def pick(self, frames: Any) -> Drive:
        """Some of its frames, by number."""
        rows = torch.as_tensor(np.asarray(frames), device=self.rotation.device)
        return Drive(**{f.name: _picked(getattr(self, f.name), rows) for f in fields(self)})


def _moved(value: Tensor | None, device: torch.device | str) -> Tensor | None:
    return None if value is None else value.to(device)


def _picked(value: Tensor | None, rows: Tensor) -> Tensor | None:
    return None if value is None else value[rows]


def drive_of(track: Mapping[str, Any], device: torch.device | str = "cpu", cut: int = 0) -> Drive:
    """The drive of a stretch of frames, without sound.

    Args:
        track: ``rotation, translation, expression, eyelids, gaze`` ``[T, ...]`` of consecutive frames.
        cut: leave out so many frames at either end: they are only there as neighbours of the others.
    """
    from heads.person.inputs import head_inputs

    whole = head_inputs({**{name: track[name] for name in DRIVEN}, "intrinsics": np.eye(3, dtype=np.float32)}, device)
    rows = slice(cut, len(whole) - cut)
    return Drive(**{name: getattr(whole, name)[rows] for name in DRIVEN}, condition=whole.vectors[rows])


def feature_windows(features: Tensor, frames: Tensor) -> Tensor:
    """Rows around frames: ``features [T, F]``, ``frames [B]`` -> ``[B, 2 * AUDIO_CONTEXT + 1, F]``, ends repeated."""
    offsets = torch.arange(-AUDIO_CONTEXT, AUDIO_CONTEXT + 1, device=frames.device)
    rows = (frames[:, None] + offsets).clamp(0, len(features) - 1)
    return features[rows]
