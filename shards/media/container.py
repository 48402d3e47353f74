"""Opening a media file, choosing its video stream, and decoding; what cannot be read is refused in one sentence."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, cast, overload

from configs import InputError, progress
from configs.words import counted

if TYPE_CHECKING:
    from av import AudioFrame, Packet, VideoFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.video.stream import VideoStream

VIDEO_ENDINGS = frozenset(
    f".{ending}"
    for ending in "avi flv m2ts m4v mkv mov mp4 mpeg mpg mts mxf ogv ts webm wmv 3gp".split()  # noqa: SIM905
)
SOUND_ENDINGS = frozenset((".wav", ".flac", ".m4a", ".mp3", ".aac", ".ogg", ".opus"))
LARGEST_SIDE = 16_384  # px that a header may claim before we refuse to allocate for it
DAMAGED_SECONDS = 1.0  # of pictures or sound that may be undecodable before a file is refused as damaged


def open_input(path: str | Path, kind: str = "video") -> InputContainer:
    """A PyAV input container, to be used as a context manager.

    Args:
        kind: what is expected, ``video`` or ``sound``, for the error's sentence.

    Raises:
        InputError: no such file, a folder, empty, or no media file.
    """
    import av

    file, wanted = Path(path), {"video": "a video", "sound": "a video or sound file"}[kind]
    if not file.exists():
        raise InputError(f"{path}: no such file; give the path of {wanted}")
    if file.is_dir():
        raise InputError(f"{path}: is a folder; give the path of {wanted}")
    if file.stat().st_size == 0:
        raise InputError(f"{path}: is empty (0 bytes); give {wanted} that plays")
    try:
        return av.open(file_url(file), metadata_errors="ignore")
    except (av.error.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{path}: is not {wanted} that can be read ({reason}); convert it or give another") from None


def check_length(path: str | Path, promised: float, held: float, missing: float) -> None:
    """Refuse a file that a transfer cut off: it opens, as something shorter.

    Args:
        promised, held: seconds, by its header and in fact.
        missing: seconds that may be missing.

    Raises:
        InputError: more is missing.
    """
    if promised - held > missing:
        raise InputError(f"{path}: is cut off, it promises {promised:.1f} s and holds {held:.1f} s; copy it again")


def file_url(path: str | Path) -> str:
    """A local file as a URL for FFmpeg, which otherwise takes a name with a colon for a protocol."""
    return f"file:{path}"


def find_pictures(container: InputContainer) -> VideoStream | None:
    """The picture stream: FFmpeg's choice among those that are no cover art, else ``None``."""
    streams = [
        stream for stream in container.streams.video if not is_cover(stream) and stream.codec_context is not None
    ]
    if not streams:
        return None
    best = container.streams.best("video")
    return next((stream for stream in streams if best is not None and stream.index == best.index), streams[0])


def is_cover(stream: VideoStream) -> bool:
    """Whether a stream is an attached picture, as in music files, and no video."""
    from av.stream import Disposition

    return bool(stream.disposition & Disposition.attached_pic)


def picture_stream(container: InputContainer, path: str | Path) -> VideoStream:
    """The stream of :func:`find_pictures`, or an error.

    Raises:
        InputError: no pictures, an unknown codec, an animated WebP, or a side of 0 or more than ``LARGEST_SIDE`` px.
    """
    stream = find_pictures(container)
    if stream is None and any(other.codec_context is None for other in container.streams.video):
        raise InputError(f"{path}: its pictures are in a codec that FFmpeg does not know; convert it to H.264")
    if stream is None:
        raise InputError(f"{path}: has no video stream; give a video")
    width, height = stream.codec_context.width, stream.codec_context.height
    if not width and stream.codec_context.name == "webp":
        # FFmpeg 8.1 decodes still WebP alone; of an animated one it skips the frames.
        script = f"from PIL import Image; Image.open({str(path)!r}).save('clip.png', save_all=True)"
        raise InputError(
            f"{path}: is an animated WebP, which FFmpeg cannot decode; make an animated PNG of it, such as with "
            f"python -c {shlex.quote(script)}, and give that"
        )
    if not (0 < width <= LARGEST_SIDE and 0 < height <= LARGEST_SIDE):
        raise InputError(
            f"{path}: claims pictures of {width}x{height} px, expected 1 to {LARGEST_SIDE} a side; give another video"
        )
    return stream


@overload
def decoded(container: InputContainer, stream: VideoStream, path: str | Path) -> Iterator[VideoFrame]: ...


@overload
def decoded(container: InputContainer, stream: AudioStream, path: str | Path) -> Iterator[AudioFrame]: ...


def decoded(
    container: InputContainer, stream: VideoStream | AudioStream, path: str | Path
) -> Iterator[VideoFrame | AudioFrame]:
    """Decoded frames of a stream. A packet that cannot be decoded is skipped, as players do.

    Raises:
        InputError: the file cannot be read further, or more than ``DAMAGED_SECONDS`` of it cannot be decoded.
    """
    import av

    damage = _Damage(stream, path)
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.error.FFmpegError as error:
            raise InputError(f"{path}: is damaged, reading stopped ({error.strerror}); give an intact file") from None
        if packet is None:
            break
        try:
            frames = cast("list[VideoFrame | AudioFrame]", packet.decode())
        except av.error.FFmpegError as error:
            damage.note(packet, error)
            continue
        for frame in frames:
            if frame.is_corrupt:
                damage.note(packet, None)
            else:
                yield frame
    damage.tell()


class _Damage:
    """Counts what cannot be decoded, and raises when it is too much."""

    def __init__(self, stream: VideoStream | AudioStream, path: str | Path) -> None:
        self._stream, self._path = stream, path
        self._seconds, self._count = 0.0, 0

    def note(self, packet: Packet, error: object) -> None:
        """Count one lost packet or frame."""
        self._count += 1
        length = float(packet.duration * packet.time_base) if packet.duration and packet.time_base else 0.04
        self._seconds += min(length, 1.0)
        if self._seconds > DAMAGED_SECONDS:
            reason = getattr(error, "strerror", None) or "corrupt data"
            raise InputError(
                f"{self._path}: is damaged, more than {DAMAGED_SECONDS:g} s of its {self._stream.type} cannot be "
                f"decoded ({reason}); give an intact file"
            )

    def tell(self) -> None:
        """Say how much was left out."""
        if self._count:
            pieces = counted(self._count, "damaged piece")
            verb = "was" if self._count == 1 else "were"
            progress.warn(f"{self._path}: {pieces} of its {self._stream.type}, {self._seconds:.2f} s, {verb} left out")
