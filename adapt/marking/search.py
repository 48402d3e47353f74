"""Finds the watermark: adds frames up, looks for the code over scales and offsets, reads the payload.

The score and its error rate. Of the summed frame only the *phases* at the code's wave vectors are used, and each is
compared with the key's. Without a mark the key's phases are independent of the picture's, whatever the picture: each
term ``cos(picture - key)`` is the cosine of a uniform angle, and the score ``z = sqrt(2 / N) * sum cos`` exceeds ``t``
with a probability of at most ``exp(-t^2 / 2)`` (the cosine of a uniform angle is sub-Gaussian with variance 1/2). With
``M`` combinations of scale, offset and payload looked at, a file without a mark scores above ``t`` with a probability
of at most ``M exp(-t^2 / 2)``. The bound needs no model of pictures; it is what ``false_alarm`` reports.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import scipy.fft
from scipy import ndimage

from adapt.marking.code import (
    BITS_PER_CHANNEL,
    CHANNELS,
    GRID,
    HIGHEST,
    PAYLOAD_BITS,
    Code,
    code_of,
    payload_in,
    shifts,
    watermark_key,
)

# A file without a mark is called marked at most this often.
FALSE_ALARM = 1e-6
# Shorter side of what is searched, px: two samples for the shortest wave at the smallest tile.
SIDE = 256
# Standard deviations of the blurs that bring out detail and measure the surroundings, px at SIDE.
DETAIL, SURROUNDINGS = 1.5, 3.0
# Tile over the frame's shorter side: 0.5 as made, more after a crop, less with a border.
SMALLEST_TILE, LARGEST_TILE, STEP = 0.36, 1.02, 0.005
# A file as it was made has a tile this near to 0.5.
LIKELY = 0.006
# The score is taken over all wave vectors and over the lower half alone, which small or poor copies keep.
BANDS = (HIGHEST, HIGHEST // 2)
# Offsets per axis at which the origin's score is computed.
PLANE = 2 * GRID
# How many of the best places are refined and read.
READ = 8
# Symbols of each channel that are tried against the payload's check.
TRIED = 2
# A tile's sides are refined on a grid of this relative step, up to so many steps to either side.
FINE, FINE_STEPS = 0.0006, 4
# A place is judged by the origin alone, by all channels with a payload that fits its check, and with any other word.
JUDGEMENTS = 3


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a search found.

    Attributes:
        log_bound: logarithm of the bound on the probability that a file without a mark of this key scores as high;
            above 0 where the bound says nothing.
        score: standard deviations above chance, of all channels where that says more, else of the origin's.
        payload: the avatar's 32 bits; ``None`` where they are not readable.
        tile: tile over the frame's shorter side (0.5 for a frame as it was made).
        mirrored: whether the picture is left for right.
        frames: how many were added up.
    """

    log_bound: float = math.inf
    score: float = 0.0
    payload: int | None = None
    tile: float = 0.0
    mirrored: bool = False
    frames: int = 0

    @property
    def false_alarm(self) -> float:
        """Bound on the probability that a file without a mark scores as high, in [0, 1]."""
        return math.exp(min(0.0, self.log_bound))

    @property
    def found(self) -> bool:
        """Whether ``false_alarm`` is at most ``FALSE_ALARM``."""
        return self.log_bound <= math.log(FALSE_ALARM)

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
    band: int
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
        looked_at = JUDGEMENTS * 2 * len(BANDS) * len(tiles) * PLANE**2 * (2 * FINE_STEPS + 1) ** 2
        # Most files are as large as they were made: where the mark is read there, the rest need not be searched.
        likely = [tile for tile in tiles if abs(min(tile) / min(self.total.shape) - 0.5) < LIKELY]
        for part in (likely, tiles):
            for place in _best_places(spectra, part):
                reading = _read(spectra, _refined(spectra, place), self.key, looked_at)
                if reading.log_bound < best.log_bound:
                    best = replace(reading, tile=reading.tile / min(self.total.shape), frames=self.frames)
            if best.payload is not None:
                break
        return best

    def _tiles(self) -> list[tuple[float, float]]:
        """Tile sizes (down, across) to try, in pixels of the summed frame."""
        rows, columns = self.total.shape
        short = min(self.height, self.width)
        steps = np.exp(np.arange(math.log(SMALLEST_TILE), math.log(LARGEST_TILE), STEP))
        # As it is, or a square or a pair of squares that was stretched to this shape.
        bases: set[tuple[float, float]] = {(short, short), (self.height, self.width), (self.height, self.width / 2)}
        sizes = {(rows * y / self.height, columns * x / self.width) for y, x in bases}
        return [(y * r, x * r) for y, x in sorted(sizes) for r in steps]


