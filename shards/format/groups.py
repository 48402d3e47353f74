"""Groups of a sample's pictures: which frames lie side by side in the tar, each group behind the rows of its track.

A task that wants a few frames of a segment reads one group with one ranged read, its track included. The first group
holds the frames with the widest open mouth, the second those turned farthest from the segment's mean pose, every other
one frames spread evenly over the segment. Samples without ``track.0.npz`` have no groups; their frames lie in the order of time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import numpy as np

from heads.measures.face import inner_lip_distance, outer_eye_distance
from shards.format import codecs
from shards.format.fields import known_fields

TOGETHER = 6  # frames of a group, at least: as many as a sample of expression-visual's large configuration needs
MOST_STEPS = np.iinfo(np.int16).max  # largest landmark, in steps
WIDE = 2  # groups of wide frames, at the beginning of a sample with MIXED or more groups
MIXED = 4  # groups from which on the first WIDE hold wide frames
_GROUP = re.compile(r"track\.\d{1,2}\.npz")
_FRAME = re.compile(r"f(\d{3})\.jpg")


def group_name(number: int) -> str:
    """Member with the track's rows of group ``number``."""
    return f"track.{number}.npz"


def is_group(name: str) -> bool:
    """Whether a member holds the rows of a group."""
    return _GROUP.fullmatch(name) is not None


def arranged(track: Mapping[str, np.ndarray]) -> list[list[int]]:
    """Frames of each group, each frame in exactly one; within a group the order begins at another time than in the one before."""
    length = len(track["rotation"])
    number = max(1, length // TOGETHER)
    left = list(range(length))
    wide: list[list[int]] = []
    if number >= MIXED:
        for measure in (openness(track["landmarks"]), turned(track["rotation"], track["rotation"].mean(0))):
            chosen = sorted(left, key=lambda i: (-measure[i], i))[: length // number]
            wide.append(sorted(chosen))
            left = sorted(set(left) - set(chosen))
    spread = number - len(wide)
    groups = [*wide, *(left[k::spread] for k in range(spread))]
    return [group[k % len(group) :] + group[: k % len(group)] for k, group in enumerate(groups)]


def openness(landmarks: np.ndarray) -> np.ndarray:
    """How far the mouth is open in each frame ``[T]`` of landmarks ``[T, 478, 2 or 3]``, in distances of the outer eye corners."""
    points = landmarks[..., :2]
    return inner_lip_distance(points) / np.maximum(outer_eye_distance(points), 1e-6)


def turned(rotation: np.ndarray, away_from: np.ndarray) -> np.ndarray:
    """How far the head ``rotation [T, 3, 3]`` is turned from a pose ``[3, 3]`` in each frame ``[T]``; rises with the angle."""
    return -np.einsum("tij,ij->t", rotation, away_from)


def _rows(track: Mapping[str, np.ndarray], frames: list[int] | np.ndarray) -> dict[str, np.ndarray]:
    """The track's fields for some frames."""
    return {name: value if name in ("identity", "intrinsics") else value[frames] for name, value in track.items()}


def encode_groups(track: Mapping[str, np.ndarray], size: tuple[int, int]) -> dict[str, bytes]:
    """``track.0.npz``, ...: the track of each group's frames.

    Each also holds ``frames [n]`` int64, the frames' numbers, and ``size [2]`` int64, their width and height in px.
    Landmarks are int16 in units of ``step`` px (0.013 px at 512 px), half the bytes.
    """
    members = {}
    step = np.asarray(max(float(np.abs(track["landmarks"]).max()), 1e-6) / MOST_STEPS, np.float32)
    for number, frames in enumerate(arranged(track)):
        rows = _rows(track, frames)
        values = {**rows, "frames": np.array(frames, np.int64), "size": np.array(size, np.int64), "step": step}
        values["landmarks"] = np.round(rows["landmarks"] / step).clip(-MOST_STEPS, MOST_STEPS).astype(np.int16)
        members[group_name(number)] = codecs.encode_npz(values)
    return members


def decode_group(data: bytes) -> dict[str, np.ndarray]:
    """The values that :func:`encode_groups` was given for one group, with ``frames``, ``size`` and ``step``; landmarks in px.

    Raises:
        codecs.BadMember: no track with numbers and sizes of frames.
    """
    values = codecs.decode_npz(data)
    kinds = {"frames": (np.int64, 1), "size": (np.int64, 1), "step": (np.float32, 0), "landmarks": (np.int16, 3)}
    for name, (kind, axes) in kinds.items():
        if name not in values or values[name].dtype != kind or values[name].ndim != axes:
            raise codecs.BadMember(f"has no '{name}' of {axes} axes; write it again (shards build --extras)")
    if len(values["size"]) != 2 or not 1 <= values["size"].min() <= values["size"].max() <= codecs.MAX_SIDE:
        raise codecs.BadMember(f"has frames of size {values['size'].tolist()}; write it again (shards build --extras)")
    own = {name: values[name] for name in kinds}
    return {**known_fields(values), **own, "landmarks": values["landmarks"] * values["step"]}


def cover(groups: Iterable[Iterable[int]], length: int) -> bool:
    """Whether groups hold each of ``length`` frames once."""
    return sorted(i for group in groups for i in group) == list(range(length))


def stated_groups(encoded: Mapping[str, bytes], length: int) -> list[list[int]]:
    """Frames of each group of an encoded sample of ``length`` frames; empty if it has none or they cannot be used."""
    groups = []
    for number in range(sum(map(is_group, encoded))):
        try:
            groups.append(decode_group(encoded.get(group_name(number), b""))["frames"].tolist())
        except codecs.BadMember:
            return []  # shards verify names the member
    return groups if cover(groups, length) else []


def groups_in(members: Iterable[str]) -> list[list[int]]:
    """Frames of each group of a sample, from the names of its members in file order; empty if it has no groups."""
    groups: list[list[int]] = []
    for name in members:
        if is_group(name):
            groups.append([])
        elif groups and (frame := _FRAME.fullmatch(name)):
            groups[-1].append(int(frame[1]))
    return groups


def differs(group: Mapping[str, np.ndarray], track: Mapping[str, np.ndarray]) -> str:
    """A sentence about the first field in which a decoded group is not that of the whole track; empty if there is none."""
    step = float(group["step"])
    for name, wanted in _rows(track, group["frames"]).items():
        if not np.allclose(group[name], wanted, rtol=0, atol=step if name == "landmarks" else 0):
            return f"'{name}' is not that of track.npz; write it again (shards build --extras)"
    return ""
