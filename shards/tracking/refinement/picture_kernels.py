"""Kernel that prepares a picture for the alignment: two channels, blurred, and their slopes. Arrays are flat."""

# mypy: disable-error-code="no-untyped-def,misc"
# Numba gives kernels their types.
from __future__ import annotations

import numpy as np

from heads.raster.simd.jit import kernel

F32, POSITION = np.float32, np.uintp
CHANNELS = 2
PLANES = 3 * CHANNELS  # of a picture: each channel, then its slopes along x, then along y


@kernel
def prepare(small, mix, blur, side, work, planes):
    """Luma and redness of a picture ``small [side, side, 3]`` uint8, blurred, and their slopes: ``planes [6, side, side]``.

    Args:
        mix: ``[2, 3]`` weights of red, green and blue per level.
        blur: weights of a pixel and of each neighbour, along both axes.
        work: scratch ``[side, side]``.
    """
    side = POSITION(side)
    area, last, one, two = side * side, side - POSITION(1), POSITION(1), POSITION(2)
    for c in range(POSITION(CHANNELS)):
        red, green, blue = mix[3 * c], mix[3 * c + 1], mix[3 * c + 2]
        out = c * area
        for at in range(area):
            r, g, b = F32(small[3 * at]), F32(small[3 * at + 1]), F32(small[3 * at + 2])
            planes[out + at] = red * r + green * g + blue * b
        for y in range(side):  # edges are reflected about the middle of the outermost pixels
            row = out + y * side
            here = y * side
            for x in range(one, last):
                work[here + x] = blur[0] * planes[row + x] + blur[1] * (planes[row + x - one] + planes[row + x + one])
            work[here] = blur[0] * planes[row] + F32(2) * blur[1] * planes[row + one]
            work[here + last] = blur[0] * planes[row + last] + F32(2) * blur[1] * planes[row + last - one]
        for y in range(side):
            above = (y - one if y > 0 else one) * side
            below = (y + one if y < last else last - one) * side
            for x in range(side):
                planes[out + y * side + x] = blur[0] * work[y * side + x] + blur[1] * (
                    work[above + x] + work[below + x]
                )
        across, down = (two + c) * area, (two + two + c) * area
        for y in range(side):
            above = (y - one if y > 0 else one) * side
            below = (y + one if y < last else last - one) * side
            for x in range(side):
                planes[down + y * side + x] = F32(0.5) * (planes[out + below + x] - planes[out + above + x])
            for x in range(one, last):
                at = y * side + x
                planes[across + at] = F32(0.5) * (planes[out + at + one] - planes[out + at - one])
            planes[across + y * side] = planes[across + y * side + last] = F32(0)
