"""Small members of what priors read most: lip crops of the frames, and the track without its landmarks.

They are made from the other members of a sample only, so a dataset that was built without them gets the same bytes by
``headstart shards build --out DATASET --extras``. Readers work without them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch

from heads.measures.lips import BREADTH as BREADTH_OF_EYES
from heads.measures.lips import crop_lips, lip_frame, lip_shape
from shards.format import codecs
from shards.format.fields import known_fields
from shards.format.groups import encode_groups, group_name
from shards.media.rates import SAMPLES_PER_FRAME

LIPS, MOTION = "lips.npz", "motion.npz"
EXTRAS = (LIPS, MOTION, group_name(0))
HEIGHT, BREADTH = 66, 88  # px of a crop; twice as many if frames have LARGE px or more
LARGE = 512
MARGIN = 1.35  # factor by which crops are larger than a network's input, which leaves room for jitter
QUALITY = 90  # of the crops' JPEG; 50 crops take 50 kB at 256 px
LIP_FIELDS = {"jpeg", "shape", "loudness"}
LIP_SHAPE = 3  # opening, width and height, see heads.measures.lips.lip_shape


def small_members(encoded: Mapping[str, bytes], length: int, size: tuple[int, int]) -> dict[str, bytes]:
    """``lips.npz``, ``motion.npz`` and ``track.0.npz``, ... of the encoded members of a sample.

    Args:
        length: number of frames.
        size: width and height of the frames, px.
    """
    track = known_fields(codecs.decode_npz(encoded["track.npz"]))
    frames = [encoded[f"f{i:03d}.jpg"] for i in range(length)]
    audio = codecs.decode_flac(encoded["audio.flac"], length * SAMPLES_PER_FRAME)
    lips = encode_lips(frames, track["landmarks"], size, audio)
    return {LIPS: lips, MOTION: encode_motion(track, audio), **encode_groups(track, size)}


def with_loudness(members: Mapping[str, bytes], audio: np.ndarray) -> dict[str, bytes]:
    """A sample's members, where those of this module, if there are some, name the loudness of ``audio [N]``."""
    level = {"loudness": loudness(audio)}
    kept = {
        name: codecs.encode_npz({**codecs.decode_npz(members[name]), **level})
        for name in (LIPS, MOTION)
        if name in members
    }
    return {**members, **kept}


def encode_motion(track: Mapping[str, np.ndarray], audio: np.ndarray) -> bytes:
    """``motion.npz``: the track without landmarks, and ``loudness []``."""
    small = {name: value for name, value in track.items() if name != "landmarks"}
    return codecs.encode_npz({**small, "loudness": loudness(audio)})


def loudness(audio: np.ndarray) -> np.ndarray:
    """RMS of ``audio [N]`` relative to full scale, ``[]`` float32."""
    return np.sqrt(np.mean(np.square(audio), dtype=np.float32), dtype=np.float32)


