"""8-bit YUV 4:2:0 to RGB without scaling, correctly rounded, in a fifth of the converter's time.

FFmpeg's converter gives the same values (one of 300 is one level off) with accurate rounding and full chroma, through
code that also scales; its fast code is 1 to 1.5 levels too dark. Only the converter knows the chroma location (PyAV does
not expose it), so one frame of every format is converted both ways before this way is trusted.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from av import VideoFrame

# Kr and Kb by the converter's number of the matrix: BT.709, FCC, BT.601, SMPTE 240M, BT.2020.
_LUMA = {1: (0.2126, 0.0722), 4: (0.30, 0.11), 5: (0.299, 0.114), 7: (0.212, 0.087), 9: (0.2627, 0.0593)}
FORMS = {"yuv420p": False, "yuvj420p": True}  # pixel format -> whether it implies full range
FULL_RANGE = 2  # AVCOL_RANGE_JPEG
WIDTHS = 8  # px; widths must be a multiple of it, since so many are written at a time
CHROMA_STEP = (
    12  # between neighbours of a frame that can tell where chroma lies; half a px off is 3 levels and more then
)
APART = 1  # levels by which both ways may differ

F32, POSITION = np.float32, np.uintp  # signed positions would keep the loops from being vectorised
HALF = POSITION(8192 + 8)  # most chroma values of a row; constant offsets, or alias checks stop the vectoriser


def converts(frame: VideoFrame, width: int, height: int) -> bool:
    """Whether :func:`to_rgb` can convert the frame to ``width x height``: 4:2:0 of this size, a suitable width."""
    return (
        frame.format.name in FORMS
        and (frame.width, frame.height) == (width, height)
        and width % WIDTHS == 0
        and height % 2 == 0
    )


def to_rgb(frame: VideoFrame, matrix: int) -> np.ndarray:
    """``[H, W, 3]`` uint8 RGB of a frame for which :func:`converts` holds; ``matrix``: of ``colour.matrix_of``."""
    full = FORMS[frame.format.name] or int(frame.color_range) == FULL_RANGE
    picture = np.empty((frame.height, frame.width, 3), np.uint8)
    planes = [np.frombuffer(memoryview(plane), np.uint8) for plane in frame.planes]  # not copied
    strides = tuple(POSITION(plane.line_size) for plane in frame.planes)
    size = POSITION(frame.width), POSITION(frame.height)
    _kernel()(*planes, strides, coefficients(matrix, full), *size, picture.reshape(-1).view(np.uint64))
    return picture


def tells(frame: VideoFrame) -> bool:
    """Whether the frame's colours vary enough for a comparison to reveal the chroma location."""
    rows = np.frombuffer(memoryview(frame.planes[1]), np.uint8).reshape(-1, frame.planes[1].line_size)[
        :, : frame.width // 2
    ]
    return bool((np.abs(np.diff(rows.astype(np.int16))) >= CHROMA_STEP).sum() >= 4)


def agrees(fast: np.ndarray, exact: np.ndarray) -> bool:
    """Whether two pictures ``[H, W, 3]`` differ by rounding only; values clipped at 0 and 255 are not compared."""
    apart = np.abs(fast.astype(np.int16) - exact)
    return bool((apart[(fast > 0) & (fast < 255)] <= APART).all())


@functools.lru_cache(maxsize=16)
def coefficients(matrix: int, full: bool) -> tuple[np.float32, ...]:
    """Black level; factors of Y, of V in red, of U in green, of V in green (both subtracted), of U in blue."""
    red, blue = _LUMA[matrix]
    green = 1 - red - blue
    luma, chroma = (1.0, 1.0) if full else (255 / 219, 255 / 224)
    of_red, of_blue = 2 * (1 - red) * chroma, 2 * (1 - blue) * chroma
    return tuple(
        np.float32(v) for v in (0 if full else 16, luma, of_red, of_blue * blue / green, of_red * red / green, of_blue)
    )


@functools.cache
def _kernel() -> Callable[..., None]:
    import numba  # slow to import, and not needed where nothing is decoded

    # Without nnan and ninf, as everywhere: infinities must not become undefined.
    fast = {"contract", "reassoc", "nsz", "arcp", "afn"}
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "boundscheck": False, "fastmath": fast}
    try:
        return numba.njit(cache=True, **options)(_convert)
    except RuntimeError:  # no folder to keep a cache in: a read-only installation
        return numba.njit(**options)(_convert)


def _convert(luma, first, second, strides, factors, width, height, out):  # type: ignore[no-untyped-def]
    """Chroma lies at even columns and between two rows (MPEG-2, H.264, and the converter); it is interpolated linearly.

    Two columns at a time become numbers of 24 bits (red, green, blue), eight of which fill three words of ``out``.
    """
    black, of_y, red_v, green_u, green_v, blue_u = factors
    one, two, three, eight = POSITION(1), POSITION(2), POSITION(3), POSITION(8)
    low, high, half = F32(0), F32(255), F32(0.5)
    second_byte, third_byte = F32(256), F32(65536)
    chroma, pixels = np.empty(two * HALF, np.float32), np.empty(two * HALF, np.int32)
    rows, columns = height // two, width // two
    for y in range(POSITION(0), height):
        near = y // two
        far = min(near + one, rows - one) if y % two else max(near, one) - one
        for x in range(POSITION(0), columns):
            a, b = first[near * strides[1] + x], first[far * strides[1] + x]
            chroma[x] = F32(0.75) * F32(a) + F32(0.25) * F32(b) - F32(128)
        for x in range(POSITION(0), columns):
            a, b = second[near * strides[2] + x], second[far * strides[2] + x]
            chroma[HALF + x] = F32(0.75) * F32(a) + F32(0.25) * F32(b) - F32(128)
        chroma[columns], chroma[HALF + columns] = chroma[columns - one], chroma[HALF + columns - one]
        at = y * strides[0]
        for x in range(POSITION(0), columns):
            u, v = chroma[x], chroma[HALF + x]
            grey = of_y * (F32(luma[at + two * x]) - black) + half
            r = np.floor(min(max(grey + red_v * v, low), high))
            g = np.floor(min(max(grey - green_u * u - green_v * v, low), high))
            b = np.floor(min(max(grey + blue_u * u, low), high))
            pixels[x] = np.int32(r + second_byte * g + third_byte * b)
            u, v = half * (u + chroma[x + one]), half * (v + chroma[HALF + x + one])
            grey = of_y * (F32(luma[at + two * x + one]) - black) + half
            r = np.floor(min(max(grey + red_v * v, low), high))
            g = np.floor(min(max(grey - green_u * u - green_v * v, low), high))
            b = np.floor(min(max(grey + blue_u * u, low), high))
            pixels[HALF + x] = np.int32(r + second_byte * g + third_byte * b)
        to = y * width * three // eight
        for x in range(POSITION(0), columns // POSITION(4)):
            i, k = POSITION(4) * x, to + three * x
            p = np.uint64(pixels[i]) | np.uint64(pixels[HALF + i]) << POSITION(24)
            q = np.uint64(pixels[i + one]) | np.uint64(pixels[HALF + i + one]) << POSITION(24)
            r = np.uint64(pixels[i + two]) | np.uint64(pixels[HALF + i + two]) << POSITION(24)
            s = np.uint64(pixels[i + three]) | np.uint64(pixels[HALF + i + three]) << POSITION(24)
            out[k] = p | q << POSITION(48)
            out[k + one] = q >> POSITION(16) | r << POSITION(32)
            out[k + two] = r >> POSITION(32) | s << POSITION(16)
