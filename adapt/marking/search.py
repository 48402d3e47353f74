"""Finds the watermark: sums frames, searches for the code over scales and offsets, reads the payload.

The score and its error rate. Of the summed frame the *phases* at the code's wave vectors are compared with the key's,
each with a weight ``w`` that depends on magnitudes and wave lengths alone. Without a mark the key's phases are
independent of the picture, whatever it shows: each term ``cos(picture - key)`` is the cosine of a uniform angle, and the
score ``z = sqrt(2 / sum w^2) * sum w cos`` exceeds ``t`` with a probability of at most ``exp(-t^2 / 2)`` (the cosine of a
uniform angle is sub-Gaussian with variance 1/2). With ``M`` combinations of scale, offset, weights and payload looked
at, a file without a mark scores above ``t`` with a probability of at most ``M exp(-t^2 / 2)``. The bound needs no model
of pictures; it is what ``false_alarm`` reports.

Three searches share the rate. The first looks at frames as they were made, whole, at any size: few combinations, so that
a weak mark is enough. The second looks at whole frames that were mirrored or stretched, the third at every crop, border
and stretch. Each place is judged in two ways. A search and a judgement with the share ``s`` of the rate report
``M / s exp(-t^2 / 2)``.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from adapt.marking.code import (
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
from adapt.marking.spectra import BANDS, PLANE, WHOLE_BANDS, Place, Spectra, unit

# A file without a mark is called marked at most this often.
FALSE_ALARM = 1e-6
# Shorter side of what is searched, px: two samples for the shortest wave at the smallest tile.
SIDE = 256
# Standard deviations of the blurs that bring out detail and measure the surroundings, px at SIDE.
DETAIL, SURROUNDINGS = 2.0, 3.0
# Detail is divided by this power of how busy its surroundings are: beyond 1, even ground counts for more.
POWER = 1.5
# Grey levels: surroundings are never taken for less busy than this.
EVEN = 0.5
# Detail is clipped at this multiple of its surroundings.
LARGEST_DETAIL = 2.5
# Tile over the frame's shorter side: 0.5 as made, more after a crop, less with a border.
SMALLEST_TILE, LARGEST_TILE, STEP = 0.36, 1.02, 0.005
# A frame whose width is more than this multiple of its height may be a pair of squares.
WIDE = 1.2
# Shares of the three searches in the false alarms: as made, mirrored or stretched, anywhere.
AS_MADE, TURNED, ANYWHERE = 0.8, 0.1, 0.1
# How many of the best places are refined and read.
READ = 8
# An avatar is named where chance would name a wrong one at most this often.
WRONG_AVATAR = 1e-3
# Symbols of each channel that are tried against the payload's check.
TRIED = 4
# A tile's sides are refined on a grid: its relative step, and the steps to either side.
FINE, FINE_STEPS = 0.0006, 4
# Shares of the two judgements of a place: by the origin alone, and by all channels with a payload that fits its check.
BY_ORIGIN, BY_ALL = 0.75, 0.25


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
        frames: number of frames summed.
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


def working_size(height: int, width: int) -> tuple[int, int]:
    """Size at which a frame is searched: shorter side ``SIDE``, or its own where that is smaller."""
    scale = min(1.0, SIDE / min(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


class Search:
    """Sums the frames of one video or picture, then searches for the mark.

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
        """Add a frame's luma ``[h, w]`` at :func:`working_size`, 0 to 255."""
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
        spectra = Spectra(self.total, code_of(self.key))
        for search in (self._as_made, self._turned, self._anywhere):
            best = min(best, search(spectra), key=lambda finding: finding.log_bound)
            if best.found:
                break
        return replace(best, tile=best.tile / min(self.total.shape), frames=self.frames)

    def _as_made(self, spectra: Spectra) -> Finding:
        """The best reading of frames that were neither cropped nor given a border, scaled to any size."""
        return self._best([Place(0.0, *self._plain(), False, band) for band in WHOLE_BANDS], spectra, AS_MADE)

    def _turned(self, spectra: Spectra) -> Finding:
        """The best reading of whole frames that were mirrored, or stretched to another shape."""
        columns, plain = self.total.shape[1], self._plain()
        places = [
            Place(0.0, down, across, mirrored, band, (0.0, -columns / across if mirrored else 0.0))
            for down, across in self._bases()
            for mirrored in (False, True)
            for band in WHOLE_BANDS
            if mirrored or (down, across) != plain
        ]
        return self._best(places, spectra, TURNED)

    def _best(self, places: list[Place], spectra: Spectra, share: float) -> Finding:
        """The best reading at places that were chosen without a look at the picture."""
        log_combinations = math.log(len(places) / share)
        readings = [_read(spectra, place, self.key, log_combinations) for place in places]
        # Where the mark is, a reading that says which avatar comes before one that is more certain.
        return min(readings, key=lambda reading: (reading.payload is None, reading.log_bound))

    def _anywhere(self, spectra: Spectra) -> Finding:
        """The best reading over all scales and offsets."""
        steps = np.exp(np.arange(math.log(2 * SMALLEST_TILE), math.log(2 * LARGEST_TILE), STEP))
        tiles = [(down * step, across * step) for down, across in self._bases() for step in steps]
        moves = PLANE**2 * (2 * FINE_STEPS + 1) ** 2
        log_combinations = math.log(2 * len(BANDS) * len(tiles) * moves / ANYWHERE)
        places = [_refined(spectra, place) for place in _best_places(spectra, tiles)]
        readings = [_read(spectra, place, self.key, log_combinations) for place in places]
        return min(readings, key=lambda reading: reading.log_bound)

    def _plain(self) -> tuple[float, float]:
        """The tile (down, across) of a whole frame of its own shape, in pixels of the summed frame."""
        rows, columns = self.total.shape
        short = min(self.height, self.width)
        return rows * short / self.height / 2, columns * short / self.width / 2

    def _bases(self) -> list[tuple[float, float]]:
        """Tiles of a whole frame: its own shape, and a square, or a pair of squares, that was stretched to it."""
        rows, columns = self.total.shape
        bases = {self._plain(), (rows / 2, columns / 2)}
        if columns > WIDE * rows:
            bases.add((rows / 2, columns / 4))
        return sorted(bases)


