"""Any method's video scored against the ground truth, frame by frame."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from adapt.avatar.provenance import Provenance
from adapt.evaluate.avatars import BATCH, MASKS
from adapt.evaluate.measures.base import Tools
from adapt.evaluate.scoring import Scorer
from adapt.evaluate.tools import sync_features
from adapt.marking.marker import Marker
from configs import InputError
from configs.machine import commit, device_name
from heads.masks import region_masks
from shards.media.decode import read_frames
from shards.media.encode import VideoWriter
from shards.media.probe import video_info
from shards.media.rates import SAMPLES_PER_FRAME
from shards.media.sound import read_audio


def evaluate_external(frames: Path, against: Path, folder: Path, tools: Tools) -> dict[str, object]:
    """Scores of ``frames`` against ``against``; ``folder`` receives the side-by-side video, marked as synthetic.

    Its watermark names no avatar, and scores are those of the frames before they are marked.

    Raises:
        InputError: a file that is missing, different sizes, no frames, or a true frame without a face.
    """
    size = video_info(against)
    ours = video_info(frames)
    if (ours.width, ours.height) != (size.width, size.height):
        raise InputError(
            f"{frames} is {ours.width}x{ours.height} px and {against} {size.width}x{size.height}; "
            "score frames of the same size and framing"
        )
    if not against.is_file():
        raise InputError(f"{against}: no such file")
    expected = max(1, min(ours.frames, size.frames))
    scorer = Scorer(tools, expected)
    count, path = 0, folder / "external.mp4"
    marker = Marker("")
    provenance = Provenance.make(avatar=f"frames of {frames.name}", recipe="external", **marker.fields())
    with VideoWriter(path, 2 * size.width, size.height, tags=provenance.tags(), crf=20, mark=marker) as writer:
        for pictures, reals in _pairs(frames, against):
            landmarks, valid = tools.detect(reals)
            if not valid.all():
                raise InputError(
                    f"{against}: no face in frame {count + int(np.argmin(valid))}; cut the video to speech"
                )
            scorer.add(pictures.astype(np.float32) / 255.0, reals, landmarks, _face_masks(landmarks, reals.shape))
            count += len(pictures)
            for picture, real in zip(pictures, reals):
                writer.write(np.concatenate([real, picture], 1))
    if not count:
        raise InputError(f"{frames}: contains no frames to evaluate")
    scores = scorer.result(*_external_sound(against, count, tools))
    return {
        "drives": {"external": scores},
        "fps": None,
        "adapt_seconds": None,
        "frames": count,
        "size": size.width,
        "device": device_name(torch.device("cpu")),
        "commit": commit(),
        "whole_frame": "as found in the video: how its body was made is unknown",
        "test": {"video": against.name, "frames_of": frames.name, "frames": count},
        "_page": {
            "title": f"{frames.name} against {against.name}",
            "parts": [
                {
                    "name": "external",
                    "fps": 0.0,
                    "curves": scorer.curves(),
                    "eyes": scorer.eye_curves(),
                    "picked": scorer.picked,
                    "video": path,
                }
            ],
        },
    }


def _pairs(frames: Path, against: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Frames of both videos in batches, up to the end of the shorter."""
    held: list[tuple[np.ndarray, np.ndarray]] = []
    for pair in zip(read_frames(frames), read_frames(against)):
        held.append(pair)
        if len(held) == BATCH:
            yield np.stack([p[0] for p in held]), np.stack([p[1] for p in held])
            held = []
    if held:
        yield np.stack([p[0] for p in held]), np.stack([p[1] for p in held])


def _face_masks(landmarks: np.ndarray, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    return region_masks(landmarks, shape[1], shape[2], MASKS)


def _external_sound(video: Path, count: int, tools: Tools) -> tuple[np.ndarray | str, np.ndarray | str]:
    """The sync expert's feature rows and the sound of the first ``count`` frames, or why there are none."""
    if not video_info(video).has_audio:
        return ("the true video has no sound",) * 2
    sound = read_audio(video)
    return sync_features(tools.sync, sound, count), sound[: count * SAMPLES_PER_FRAME]
