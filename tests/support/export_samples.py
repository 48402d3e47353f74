"""Generated clouds, and the stated bounds of what a format may change, as in docs/export.md."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from adapt.avatar.export.axes import rotation_matrices
from adapt.avatar.export.cloud import Cloud


def make_cloud(n: int = 4000, seed: int = 0) -> Cloud:
    """Gaussians of a head's size with every rotation, and opacities and colours from one end to the other."""
    rng = np.random.default_rng(seed)
    opacities = np.concatenate([[0.0, 1.0, 1e-7], rng.uniform(0, 1, n - 3)])
    colors = np.concatenate([[[0, 0, 0], [1, 1, 1], [1, 0, 0.5]], rng.uniform(0, 1, (n - 3, 3))])
    scales = np.exp(rng.uniform(np.log(6e-5), np.log(0.03), (n, 3)))
    return Cloud.make(rng.normal(0, 0.08, (n, 3)), rng.normal(size=(n, 4)), scales, opacities, colors)


@dataclass(frozen=True)
class Bounds:
    """Largest errors: metres, opacity, RGB, relative scale, degrees."""

    position: float
    opacity: float
    color: float
    scale: float
    degrees: float


FLOAT = Bounds(position=0.0, opacity=1e-6, color=1e-6, scale=1e-6, degrees=0.001)
BOUNDS = {
    ".ply": FLOAT,
    ".glb": FLOAT,
    ".usdc": FLOAT,
    ".usdz": FLOAT,
    # 20 fractional bits, bytes of opacity and colour, sixteenths of log scale, nine bits of quaternion components
    ".spz": Bounds(position=0.5e-6, opacity=0.002, color=0.0037, scale=0.032, degrees=0.25),
}


def assert_within(found: Cloud, truth: Cloud, bounds: Bounds) -> None:
    """Every Gaussian of ``found`` is that of ``truth``, in the same order, within the bounds."""
    assert found.n == truth.n
    assert np.abs(found.means.astype(float) - truth.means).max() <= bounds.position
    assert np.abs(found.opacities - truth.opacities).max() <= bounds.opacity
    assert np.abs(found.colors - truth.colors).max() <= bounds.color
    assert np.abs(found.scales.astype(float) / truth.scales - 1).max() <= bounds.scale
    assert degrees_between(found.quats, truth.quats).max() <= bounds.degrees


def degrees_between(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Angles ``[N]`` between rotations, exact for small ones."""
    apart = np.linalg.norm(rotation_matrices(_unit(p)) - rotation_matrices(_unit(q)), axis=(1, 2))
    return np.degrees(2 * np.arcsin(np.clip(apart / np.sqrt(8), 0, 1)))


def _unit(quats: np.ndarray) -> np.ndarray:
    quats = np.asarray(quats, np.float64)
    return quats / np.linalg.norm(quats, axis=1, keepdims=True)


def covariances(cloud) -> np.ndarray:
    """``[N, 3, 3]`` in the cloud's axes."""
    factors = rotation_matrices(cloud.quats) * cloud.scales[:, None, :].astype(np.float64)
    return factors @ factors.transpose(0, 2, 1)
