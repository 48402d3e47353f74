"""Videos in and out: H.264 + AAC in sync to the sample, with provenance; RGBA frames; plain readers.

Times are in seconds from the container's zero; frames are RGB uint8 ``[H, W, 3]``. Nothing here holds more than a
few frames and one block of audio, whatever the length.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from adapt.avatar.provenance import Provenance, parse_tags
from configs import InputError

Self = TypeVar("Self", bound="_Output")
FPS = 25
# AAC at more than 48 kHz or with more than two channels is refused by many players.
MAX_RATE = 48_000


def as_uint8(frame: np.ndarray) -> np.ndarray:
    """Frames in [0, 1] float or uint8 -> uint8, rounded, without wrapping."""
    frame = np.asarray(frame)
    if frame.dtype == np.uint8:
        return frame
    return (np.clip(frame, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)


def open_media(path: str | Path) -> Any:
    """A PyAV input container.

    Raises:
        InputError: no such file, or not a media file.
    """
    import av

    path = Path(path)
    if not path.is_file():
        why = "is a folder" if path.is_dir() else "no such file"
        raise InputError(f"{path}: {why}; give the path of a video or audio file")
    try:
        return av.open(str(path))
    except (av.error.FFmpegError, ValueError) as error:
        raise InputError(f"{path}: not readable as video or audio ({error.__class__.__name__}); convert it") from None


def video_info(path: str | Path) -> dict[str, Any]:
    """``width, height, fps, frames (estimate), seconds, audio (bool), provenance`` of a video.

    Raises:
        InputError: unreadable, or without a picture stream.
    """
    with open_media(path) as container:
        if not container.streams.video:
            raise InputError(f"{path}: holds no pictures; give a video file")
        stream = container.streams.video[0]
        seconds = float(container.duration or 0) / 1e6
        fps = float(stream.average_rate or FPS)
        return {
            "width": stream.width,
            "height": stream.height,
            "fps": fps,
            "frames": stream.frames or round(seconds * fps),
            "seconds": seconds,
            "audio": bool(container.streams.audio),
            "provenance": parse_tags(dict(container.metadata)),
        }


def read_frames(path: str | Path, *, fps: float | None = FPS, size: int | None = None) -> Iterator[np.ndarray]:
    """Stream the frames ``[H, W, 3]`` uint8 of a video.

    Args:
        fps: resample in time by nearest earlier frame; ``None`` keeps every frame as it is.
        size: scale to ``size x size``; ``None`` keeps the video's own.
    """
    with open_media(path) as container:
        if not container.streams.video:
            raise InputError(f"{path}: holds no pictures; give a video file")
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        due, held = 0, None
        for frame in container.decode(stream):
            if fps is None:
                yield _rgb(frame, size)
                continue
            # Frame k of the output shows what is on screen at (k + 1/2) / fps, so rounding of times cannot drop one.
            while held is not None and (due + 0.5) / fps < float(frame.time or 0.0):
                yield _rgb(held, size)
                due += 1
            held = frame
        if held is not None and fps is not None:
            end = float(held.time or 0.0) + 1.0 / float(stream.average_rate or fps)
            while (due + 0.5) / fps < end:
                yield _rgb(held, size)
                due += 1


def read_frames_from(path: str | Path, first: int, count: int, *, fps: int = FPS) -> Iterator[tuple[int, np.ndarray]]:
    """Frames ``first .. first + count - 1`` of a video at constant ``fps`` with their numbers, by seeking."""
    with open_media(path) as container:
        stream = container.streams.video[0]
        container.seek(int(first / fps / stream.time_base), stream=stream, backward=True)
        for frame in container.decode(stream):
            number = round(float(frame.time or 0.0) * fps)
            if number >= first + count:
                return
            if number >= first:
                yield number, frame.to_ndarray(format="rgb24")


def _rgb(frame: Any, size: int | None) -> np.ndarray:
    if size is not None and (frame.width, frame.height) != (size, size):
        frame = frame.reformat(width=size, height=size, format="rgb24", interpolation="AREA")
    return frame.to_ndarray(format="rgb24")


def stream_sound(path: str | Path, *, rate: int, layout: str = "mono") -> Iterator[np.ndarray]:
    """Decode, mix and resample sound, block by block, from time zero.

    Yields:
        ``[channels, n]`` float32 in [-1, 1]. Sample ``i`` is at ``i / rate`` seconds after the first picture (or the
        first sound, where there is no picture), as in ``shards.media.sound``: a late start is filled with silence, an early
        one cut; the encoder's priming samples are dropped by the decoder (edit list).

    Raises:
        InputError: no sound in the file.
    """
    import av

    with open_media(path) as container:
        if not container.streams.audio:
            raise InputError(f"{path}: holds no sound; give a file with an audio stream")
        stream = container.streams.audio[0]
        resampler = av.AudioResampler(format="fltp", layout=layout, rate=rate)
        channels = {"mono": 1, "stereo": 2}[layout]
        origin, skip = _origin(container), None
        try:
            for frame in container.decode(stream):
                if skip is None:
                    late = round((float(frame.time or 0.0) - origin) * rate)
                    skip = max(0, -late)
                    if late > 0:
                        yield np.zeros((channels, late), np.float32)
                frame.pts = None
                for block in resampler.resample(frame):
                    samples = block.to_ndarray()[:, skip:]
                    skip -= min(skip, block.samples)
                    yield samples
            if skip is not None:
                for block in resampler.resample(None):
                    yield block.to_ndarray()[:, skip:]
        except av.error.FFmpegError as error:
            raise InputError(f"{path}: the sound breaks off ({error.__class__.__name__}); re-encode it") from None


def _origin(container: Any) -> float:
    """Seconds on the container's clock at which the first picture (or the first sound) is due."""
    stream = (container.streams.video or container.streams.audio)[0]
    return float(stream.start_time * stream.time_base) if stream.start_time is not None else 0.0


