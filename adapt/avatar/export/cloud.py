"""One moment of a head as plain arrays: what every export format writes and reads."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from configs import InputError

MEAN_EYE_DISTANCE = 0.063  # metres in one rig unit
# Degree-0 spherical harmonic: viewers show 0.5 + SH_C0 * f_dc.
SH_C0 = 0.28209479177387814
# Opacities are kept this far from 0 and 1, so that their logits are finite. float32 holds 1 - 1e-6.
OPACITY_MARGIN = 1e-6
_SMALLEST_SCALE = 1e-9  # metres; keeps logarithms finite
_WIDTHS = {"means": 3, "quats": 4, "scales": 3, "opacities": None, "colors": 3}


@dataclass(frozen=True)
class Cloud:
    """``N`` Gaussians in metres.

    Attributes:
        means: ``[N, 3]`` centres, metres.
        quats: ``[N, 4]`` unit quaternions, wxyz, from a Gaussian's axes to the cloud's.
        scales: ``[N, 3]`` standard deviations along the Gaussian's axes, metres, positive.
        opacities: ``[N]`` in (0, 1), after the sigmoid.
        colors: ``[N, 3]`` RGB in [0, 1] as shown on an sRGB display.

    Raises:
        InputError: no Gaussians, shapes that do not fit each other, or a number that is not finite.
    """

    means: np.ndarray
    quats: np.ndarray
    scales: np.ndarray
    opacities: np.ndarray
    colors: np.ndarray

    def __post_init__(self) -> None:
        if len(self.means) == 0:
            raise InputError("Gaussians: there are none to export")
        for name, width in _WIDTHS.items():
            array: np.ndarray = getattr(self, name)
            expected = (len(self.means),) if width is None else (len(self.means), width)
            if array.shape != expected:
                raise InputError(f"Gaussians: {name} has shape {list(array.shape)}, expected {list(expected)}")
            finite = np.isfinite(array)
            if not finite.all():
                row = int(np.argwhere(~finite)[0, 0])
                raise InputError(f"Gaussians: {name} of Gaussian {row} is not finite; adapt the avatar again")

    @classmethod
    def make(
        cls, means: np.ndarray, quats: np.ndarray, scales: np.ndarray, opacities: np.ndarray, colors: np.ndarray
    ) -> Cloud:
        """A cloud in float32 with unit quaternions, and opacities, colours and scales moved into their ranges."""
        quats = np.asarray(quats, np.float64)
        length = np.linalg.norm(quats, axis=-1, keepdims=True)
        unit = np.where(length > 1e-12, quats / np.maximum(length, 1e-12), [1.0, 0.0, 0.0, 0.0])
        return cls(
            np.asarray(means, np.float32),
            unit.astype(np.float32),
            np.maximum(np.asarray(scales, np.float32), _SMALLEST_SCALE),
            np.clip(np.asarray(opacities, np.float64), OPACITY_MARGIN, 1 - OPACITY_MARGIN).astype(np.float32),
            np.clip(np.asarray(colors, np.float32), 0.0, 1.0),
        )

    @classmethod
    def of_head(cls, gaussians: object, row: int = 0, *, unit: float = MEAN_EYE_DISTANCE) -> Cloud:
        """One scene of a batch of ``heads`` Gaussians.

        Args:
            gaussians: has ``means [B, N, 3], quats, scales, opacities, colors`` as tensors, in rig units.
            row: which scene of the batch.
            unit: metres in one rig unit.
        """
        parts = {f.name: getattr(gaussians, f.name)[row].detach().cpu().numpy() for f in fields(cls)}
        parts["means"], parts["scales"] = parts["means"] * unit, parts["scales"] * unit
        return cls.make(**parts)

    @property
    def n(self) -> int:
        """How many Gaussians."""
        return len(self.means)

    @property
    def f_dc(self) -> np.ndarray:
        """Degree-0 coefficients ``[N, 3]`` float32 of the colours."""
        return ((self.colors - 0.5) / SH_C0).astype(np.float32)

    def replace(self, **parts: np.ndarray) -> Cloud:
        """A copy with some parts exchanged."""
        return replace(self, **parts)


def colors_of(f_dc: np.ndarray) -> np.ndarray:
    """RGB of degree-0 coefficients, ``[N, 3]`` each."""
    return np.asarray(f_dc, np.float64) * SH_C0 + 0.5
