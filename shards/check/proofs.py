"""Verification of one sample: each member by itself, and the members against each other."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from shards.features import logmel
from shards.format.groups import cover, group_name, is_group
from shards.format.groups import differs as other_group
from shards.format.schema import BrokenSample, Sample, check_meta, check_track, feature_name, is_picture, member_names
from shards.format.small import LIPS, MOTION
from shards.format.small import differs as other_motion
from shards.read.dataset import Dataset

DRIFT = 0.05  # mean difference of log-mel that rounding to 16-bit sound and float16 can explain
MISFIT = 0.5  # eye distances; four times it is allowed, the track of another clip is several off


def check_members(dataset: Dataset, shard: str, key: str, members: Mapping[str, bytes], frames: int) -> None:
    """Check everything about one sample.

    Raises:
        BrokenSample: the first member that is wrong.
    """
    sample = Sample(key, max(1, frames), lambda names: {n: members[n] for n in names}, members, shard=shard)
    sizes = check_sample(sample, dataset.features)
    if dataset.track and sizes != dataset.track:
        raise sample.broken("track.npz", f"has coefficients {sizes}, the dataset {dataset.track}")
    _check_sound(sample)
    _check_pose(sample)


def check_sample(sample: Sample, features: Mapping[str, int] | None = None) -> dict[str, int]:
    """Decode and check a whole sample: every frame, matte, track field, audio sample and feature row.

    Args:
        features: name → size of the features that the dataset promises.

    Returns:
        The rig's coefficient counts ``{"identity": I, "expression": K}``.

    Raises:
        BrokenSample: the first member that is wrong.
    """
    check_meta(sample.key, sample.meta)
    if sample.meta["frames"] != sample.length:
        reason = f"says {sample.meta['frames']} frames, the index says {sample.length}"
        raise BrokenSample(sample.key, "meta.json", reason)
    extra = sorted(set(filter(is_picture, sample.members)) - set(member_names(sample.length, ())))
    if extra:
        raise BrokenSample(sample.key, extra[0], f"does not belong to a sample of {sample.length} frames")
    sizes = check_track(sample.key, sample.track, sample.length)
    _ = sample.audio
    for name, size in (features or {}).items():
        if sample.features(name).shape[1] != size:
            shape = sample.features(name).shape
            raise sample.broken(feature_name(name), f"has shape {shape}, the dataset promises {size} columns")
    for index in range(sample.length):
        sample.frame(index)
        sample.matte(index)
    _ = sample.lip_crops() if LIPS in sample.members else None
    if MOTION in sample.members and (reason := other_motion(sample.motion, sample.track)):
        raise sample.broken(MOTION, reason)
    _check_groups(sample)
    return sizes


def _check_groups(sample: Sample) -> None:
    """Every group must be the track's rows of its frames, and the groups together all frames."""
    names = sorted(filter(is_group, sample.members))
    found: list[list[int]] = []
    for number in range(len(names)):
        if (name := group_name(number)) not in sample.members:
            raise sample.broken(names[-1], f"is there without {name}; write it again (shards build --extras)")
        group = sample.group(number)
        found.append(group["frames"].tolist())
        if reason := other_group(group, sample.track):
            raise sample.broken(name, reason)
    if names and not cover(found, sample.length):
        raise sample.broken(names[-1], f"groups list {found}, expected each of {sample.length} frames once")


def _check_sound(sample: Sample) -> None:
    """The stored log-mel must be that of the stored sound, frame by frame, away from the segment's ends."""
    stored = sample.features("logmel")[1:-1]
    drift = np.abs(stored - logmel(sample.audio)[1:-1])
    if len(drift) and float(drift.mean()) > DRIFT:
        reason = (
            f"differs from the sound by {drift.mean():.2f} on average, at most {DRIFT}: audio and features disagree"
        )
        raise sample.broken("audio.logmel.npy", reason)


def _check_pose(sample: Sample) -> None:
    """Rotations must be orthonormal, heads before the camera, and the head's origin must project near the eyes."""
    track = sample.track
    rotation = track["rotation"].astype(np.float64)
    error = np.abs(rotation @ rotation.transpose(0, 2, 1) - np.eye(3)).max()
    if error > 1e-3 or (np.linalg.det(rotation) < 0).any():
        raise sample.broken("track.npz", f"'rotation' is no rotation (off by {error:.3f})")
    if (track["translation"][:, 2] <= 0).any():
        raise sample.broken("track.npz", "'translation' puts the head behind the camera")
    # The origin of head space lies roughly between the eyes, so it must project near the landmarks there.
    focus = track["translation"] @ track["intrinsics"].T
    focus = focus[:, :2] / focus[:, 2:]
    left, right = (track["landmarks"][:, [a, b], :2].mean(axis=1) for a, b in ((263, 362), (33, 133)))
    eyes = np.maximum(np.linalg.norm(left - right, axis=1), 1.0)
    misfit = np.linalg.norm(focus - (left + right) / 2, axis=1) / eyes
    if float(np.median(misfit)) > 4 * MISFIT:
        raise sample.broken("track.npz", f"the pose is {np.median(misfit):.1f} eye distances from the landmarks")