def sound_format(path: str | Path) -> tuple[int, str]:
    """Rate and layout for the output's AAC: the source's own where players can take it, else 48 kHz stereo."""
    with open_media(path) as container:
        if not container.streams.audio:
            raise InputError(f"{path}: holds no sound; give a file with an audio stream")
        stream = container.streams.audio[0]
        rate = stream.rate if stream.rate in (16_000, 22_050, 24_000, 32_000, 44_100, 48_000) else MAX_RATE
        return rate, "mono" if stream.channels == 1 else "stereo"


class _Output:
    """A file or folder that appears when all went well: what a ``with`` block does at its end."""

    def close(self) -> None:
        raise NotImplementedError

    def abort(self) -> None:
        raise NotImplementedError

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()


class VideoWriter(_Output):
    """H.264 (yuv420p) and AAC into MP4, written beside the target and renamed when closed.

    Args:
        path: the ``.mp4`` to make; an existing one is replaced only when :meth:`close` succeeds.
        width, height: of every frame, px; odd sizes are padded by one column or row, as yuv420p demands.
        provenance: carried in the container's metadata.
        sound: file whose audio is muxed, from its time zero, cut to the length of the pictures.
        crf: x264's constant rate factor (lower is better; 18 is near transparent).

    Use as a context manager: an exception inside removes the unfinished file.
    """

    def __init__(
        self,
        path: str | Path,
        width: int,
        height: int,
        *,
        provenance: Provenance | None = None,
        sound: str | Path | None = None,
        fps: int = FPS,
        crf: int = 18,
        preset: str = "veryfast",
    ) -> None:
        import av

        self.path = Path(path)
        self.partial = self.path.with_name(f".{self.path.stem}.{os.getpid()}.partial.mp4")
        self.fps, self.frames, self._sound = fps, 0, None
        # use_metadata_tags keeps keys that MP4 has no own atom for; faststart puts the index first.
        self.container = av.open(str(self.partial), "w", options={"movflags": "use_metadata_tags+faststart"})
        if provenance is not None:
            self.container.metadata.update(provenance.tags())
        self.video = self.container.add_stream("libx264", rate=fps, options={"crf": str(crf), "preset": preset})
        self.video.width, self.video.height = width + width % 2, height + height % 2
        self.video.pix_fmt = "yuv420p"
        self.video.time_base = Fraction(1, fps)
        if sound is not None:
            self._sound = _SoundTrack(self.container, Path(sound))

    def write(self, frame: np.ndarray) -> None:
        """Append one frame ``[H, W, 3]``, uint8 or float in [0, 1], and the sound up to its end."""
        import av

        frame = as_uint8(frame)
        down, right = self.video.height - frame.shape[0], self.video.width - frame.shape[1]
        if frame.ndim != 3 or frame.shape[2] != 3 or not (0 <= down <= 1 and 0 <= right <= 1):
            raise ValueError(f"frame is {frame.shape}, expected ({self.video.height}, {self.video.width}, 3)")
        if down or right:
            frame = np.pad(frame, ((0, down), (0, right), (0, 0)), mode="edge")
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        picture.pts, picture.time_base = self.frames, Fraction(1, self.fps)
        self.container.mux(self.video.encode(picture))
        self.frames += 1
        if self._sound is not None:
            self._sound.write_until(self.frames / self.fps)

    def close(self) -> None:
        """Flush both streams, finish the file and move it into place."""
        self.container.mux(self.video.encode(None))
        if self._sound is not None:
            self._sound.finish(self.frames / self.fps)
        self.container.close()
        os.replace(self.partial, self.path)

    def abort(self) -> None:
        """Throw the unfinished file away."""
        import contextlib

        with contextlib.suppress(Exception):
            self.container.close()
        self.partial.unlink(missing_ok=True)


