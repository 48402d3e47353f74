"""Writing: H.264 and AAC, in sync to the sample, as MP4, or RGBA pictures with their sound.

Files are tagged with their colours (BT.709, limited range), have a key frame every two seconds and their index in front.
Nothing here holds more than a few pictures and one block of sound, whatever the length.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from configs import InputError
from heads.raster.kernels.layering import to_bytes
from shards.media.colour import ToYuv
from shards.media.container import file_url
from shards.media.inspect import FRAME_FOLDER
from shards.media.rates import FPS, SAMPLE_RATE
from shards.media.sound import stream_sound
from shards.media.tracks import sound_track

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.video.stream import VideoStream

Self = TypeVar("Self", bound="_Output")
Sound = str | Path | np.ndarray | Iterator[np.ndarray]
Mark = Callable[[np.ndarray], np.ndarray]
# Hz. Many players refuse AAC at more than 48 kHz or with more than two channels.
PLAYABLE_RATES = (16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
KEY_SECONDS = 2  # most s between key frames, to which players seek


def as_uint8(frame: np.ndarray) -> np.ndarray:
    """Pictures as uint8: floats in [0, 1] are clipped and rounded, uint8 is returned as it is."""
    frame = np.asarray(frame)
    if frame.dtype == np.uint8:
        return frame
    if frame.dtype == np.float32:
        out = np.empty(frame.shape, np.uint8)
        to_bytes(np.ascontiguousarray(frame).reshape(-1), out.reshape(-1))
        return out
    return (np.clip(frame, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)


def sound_format(path: str | Path) -> tuple[int, str]:
    """Rate (Hz) and layout of the output's AAC: the source's rate if players take it, else 48 kHz; mono or stereo.

    Raises:
        InputError: no sound in the file.
    """
    track = sound_track(path)
    rate = track.rate if track.rate in PLAYABLE_RATES else max(PLAYABLE_RATES)
    return rate, "mono" if track.channels == 1 else "stereo"


class _Output:
    """A file or folder that appears only if its ``with`` block ends without an error."""

    def close(self) -> None:
        """Finish and move into place."""
        raise NotImplementedError

    def abort(self) -> None:
        """Discard what was written."""
        raise NotImplementedError

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is not None:
            self.abort()
            return
        try:
            self.close()
        except BaseException:
            self.abort()
            raise


class VideoWriter(_Output):
    """H.264 (yuv420p) and AAC into MP4, written beside the target and renamed when closed.

    Args:
        path: the ``.mp4`` to make; an existing one is replaced only when :meth:`close` succeeds.
        width, height: of every frame, px; odd sizes are padded by one column or row, as yuv420p requires.
        tags: container metadata. ``title, comment, description, copyright, keywords`` survive remuxing.
        sound: file whose sound is muxed from its time 0, or samples ``[N]`` at 16 kHz in [-1, 1], or an iterator of blocks
            of them; cut or filled with silence to the length of the pictures.
        fps: frames per second.
        crf: x264's constant rate factor (lower is better; 18 is near transparent).
        preset: of x264.
        mark: applied to every picture ``[H, W, 3]`` uint8 before it is encoded, such as a watermark.

    Use as a context manager: an exception inside removes the unfinished file.

    Raises:
        InputError: the sound cannot be read, or the file cannot be written.
    """

    def __init__(
        self,
        path: str | Path,
        width: int,
        height: int,
        *,
        tags: Mapping[str, str] | None = None,
        sound: Sound | None = None,
        fps: int = FPS,
        crf: int = 18,
        preset: str = "veryfast",
        mark: Mark | None = None,
    ) -> None:
        import av

        self.path = Path(path)
        self.partial = self.path.with_name(f".{self.path.stem}.{os.getpid()}.partial.mp4")
        self.fps, self.frames, self.mark = fps, 0, mark
        source = None if sound is None else _sound_source(sound)
        # use_metadata_tags keeps keys that MP4 has no own atom for; faststart puts the index first.
        movflags = {"movflags": "use_metadata_tags+faststart"}
        with _telling(self.path):
            self.container = av.open(file_url(self.partial), "w", format="mp4", options=movflags)
        self.container.metadata.update(tags or {})
        self.video = self._add_pictures(width + width % 2, height + height % 2, crf, preset)
        self._sound = None if source is None else _SoundTrack(self.container, *source)
        self._yuv = ToYuv()

    def _add_pictures(self, width: int, height: int, crf: int, preset: str) -> VideoStream:
        options = {"crf": str(crf), "preset": preset}
        video = self.container.add_stream("libx264", rate=self.fps, options=options)
        video.width, video.height, video.pix_fmt = width, height, ToYuv.FORMAT
        video.time_base = Fraction(1, self.fps)
        video.codec_context.gop_size = KEY_SECONDS * self.fps
        ToYuv.tag(video.codec_context)
        return video

    def write(self, frame: np.ndarray) -> None:
        """Append one frame ``[H, W, 3]``, uint8 or float in [0, 1], and the sound up to its end."""
        frame = as_uint8(frame)
        down, right = self.video.height - frame.shape[0], self.video.width - frame.shape[1]
        if frame.ndim != 3 or frame.shape[2] != 3 or not (0 <= down <= 1 and 0 <= right <= 1):
            raise ValueError(f"frame is {frame.shape}, expected ({self.video.height}, {self.video.width}, 3)")
        if self.mark is not None:
            frame = self.mark(frame)
        if down or right:
            frame = np.pad(frame, ((0, down), (0, right), (0, 0)), mode="edge")
        picture = self._yuv(frame)
        picture.pts, picture.time_base = self.frames, Fraction(1, self.fps)
        with _telling(self.path):
            self.container.mux(self.video.encode(picture))
        self.frames += 1
        if self._sound is not None:
            with _telling(self.path):
                self._sound.write_until(self.frames / self.fps)

    def close(self) -> None:
        """Flush both streams, finish the file and move it into place."""
        with _telling(self.path):
            self.container.mux(self.video.encode(None))
            if self._sound is not None:
                self._sound.finish(self.frames / self.fps)
            self.container.close()
            os.replace(self.partial, self.path)

    def abort(self) -> None:
        """Discard the unfinished file."""
        with contextlib.suppress(Exception):
            self.container.close()
        self.partial.unlink(missing_ok=True)


@contextlib.contextmanager
def _telling(path: Path) -> Iterator[None]:
    """Turn errors of the disk and of FFmpeg into an :class:`InputError`."""
    import av

    try:
        yield
    except InputError:
        raise
    except (OSError, av.error.FFmpegError) as error:
        raise InputError(f"{path}: cannot write the video ({error}); choose another folder or free space") from None


def _sound_source(sound: Sound) -> tuple[Iterator[np.ndarray], int, str]:
    """Blocks ``[channels, n]``, their rate (Hz) and layout."""
    if isinstance(sound, np.ndarray):
        samples = np.asarray(sound, np.float32)[None]
        return (
            iter([samples[:, at : at + SAMPLE_RATE] for at in range(0, samples.shape[1], SAMPLE_RATE)]),
            SAMPLE_RATE,
            "mono",
        )
    if not isinstance(sound, (str, Path)):
        return (np.asarray(block, np.float32)[None] for block in sound), SAMPLE_RATE, "mono"
    rate, layout = sound_format(sound)
    return stream_sound(sound, rate=rate, layout=layout), rate, layout


class _SoundTrack:
    """The AAC stream of a :class:`VideoWriter`: sound is decoded only as far as the pictures have come."""

    def __init__(self, container: OutputContainer, blocks: Iterator[np.ndarray], rate: int, layout: str) -> None:
        self.container, self.blocks, self.rate, self.layout = container, blocks, rate, layout
        self.stream = container.add_stream("aac", rate=rate, layout=layout)
        self.stream.bit_rate = 96_000 if layout == "mono" else 160_000
        self.held = np.zeros((1 if layout == "mono" else 2, 0), np.float32)
        self.written, self.ended = 0, False

    def write_until(self, seconds: float, pad: bool = False) -> None:
        """Encode what lies before ``seconds``; fill with silence where nothing is left and ``pad`` is set."""
        due = round(seconds * self.rate) - self.written
        while self.held.shape[1] < due and not self.ended:
            block = next(self.blocks, None)
            if block is None:
                self.ended = True
            else:
                self.held = np.concatenate([self.held, block], axis=1)
        if pad and self.held.shape[1] < due:
            self.held = np.pad(self.held, ((0, 0), (0, due - self.held.shape[1])))
        self._encode(self.held[:, :due])
        self.held = self.held[:, due:]

    def _encode(self, samples: np.ndarray) -> None:
        import av

        if not samples.shape[1]:
            return
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=self.layout)
        frame.rate, frame.pts, frame.time_base = self.rate, self.written, Fraction(1, self.rate)
        self.written += samples.shape[1]
        self.container.mux(self.stream.encode(frame))

    def finish(self, seconds: float) -> None:
        """Encode the rest up to ``seconds``."""
        self.write_until(seconds, pad=True)
        if hasattr(self.blocks, "close"):
            self.blocks.close()
        self.container.mux(self.stream.encode(None))


class FrameFolderWriter(_Output):
    """RGBA pictures ``000000.png``, ..., with ``provenance.json`` and the sound; renamed into place when closed.

    Args:
        path: the folder to make.
        tags: text that every picture carries.
        record: content of ``provenance.json``.
        sound: file whose sound is written as ``audio.wav``, as long as the pictures.
        mark: applied to every picture ``[H, W, 4]`` uint8.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        tags: Mapping[str, str],
        record: Mapping[str, object],
        sound: str | Path | None = None,
        mark: Mark | None = None,
    ) -> None:
        self.path, self.mark = Path(path), mark
        self.partial = self.path.with_name(f".{self.path.name}.{os.getpid()}.partial")
        self.partial.mkdir(parents=True)
        self.tags, self.record, self.sound, self.frames = dict(tags), dict(record), sound, 0

    def write(self, frame: np.ndarray) -> None:
        """Append one frame ``[H, W, 4]``: straight (not premultiplied) RGBA, uint8 or float in [0, 1]."""
        from PIL import Image, PngImagePlugin

        notes = PngImagePlugin.PngInfo()
        for key, value in self.tags.items():
            notes.add_text(key, value)
        target, frame = self.partial / f"{self.frames:06d}.png", as_uint8(frame)
        if self.mark is not None:
            frame = self.mark(frame)
        Image.fromarray(frame, "RGBA").save(target, pnginfo=notes, compress_level=3)
        self.frames += 1

    def close(self) -> None:
        """Write the sound and ``provenance.json`` and move the folder into place."""
        (self.partial / FRAME_FOLDER).write_text(json.dumps(self.record, indent=2))
        if self.sound is not None:
            _write_wav(self.partial / "audio.wav", self.sound, self.frames / FPS)
        if self.path.is_dir():
            shutil.rmtree(self.path)
        os.replace(self.partial, self.path)

    def abort(self) -> None:
        """Discard the unfinished folder."""
        shutil.rmtree(self.partial, ignore_errors=True)


def _write_wav(path: Path, sound: str | Path, seconds: float) -> None:
    """The first ``seconds`` of a file's sound."""
    import soundfile

    rate, layout = sound_format(sound)
    left = round(seconds * rate)
    with soundfile.SoundFile(str(path), "w", rate, {"mono": 1, "stereo": 2}[layout]) as file:
        for block in stream_sound(sound, rate=rate, layout=layout):
            file.write(block[:, :left].T)
            left -= min(left, block.shape[1])
            if not left:
                break
