"""Mouth shapes of phonemes: dominance blending over time, and the expression coefficients that produce a shape."""

from __future__ import annotations

import numpy as np
import torch

from heads.rig import Rig
from shards.synthetic.speech.lexicon import Phone

MEASURES = ("aperture", "width", "protrusion", "chin", "upper")
# Targets in rig units (1 = eye distance, about 63 mm) relative to lips just closed: distance between the inner lips,
# change of the distance between the corners, lips forward, chin down, upper lip raised. Last: dominance in [0, 1].
_SHAPES: dict[str, tuple[float, float, float, float, float, float]] = {
    "SIL": (0.005, 0.00, 0.00, 0.00, 0.00, 0.35),
    "IY": (0.09, 0.07, -0.01, 0.04, 0.02, 0.75), "IH": (0.12, 0.05, 0.00, 0.07, 0.02, 0.65),
    "EH": (0.17, 0.04, 0.00, 0.12, 0.02, 0.75), "AE": (0.23, 0.05, 0.00, 0.18, 0.03, 0.85),
    "AA": (0.27, -0.01, 0.01, 0.24, 0.02, 0.90), "AO": (0.22, -0.08, 0.05, 0.20, 0.01, 0.90),
    "UH": (0.11, -0.07, 0.05, 0.08, 0.01, 0.75), "UW": (0.07, -0.14, 0.09, 0.05, 0.01, 0.95),
    "AH": (0.15, 0.00, 0.01, 0.12, 0.01, 0.60), "ER": (0.11, -0.06, 0.04, 0.07, 0.01, 0.75),
    "EY": (0.15, 0.06, 0.00, 0.10, 0.02, 0.75), "AY": (0.24, 0.02, 0.00, 0.20, 0.02, 0.85),
    "OY": (0.18, -0.06, 0.05, 0.16, 0.01, 0.85), "AW": (0.22, -0.05, 0.04, 0.20, 0.01, 0.85),
    "OW": (0.14, -0.12, 0.08, 0.13, 0.01, 0.90),
    "W": (0.045, -0.15, 0.09, 0.04, 0.00, 0.95), "L": (0.11, 0.01, 0.00, 0.07, 0.01, 0.50),
    "R": (0.08, -0.08, 0.05, 0.05, 0.01, 0.70), "Y": (0.08, 0.05, 0.00, 0.04, 0.01, 0.55),
    "M": (0.00, -0.01, 0.01, 0.00, 0.00, 3.0), "B": (0.00, -0.01, 0.01, 0.00, 0.00, 3.0),
    "P": (0.00, -0.01, 0.01, 0.00, 0.00, 3.0), "F": (0.025, 0.01, -0.02, 0.00, 0.03, 2.2),
    "V": (0.030, 0.01, -0.02, 0.00, 0.03, 2.0), "TH": (0.075, 0.01, 0.00, 0.03, 0.01, 0.8),
    "DH": (0.075, 0.01, 0.00, 0.03, 0.01, 0.7), "S": (0.055, 0.04, 0.00, 0.00, 0.02, 0.9),
    "Z": (0.055, 0.04, 0.00, 0.00, 0.02, 0.9), "SH": (0.075, -0.08, 0.07, 0.02, 0.02, 1.0),
    "ZH": (0.075, -0.08, 0.07, 0.02, 0.02, 1.0), "CH": (0.070, -0.08, 0.07, 0.02, 0.02, 1.0),
    "JH": (0.070, -0.08, 0.07, 0.02, 0.02, 1.0), "T": (0.065, 0.02, 0.00, 0.03, 0.01, 0.6),
    "D": (0.065, 0.02, 0.00, 0.03, 0.01, 0.6), "N": (0.070, 0.02, 0.00, 0.04, 0.01, 0.55),
    "K": (0.095, 0.01, 0.00, 0.07, 0.01, 0.4), "G": (0.095, 0.01, 0.00, 0.07, 0.01, 0.4),
    "NG": (0.095, 0.01, 0.00, 0.07, 0.01, 0.4), "HH": (0.12, 0.00, 0.00, 0.09, 0.01, 0.2),
}  # fmt: skip
_LEAD = 0.03  # s: the mouth is shaped before the sound is heard
_UPPER_LIP, _LOWER_LIP, _CORNERS, _CHIN, _NOSE = 13, 14, (61, 291), 152, 2


