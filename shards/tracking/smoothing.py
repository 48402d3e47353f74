"""Temporal smoothing that removes jitter from a still head and does not slow lips and blinks.

Poses go through a short quadratic fit (Savitzky and Golay 1964), which keeps real motion of the head, and where nothing
moves beyond the noise, through a longer mean. Landmarks in head space go through a bilateral filter over time (Tomasi
and Manduchi 1998): a frame is averaged with neighbours that differ by no more than noise. All kernels are short and
symmetric: nothing lags, and a stream cut into chunks with ``MARGIN`` frames to spare gives exactly the whole's values.
"""

from __future__ import annotations

import numpy as np

MARGIN = 16  # frames on either side that a smoothed frame may depend on
RADIUS = 4  # frames on either side in the bilateral filter
SPREAD = 1.5  # frames, standard deviation of its Gaussian over time
TOLERANCE = 1.6  # standard deviations of noise: smaller differences are taken for noise
POSE_FIT = 3  # frames on either side in the quadratic fit
STILL_REACH = 6  # frames on either side in which a still head must not move, and of the mean then taken
STILL_LIMIT = 2.5  # standard deviations of noise that a still head's fitted pose may seem to move
MISFIT_LIMIT = 3.5  # standard deviations by which a fit may leave the measured pose before the pose is believed


def noise_level(series: np.ndarray) -> np.ndarray:
    """Standard deviation of frame-to-frame noise ``[...]`` of a series ``[T, ..., D]``, pooled over D.

    From second differences, of which the quietest quarter tells: the rest of the time something moves.
    """
    if len(series) < 5:
        return np.zeros(series.shape[1:-1])
    second = series[1:-1] - 0.5 * (series[:-2] + series[2:])
    quiet = np.quantile(np.abs(second), 0.25, axis=0)
    # A quarter of a normal distribution lies within 0.3186 sigma; the second difference has variance 1.5.
    return np.sqrt((quiet**2).mean(-1)) / 0.3186 / np.sqrt(1.5)


def smooth(
    series: np.ndarray, noise: np.ndarray, *, radius: int = RADIUS, spread: float = SPREAD, tolerance: float = TOLERANCE
) -> np.ndarray:
    """Bilateral mean over time.

    Args:
        series: ``[T, ..., D]``; the range kernel works on the distance over D.
        noise: ``[...]`` standard deviation per component of D; zero leaves a series as it is.

    Returns:
        ``[T, ..., D]`` float64.
    """
    series = series.astype(np.float64)
    scale = np.maximum(noise, 1e-12) * tolerance * np.sqrt(2 * series.shape[-1])
    total, weight = series.copy(), np.ones(series.shape[:-1])
    for shift in range(1, min(radius, len(series) - 1) + 1):
        difference = series[shift:] - series[:-shift]
        share = np.exp(-0.5 * (np.linalg.norm(difference, axis=-1) / scale) ** 2 - 0.5 * (shift / spread) ** 2)
        total[:-shift] += share[..., None] * series[shift:]
        total[shift:] += share[..., None] * series[:-shift]
        weight[:-shift] += share
        weight[shift:] += share
    return total / weight[..., None]


def smooth_pose(rotation: np.ndarray, translation: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rotations ``[T, 3, 3]`` and translations ``[T, 3]`` smoothed together; ``noise`` ``[12]`` from :func:`pose_noise`."""
    measured = pose_series(rotation, translation)
    fitted = _convolved(measured, _quadratic_kernel(POSE_FIT))
    misfit = np.sqrt((((measured - fitted) / np.maximum(noise, 1e-9)) ** 2).mean(-1, keepdims=True))
    fitted += (1 - np.exp(-((misfit / MISFIT_LIMIT) ** 4))) * (measured - fitted)
    still = _convolved(_stillness(fitted, noise)[:, None], _gaussian_kernel(3))
    series = fitted + still * (_convolved(fitted, _gaussian_kernel(STILL_REACH)) - fitted)
    u, _, vt = np.linalg.svd(series[:, :9].reshape(-1, 3, 3))
    return u @ vt, series[:, 9:]


def _stillness(fitted: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """``[T]`` 1 where no frame nearby differs by more than noise, falling to 0 where the head moves."""
    scaled = fitted / np.maximum(noise, 1e-9)
    moved = np.zeros(len(scaled))
    for shift in range(1, min(STILL_REACH, len(scaled) - 1) + 1):
        distance = np.sqrt(((scaled[shift:] - scaled[:-shift]) ** 2).mean(-1))
        moved[:-shift] = np.maximum(moved[:-shift], distance)
        moved[shift:] = np.maximum(moved[shift:], distance)
    return np.exp(-((moved / STILL_LIMIT) ** 4))


def _convolved(series: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Series ``[T, D]`` convolved with a kernel of 2 R + 1 frames, point-reflected at the ends to keep steady motion."""
    reach = len(kernel) // 2
    if len(series) <= reach + 1:
        return series
    before, after = 2 * series[:1] - series[reach:0:-1], 2 * series[-1:] - series[-2 : -reach - 2 : -1]
    padded = np.concatenate([before, series, after])
    return np.tensordot(np.lib.stride_tricks.sliding_window_view(padded, len(kernel), axis=0), kernel, 1)


def _quadratic_kernel(reach: int) -> np.ndarray:
    """Weights whose sum over a window is the least-squares parabola's value in its middle."""
    times = np.arange(-reach, reach + 1)
    return np.linalg.pinv(np.stack([times**0, times, times**2], 1))[0]


def _gaussian_kernel(reach: int) -> np.ndarray:
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / (reach / 2)) ** 2)
    return weights / weights.sum()


def pose_series(rotation: np.ndarray, translation: np.ndarray) -> np.ndarray:
    """Poses as a series ``[T, 12]``: the matrix's entries and the translation."""
    return np.concatenate([rotation.reshape(len(rotation), 9), translation], axis=1)


def pose_noise(rotation: np.ndarray, translation: np.ndarray) -> np.ndarray:
    """Noise ``[12]`` of each entry of a pose, in units of :func:`pose_series`."""
    return noise_level(pose_series(rotation, translation)[..., None])


def jitter(points: np.ndarray) -> float:
    """Root mean square acceleration of points ``[T, N, D]``, in their unit per frame squared."""
    if len(points) < 3:
        return 0.0
    second = points[2:] - 2 * points[1:-1] + points[:-2]
    return float(np.sqrt((second**2).sum(-1).mean()))
