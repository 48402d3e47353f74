"""The options of ``talk``: poses, controls, and which sounds can be spoken."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from adapt.avatar.avatar import Avatar, load_avatar
from adapt.clip import track_clip
from adapt.talk.poses import AnglePoses, ClipPoses, FixedPose, GeneratedPoses, PoseSource
from configs import InputError
from heads.geometry.rotation import rotation_to_euler
from shards.media.sound import stream_audio
from shards.media.tracks import sound_track

MOST_CONTROL = 3.0  # largest amount of a control, in either direction
SILENT = 1e-4  # largest peak amplitude (full scale: 1) of a recording that counts as silent


def check_sound(audio: str | Path) -> None:
    """Refuse what cannot be spoken.

    Raises:
        InputError: no file, no sound, or only silence.
    """
    heard = 0
    for block in stream_audio(audio):
        heard += len(block)
        if len(block) and float(np.abs(block).max()) > SILENT:
            return
    if not heard:
        raise InputError(f"{audio}: contains no audio (zero length); give a recording of speech")
    if sound_track(audio).broken:
        raise InputError(
            f"{audio}: holds no sound, but samples that are no finite numbers (NaN), as of a speech synthesis that diverged; "
            "make it again"
        )
    raise InputError(f"{audio}: is silent from beginning to end; give a recording of speech")


def parse_controls(controls: Iterable[str] | Mapping[str, float] | None) -> dict[str, float]:
    """``["smile=0.4"]`` -> ``{"smile": 0.4}``.

    Raises:
        InputError: not ``name=number``, or a number out of range.
    """
    if controls is None or isinstance(controls, Mapping):
        return check_controls(controls or {})
    parsed: dict[str, float] = {}
    for text in controls:
        name, found, amount = text.partition("=")
        try:
            parsed[name] = float(amount)
        except ValueError:
            found = ""
        if not found:
            raise InputError(f"control '{text}': expected NAME=AMOUNT, for example smile=0.4")
    return check_controls(parsed)


def check_controls(controls: Mapping[str, float]) -> dict[str, float]:
    """The amounts, if each is within ``±MOST_CONTROL``.

    Raises:
        InputError: names the first that is not.
    """
    for name, amount in controls.items():
        if not abs(amount) <= MOST_CONTROL:
            raise InputError(f"control {name}={amount:g}: expected -{MOST_CONTROL:g} to {MOST_CONTROL:g}")
    return dict(controls)


def make_poses(
    avatar: Avatar,
    pose_from: str | Path | None,
    yaw: float | None,
    pitch: float | None,
    roll: float | None,
    pose: str,
    seed: int,
) -> PoseSource:
    """The source of head poses that the options ask for.

    Raises:
        InputError: contradictory or unknown options, an angle beyond ±90°, or a video without a face.
    """
    rotation, translation = avatar.track["rotation"], avatar.track["translation"]
    angles = [value for value in (yaw, pitch, roll) if value is not None]
    if pose_from is not None and angles:
        raise InputError("--pose-from and --yaw/--pitch/--roll contradict each other; give one of them")
    if any(not abs(value) <= 90 for value in angles):
        raise InputError(f"angle {max(angles, key=abs):g}: expected degrees from -90 to 90")
    if angles:
        return FixedPose(rotation, translation, yaw=yaw, pitch=pitch, roll=roll)
    if pose_from is not None:
        return _foreign_poses(avatar, pose_from)
    if pose == "still":
        return FixedPose(rotation, translation)
    if pose == "generated":
        return GeneratedPoses(rotation, translation, seed)
    if pose == "clip":
        return ClipPoses(avatar.track)
    raise InputError(f"pose '{pose}': expected clip, generated or still")


def _foreign_poses(avatar: Avatar, source: str | Path) -> AnglePoses | ClipPoses:
    """Poses of another video or avatar: its angles, at the position of the avatar's own head."""
    if (Path(str(source)) / "avatar.json").is_file():
        rotation = load_avatar(source, "cpu").track["rotation"]
    else:
        with track_clip(source, size=256) as clip:
            rotation = clip.track["rotation"].copy()
    degrees = np.degrees(rotation_to_euler(rotation))
    return AnglePoses(avatar.track["rotation"], avatar.track["translation"], degrees)
