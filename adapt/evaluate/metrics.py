"""Measures of a rendered video against the real one: pictures, lips, expressions, stillness, seam.

Pictures are float32 RGB in [0, 1], ``[H, W, 3]``; masks ``[H, W]`` in [0, 1]; landmarks are MediaPipe FaceMesh's 478,
``[T, 478, 3]`` px. Distances in pixels are given "at 512": multiplied by 512 / width. Each function is checked against
a value known beforehand in ``tests/adapt/test_metrics.py``.
"""

from __future__ import annotations

from collections import defaultdict
from functools import lru_cache

import numpy as np

LIPS_OUTER = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181, 91, 146)
LIPS_INNER = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95)
LIPS = LIPS_OUTER + LIPS_INNER
# Forehead, nose bridge and eye corners: what moves with the skull and hardly with the expression.
STABLE = (10, 151, 9, 8, 168, 6, 197, 33, 133, 362, 263, 127, 356, 54, 284)
EYE_CORNERS = (33, 133, 362, 263)

# Geometric action units: name -> pairs of landmarks whose mean distance (eye distances) is the unit's signal.
# Numbering follows FACS; left and right are averaged as OpenFace does.
UPPER_UNITS = {
    "AU1 inner brow": ((55, 133), (285, 362)),
    "AU2 outer brow": ((70, 33), (300, 263)),
    "AU4 brows together": ((55, 285),),
    "AU5/45 eye opening": ((159, 145), (386, 374)),
    "AU6 cheek": ((145, 50), (374, 280)),
    "AU9 nose wrinkle": ((55, 129), (285, 358)),
}
LOWER_UNITS = {
    "AU10 upper lip": ((2, 0),),
    "AU12 lip corners": ((61, 33), (291, 263)),
    "AU15 corners to chin": ((61, 152), (291, 152)),
    "AU17 chin": ((17, 152),),
    "AU20 mouth width": ((61, 291),),
    "AU23/24 lip thickness": ((0, 13), (14, 17)),
    "AU25 lips part": ((13, 14),),
    "AU26 jaw": ((1, 152),),
}


