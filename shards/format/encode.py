"""Encodes one segment into the bytes of its members; every length and shape is checked before anything is written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from configs import InputError
from shards.format import codecs as members
from shards.format.fields import TRACK_SHAPES, known_fields
from shards.format.schema import (
    MAX_FRAMES,
    SCHEMA,
    BrokenSample,
    check_features,
    check_meta,
    check_track,
    feature_name,
    frame_name,
    matte_name,
    split_key,
)
from shards.format.small import small_members
from shards.media.rates import FPS, SAMPLES_PER_FRAME


def encode_sample(
    key: str,
    meta: Mapping[str, object],
    *,
    frames: np.ndarray | None = None,
    frames_jpeg: Sequence[bytes] | None = None,
    matte: np.ndarray,
    track: Mapping[str, np.ndarray],
    audio: np.ndarray,
    features: Mapping[str, np.ndarray],
) -> dict[str, bytes]:
    """Check one segment and encode its members.

    Args:
        key: ``IDENTITY/CLIP-00007``.
        meta: entries for ``meta.json``; schema, identity, clip, frames, fps and size are filled in.
        frames: ``[T, H, W, 3]`` uint8 RGB.
        frames_jpeg: instead of ``frames``, T JPEG files of quality 95 or better.
        matte: ``[T, H, W]`` uint8 person alpha.
        track: float32 fields of :data:`shards.format.fields.TRACK_SHAPES`, and any of ``OPTIONAL_TRACK_SHAPES``.
        audio: ``[T * 640]`` float32 in [-1, 1], 16 kHz.
        features: name → ``[T, C]``; stored as float16.

    Returns:
        Member name → bytes.

    Raises:
        BrokenSample: lengths that disagree, wrong shapes, values that are not finite, a field that no track has.
        InputError: a malformed key, or both or neither of ``frames`` and ``frames_jpeg``.
    """
    identity, clip, _ = split_key(key)
    if (frames is None) == (frames_jpeg is None):
        raise InputError(f"sample '{key}': pass either frames or frames_jpeg")
    pictures = [members.encode_jpeg(f) for f in frames] if frames is not None else list(frames_jpeg or ())
    height, width = np.asarray(matte).shape[1:3] if np.ndim(matte) == 3 else (0, 0)
    filled = {
        "licence": "unknown",
        "consent": "unknown",
        "source": "",
        "first_frame": 0,
        **meta,
        "schema": SCHEMA,
        "identity": identity,
        "clip": clip,
        "frames": len(pictures),
        "fps": FPS,
        "size": [int(width), int(height)],
    }
    _check_lengths(key, pictures, frames, matte, audio)
    check_meta(key, filled)
    check_track(key, track, len(pictures))
    if unknown := sorted(track.keys() - known_fields(track).keys()):
        raise BrokenSample(key, "track.npz", f"unknown field '{unknown[0]}'; expected {', '.join(TRACK_SHAPES)}")
    encoded = {
        "audio.flac": members.encode_flac(np.asarray(audio, np.float32)),
        "meta.json": json.dumps(filled, sort_keys=True).encode(),
        "track.npz": members.encode_npz({name: np.ascontiguousarray(track[name]) for name in sorted(track)}),
    }
    for name, value in features.items():
        half = np.ascontiguousarray(value, np.float16)
        check_features(key, name, half, len(pictures))
        encoded[feature_name(name)] = members.encode_npy(half)
    for i, picture in enumerate(pictures):
        encoded[frame_name(i)] = picture
        encoded[matte_name(i)] = members.encode_png(np.asarray(matte[i], np.uint8))
    return {**encoded, **small_members(encoded, len(pictures), (int(width), int(height)))}


def _check_lengths(key: str, pictures: list[bytes], frames: Any, matte: Any, audio: Any) -> None:
    length = len(pictures)
    if not 1 <= length <= MAX_FRAMES:
        raise BrokenSample(key, "f000.jpg", f"{length} frames, expected 1 to {MAX_FRAMES}")
    if np.ndim(matte) != 3 or len(matte) != length:
        raise BrokenSample(key, "m000.png", f"matte has shape {np.shape(matte)}, expected ({length}, H, W)")
    if frames is not None and tuple(np.shape(frames)) != (*np.shape(matte), 3):
        raise BrokenSample(key, "f000.jpg", f"frames have shape {np.shape(frames)}, the matte {np.shape(matte)}")
    expected = (length * SAMPLES_PER_FRAME,)
    if np.shape(audio) != expected:
        raise BrokenSample(key, "audio.flac", f"audio has shape {np.shape(audio)}, expected {expected}")
    if not np.isfinite(audio).all():
        raise BrokenSample(key, "audio.flac", "audio holds values that are not finite")
