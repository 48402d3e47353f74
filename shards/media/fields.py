"""Interlaced pictures: two half pictures 20 ms apart in one frame, woven into combs where anything moves."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, cast

from configs import InputError

if TYPE_CHECKING:
    from av import VideoFrame


def progressive(frames: Iterator[VideoFrame], path: str | Path) -> Iterator[VideoFrame]:
    """Frames with those that say that they are interlaced replaced by whole pictures (BWDIF), the others as they are.

    A frame that was interlaced shows the moment of its first field; its stamps stay.

    Raises:
        InputError: interlaced pictures of a form that cannot be taken apart.
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
    """FFmpeg's bwdif filter, one picture out for one in, for frames of one form."""

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
        """Whole pictures that have become ready: each needs the frame after it."""
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