def psnr(picture: np.ndarray, real: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Peak signal-to-noise ratio, dB, peak 1; over the pixels of ``mask`` (weights) where given. NaN: empty mask."""
    error = ((picture - real) ** 2).mean(-1)
    if mask is None:
        mse = float(error.mean())
    else:
        weight = float(mask.sum())
        mse = float((error * mask).sum() / weight) if weight > 0 else float("nan")
    # Equal pictures: the ratio of one 8-bit step over a megapixel keeps averages finite.
    return float(-10.0 * np.log10(max(mse, 1e-10))) if mse == mse else mse


def ssim_map(picture: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Structural similarity per pixel ``[H, W]``, mean over channels (Wang et al. 2004; Gaussian 11x11, sigma 1.5).

    Pictures are mirrored at their edges, so that every pixel has a whole window.
    """
    import torch

    from heads import ssim_kernel as ssim

    edge = ((ssim.RADIUS, ssim.RADIUS), (ssim.RADIUS, ssim.RADIUS), (0, 0))
    a, b = (torch.from_numpy(np.pad(x.astype(np.float32), edge, mode="symmetric"))[None] for x in (picture, real))
    return ssim.ssim_map(a, b)[0].mean(-1).numpy()


def flip_map(picture: np.ndarray, real: np.ndarray, pixels_per_degree: float = 67.0) -> np.ndarray:
    """LDR-FLIP per pixel ``[H, W]``, 0 (same) .. 1 (Andersson et al. 2020), by the authors' package.

    Raises:
        ImportError: ``flip-evaluator`` is not installed (``pip install 'headstart[evaluate]'``).
    """
    import flip_evaluator

    error, _, _ = flip_evaluator.evaluate(
        np.ascontiguousarray(real, np.float32),
        np.ascontiguousarray(picture, np.float32),
        "LDR",
        inputsRGB=True,
        applyMagma=False,
        computeMeanError=False,
        parameters={"ppd": pixels_per_degree},
    )
    return np.asarray(error).reshape(picture.shape[:2])


def masked_mean(values: np.ndarray, mask: np.ndarray | None) -> float:
    """Weighted mean of a map; NaN where the mask is empty."""
    if mask is None:
        return float(values.mean())
    weight = float(mask.sum())
    return float((values * mask).sum() / weight) if weight > 0 else float("nan")


@lru_cache(maxsize=8)
def _disk(radius: int) -> np.ndarray:
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    return (x * x + y * y) <= radius * radius


def ring(mask: np.ndarray, width: float = 0.02) -> np.ndarray:
    """A band around a mask's border, half ``width`` x image width on either side: where a seam would show."""
    from scipy.ndimage import binary_dilation, binary_erosion

    radius = max(1, round(width * mask.shape[1] / 2))
    inside = mask > 0.5
    band = binary_dilation(inside, _disk(radius)) & ~binary_erosion(inside, _disk(radius))
    return band.astype(np.float32)


def seam_error(picture: np.ndarray, real: np.ndarray, head: np.ndarray) -> float:
    """How much more the picture changes across the head's border than the real frame does, in 8-bit steps.

    Mean absolute difference of the gradients in the ring: a displaced or hard border counts, a shared change of light
    does not. 0 means that no border can be seen that the real frame has not.
    """
    gradient = sum(np.abs(np.gradient(picture - real, axis=axis)).mean(-1) for axis in (0, 1))
    return 255.0 * masked_mean(gradient, ring(head))


class FrameScores:
    """Means over frames, one number in memory per measure; NaN frames are left out and counted."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = defaultdict(float)
        self.counts: dict[str, int] = defaultdict(int)

    def add(self, **values: float) -> None:
        """One frame's numbers."""
        for name, value in values.items():
            if value == value:
                self.sums[name] += value
                self.counts[name] += 1

    def means(self) -> dict[str, float]:
        """Mean per measure over the frames that had it."""
        return {name: self.sums[name] / self.counts[name] for name in self.sums}


def eye_distance(landmarks: np.ndarray) -> np.ndarray:
    """Distance ``[T]`` between the eyes' centres (means of their corners), px, in 3D so that turning keeps it."""
    right = landmarks[:, (33, 133)].mean(1)
    left = landmarks[:, (362, 263)].mean(1)
    return np.linalg.norm(right - left, axis=-1)


def lmd(found: np.ndarray, real: np.ndarray, width: int, centred: bool = True) -> float:
    """Mean distance of the 40 lip landmarks, px at 512.

    Args:
        centred: subtract the mean lip position of each frame first, as the published evaluation of ER-NeRF and
            TalkingGaussian does: the shape of the mouth is measured, not the place of the head.
    """
    a, b = found[:, LIPS, :2], real[:, LIPS, :2]
    if centred:
        a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    return float(np.linalg.norm(a - b, axis=-1).mean() * 512.0 / width)


def unit_curves(landmarks: np.ndarray, units: dict[str, tuple[tuple[int, int], ...]]) -> dict[str, np.ndarray]:
    """Signals ``[T]`` of geometric action units, in percent of the eye distance."""
    scale = 100.0 / eye_distance(landmarks)
    curves = {}
    for name, pairs in units.items():
        lengths = [np.linalg.norm(landmarks[:, a] - landmarks[:, b], axis=-1) for a, b in pairs]
        curves[name] = np.mean(lengths, 0) * scale
    return curves


def action_unit_error(found: np.ndarray, real: np.ndarray, units: dict[str, tuple[tuple[int, int], ...]]) -> float:
    """AUE: mean over units of the root-mean-square difference of their signals, percent of the eye distance."""
    ours, theirs = unit_curves(found, units), unit_curves(real, units)
    return float(np.mean([np.sqrt(((ours[name] - theirs[name]) ** 2).mean()) for name in units]))


def lip_gap(landmarks: np.ndarray) -> np.ndarray:
    """Inner lip gap ``[T]`` over eye distance: how open the mouth is."""
    return np.linalg.norm(landmarks[:, 13] - landmarks[:, 14], axis=-1) / eye_distance(landmarks)


def _without_head_motion(landmarks: np.ndarray) -> np.ndarray:
    """Remove the best planar similarity of the stable points to frame 0 (Procrustes): what is left is expression."""
    points = landmarks[..., :2]
    stable = points[:, STABLE]
    centre = stable.mean(1, keepdims=True)
    target = stable[0] - centre[0]
    flat = stable - centre
    # Planar similarity in closed form with complex numbers: argmin_z |z a - b|.
    a, b = flat[..., 0] + 1j * flat[..., 1], (target[..., 0] + 1j * target[..., 1])[None]
    turn = (np.conj(a) * b).sum(1) / (np.abs(a) ** 2).sum(1)
    moved = points - centre
    result = (moved[..., 0] + 1j * moved[..., 1]) * turn[:, None]
    return np.stack([result.real, result.imag], -1)


def _acceleration(points: np.ndarray) -> float:
    return float(np.sqrt((np.diff(points, n=2, axis=0) ** 2).sum(-1).mean()))


def jitter(found: np.ndarray, real: np.ndarray) -> tuple[float, float]:
    """Root-mean-square acceleration relative to the real video's: (head, lips); 1 means as lively as the real one.

    The head is followed by the stable points, the lips by theirs after the head's motion is removed.

    Raises:
        ValueError: fewer than three frames.
    """
    if len(found) < 3:
        raise ValueError("jitter needs three frames or more")
    head = _acceleration(found[:, STABLE, :2]) / max(_acceleration(real[:, STABLE, :2]), 1e-6)
    lips_found, lips_real = _without_head_motion(found)[:, LIPS], _without_head_motion(real)[:, LIPS]
    return head, _acceleration(lips_found) / max(_acceleration(lips_real), 1e-6)
