"""How a stored picture is displayed: rotated, mirrored, with square pixels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from configs import InputError

if TYPE_CHECKING:
    from av import VideoFrame
    from av.video.stream import VideoStream


@dataclass(frozen=True)
class Orientation:
    """What makes a stored picture upright: transpose first, then flip.

    Attributes:
        transposed: rows become columns.
        flip_x: columns are reversed afterwards.
        flip_y: rows are reversed afterwards.
    """

    transposed: bool = False
    flip_x: bool = False
    flip_y: bool = False

    @property
    def degrees(self) -> int:
        """Clockwise rotation by a player, after mirroring if any: 0, 90, 180, 270."""
        if not self.transposed:
            return 180 if self.flip_y else 0
        return 270 if self.flip_y else 90

    @property
    def mirrored(self) -> bool:
        """Whether :meth:`apply` mirrors the picture."""
        return (self.transposed + self.flip_x + self.flip_y) % 2 == 1

    def apply(self, picture: np.ndarray) -> np.ndarray:
        """The stored picture ``[H, W, C]`` made upright, contiguous."""
        if self.transposed:
            picture = picture.swapaxes(0, 1)
        if self.flip_x or self.flip_y:
            picture = picture[:: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1]
        return np.ascontiguousarray(picture)

    def upright(self, width: int, height: int) -> tuple[int, int]:
        """``(width, height)`` after :meth:`apply`."""
        return (height, width) if self.transposed else (width, height)


UPRIGHT = Orientation()


def orientation(frame: VideoFrame, path: str | Path) -> Orientation:
    """The orientation by the frame's display matrix, from the container or the codec's side data.

    Raises:
        InputError: a rotation that is no multiple of 90 degrees.
    """
    matrix = _matrix(frame)
    if matrix is None:
        return UPRIGHT
    # Row vectors: x' = a x + c y, y' = b x + d y, x right and y down.
    (a, b), (c, d) = matrix
    straight, crossed = abs(a) + abs(d), abs(b) + abs(c)
    if straight + crossed == 0:
        return UPRIGHT
    if min(straight, crossed) > 0.2 * max(straight, crossed):
        degrees = float(np.degrees(np.arctan2(b, a)))
        raise InputError(f"{path}: is to be shown turned by {degrees:.0f} degrees, expected 0, 90, 180 or 270; turn it")
    if straight > crossed:
        return Orientation(False, bool(a < 0), bool(d < 0))
    return Orientation(True, bool(c < 0), bool(b < 0))


def _matrix(frame: VideoFrame) -> np.ndarray | None:
    """``[[a, b], [c, d]]`` of the frame's display matrix."""
    data = cast("bytes | None", frame.side_data.get("DISPLAYMATRIX"))  # any buffer; PyAV's stubs do not know the key
    if data is None:
        return None
    return np.frombuffer(bytes(data), np.int32).reshape(3, 3)[:2, :2].astype(np.float64)


def pixel_aspect(stream: VideoStream) -> float:
    """Width over height of a stored pixel; 1 if it is not stated or absurd."""
    shape = stream.sample_aspect_ratio
    return float(shape) if shape and 0.1 < float(shape) < 10 else 1.0


def square_size(frame: VideoFrame, aspect: float) -> tuple[int, int]:
    """``(width, height)`` of the stored picture with square pixels, not yet turned."""
    return max(1, round(frame.width * aspect)), frame.height
