"""What a media file holds: upright size, length of its pictures, sound, tags."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from shards.media.container import open_input, picture_stream
from shards.media.decode import count_until, end_of_last, first_frame
from shards.media.display import Orientation, orientation, pixel_aspect, square_size
from shards.media.memo import once_per_file
from shards.media.rates import FPS

if TYPE_CHECKING:
    from av.container import InputContainer


@dataclass(frozen=True)
class VideoInfo:
    """Properties of a video.

    Attributes:
        width, height: px, upright with square pixels.
        orientation: what makes the stored picture upright.
        fps: average rate of the source's own pictures.
        seconds: from the first picture to the end of the last.
        frames: how many pictures :func:`shards.media.decode.read_video` gives at 25 a second.
        has_audio: whether there is a sound track; it may be silent.
        tags: the container's metadata, keys in lower case.
    """

    width: int
    height: int
    orientation: Orientation
    fps: float
    seconds: float
    frames: int
    has_audio: bool
    tags: Mapping[str, str] = field(default_factory=dict)


@once_per_file
def video_info(path: str | Path) -> VideoInfo:
    """Reads the first picture and the time stamps of all; cached until the file changes.

    Raises:
        InputError: not a video that can be decoded.
    """
    with open_input(path) as container:
        stream = picture_stream(container, path)
        frame, origin = first_frame(container, stream, path)
        turn = orientation(frame, path)
        width, height = turn.upright(*square_size(frame, pixel_aspect(stream)))
        rate = float(stream.average_rate or stream.guessed_rate or 0)
        has_audio, tags = len(container.streams.audio) > 0, container_tags(container)
    seconds, count = _length(path, origin, rate or FPS)
    frames = max(1, count_until(seconds, FPS))
    return VideoInfo(width, height, turn, rate or count / max(seconds, 1e-3), seconds, frames, has_audio, tags)


def container_tags(container: InputContainer) -> dict[str, str]:
    """Metadata of the container and its streams, keys in lower case: Matroska writes them in capitals."""
    tags: dict[str, str] = {}
    for holder in (*container.streams, container):
        tags.update({key.lower(): value for key, value in holder.metadata.items()})
    return tags


def _length(path: str | Path, origin: float, rate: float) -> tuple[float, int]:
    """Seconds from ``origin`` to the end of the last picture by its packets' stamps, and the number of packets."""
    last = before = None
    length, count = 0.0, 0
    with open_input(path) as container:
        stream = picture_stream(container, path)
        for packet in container.demux(stream):
            if not packet.size or packet.is_discard:
                continue
            ticks = packet.pts if packet.pts is not None else packet.dts
            time = count / rate if ticks is None else float(ticks * packet.time_base) - origin
            count += 1
            if last is None or time > last:
                before, last = last, time
                length = float(packet.duration * packet.time_base) if packet.duration else 0.0
            elif before is None or time > before:
                before = time
    last = 0.0 if last is None else last
    gap = last - before if before is not None else 1 / FPS
    return end_of_last(last, length, gap, FPS), count