def encode_lips(frames: list[bytes], landmarks: np.ndarray, size: tuple[int, int], audio: np.ndarray) -> bytes:
    """``lips.npz``: ``jpeg [n]`` uint8, the crops one above the other; ``shape [T, 3]``, the mouth's geometry; ``loudness []``.

    Args:
        frames: T JPEG files.
        landmarks: ``[T, 478, 3]`` px of the frames.
        size: width and height of the frames, px.
        audio: ``[T * 640]``.
    """
    factor = 2 if min(size) >= LARGE else 1
    height, breadth = factor * HEIGHT, factor * BREADTH
    pictures = [codecs.decode_jpeg(data, size, factor * LARGE // 2) for data in frames]
    tall, wide = pictures[0].shape[:2]
    points = torch.tensor(landmarks)
    own = points * torch.tensor([wide / size[0], tall / size[1], wide / size[0]])
    mouths, corners = _mouths(pictures, own, height / breadth)
    grow = torch.tensor([[0.0, 0.0, float(np.log(MARGIN)), 0.0]]).expand(len(frames), 4)
    cut = crop_lips(torch.from_numpy(mouths).float() / 255, own - corners[:, None], height, breadth, grow)
    crops = (cut * 255).round().to(torch.uint8).numpy()
    jpeg = codecs.encode_jpeg(crops.reshape(-1, breadth, 3), QUALITY)
    values = {"jpeg": np.frombuffer(jpeg, np.uint8), "shape": lip_shape(points).numpy(), "loudness": loudness(audio)}
    return codecs.encode_npz(values)


def _mouths(pictures: list[np.ndarray], landmarks: torch.Tensor, aspect: float) -> tuple[np.ndarray, torch.Tensor]:
    """Windows ``[T, h, w, 3]`` that hold all that a crop of the lips shows, and their corners ``[T, 3]`` px, z 0."""
    tall, wide = pictures[0].shape[:2]
    centre, _, length = lip_frame(landmarks)
    reach = math.ceil(float(length.max()) * BREADTH_OF_EYES / 2 * MARGIN * math.hypot(1, aspect)) + 2
    height, width = min(2 * reach, tall), min(2 * reach, wide)
    left = (centre[:, 0] - reach).floor().clamp(0, wide - width)
    top = (centre[:, 1] - reach).floor().clamp(0, tall - height)
    places = zip(pictures, top.int().tolist(), left.int().tolist(), strict=True)
    windows = np.stack([picture[y : y + height, x : x + width] for picture, y, x in places])
    return windows, torch.stack([left, top, torch.zeros_like(top)], -1)


def decode_lips(data: bytes, length: int) -> dict[str, np.ndarray]:
    """``jpeg [n]`` uint8, ``shape [T, 3]`` float32 and ``loudness []`` of the bytes of ``lips.npz``; decodes no crop.

    Raises:
        codecs.BadMember: a field is missing, or crops of another number or size.
    """
    values = codecs.decode_npz(data)
    if not values.keys() >= LIP_FIELDS or values["jpeg"].dtype != np.uint8 or values["jpeg"].ndim != 1:
        raise codecs.BadMember(f"holds {', '.join(sorted(values))}; expected 'jpeg', bytes, 'shape' and 'loudness'")
    shape = values["shape"]
    if shape.shape != (length, LIP_SHAPE) or shape.dtype != np.float32 or not np.isfinite(shape).all():
        raise codecs.BadMember(
            f"'shape' is {shape.dtype} {shape.shape}, expected finite float32 ({length}, {LIP_SHAPE})"
        )
    width, tall = codecs.jpeg_size(values["jpeg"].tobytes())
    if (width, tall) not in [(k * BREADTH, k * HEIGHT * length) for k in (1, 2)]:
        raise codecs.BadMember(
            f"'jpeg' is {width}x{tall} px, expected {length} crops of {BREADTH}x{HEIGHT} or twice that"
        )
    return {name: values[name] for name in LIP_FIELDS}


def decode_crops(jpeg: bytes, length: int) -> np.ndarray:
    """The crops ``[T, h, w, 3]`` uint8 of the ``jpeg`` of :func:`decode_lips`.

    Raises:
        codecs.BadMember: damaged behind its header.
    """
    width, tall = codecs.jpeg_size(jpeg)
    return codecs.decode_jpeg(jpeg, (width, tall), fast=True).reshape(length, tall // length, width, 3)


def decode_motion(data: bytes, length: int) -> dict[str, np.ndarray]:
    """The track of ``length`` frames without landmarks, and ``loudness``, float32 and finite.

    Raises:
        codecs.BadMember: a field of another type or length.
    """
    values = codecs.decode_npz(data)
    motion = known_fields(values) | {name: values[name] for name in ("loudness",) if name in values}
    for name, value in motion.items():
        rows = {"loudness": (), "identity": value.shape[:1], "intrinsics": (3,)}.get(name, (length,))
        if value.dtype != np.float32 or value.shape[: len(rows)] != rows or not np.isfinite(value).all():
            raise codecs.BadMember(f"'{name}' is {value.dtype} {value.shape}, expected {length} finite float32 rows")
    return motion


def differs(motion: Mapping[str, np.ndarray], track: Mapping[str, np.ndarray]) -> str:
    """A sentence about the first difference between ``motion.npz`` and the track; empty if there is none."""
    wanted = {name: value for name, value in track.items() if name != "landmarks"}
    if set(motion) != {*wanted, "loudness"}:
        return f"holds {', '.join(sorted(motion))}; expected {', '.join(sorted({*wanted, 'loudness'}))}"
    others = [name for name, value in wanted.items() if not np.array_equal(motion[name], value)]
    return f"'{others[0]}' is not that of track.npz; write it again (shards build --extras)" if others else ""
