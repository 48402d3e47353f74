"""Decoding of any video to 25 pictures a second in step with its sound: any rate, size, orientation, pixel aspect.

Time 0 is the first picture that can be decoded, as in ``shards.media.sound``. Picture k is the source picture whose time
stamp is nearest to k / 25 s, so variable rates neither drift nor jump; a picture that stays for long stays until the next, and the
last as :func:`end_of_last` says. One picture is held at a time: memory does not grow.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from configs import InputError
from shards.media.colour import ToRgb
from shards.media.container import LARGEST_SIDE, check_length, decoded, open_input, picture_stream
from shards.media.display import UPRIGHT, Orientation, orientation, pixel_aspect, square_size
from shards.media.fields import progressive
from shards.media.rates import FPS

if TYPE_CHECKING:
    from av import AudioFrame, VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

TRUNCATED = 0.5  # s that may be missing at the end before a file counts as cut off
LONGEST_STILL = 10.0  # s that the last picture may stay; a longer stated duration is ignored
LONGEST_GAP = 600.0  # s between two pictures; more is a jump of the time stamps
JUMP_BACK = 1.0  # s by which a time stamp may fall behind the previous one
MOST_AHEAD = 0.1  # s before its time at which a picture may be shown: half a step of the slowest cameras, 5 a second
LEADING = 100  # leading pictures without a stamp after which a file counts as one without stamps
# Formats in which a seek is exact. In MPEG program streams and bare streams pictures lose their time after one.
SEEKABLE = {"mov", "matroska", "mpegts", "avi", "flv"}
SEEK_MARGINS = (0.0, 2.0, 10.0)  # s before the wanted time for which a seek is tried; then all is decoded


class Timed(NamedTuple):
    """A decoded frame and when it is shown."""

    time: float  # s after the first picture
    length: float  # s as stated, 0 when the file does not say
    frame: VideoFrame
    aspect: float  # width over height of its pixels


def read_video(
    path: str | Path,
    *,
    start: float = 0.0,
    seconds: float | None = None,
    max_side: int | None = None,
    size: int | None = None,
    fps: float = FPS,
    threads: int = 1,
) -> Iterator[np.ndarray]:
    """Yields pictures ``[H, W, 3]`` uint8 RGB, upright with square pixels, ``fps`` per second, from ``start`` s on.

    Args:
        path: any file that FFmpeg's libraries read.
        start: s from the first picture; picture 0 is at exactly ``start``.
        seconds: most seconds of it; ``None`` for all.
        max_side: scale pictures down so that the longer side is at most this many px.
        size: instead, scale pictures to ``size x size``, with black bars if they are not square.
        fps: pictures per second of the output.
        threads: of the decoder; more threads hold more pictures; 0 for one per core.

    Raises:
        InputError: not a video, zero bytes, cut off before its stated end, damaged, absurd size,
            joined recordings, colours or an orientation that cannot be read.
    """
    limit = None if seconds is None else max(0, round(seconds * fps))
    if limit == 0:
        return
    show = Pictures(path, max_side, size)
    last: Timed | None = None
    for count, timed in enumerate(_on_grid(path, start, fps, threads)):
        if last is None or timed.frame is not last.frame:
            picture = show(timed)
        last = timed
        yield picture
        if limit is not None and count + 1 >= limit:
            return


def read_frames(path: str | Path, *, size: int | None = None, threads: int = 0) -> Iterator[np.ndarray]:
    """All pictures of a video, as :func:`read_video` at 25 per second, decoded on all cores."""
    return read_video(path, size=size, threads=threads)


class Pictures:
    """Makes upright RGB pictures of one size from a video's frames."""

    def __init__(self, path: str | Path, max_side: int | None = None, size: int | None = None) -> None:
        self._path, self._max_side, self._fit = path, max_side, size
        self._rgb = ToRgb(path)
        self._first: tuple[int, int] | None = None  # upright, before scaling
        self._raw: tuple[int, int, int] | None = None
        self._target = (0, 0)  # of the stored picture, not yet turned
        self._turn: Orientation = UPRIGHT

    def __call__(self, timed: Timed) -> np.ndarray:
        """``[H, W, 3]`` uint8 RGB.

        Raises:
            InputError: absurd size, or the aspect ratio changes within the video.
        """
        frame = timed.frame
        self._turn = orientation(frame, self._path)
        raw = (frame.width, frame.height, hash(self._turn))
        if raw != self._raw:
            self._raw, self._target = raw, self._scaled(timed)
        picture = self._turn.apply(self._rgb(frame, *self._target))
        return picture if self._fit is None else _centred(picture, self._fit)

    def _scaled(self, timed: Timed) -> tuple[int, int]:
        """Size of the stored picture that makes all pictures of the video equally large."""
        width, height = self._turn.upright(*square_size(timed.frame, timed.aspect))
        if self._first is None:
            self._first = width, height
        elif abs(width / height - self._first[0] / self._first[1]) > 0.02 * self._first[0] / self._first[1]:
            raise InputError(
                f"{self._path}: its pictures change from {self._first[0]}x{self._first[1]} to {width}x{height} px "
                f"at {timed.time:.1f} s; cut it there and give the parts"
            )
        width, height = self._first
        longest = self._fit or self._max_side
        scale = 1.0 if longest is None else longest / max(width, height)
        scale = min(1.0, scale) if self._fit is None else scale
        width, height = max(1, round(width * scale)), max(1, round(height * scale))
        if max(width, height) > LARGEST_SIDE:
            raise InputError(f"{self._path}: a picture of {width}x{height} px, expected at most {LARGEST_SIDE} a side")
        return self._turn.upright(width, height)