def flattened(luma: np.ndarray) -> np.ndarray:
    """Fine detail of luma ``[h, w]``, each place divided by how busy its surroundings are; within +-2.5.

    It knows nothing of the key, so it cannot raise the rate of false alarms.
    """
    unit = min(luma.shape) / SIDE
    luma = luma.astype(np.float32)
    detail = luma - _blurred(luma, DETAIL * unit)
    spread = np.sqrt(np.maximum(_blurred(detail * detail, SURROUNDINGS * unit), 0))
    # Even ground would otherwise be divided by nothing.
    return np.clip(detail / (spread + 0.02 * float(spread.mean()) + 1e-6), -2.5, 2.5)


def _blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    return ndimage.gaussian_filter(image, sigma, mode="nearest", truncate=3)


class _Spectra:
    """Phases of a summed frame at the code's wave vectors, for any size of the tile."""

    def __init__(self, image: np.ndarray, code: Code) -> None:
        self.image, self.code = image.astype(np.float32), code
        self.expected = np.exp(-1j * code.phase).astype(np.complex64)
        self.within = {band: np.hypot(code.kx, code.ky) <= band for band in BANDS}
        self.origin = {band: inside & (code.channel == 0) for band, inside in self.within.items()}

    def table(self, down: float, across: float) -> np.ndarray:
        """The frame's part of every wave vector of a tile, complex ``[HIGHEST + 1, 2 HIGHEST + 1]``."""
        rows, columns = self.image.shape
        left = _waves(rows, down)[:, HIGHEST:].T
        # Two real products: a complex one would first make the image complex.
        product = np.concatenate([left.real, left.imag]) @ self.image
        return (product[: HIGHEST + 1] + 1j * product[HIGHEST + 1 :]) @ _waves(columns, across)

    def agreement(self, table: np.ndarray, mirrored: bool) -> np.ndarray:
        """``exp(i (picture's phase - key's phase))`` for every wave vector, complex ``[N]``."""
        if mirrored:
            table = table[:, ::-1]
        values = table[self.code.ky, self.code.kx + HIGHEST]
        return values / (np.abs(values) + 1e-12) * self.expected

    def best(self, down: float, across: float, turns: tuple[bool, ...], bands: tuple[int, ...]) -> list[_Place]:
        """For every turn and band the offset with the best score of the origin's channel."""
        table, places = self.table(down, across), []
        for mirrored in turns:
            agreement = self.agreement(table, mirrored)
            for band in bands:
                start = _Place(0.0, down, across, mirrored, band, (0.0, 0.0))
                places.append(self._best_offset(agreement, start))
        return places

    def _best_offset(self, agreement: np.ndarray, place: _Place) -> _Place:
        code, chosen = self.code, self.origin[place.band]
        # The waves are real: half of the plane, with ky along the last axis, holds all of them. Waves along x stand for
        # two entries of that axis' first column, of which the transform would count one.
        grid = np.zeros((PLANE, PLANE // 2 + 1), np.complex64)
        twice = np.where(code.ky[chosen] == 0, np.float32(2), np.float32(1))
        grid[code.kx[chosen] % PLANE, code.ky[chosen]] = twice * agreement[chosen].conj()
        plane = scipy.fft.irfft2(grid, (PLANE, PLANE))
        column, row = divmod(int(plane.argmax()), PLANE)
        score = float(plane[column, row]) * PLANE**2 / 2 * math.sqrt(2 / chosen.sum())
        return replace(place, score=score, offset=(row / PLANE, column / PLANE))


@lru_cache(maxsize=512)
def _waves(length: int, period: float) -> np.ndarray:
    """``exp(-2 pi i k (x + 1/2) / period)``, complex64 ``[length, 2 HIGHEST + 1]``: the same for files of one size."""
    k = np.arange(-HIGHEST, HIGHEST + 1)
    return np.exp(-2j * np.pi / period * np.outer(np.arange(length) + 0.5, k)).astype(np.complex64)


def _best_places(spectra: _Spectra, tiles: list[tuple[float, float]]) -> list[_Place]:
    """The places with the best scores of the origin's channel, best first."""
    places = [place for tile in tiles for place in spectra.best(*tile, (False, True), BANDS)]
    return sorted(places, key=lambda place: -place.score)[:READ]


def _refined(spectra: _Spectra, start: _Place) -> _Place:
    """The place with the tile's two sides moved on the fine grid to where the score is highest nearby."""
    best, at = start, (0, 0)
    for step in (FINE_STEPS, FINE_STEPS // 2, FINE_STEPS // 4):
        for move in ((1, 1), (-1, -1), (1, 0), (-1, 0), (0, 1), (0, -1)):
            y, x = at[0] + step * move[0], at[1] + step * move[1]
            if max(abs(y), abs(x)) > FINE_STEPS:
                continue
            down, across = start.down * (1 + y * FINE), start.across * (1 + x * FINE)
            (near,) = spectra.best(down, across, (start.mirrored,), (start.band,))
            if near.score > best.score:
                best, at = near, (y, x)
    return best


def _read(spectra: _Spectra, place: _Place, key: bytes, looked_at: int) -> Finding:
    """Payload and error rate at a place."""
    code, used = spectra.code, spectra.within[place.band]
    row, column = place.offset
    turn = np.exp(-2j * np.pi * (code.ky * row + code.kx * column))
    aligned = np.where(used, spectra.agreement(spectra.table(place.down, place.across), place.mirrored) * turn, 0)
    symbols, payload = _word(code, aligned, key)
    whole = float((aligned * np.exp(-1j * shifts(code, symbols))).real.sum() * math.sqrt(2 / used.sum()))
    # Of the 2^48 words that were compared, 2^32 have the right check.
    words = (CHANNELS * BITS_PER_CHANNEL if payload is None else PAYLOAD_BITS) * math.log(2)
    origin = math.log(looked_at) - max(place.score, 0.0) ** 2 / 2
    every = math.log(looked_at) + words - max(whole, 0.0) ** 2 / 2
    reading = Finding(
        log_bound=min(origin, every),
        score=place.score if origin < every else whole,
        tile=min(place.down, place.across),
        mirrored=place.mirrored,
    )
    # By chance one of the words that are tried fits its check once in 2^12 readings: it counts only where a mark is.
    return replace(reading, payload=payload if reading.found else None)


def _word(code: Code, aligned: np.ndarray, key: bytes) -> tuple[list[int], int | None]:
    """The four symbols that agree best and their payload; of those with a payload that fits its check, if any has."""
    likely = [_symbols(code, aligned, channel) for channel in range(1, CHANNELS + 1)]
    best = [symbols[0] for symbols in likely]
    # In the order of how many symbols are second best.
    words = sorted(itertools.product(range(TRIED), repeat=CHANNELS), key=sum)
    for word in words:
        symbols = [likely[channel][choice] for channel, choice in enumerate(word)]
        payload = payload_in(key, symbols)
        if payload is not None:
            return symbols, payload
    return best, None


def _symbols(code: Code, aligned: np.ndarray, channel: int) -> list[int]:
    """The 12 bits of a channel: the shifts that agree best, best first."""
    chosen = code.channel == channel
    grid = np.zeros((GRID, GRID), np.complex64)
    np.add.at(grid, (code.ky[chosen] % GRID, code.kx[chosen] % GRID), aligned[chosen])
    plane = np.fft.ifft2(grid).real.ravel()
    best = np.argpartition(plane, -TRIED)[-TRIED:]
    return [int(i) for i in best[np.argsort(-plane[best])]]
