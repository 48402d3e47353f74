"""A quick look into a file: its tags, and some of its frames in grey, as stored and not resampled to 25 per second."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from configs import InputError
from shards.media.container import file_url

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

Size = Callable[[int, int], tuple[int, int]]
VIDEOS = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".gif", ".ts"})
PICTURES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})
SOUNDS = frozenset({".wav", ".mp3", ".flac", ".m4a", ".ogg"})
MODELS = frozenset({".ply", ".glb", ".spz", ".usda", ".usdc", ".usdz"})
# A folder of frames as `talk --frames` writes it.
FRAME_FOLDER = "provenance.json"


@dataclass(frozen=True, kw_only=True)
class Media:
    """An open file.

    Attributes:
        tags: metadata of container, streams and PNG text, keys in lower case.
        height, width: of the stored frames, px; 0 if there are none.
        frames: luma ``[h, w]`` uint8 of the size that the caller requested.
    """

    tags: dict[str, str]
    height: int = 0
    width: int = 0
    frames: Iterator[np.ndarray]


@contextmanager
def open_media(path: Path, most: int, size: Size) -> Iterator[Media]:
    """Open a video, picture, sound or folder of frames; about ``most`` frames are given, spread over the whole.

    Args:
        size: function from the height and width of a stored frame to the wanted ones, px.

    Raises:
        InputError: unreadable, or pictures of which none can be decoded.
    """
    if path.is_dir():
        yield _frame_folder(path, most, size)
    elif path.suffix.lower() in PICTURES:
        yield _picture(path, size)
    elif path.suffix.lower() in MODELS:
        yield Media(tags={}, frames=iter(()))
    else:
        with _container(path) as container:
            yield _video(path, container, most, size)


def _container(path: Path) -> InputContainer:
    import av

    try:
        return av.open(file_url(path))
    except (av.error.FFmpegError, ValueError) as error:
        raise InputError(f"{path}: not readable as video, picture or sound ({error.__class__.__name__})") from None


def _video(path: Path, container: InputContainer, most: int, size: Size) -> Media:
    tags = _lower(dict(container.metadata))
    for stream in container.streams:
        tags = {**_lower(dict(stream.metadata)), **tags}
    if not container.streams.video:
        return Media(tags=tags, frames=iter(()))
    stream = container.streams.video[0]
    if not (stream.height and stream.width):
        raise InputError(f"{path}: no picture can be decoded; the file is damaged or truncated")
    frames = _decoded(path, container, stream, most, size)
    return Media(tags=tags, height=stream.height, width=stream.width, frames=frames)


def _decoded(path: Path, container: InputContainer, stream: VideoStream, most: int, size: Size) -> Iterator[np.ndarray]:
    """Every n-th frame, about ``most`` of the whole video; ends without an error where the file is damaged."""
    import av

    stream.thread_type = "AUTO"
    rows, columns = size(stream.height, stream.width)
    seconds = float(container.duration or 0) / 1e6
    count = stream.frames or round(seconds * float(stream.average_rate or 25))
    every, seen = max(1, count // most), 0
    try:
        for frame in container.decode(stream):
            if seen % every == 0:
                yield frame.reformat(columns, rows, format="gray", interpolation="AREA").to_ndarray()
            seen += 1
    except av.error.FFmpegError:
        pass
    if not seen:
        raise InputError(f"{path}: no picture can be decoded; the file is damaged or truncated")


def _picture(path: Path, size: Size) -> Media:
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.load()
            tags = {str(key): _text(value) for key, value in image.info.items() if isinstance(value, (str, bytes))}
            flat = image.convert("L") if image.mode != "P" else image.convert("RGB").convert("L")
            rows, columns = size(image.height, image.width)
            small = flat.resize((columns, rows), Image.Resampling.BOX)
            frames = iter([np.asarray(small)])
            return Media(tags=_lower(tags), height=image.height, width=image.width, frames=frames)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: not readable as a picture ({error.__class__.__name__})") from None


def _frame_folder(folder: Path, most: int, size: Size) -> Media:
    names = sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURES)
    if not names:
        raise InputError(
            f"{folder}: contains {FRAME_FOLDER} but no images; give a folder that a completed `talk` wrote"
        )
    first = _picture(names[0], size)
    tags = {"headstart_provenance": (folder / FRAME_FOLDER).read_text(errors="replace"), **first.tags}
    chosen = names[:: max(1, len(names) // most)]

    def frames() -> Iterator[np.ndarray]:
        for name in chosen:
            picture = _picture(name, size)
            if (picture.height, picture.width) == (first.height, first.width):
                yield from picture.frames

    return Media(tags=tags, height=first.height, width=first.width, frames=frames())


def _lower(tags: dict[str, str]) -> dict[str, str]:
    return {key.lower(): value for key, value in tags.items()}


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "replace")