class _SoundTrack:
    """The AAC stream of a :class:`VideoWriter`: sound is decoded only as far as the pictures have come."""

    def __init__(self, container: Any, source: Path) -> None:
        self.container = container
        self.rate, self.layout = sound_format(source)
        self.stream = container.add_stream("aac", rate=self.rate, layout=self.layout)
        self.stream.bit_rate = 96_000 if self.layout == "mono" else 160_000
        self.blocks = stream_sound(source, rate=self.rate, layout=self.layout)
        self.channels = 1 if self.layout == "mono" else 2
        self.held = np.zeros((self.channels, 0), np.float32)
        self.written, self.ended = 0, False

    def write_until(self, seconds: float, pad: bool = False) -> None:
        wanted = round(seconds * self.rate) - self.written
        while self.held.shape[1] < wanted and not self.ended:
            block = next(self.blocks, None)
            if block is None:
                self.ended = True
            else:
                self.held = np.concatenate([self.held, block], axis=1)
        if pad and self.held.shape[1] < wanted:
            self.held = np.pad(self.held, ((0, 0), (0, wanted - self.held.shape[1])))
        self._encode(self.held[:, :wanted])
        self.held = self.held[:, wanted:]

    def _encode(self, samples: np.ndarray) -> None:
        import av

        if not samples.shape[1]:
            return
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=self.layout)
        frame.rate, frame.pts, frame.time_base = self.rate, self.written, Fraction(1, self.rate)
        self.written += samples.shape[1]
        self.container.mux(self.stream.encode(frame))

    def finish(self, seconds: float) -> None:
        self.write_until(seconds, pad=True)
        self.blocks.close()
        self.container.mux(self.stream.encode(None))


class FrameFolderWriter(_Output):
    """RGBA frames ``000000.png``, ..., with ``provenance.json`` and the sound; renamed into place when closed."""

    def __init__(self, path: str | Path, *, provenance: Provenance, sound: str | Path | None = None) -> None:
        self.path = Path(path)
        self.partial = self.path.with_name(f".{self.path.name}.{os.getpid()}.partial")
        self.partial.mkdir(parents=True)
        self.provenance, self.sound, self.frames = provenance, sound, 0

    def write(self, frame: np.ndarray) -> None:
        """Append one frame ``[H, W, 4]``: straight (not premultiplied) RGBA, uint8 or float in [0, 1]."""
        from PIL import Image, PngImagePlugin

        notes = PngImagePlugin.PngInfo()
        for key, value in self.provenance.tags().items():
            notes.add_text(key, value)
        Image.fromarray(as_uint8(frame), "RGBA").save(
            self.partial / f"{self.frames:06d}.png", pnginfo=notes, compress_level=3
        )
        self.frames += 1

    def close(self) -> None:
        import soundfile

        (self.partial / "provenance.json").write_text(json.dumps(self.provenance.as_dict(), indent=2))
        if self.sound is not None:
            rate, layout = sound_format(self.sound)
            left = round(self.frames / FPS * rate)
            with soundfile.SoundFile(
                str(self.partial / "audio.wav"), "w", rate, {"mono": 1, "stereo": 2}[layout]
            ) as file:
                for block in stream_sound(self.sound, rate=rate, layout=layout):
                    file.write(block[:, :left].T)
                    left -= min(left, block.shape[1])
                    if not left:
                        break
        os.replace(self.partial, self.path)

    def abort(self) -> None:
        import shutil

        shutil.rmtree(self.partial, ignore_errors=True)