def mouth_curves(phones: list[Phone], frames: int, fps: float = 25.0) -> np.ndarray:
    """``[T, 5]`` targets of `MEASURES` in rig units at the middle of each frame.

    Each phoneme pulls on the mouth with a dominance that decays around its centre (Cohen and Massaro 1993), so a
    vowel between two closures never opens as far as a long one, and lips close fully for m, b, p.
    """
    table = np.array([_SHAPES[p.symbol] for p in phones])
    centre = np.array([(p.start + p.end) / 2 for p in phones]) - _LEAD
    half = np.maximum(np.array([(p.end - p.start) / 2 for p in phones]), 0.02)
    result = np.empty((frames, len(MEASURES)))
    for first in range(0, frames, 256):  # blocks keep memory constant in the length of the speech
        time = (np.arange(first, min(frames, first + 256)) + 0.5) / fps
        near = slice(*np.searchsorted(centre, (time[0] - 3.0, time[-1] + 3.0)))
        outside = np.maximum(np.abs(time[:, None] - centre[near]) - 0.6 * half[near], 0)
        weight = table[near, 5] * np.exp(-((outside / 0.055) ** 1.2)) + 1e-6
        result[first : first + len(time)] = weight @ table[near, :5] / weight.sum(1, keepdims=True)
    return result


class MouthSolver:
    """Turns mouth measures into expression coefficients of any rig that names the FaceMesh landmarks.

    The smallest expression (with the upper face still) that gives exactly the wanted measures to first order.
    """

    def __init__(self, rig: Rig, identity: np.ndarray) -> None:
        k = rig.n_expression
        shape = torch.as_tensor(identity, dtype=torch.float32).reshape(1, -1)
        step = 0.5
        probe = torch.cat([torch.zeros(1, k), step * torch.eye(k)])
        with torch.no_grad():
            points = rig.landmarks(rig.vertices(shape.expand(k + 1, -1), probe)).double().numpy()
        measured = self._measure(points)
        self.neutral = measured[0]
        jacobian = ((measured[1:] - measured[0]) / step).T  # (5, K)
        upper = (
            points[1:, points[0, :, 1] < points[0, _NOSE, 1] - 0.05]
            - points[0, points[0, :, 1] < points[0, _NOSE, 1] - 0.05]
        )
        spill = (upper / step).reshape(k, -1)
        scale = np.trace(jacobian.T @ jacobian) / k
        normal = jacobian.T @ jacobian + spill @ spill.T / max(1, spill.shape[1] // 3) + 0.05 * scale * np.eye(k)
        ridge = np.linalg.solve(normal, jacobian.T)
        gain = jacobian @ ridge
        # Undo the ridge's shrinkage where the basis can express the measure; leave it where it cannot.
        self.solution = ridge @ np.linalg.inv(gain + 1e-4 * np.trace(gain) * np.eye(len(MEASURES)))

    @staticmethod
    def _measure(points: np.ndarray) -> np.ndarray:
        """``[B, 5]`` `MEASURES` of ``[B, 478, 3]`` points in head space (y down, z away from the camera)."""
        lips = points[:, [_UPPER_LIP, _LOWER_LIP]]
        return np.stack(
            [
                lips[:, 1, 1] - lips[:, 0, 1],
                points[:, _CORNERS[1], 0] - points[:, _CORNERS[0], 0],
                -lips[..., 2].mean(1),
                points[:, _CHIN, 1],
                points[:, _NOSE, 1] - lips[:, 0, 1],
            ],
            axis=1,
        )

    def expression(self, targets: np.ndarray, limit: float = 4.0) -> np.ndarray:
        """``[T, K]`` expression coefficients for ``[T, 5]`` targets; the aperture is absolute, the others are changes."""
        wanted = np.array(targets, dtype=np.float64)
        wanted[:, 0] -= self.neutral[0]
        return np.clip(wanted @ self.solution.T, -limit, limit).astype(np.float32)
