"""Finds the watermark: adds frames up, looks for the code over scales and offsets, reads the payload.

The score and its error rate. Of the summed frame only the *phases* at the code's wave vectors are used, and each is
compared with the key's. Without a mark the key's phases are independent of the picture's, whatever the picture: each
term ``cos(picture - key)`` is the cosine of a uniform angle, and the score ``z = sqrt(2 / N) * sum cos`` exceeds ``t``
with a probability of at most ``exp(-t^2 / 2)`` (the cosine of a uniform angle is sub-Gaussian with variance 1/2). With
``M`` combinations of scale, offset and payload looked at, a file without a mark scores above ``t`` with a probability
of at most ``M exp(-t^2 / 2)``. The bound needs no model of pictures; it is what ``false_alarm`` reports.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from adapt.marking.code import CHANNELS, GRID, HIGHEST, Code, code_of, payload_in, shifts, watermark_key

# A file without a mark is called marked at most this often.
FALSE_ALARM = 1e-6
# Shorter side of what is searched, px: two samples for the shortest wave at the smallest tile.
SIDE = 256
# Tile over the frame's shorter side: 0.5 as made, more after a crop, less with a border.
SMALLEST_TILE, LARGEST_TILE, STEP = 0.36, 1.02, 0.005
# Offsets per axis at which the origin's score is computed.
PLANE = 2 * GRID
# How many of the best places are refined and read.
READ = 16
# A tile's sides are refined on a grid of this relative step, up to so many steps to either side.
FINE, FINE_STEPS = 0.0005, 8


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a search found.

    Attributes:
        found: whether ``false_alarm`` is at most ``FALSE_ALARM``.
        false_alarm: bound on the probability that a file without a mark of this key scores as high.
        score: standard deviations above chance, of all channels where a payload is readable, else of the origin's.
        payload: the avatar's 32 bits; ``None`` where they are not readable.
        tile: tile over the frame's shorter side (0.5 for a frame as it was made).
        mirrored: whether the picture is left for right.
        frames: how many were added up.
    """

    found: bool = False
    false_alarm: float = 1.0
    score: float = 0.0
    payload: int | None = None
    tile: float = 0.0
    mirrored: bool = False
    frames: int = 0

    @property
    def confidence(self) -> float:
        """``1 - false_alarm`` where a mark was found, 0 otherwise."""
        return 1.0 - self.false_alarm if self.found else 0.0


@dataclass(frozen=True)
class _Place:
    """A tile's two sides in pixels of the summed frame, the origin's offset in tiles, and the origin's score."""

    score: float
    down: float
    across: float
    mirrored: bool
    offset: tuple[float, float]


