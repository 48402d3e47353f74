"""The summed frame against the code: how well phases agree at a place, and the offset at which they agree best."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import scipy.fft

from adapt.marking.code import GRID, HIGHEST, LOWEST, Code

# Ranges of wave vectors, cycles per tile: short waves are lost first, long ones compete with the picture's content.
BANDS = ((LOWEST, HIGHEST), (LOWEST, 18))
# The same for whole frames: of those made at 256 px, of these after hard compression, of those made at 512 px.
WHOLE_BANDS = ((LOWEST, 18), (6, 15), (8, HIGHEST))
# Where a mark is read, a band's wave vectors count from nothing to all over its first RISING cycles, and from all to
# nothing over its last FALLING part: about as they are in the mark.
RISING, FALLING = 2.0, 0.25
# A wave vector's weight is its magnitude over that of others, up to this.
LARGEST_WEIGHT = 2.5
# Offsets per axis at which the origin's score is computed.
PLANE = 2 * GRID


@dataclass(frozen=True)
class Place:
    """A tile's two sides in pixels of the summed frame, the origin's offset in tiles, and the origin's score."""

    score: float
    down: float
    across: float
    mirrored: bool
    band: tuple[int, int]
    offset: tuple[float, float] = (0.0, 0.0)


class Spectra:
    """Phases of a summed frame at the code's wave vectors, for any size of the tile."""

    def __init__(self, image: np.ndarray, code: Code) -> None:
        self.image, self.code = image.astype(np.float32), code
        self.expected = np.exp(-1j * code.phase).astype(np.complex64)
        radius = np.hypot(code.kx, code.ky)
        self.length = np.rint(radius).astype(int)
        self.shares = {band: _share(radius, *band) for band in {*BANDS, *WHOLE_BANDS}}
        within = {band: (radius >= band[0]) & (radius <= band[1]) for band in BANDS}
        self.grids = {band: self._grid(np.flatnonzero(within[band] & (code.channel == 0))) for band in BANDS}

    def _grid(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Some wave vectors, their places in a plane's spectrum, and how often each counts.

        The waves are real: half of the plane, with ky along the last axis, holds all of them. Waves along x stand for
        two entries of that axis' first column, of which the transform would count one.
        """
        kx, ky = self.code.kx[chosen], self.code.ky[chosen]
        return chosen, kx % PLANE, ky, np.where(ky == 0, np.float32(2), np.float32(1))

    def table(self, down: float, across: float, highest: int = HIGHEST) -> np.ndarray:
        """The frame's part of every wave vector of a tile, complex ``[highest + 1, 2 highest + 1]``."""
        rows, columns = self.image.shape
        left = _waves(rows, down, highest)[:, highest:].T
        # Two real products: a complex one would first make the image complex.
        product = np.concatenate([left.real, left.imag]) @ self.image
        return (product[: highest + 1] + 1j * product[highest + 1 :]) @ _waves(columns, across, highest)

    def agreement(self, table: np.ndarray, mirrored: bool) -> np.ndarray:
        """``w exp(i (picture's phase - key's phase))`` for every wave vector, complex ``[N]``.

        The weight ``w`` is the wave vector's magnitude over that of others of its length.
        """
        values = self._values(table, mirrored)
        size = np.abs(values)
        usual = np.bincount(self.length, size) / np.maximum(np.bincount(self.length), 1)
        return self._weighted(values, usual[self.length])

    def close_agreement(self, down: float, across: float, mirrored: bool) -> np.ndarray:
        """As :meth:`agreement`, weighted by the picture's magnitude *between* the code's wave vectors; four times as slow.

        The mark repeats with the tile, so it contains only whole numbers of cycles per tile. The picture contains all
        frequencies, and its magnitude at the eight nearest half numbers estimates its share of that at a wave vector.
        """
        half = self.table(2 * down, 2 * across, 2 * HIGHEST + 1)
        power = np.square(np.abs(half))
        # Below ky = 0 lie the opposite vectors, of equal magnitude.
        power = np.concatenate([power[1:2, ::-1], power])
        nearest = sum(
            power[1 + y : 1 + y + 2 * HIGHEST + 1 : 2, 1 + x : 1 + x + 4 * HIGHEST + 1 : 2]
            for y in (-1, 0, 1)
            for x in (-1, 0, 1)
            if x or y
        )
        between = np.sqrt(nearest / 8)
        return self._weighted(self._values(half[::2, 1::2], mirrored), self._values(between, mirrored))

    def _values(self, table: np.ndarray, mirrored: bool) -> np.ndarray:
        return (table[:, ::-1] if mirrored else table)[self.code.ky, self.code.kx + HIGHEST]

    def _weighted(self, values: np.ndarray, usual: np.ndarray) -> np.ndarray:
        size = np.abs(values) + 1e-12
        return values / size * np.minimum(size / (usual + 1e-12), LARGEST_WEIGHT) * self.expected

    def best(
        self, down: float, across: float, turns: tuple[bool, ...], bands: tuple[tuple[int, int], ...]
    ) -> list[Place]:
        """For each of ``turns`` (mirrored or not) and each band, the offset with the best score of channel 0."""
        table, places = self.table(down, across), []
        for mirrored in turns:
            agreement = self.agreement(table, mirrored)
            for band in bands:
                start = Place(0.0, down, across, mirrored, band)
                places.append(self._best_offset(agreement, start))
        return places

    def _best_offset(self, agreement: np.ndarray, place: Place) -> Place:
        chosen, columns, rows, twice = self.grids[place.band]
        agreement = agreement[chosen]
        grid = np.zeros((PLANE, PLANE // 2 + 1), np.complex64)
        grid[columns, rows] = twice * agreement.conj()
        plane = scipy.fft.irfft2(grid, (PLANE, PLANE), overwrite_x=True)
        column, row = divmod(int(plane.argmax()), PLANE)
        score = float(plane[column, row]) * PLANE**2 / 2 * unit(agreement)
        return replace(place, score=score, offset=(row / PLANE, column / PLANE))


def _share(radius: np.ndarray, lowest: float, highest: float) -> np.ndarray:
    """Weight ``[N]`` in [0, 1] of wave vectors with ``radius`` cycles per tile in a band."""
    rising, falling = (radius - lowest) / RISING, (highest - radius) / (FALLING * highest)
    return np.clip(np.minimum(rising, falling), 0, 1)


@lru_cache(maxsize=512)
def _waves(length: int, period: float, highest: int) -> np.ndarray:
    """``exp(-2 pi i k (x + 1/2) / period)``, complex64 ``[length, 2 highest + 1]``: the same for files of one size."""
    k = np.arange(-highest, highest + 1)
    return np.exp(-2j * np.pi / period * np.outer(np.arange(length) + 0.5, k)).astype(np.complex64)


def unit(agreement: np.ndarray) -> float:
    """What a sum of agreements ``[N]`` is multiplied by, so that it has the variance 1 without a mark."""
    return math.sqrt(2 / max(float(np.square(np.abs(agreement)).sum()), 1e-12))
