"""Decoding of any video to 25 pictures a second in step with its sound: any rate, size, rotation flag, pixel shape.

Time 0 is the start of the video stream, as in ``shards.media.sound``. Picture k is the source picture whose time stamp is
nearest to k / 25 s, so variable rates neither drift nor jump. One picture is held at a time: memory does not grow.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from configs import InputError
from shards.format.schema import FPS

LARGEST_SIDE = 16_384  # what a header may claim before we refuse to allocate for it
TRUNCATED = 0.5  # s that may be missing at the end before a file counts as cut off


@dataclass(frozen=True)
class VideoInfo:
    """What a file says of itself, as seen upright."""

    width: int
    height: int
    rotation: int  # degrees counter-clockwise that a player turns the stored picture: 0, 90, 180, 270
    fps: float  # average
    seconds: float  # 0 when the file does not say
    has_audio: bool


def probe(path: str | Path) -> VideoInfo:
    """Reads headers and the first picture.

    Raises:
        InputError: not a video that can be decoded.
    """
    with _opened(path) as container:
        stream = _picture_stream(container, path)
        frame = next(_decoded(container, stream, path), None)
        if frame is None:
            raise InputError(f"{path}: holds no picture that can be decoded; give a playable video")
        width, height = _upright_size(frame, stream)
        rate = stream.average_rate or stream.guessed_rate or 0
        return VideoInfo(
            width, height, _rotation(frame), float(rate), _stated_seconds(container, stream), _has_audio(container)
        )


def read_video(
    path: str | Path,
    *,
    start: float = 0.0,
    seconds: float | None = None,
    max_side: int | None = None,
    fps: float = FPS,
    threads: int = 1,
) -> Iterator[np.ndarray]:
    """Pictures (H, W, 3) uint8 RGB, upright with square pixels, ``fps`` a second from ``start`` s on.

    Args:
        path: any file that FFmpeg's libraries read.
        start: s from the video's beginning; picture 0 is at exactly ``start``.
        seconds: at most so much of it; ``None`` for all.
        max_side: scales the picture down so that its longer side is at most so many px.
        threads: of the decoder; more threads hold more pictures.

    Raises:
        InputError: not a video, zero bytes, cut off before its stated end, absurd size.
    """
    limit = None if seconds is None else max(0, round(seconds * fps))
    for count, picture in enumerate(_on_grid(path, start, max_side, fps, threads)):
        if limit is not None and count >= limit:
            return
        yield picture


def _on_grid(path: str | Path, start: float, max_side: int | None, fps: float, threads: int) -> Iterator[np.ndarray]:
    """Repeats or drops source pictures so that each grid time gets the nearest one."""
    with _opened(path) as container:
        stream = _picture_stream(container, path)
        stream.codec_context.thread_count = threads
        _seek(container, stream, start)
        held, held_time, due, last_gap = None, 0.0, 0, 1 / fps
        for time, frame in _timed(container, stream, path):
            time -= start
            if held is not None:
                last_gap = time - held_time
                # The picture in hand serves every grid time that is nearer to it than to the new one.
                picture, middle = None, (held_time + time) / 2
                while due / fps < middle:
                    picture = _picture(held, stream, max_side, path) if picture is None else picture
                    yield picture
                    due += 1
            held, held_time = frame, time
        if held is None:
            raise InputError(f"{path}: holds no picture that can be decoded; give a playable video")
        end = held_time + min(max(last_gap, 1 / fps), 1.0)
        _check_complete(container, stream, path, start + end)
        picture = None
        # Rounding of time stamps must not decide whether a last picture exists.
        while due / fps < end - 0.5 / fps:
            picture = _picture(held, stream, max_side, path) if picture is None else picture
            yield picture
            due += 1


def _timed(container: Any, stream: Any, path: str | Path) -> Iterator[tuple[float, Any]]:
    """``(seconds since the stream's start, frame)`` in order of time."""
    origin = float(stream.start_time * stream.time_base) if stream.start_time is not None else 0.0
    rate = float(stream.average_rate or FPS)
    previous = -1e9
    for number, frame in enumerate(_decoded(container, stream, path)):
        time = float(frame.time) - origin if frame.time is not None else number / rate
        if time > previous:  # a picture that claims to be older than the last one cannot be placed
            yield time, frame
            previous = time


def _decoded(container: Any, stream: Any, path: str | Path) -> Iterator[Any]:
    import av

    try:
        yield from container.decode(stream)
    except av.error.FFmpegError as error:
        raise InputError(f"{path}: is damaged, decoding stopped ({error.strerror}); give an intact file") from None


def _opened(path: str | Path) -> Any:
    import av

    file = Path(path)
    if not file.exists():
        raise InputError(f"{path}: no such file; give the path of a video")
    if file.is_dir():
        raise InputError(f"{path}: is a folder; give the path of a video")
    if file.stat().st_size == 0:
        raise InputError(f"{path}: is empty (0 bytes); give a playable video")
    try:
        return av.open(str(file), metadata_errors="ignore")
    except (av.error.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{path}: is not a video that can be read ({reason}); give a playable video") from None


def _picture_stream(container: Any, path: str | Path) -> Any:
    if not container.streams.video:
        raise InputError(f"{path}: has no video stream; give a video")
    stream = container.streams.video[0]
    width, height = stream.codec_context.width, stream.codec_context.height
    if not (0 < width <= LARGEST_SIDE and 0 < height <= LARGEST_SIDE):
        raise InputError(f"{path}: claims {width}x{height} px, expected 1 to {LARGEST_SIDE} a side; give another video")
    return stream


def _has_audio(container: Any) -> bool:
    return len(container.streams.audio) > 0


def _stated_seconds(container: Any, stream: Any) -> float:
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return container.duration / 1e6 if container.duration else 0.0


def _check_complete(container: Any, stream: Any, path: str | Path, end: float) -> None:
    """A file cut off in transfer still opens when its index is at the front; it must not pass for a short video."""
    stated = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
    if stated - end > max(TRUNCATED, 0.02 * stated):
        raise InputError(f"{path}: is cut off, it promises {stated:.1f} s and holds {end:.1f} s; copy it again")


def _seek(container: Any, stream: Any, start: float) -> None:
    if start > 0:
        origin = stream.start_time or 0
        container.seek(max(0, int(start / stream.time_base) + origin), stream=stream, backward=True)


def _rotation(frame: Any) -> int:
    return int(round(frame.rotation / 90) * 90) % 360


def _pixel_shape(stream: Any) -> float:
    shape = stream.sample_aspect_ratio
    return float(shape) if shape and 0.1 < float(shape) < 10 else 1.0


def _upright_size(frame: Any, stream: Any) -> tuple[int, int]:
    width, height = round(frame.width * _pixel_shape(stream)), frame.height
    return (height, width) if _rotation(frame) in (90, 270) else (width, height)


def _picture(frame: Any, stream: Any, max_side: int | None, path: str | Path) -> np.ndarray:
    """One frame as RGB: scaled in the decoder's own colours first, which is cheaper, then turned upright."""
    width, height = round(frame.width * _pixel_shape(stream)), frame.height
    scale = 1.0 if max_side is None else min(1.0, max_side / max(width, height))
    width, height = max(1, round(width * scale)), max(1, round(height * scale))
    if max(width, height) > LARGEST_SIDE:
        raise InputError(f"{path}: a picture of {width}x{height} px, expected at most {LARGEST_SIDE} a side")
    picture = frame.reformat(width=width, height=height, format="rgb24", interpolation="AREA").to_ndarray()
    turns = _rotation(frame) // 90
    return np.ascontiguousarray(np.rot90(picture, turns)) if turns else picture
