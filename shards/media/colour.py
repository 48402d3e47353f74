"""From a decoder's colours to RGB: the matrix and range that a frame is in, correctly rounded; and from RGB to YUV."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from configs import InputError
from shards.media import yuv
from shards.media.hdr import ToneMap, is_wide, light_range

if TYPE_CHECKING:
    from av import VideoCodecContext, VideoFrame

HIGH_DEFINITION = 720  # rows from which players take untagged video for BT.709 (Chromium's rule), below for BT.601

BT709, BT601, BT2020 = 1, 5, 9  # SWS_CS_*, the converter's numbers of matrices
# AVCOL_SPC_* of a frame -> SWS_CS_*.
_MATRICES = {1: BT709, 4: 4, 5: BT601, 6: BT601, 7: 7, 9: BT2020, 10: BT2020}

# AVCOL_SPC_* that FFmpeg's converter does not know; it would silently use another.
UNKNOWN = {8: "YCgCo", 11: "YDzDx", 13: "chroma-derived", 14: "ICtCp", 15: "Dolby Vision's IPT"}


def matrix_of(frame: VideoFrame) -> int:
    """The YUV matrix of a frame, as the converter's number (``SWS_CS_*``); guessed by primaries and height if untagged."""
    known = _MATRICES.get(int(frame.colorspace))
    if known is None and int(frame.color_primaries) == 9:
        return BT2020
    return known or (BT709 if frame.height >= HIGH_DEFINITION else BT601)


class ToRgb:
    """Converts frames of one video to BT.709 RGB uint8, scaled; keeps the converter between frames."""

    def __init__(self, path: str | Path) -> None:
        from av.video.reformatter import Interpolation, VideoReformatter

        self._path = path
        # Without both flags the result is 1 to 1.5 levels too dark, with one of them alone worse.
        self._flags = Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
        self._reformatter = VideoReformatter()
        self._map: tuple[tuple[int, ...], ToneMap] | None = None
        # Formats that were converted both ways once, and whether the fast way gave the same picture.
        self._agree: dict[tuple[int, int, str, int, int], bool] = {}

    def __call__(self, frame: VideoFrame, width: int, height: int) -> np.ndarray:
        """``[height, width, 3]`` uint8 RGB.

        Raises:
            InputError: colours that cannot be converted.
        """
        if is_wide(frame):
            return self._tone_map(frame, width, height)(self._planes(frame, width, height, ToneMap.FORMAT))
        if not yuv.converts(frame, width, height) or int(frame.colorspace) in UNKNOWN:
            return self._exact(frame, width, height)
        form = (width, height, frame.format.name, int(frame.color_range), matrix_of(frame))
        if form not in self._agree:
            exact = self._exact(frame, width, height)
            if yuv.tells(frame):
                self._agree[form] = yuv.agrees(yuv.to_rgb(frame, matrix_of(frame)), exact)
            return exact
        return yuv.to_rgb(frame, matrix_of(frame)) if self._agree[form] else self._exact(frame, width, height)

    def _exact(self, frame: VideoFrame, width: int, height: int) -> np.ndarray:
        # Planar RGB has the same values as rgb24 and takes half the time.
        return self._planes(frame, width, height, "gbrp").to_ndarray()

    def _planes(self, frame: VideoFrame, width: int, height: int, form: str) -> VideoFrame:
        import av

        matrix = int(frame.colorspace)
        if matrix in UNKNOWN:
            raise InputError(
                f"{self._path}: its colours are {UNKNOWN[matrix]}, which cannot be read; convert it to H.264"
            )
        try:
            return self._reformatter.reformat(
                frame,
                width=width,
                height=height,
                format=form,
                src_colorspace=None if frame.format.is_rgb else matrix_of(frame),
                interpolation=self._flags,
                threads=1,  # workers share the cores already
            )
        except (av.error.FFmpegError, ValueError) as error:
            name = frame.format.name
            raise InputError(f"{self._path}: pictures of form {name} cannot be read ({error}); convert it") from None

    def _tone_map(self, frame: VideoFrame, width: int, height: int) -> ToneMap:
        key = (width, height, int(frame.color_trc), int(frame.color_primaries))
        if self._map is None or self._map[0] != key:
            self._map = key, ToneMap(*key, light_range(self._path))
        return self._map[1]


class ToYuv:
    """Converts RGB pictures to the YUV that our files are tagged with: BT.709, limited range, 4:2:0."""

    FORMAT = "yuv420p"

    def __init__(self) -> None:
        from av.video.reformatter import Interpolation, VideoReformatter

        self._flags = Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INP
        self._reformatter = VideoReformatter()

    def __call__(self, picture: np.ndarray) -> VideoFrame:
        """A frame of ``[H, W, 3]`` uint8 RGB with even sides."""
        import av

        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        converted = self._reformatter.reformat(
            frame,
            format=self.FORMAT,
            dst_colorspace=BT709,
            dst_color_range="MPEG",
            interpolation=self._flags,
        )
        self.tag(converted)
        return converted

    @staticmethod
    def tag(target: VideoFrame | VideoCodecContext) -> None:
        """Writes the colours on a frame or an encoder: matrix, primaries, transfer and range."""
        from av.video.reformatter import ColorPrimaries, ColorRange, ColorTrc

        target.colorspace = 1  # AVCOL_SPC_BT709
        target.color_primaries = int(ColorPrimaries.BT709)
        target.color_trc = int(ColorTrc.BT709)
        target.color_range = int(ColorRange.MPEG)
