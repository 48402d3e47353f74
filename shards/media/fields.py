"""Deinterlacing: an interlaced frame weaves two fields (20 ms apart at 50 Hz), which shows as combs where anything moves."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, cast

from configs import InputError

if TYPE_CHECKING:
    from av import VideoFrame


def progressive(frames: Iterator[VideoFrame], path: str | Path) -> Iterator[VideoFrame]:
    """The frames, with those that are marked interlaced deinterlaced (BWDIF).

    A deinterlaced frame shows the moment of its first field; its time stamps are kept.

    Raises:
        InputError: an interlaced pixel format that cannot be deinterlaced.
    """
    deinterlacer: _Deinterlacer | None = None
    for frame in frames:
        if deinterlacer is None and not frame.interlaced_frame:
            yield frame
            continue
        form = (frame.width, frame.height, frame.format.name)
        if deinterlacer is None or deinterlacer.form != form:
            if deinterlacer is not None:
                yield from deinterlacer.finish()
            deinterlacer = _Deinterlacer(frame, form, path)
        yield from deinterlacer.push(frame)
    if deinterlacer is not None:
        yield from deinterlacer.finish()


class _Deinterlacer:
    """FFmpeg's bwdif filter, one picture out for one in, for frames of one size and pixel format."""

    def __init__(self, frame: VideoFrame, form: tuple[int, int, str], path: str | Path) -> None:
        import av
        import av.filter

        self.form, self._path = form, path
        width, height, pixels = form
        base = frame.time_base or Fraction(1, 90_000)
        try:
            self._graph = av.filter.Graph()
            source = self._graph.add(
                "buffer",
                f"video_size={width}x{height}:pix_fmt={pixels}:time_base={base.numerator}/{base.denominator}",
            )
            bwdif = self._graph.add("bwdif", "mode=send_frame:parity=auto:deint=interlaced")
            source.link_to(bwdif)
            bwdif.link_to(self._graph.add("buffersink"))
            self._graph.configure()
        except (av.error.FFmpegError, ValueError) as error:
            raise InputError(
                f"{path}: is interlaced {pixels}, which cannot be read ({error}); deinterlace it"
            ) from None

    def push(self, frame: VideoFrame) -> Iterator[VideoFrame]:
        """Pictures that have become ready: each needs the frame after it."""
        self._graph.push(frame)
        yield from self._ready()

    def finish(self) -> Iterator[VideoFrame]:
        """The rest."""
        self._graph.push(None)
        yield from self._ready()

    def _ready(self) -> Iterator[VideoFrame]:
        import av

        while True:
            try:
                yield cast("VideoFrame", self._graph.pull())
            except (av.error.BlockingIOError, av.error.EOFError):
                return