def flattened(luma: np.ndarray) -> np.ndarray:
    """Fine detail ``[h, w]`` of luma ``[h, w]`` (0 to 255), divided everywhere by a power of its local standard deviation.

    It does not depend on the key, so it cannot raise the rate of false alarms.
    """
    unit = min(luma.shape) / SIDE
    luma = luma.astype(np.float32)
    detail = luma - _blurred(luma, DETAIL * unit)
    busy = np.sqrt(np.maximum(_blurred(detail * detail, SURROUNDINGS * unit), 0)) + np.float32(EVEN)
    return np.clip(detail / busy, -LARGEST_DETAIL, LARGEST_DETAIL) * busy ** np.float32(1 - POWER)


def _blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    return ndimage.gaussian_filter(image, sigma, mode="nearest", truncate=3)


def _best_places(spectra: Spectra, tiles: list[tuple[float, float]]) -> list[Place]:
    """The places with the best scores of the origin's channel, best first."""
    places = [place for tile in tiles for place in spectra.best(*tile, (False, True), BANDS)]
    return sorted(places, key=lambda place: -place.score)[:READ]


def _refined(spectra: Spectra, start: Place) -> Place:
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


def _read(spectra: Spectra, place: Place, key: bytes, log_combinations: float) -> Finding:
    """Payload and error rate at a place."""
    code = spectra.code
    agreement = spectra.close_agreement(place.down, place.across, place.mirrored)
    row, column = place.offset
    turned = agreement * np.exp(-2j * np.pi * (code.ky * row + code.kx * column))
    aligned = turned * spectra.shares[place.band]
    first = aligned[code.channel == 0]
    origin = float(first.real.sum()) * unit(first)
    bound, score = log_combinations - math.log(BY_ORIGIN) - max(origin, 0.0) ** 2 / 2, origin
    symbols, payload = _word(code, aligned, key)
    if payload is not None:
        moved = aligned * np.exp(-1j * shifts(code, symbols))
        channels = moved[code.channel > 0]
        # 2^32 words have the right check.
        words = PAYLOAD_BITS * math.log(2)
        every = float(moved.real.sum()) * unit(moved)
        whole = log_combinations - math.log(BY_ALL) + words - max(every, 0.0) ** 2 / 2
        bound, score = (whole, every) if whole < bound else (bound, origin)
        named = max(float(channels.real.sum()) * unit(channels), 0.0)
        payload = payload if words - named**2 / 2 <= math.log(WRONG_AVATAR) else None
    reading = Finding(log_bound=bound, score=score, tile=min(place.down, place.across), mirrored=place.mirrored)
    return replace(reading, payload=payload if reading.found else None)


def _word(code: Code, aligned: np.ndarray, key: bytes) -> tuple[list[int], int | None]:
    """The best four symbols whose payload matches its check bits, and that payload; else the best four and ``None``."""
    likely = [_symbols(code, aligned, channel) for channel in range(1, CHANNELS + 1)]
    words = sorted(itertools.product(*likely), key=lambda word: -sum(agreement for _, agreement in word))
    for word in words:
        symbols = [symbol for symbol, _ in word]
        payload = payload_in(key, symbols)
        if payload is not None:
            return symbols, payload
    return [symbol for symbol, _ in words[0]], None


def _symbols(code: Code, aligned: np.ndarray, channel: int) -> list[tuple[int, float]]:
    """The 12 bits of a channel: the shifts that agree best, best first, and how well they do."""
    chosen = code.channel == channel
    grid = np.zeros((GRID, GRID), np.complex64)
    np.add.at(grid, (code.ky[chosen] % GRID, code.kx[chosen] % GRID), aligned[chosen])
    plane = np.fft.ifft2(grid).real.ravel()
    best = np.argpartition(plane, -TRIED)[-TRIED:]
    return [(int(i), float(plane[i])) for i in best[np.argsort(-plane[best])]]