def working_size(height: int, width: int) -> tuple[int, int]:
    """Size at which a frame is searched: shorter side ``SIDE``, or its own where that is smaller."""
    scale = min(1.0, SIDE / min(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


class Search:
    """Adds up frames of one video or picture, then looks for the mark.

    Args:
        height, width: of the file's frames, px.
        key: secret; ``None`` reads ``HEADSTART_WATERMARK_KEY`` or takes the public key.
    """

    def __init__(self, height: int, width: int, *, key: str | None = None) -> None:
        self.key = watermark_key(key)
        self.height, self.width = height, width
        self.total = np.zeros(working_size(height, width), np.float32)
        self.frames = 0

    def add(self, luma: np.ndarray) -> None:
        """Add a frame's luma ``[h, w]`` at :func:`working_size`, any scale of grey."""
        if luma.shape != self.total.shape:
            raise ValueError(f"luma is {luma.shape}, expected {self.total.shape}")
        self.total += flattened(luma)
        self.frames += 1

    def finding(self) -> Finding:
        """The best reading of all that was added."""
        best = Finding(frames=self.frames)
        # A frame of an even colour has no phases to compare.
        if not self.frames or min(self.total.shape) < 2 * HIGHEST or not np.abs(self.total).max() > 1e-6:
            return best
        spectra = _Spectra(flattened(self.total), code_of(self.key))
        tiles = self._tiles()
        for place in _best_places(spectra, tiles):
            reading = _read(spectra, _refined(spectra, place), self.key, looked_at=2 * len(tiles) * PLANE**2 * (2 * FINE_STEPS + 1) ** 2)
            if reading.false_alarm < best.false_alarm:
                best = replace(reading, tile=reading.tile / min(self.total.shape), frames=self.frames)
        return best

    def _tiles(self) -> list[tuple[float, float]]:
        """Tile sizes (down, across) to try, in pixels of the summed frame."""
        rows, columns = self.total.shape
        short = min(self.height, self.width)
        steps = np.exp(np.arange(math.log(SMALLEST_TILE), math.log(LARGEST_TILE), STEP))
        # As it is, or a square or a pair of squares that was stretched to this shape.
        bases = {(short, short), (self.height, self.width), (self.height, self.width / 2)}
        bases = {(rows * y / self.height, columns * x / self.width) for y, x in bases}
        return [(y * r, x * r) for y, x in sorted(bases) for r in steps]


def flattened(luma: np.ndarray) -> np.ndarray:
    """Luma without its coarse shading, each place divided by how busy its surroundings are; within +-2.5.

    It knows nothing of the key, so it cannot raise the rate of false alarms.
    """
    size = max(3, min(luma.shape) // 10) | 1
    luma = luma.astype(np.float32)
    high = luma - _blurred(luma, size)
    spread = np.sqrt(np.maximum(_blurred(high * high, size), 0))
    return np.clip(high / (spread + 0.02 * float(spread.mean()) + 1e-6), -2.5, 2.5)


def _blurred(image: np.ndarray, size: int) -> np.ndarray:
    return ndimage.uniform_filter(ndimage.uniform_filter(image, size, mode="nearest"), size // 2 | 1, mode="nearest")


class _Spectra:
    """Phases of a summed frame at the code's wave vectors, for any size of the tile."""

    def __init__(self, image: np.ndarray, code: Code) -> None:
        self.image, self.code = image.astype(np.float32), code
        self.expected = np.exp(-1j * code.phase).astype(np.complex64)
        self.origin = code.channel == 0

    def agreement(self, down: float, across: float, mirrored: bool) -> np.ndarray:
        """``exp(i (picture's phase - key's phase))`` for every wave vector, complex ``[N]``."""
        rows, columns = self.image.shape
        k = np.arange(-HIGHEST, HIGHEST + 1)
        left = np.exp(-2j * np.pi / down * np.outer(k[HIGHEST:], np.arange(rows) + 0.5)).astype(np.complex64)
        right = np.exp(-2j * np.pi / across * np.outer(np.arange(columns) + 0.5, k)).astype(np.complex64)
        table = (left @ self.image) @ right
        if mirrored:
            table = table[:, ::-1]
        values = table[self.code.ky, self.code.kx + HIGHEST]
        return values / (np.abs(values) + 1e-12) * self.expected

    def plane(self, agreement: np.ndarray) -> np.ndarray:
        """Score of the origin's channel for every offset, ``[PLANE, PLANE]``, in steps of ``1 / PLANE`` tile."""
        code, chosen = self.code, self.origin
        grid = np.zeros((PLANE, PLANE), np.complex64)
        grid[code.ky[chosen], code.kx[chosen] % PLANE] = agreement[chosen]
        return np.fft.fft2(grid).real * math.sqrt(2 / chosen.sum())

    def best(self, down: float, across: float, mirrored: bool) -> _Place:
        """The offset with the best score of the origin's channel."""
        plane = self.plane(self.agreement(down, across, mirrored))
        place = int(plane.argmax())
        row, column = divmod(place, PLANE)
        return _Place(float(plane.flat[place]), down, across, mirrored, (row / PLANE, column / PLANE))


def _best_places(spectra: _Spectra, tiles: list[tuple[float, float]]) -> list[_Place]:
    """The places with the best scores of the origin's channel, best first."""
    places = [spectra.best(down, across, mirrored) for down, across in tiles for mirrored in (False, True)]
    return sorted(places, key=lambda place: -place.score)[:READ]


def _refined(spectra: _Spectra, start: _Place) -> _Place:
    """The place with the tile's two sides moved on the fine grid to where the score is highest nearby."""
    best, at = start, (0, 0)
    for step in (4, 2, 1):
        for move in ((1, 1), (-1, -1), (1, 0), (-1, 0), (0, 1), (0, -1)):
            y, x = at[0] + step * move[0], at[1] + step * move[1]
            if max(abs(y), abs(x)) > FINE_STEPS:
                continue
            near = spectra.best(start.down * (1 + y * FINE), start.across * (1 + x * FINE), start.mirrored)
            if near.score > best.score:
                best, at = near, (y, x)
    return best


def _read(spectra: _Spectra, place: _Place, key: bytes, looked_at: int) -> Finding:
    """Payload and error rate at a place."""
    code = spectra.code
    row, column = place.offset
    turn = np.exp(-2j * np.pi * (code.ky * row + code.kx * column))
    aligned = spectra.agreement(place.down, place.across, place.mirrored) * turn
    symbols = [_symbol(code, aligned, channel) for channel in range(1, CHANNELS + 1)]
    payload = payload_in(key, symbols)
    tried = math.log(looked_at)
    origin = Finding(score=place.score, false_alarm=_bound(place.score, tried))
    whole = float((aligned * np.exp(-1j * shifts(code, symbols))).real.sum() * math.sqrt(2 / len(aligned)))
    # Every one of the 2^48 words was looked at, whether or not its check fits.
    all_channels = Finding(score=whole, false_alarm=_bound(whole, tried + CHANNELS * 2 * math.log(GRID)))
    if payload is not None:
        # Only one word in 2^16 has the right check.
        all_channels = replace(
            all_channels, false_alarm=_bound(whole, tried + 32 * math.log(2)), payload=payload
        )
        chosen = all_channels if all_channels.false_alarm < origin.false_alarm else replace(origin, payload=payload)
    else:
        chosen = min(origin, all_channels, key=lambda f: f.false_alarm)
    found = chosen.false_alarm <= FALSE_ALARM
    tile = min(place.down, place.across)
    return replace(chosen, found=found, payload=payload if found else None, tile=tile, mirrored=place.mirrored)


def _symbol(code: Code, aligned: np.ndarray, channel: int) -> int:
    """The 12 bits of a channel: the shift that agrees best."""
    chosen = code.channel == channel
    grid = np.zeros((GRID, GRID), np.complex64)
    np.add.at(grid, (code.ky[chosen] % GRID, code.kx[chosen] % GRID), aligned[chosen])
    return int(np.fft.ifft2(grid).real.argmax())


def _bound(score: float, tried: float) -> float:
    """``min(1, M exp(-z^2 / 2))`` with ``tried = log M``."""
    return math.exp(min(0.0, tried - score * score / 2)) if score > 0 else 1.0