def _centred(picture: np.ndarray, size: int) -> np.ndarray:
    """The picture centred on a black square."""
    down, right = size - picture.shape[0], size - picture.shape[1]
    if not (down or right):
        return picture
    return np.pad(picture, ((down // 2, down - down // 2), (right // 2, right - right // 2), (0, 0)))


# --- time -----------------------------------------------------------------------------------------------------------


def _on_grid(path: str | Path, start: float, fps: float, threads: int) -> Iterator[Timed]:
    """Repeats or drops source pictures so that each grid time gets the nearest one."""
    held: Timed | None = None
    due, last_gap = 0, 1 / fps
    for timed in _from(path, start, threads):
        if held is not None:
            last_gap = timed.time - held.time
            # The picture in hand serves every grid time that is nearer to it than to the new one, and long before that one.
            until = max((held.time + timed.time) / 2, timed.time - MOST_AHEAD) - start
            while due / fps < until:
                yield held
                due += 1
        held = timed
    if held is None:
        raise InputError(f"{path}: contains no decodable picture; give a playable video")
    end = end_of_last(held.time, held.length, last_gap, fps) - start
    for _ in range(due, count_until(end, fps)):
        yield held


def count_until(seconds: float, fps: float) -> int:
    """Number of pictures of a video of this length at ``fps`` per second: the last lasts at least half a step."""
    # Rounding of time stamps to a microsecond must not decide whether a last picture exists.
    return math.ceil((seconds - 1e-6) * fps - 0.5)


def end_of_last(time: float, length: float, gap: float, fps: float) -> float:
    """When the last picture ends, s: after its stated length, else after as long as the one before it stayed, at most 1 s.

    Args:
        time: of the last picture, s.
        length: of the last picture as stated, s; 0 if unknown. More than ``LONGEST_STILL`` is ignored.
        gap: s between the last two pictures.
        fps: of the grid; a picture stays for at least one step of it.
    """
    stated = length if 0 < length <= LONGEST_STILL else min(gap, 1.0)
    return time + max(stated, 1 / fps)


def _from(path: str | Path, start: float, threads: int) -> Iterator[Timed]:
    """Pictures from the one shown at ``start`` s on."""
    if start <= 0:
        yield from _decoded_in_time(path, threads)
        return
    with open_input(path) as container:
        _, origin = first_frame(container, picture_stream(container, path), path)
        seekable = container.format.name.split(",")[0] in SEEKABLE
    for margin in SEEK_MARGINS:
        if start - margin <= 0 or not seekable:
            break
        pictures = _decoded_in_time(path, threads, origin, start - margin)
        first = next(pictures, None)
        # A seek in some containers lands after the wanted time, or loses the time.
        if first is not None and first.time <= start + 1e-3:
            yield first
            yield from pictures
            return
        pictures.close()
    yield from _decoded_in_time(path, threads)


def first_frame(container: InputContainer, stream: VideoStream, path: str | Path) -> tuple[VideoFrame, float]:
    """The first frame that can be decoded, and its time on the container's clock, s; moves the container's position.

    Raises:
        InputError: there is none.
    """
    first = None
    # Pictures before the container's zero have no stamps in Matroska: they are counted back from the first that has one.
    for count, frame in enumerate(decoded(container, stream, path)):
        first = frame if first is None else first
        stamp = stamp_of(frame)
        if stamp is not None:
            return first, stamp - count * _step_of(stream)
        if count >= LEADING:
            break
    if first is None:
        raise InputError(f"{path}: contains no decodable picture; give a playable video")
    return first, 0.0


def _step_of(stream: VideoStream) -> float:
    """Seconds from picture to picture as the file claims."""
    return 1 / float(stream.average_rate or FPS)


def stamp_of(frame: VideoFrame | AudioFrame) -> float | None:
    """Presentation time of a frame on the container's clock, s; ``None`` if it has no stamp."""
    ticks = frame.pts if frame.pts is not None else frame.dts
    return None if ticks is None or frame.time_base is None else float(ticks * frame.time_base)


def _decoded_in_time(
    path: str | Path, threads: int, origin: float | None = None, seek: float | None = None
) -> Generator[Timed, None, None]:
    """Frames in order of time, from the beginning or from a key frame before ``seek`` s on."""
    with open_input(path) as container:
        stream = picture_stream(container, path)
        stream.codec_context.thread_count = threads
        stream.codec_context.thread_type = "SLICE" if threads == 1 else "AUTO"
        if seek is not None and origin is not None:
            _seek(container, stream, seek + origin)
        yield from _in_order(progressive(decoded(container, stream, path), path), stream, path, origin)


def _seek(container: InputContainer, stream: VideoStream, seconds: float) -> None:
    import contextlib

    import av

    if stream.time_base is None:
        return
    with contextlib.suppress(av.error.FFmpegError):  # what cannot be sought is read from its beginning
        container.seek(int(seconds / stream.time_base), stream=stream, backward=True)


def _in_order(
    frames: Iterator[VideoFrame], stream: VideoStream, path: str | Path, origin: float | None
) -> Iterator[Timed]:
    step = _step_of(stream)
    previous: float | None = None
    last: Timed | None = None
    for frame in frames:
        stamp = stamp_of(frame)
        if origin is None:
            origin = _origin(path) if stamp is None else stamp
        time = stamp - origin if stamp is not None else 0.0 if previous is None else previous + step
        if previous is not None:
            _check_step(time - previous, previous, path)
            if time <= previous:  # a picture that claims to be older than the last one cannot be placed
                continue
        length = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else 0.0
        previous, last = time, Timed(time, length, frame, pixel_aspect(stream))
        yield last
    if last is not None:
        _check_complete(stream, path, last.time + max(last.length, step))


def _origin(path: str | Path) -> float:
    with open_input(path) as container:
        return first_frame(container, picture_stream(container, path), path)[1]


def _check_step(step: float, time: float, path: str | Path) -> None:
    if -JUMP_BACK <= step <= LONGEST_GAP:
        return
    way = "back" if step < 0 else "ahead"
    raise InputError(
        f"{path}: its time stamps jump {way} by {abs(step):.1f} s at {time:.1f} s, as in recordings that were joined; "
        "split it there, or re-encode it with ffmpeg"
    )


def _check_complete(stream: VideoStream, path: str | Path, end: float) -> None:
    """Refuse a file that was cut off in transfer: with its index at the front it still opens, as a short video."""
    stated = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
    check_length(path, stated, end, max(TRUNCATED, 0.02 * stated))
