"""Value noise in three dimensions: the variation of skin, cloth and walls, without seams whatever the UV layout."""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _hash(x, y, z, seed):
    h = (
        x * np.int64(374761393) + y * np.int64(668265263) + z * np.int64(2147483647) + seed * np.int64(1274126177)
    ) & np.int64(0xFFFFFFFF)
    h = ((h ^ (h >> np.int64(13))) * np.int64(1274126177)) & np.int64(0xFFFFFFFF)
    h = ((h ^ (h >> np.int64(16))) * np.int64(2246822519)) & np.int64(0xFFFFFFFF)
    return ((h ^ (h >> np.int64(13))) & np.int64(0xFFFFFF)) / 16777215.0


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _fbm(points, octaves, seed, out):
    for i in range(points.shape[0]):
        total, amplitude, norm = 0.0, 1.0, 0.0
        x, y, z = points[i, 0], points[i, 1], points[i, 2]
        for octave in range(octaves):
            fx, fy, fz = np.floor(x), np.floor(y), np.floor(z)
            u, v, w = x - fx, y - fy, z - fz
            u, v, w = u * u * (3 - 2 * u), v * v * (3 - 2 * v), w * w * (3 - 2 * w)
            ix, iy, iz, s = np.int64(fx), np.int64(fy), np.int64(fz), np.int64(seed + 101 * octave)
            value = 0.0
            for c in range(8):
                a, b, d = c & 1, (c >> 1) & 1, c >> 2
                weight = (u if a else 1 - u) * (v if b else 1 - v) * (w if d else 1 - w)
                value += weight * _hash(ix + a, iy + b, iz + d, s)
            total += amplitude * (2 * value - 1)
            norm += amplitude
            amplitude *= 0.55
            x, y, z = x * 2.03 + 17.1, y * 2.03 + 3.7, z * 2.03 + 9.2
        out[i] = total / norm


def fbm(points: np.ndarray, frequency: float | tuple, octaves: int, seed: int) -> np.ndarray:
    """Fractal noise in about [-0.7, 0.7] at points ``[..., 3]``; `frequency` in cells per unit; `seed` picks it."""
    flat = np.ascontiguousarray(
        np.asarray(points, dtype=np.float64).reshape(-1, 3) * np.asarray(frequency, dtype=np.float64)
    )
    out = np.empty(len(flat))
    _fbm(flat, octaves, int(seed) & 0x3FFFFFFF, out)
    return out.reshape(np.shape(points)[:-1]).astype(np.float32)
