"""The two drives of a test: inputs tracked in its frames, and inputs driven by its audio.

Each function returns the inputs, or ``None`` and the reason why there are none.
"""

from __future__ import annotations

import numpy as np
import torch

from adapt.avatar.avatar import Avatar
from adapt.clip import Clip
from adapt.drivers.base import Bounds, Driver
from adapt.drivers.base import drive as drive_by_sound
from adapt.drivers.low_delay import heard_by
from adapt.talk.silence import rested
from heads.person.inputs import HeadInputs, feature_windows, head_inputs
from shards.features import extract_features


def track_drive(avatar: Avatar, clip: Clip) -> tuple[HeadInputs | None, str]:
    """Expression and pose as tracked in the test frames, of the torso too if it was tracked in the training frames."""
    return _with_sound(avatar, clip, head_inputs(_motion(avatar, clip), avatar.device))


def audio_drive(avatar: Avatar, clip: Clip) -> tuple[HeadInputs | None, str]:
    """Expression from the test audio; poses, eyelids and gaze from the test frames, since audio does not determine them."""
    if not clip.has_sound:
        return None, "the test part of the clip has no sound"
    moved = drive_by_sound(avatar.driver, _driving_rows(avatar.driver, clip))
    track = _motion(avatar, clip)
    bounded = Bounds(avatar.track["expression"])(moved["expression"][: len(clip)])
    track["expression"] = rested(bounded, clip.audio, avatar.track)
    return _with_sound(avatar, clip, head_inputs(track, avatar.device))


def _driving_rows(driver: Driver, clip: Clip) -> np.ndarray:
    """Rows ``[T, C]`` of the feature that the driver takes."""
    name = heard_by(driver, clip.feature.record)["name"]
    return clip.features() if name == clip.feature.name else extract_features(name, clip.audio)


def _motion(avatar: Avatar, clip: Clip) -> dict[str, np.ndarray]:
    """What moved the head and what is behind it in the test frames, as far as the avatar can use it."""
    moved = {name: rows for name, rows in clip.motion().items() if name in avatar.track}
    if "background" in avatar.track and "background" in clip.track:
        moved["background"] = clip.track["background"]  # also where the camera stands still now: it may stand elsewhere
    return moved


def _with_sound(avatar: Avatar, clip: Clip, drive: HeadInputs) -> tuple[HeadInputs | None, str]:
    if not avatar.model.uses_audio:
        return drive, ""
    if not clip.has_sound:
        return None, "the recipe is driven by sound and the test part of the clip has none"
    rows = torch.from_numpy(clip.features()).to(avatar.device)
    frames = torch.arange(len(clip), device=avatar.device)
    return drive.with_(features=feature_windows(rows, frames)), ""
