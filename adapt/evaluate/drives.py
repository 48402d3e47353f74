"""The two drives of a test: what was tracked in its frames, and what its sound says."""

from __future__ import annotations

import torch

from adapt.avatar.avatar import Avatar
from adapt.clip import Clip
from adapt.drivers.base import Bounds
from adapt.drivers.base import drive as drive_by_sound
from adapt.models.drive import DRIVEN, Drive, drive_of, feature_windows
from adapt.talk.silence import rested


def track_drive(avatar: Avatar, clip: Clip) -> tuple[Drive | None, str]:
    """Expression and pose as tracked in the test frames."""
    drive = drive_of({name: clip.track[name] for name in DRIVEN}, avatar.device)
    return _with_sound(avatar, clip, drive)


def audio_drive(avatar: Avatar, clip: Clip) -> tuple[Drive | None, str]:
    """Expression from the test sound; pose, eyelids and gaze from the test frames, which no sound tells."""
    if not clip.has_sound:
        return None, "the test part of the clip has no sound"
    moved = drive_by_sound(avatar.driver, clip.features())
    track = {name: clip.track[name].copy() for name in DRIVEN}
    bounded = Bounds(avatar.track["expression"])(moved["expression"][: len(clip)])
    track["expression"] = rested(bounded, clip.audio, avatar.track)
    return _with_sound(avatar, clip, drive_of(track, avatar.device))


def _with_sound(avatar: Avatar, clip: Clip, drive: Drive) -> tuple[Drive | None, str]:
    if not avatar.model.uses_audio:
        return drive, ""
    if not clip.has_sound:
        return None, "the recipe is driven by sound and the test part of the clip has none"
    rows = torch.from_numpy(clip.features()).to(avatar.device)
    frames = torch.arange(len(clip), device=avatar.device)
    return drive.with_(features=feature_windows(rows, frames)), ""
