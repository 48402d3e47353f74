"""``track``: a video's face as 52 ARKit weights over time, for any program that reads them."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

import numpy as np

from adapt.drivers.arkit import arkit_map
from adapt.drivers.blendshapes import FPS, Blendshapes, write_blendshapes
from adapt.outputs import claim
from cluster.storage.staging import staged
from configs import InputError
from heads.rig import load_rig
from shards.tracking import track_frames

_SUFFIXES = (".csv", ".json")
_FACE = ("expression", "eyelids", "gaze")


class Tracked(TypedDict):
    """The file, its length in frames at 25 fps, the number of frames with a face, and its length in seconds."""

    blendshapes: str
    frames: int
    tracked: int
    seconds: float


@staged(reads=("video",), writes="blendshapes")
def track(
    video: str | Path,
    blendshapes: str | Path,
    *,
    start: float = 0.0,
    seconds: float | None = None,
    size: int | None = None,
    rig: str = "mediapipe",
    overwrite: bool = False,
) -> Tracked:
    """Track the face in a video and write its ARKit weights.

    Times count from the video's beginning (or ``start``), so that weights stay in step with its sound; where the face was
    lost, weights are interpolated.

    Args:
        video: path or ``s3://`` URL; the same holds for ``blendshapes``.
        blendshapes: the ``.csv`` (Live Link Face) or ``.json`` (Audio2Face) to write.
        start, seconds: which part of the video.
        size: side of the tracked frames, px; by default 512.
        rig: name of the rig that maps the expression to the weights.
        overwrite: replace an existing file.

    Returns:
        See :class:`Tracked`.

    Raises:
        InputError: no face, an unreadable video, another suffix, a rig without ARKit map, or the output exists.
    """
    if Path(str(blendshapes)).suffix.lower() not in _SUFFIXES:
        raise InputError(f"output '{blendshapes}': expected a name that ends in .csv or .json")
    out = claim(blendshapes, overwrite=overwrite)
    loaded = load_rig(rig)
    mapping = arkit_map(loaded)
    face, frames = _face(video, start, seconds, size, rig)
    found = Blendshapes(mapping.weights(*(face[name] for name in _FACE)), (frames - start * FPS + 0.5) / FPS)
    weights = found.at_rate(FPS)
    write_blendshapes(out, weights, FPS)
    return {
        "blendshapes": str(out),
        "frames": len(weights),
        "tracked": len(frames),
        "seconds": round(len(weights) / FPS, 2),
    }


def _face(
    video: str | Path, start: float, seconds: float | None, size: int | None, rig: str
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Expression, eyelids and gaze ``[T, ...]`` of the frames with a face, and their numbers ``[T]`` in the video."""
    rows: dict[str, list[np.ndarray]] = {name: [] for name in _FACE}
    numbers = []
    for segment in track_frames(video, seconds=seconds, start=start, size=size, rig=rig, matte_every=0):
        for name in _FACE:
            rows[name].append(segment.track[name])
        numbers.append(segment.first_frame + np.arange(len(segment.track["expression"])))
    if not numbers:
        raise InputError(f"{video}: no frame with a face in this part; choose another")
    return {name: np.concatenate(parts) for name, parts in rows.items()}, np.concatenate(numbers)
