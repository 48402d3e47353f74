"""Points on the skin of a person's head: where frames show them, and the corrections that align them to a texture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from heads.gaussians.uv import UVGaussians
from heads.geometry.rotation import rotation_matrix
from heads.rig import Rig
from shards.tracking.refinement.alignment_kernels import BLOCK, POSE, align, look
from shards.tracking.refinement.picture_kernels import CHANNELS

SIDE = 128  # px, side of the pictures that are compared
TEXELS = 64  # side of the UV map whose texels are compared
REGIONS = ("face", "lips", "eye_left", "eye_right")
LINEARISATIONS = 2  # a second one changes the corrections by a quarter, two more by a tenth
ROBUST = 0.08  # difference, of 1, at which a point's weight falls to a quarter · guess
GRAZING, FACING = 0.2, 0.5  # cosines between which a point's weight rises from none to all · guess


@dataclass
class Start:
    """Tracks that are corrected, float32: ``rotation [T, 3, 3], translation [T, 3], expression [T, K], eyelids [T, 2]``."""

    rotation: np.ndarray
    translation: np.ndarray
    expression: np.ndarray
    eyelids: np.ndarray

    @classmethod
    def of(cls, track: Mapping[str, np.ndarray]) -> Start:
        return cls(*(track[name] for name in ("rotation", "translation", "expression", "eyelids")))

    def pick(self, rows: slice) -> Start:
        return Start(*(value[rows] for value in vars(self).values()))

    def moved(self, corrections: np.ndarray) -> dict[str, np.ndarray]:
        """The tracks with corrections ``[T, P]``: rotation vector, translation, expression, eyelids."""
        turn, shift, expression, eyelids = np.split(corrections, [3, POSE, -2], 1)
        return {
            "rotation": rotation_matrix(torch.from_numpy(turn)).numpy() @ self.rotation,
            "translation": self.translation + shift,
            "expression": self.expression + expression,
            "eyelids": self.eyelids + eyelids,
        }


class PersonsSurface:
    """The skin of one person, at the texels of a small UV map.

    Args:
        identity: ``[K_id]`` float32.

    Attributes:
        n: number of points N.
        held_lips: ``[K + 2, K + 2]`` float64: the mean square motion of the lips as a quadratic form of expression and eyelids.
    """

    def __init__(self, rig: Rig, identity: np.ndarray) -> None:
        skin, who = _skin(rig), torch.from_numpy(identity)[None]
        self.n = len(skin.normals)
        neutral = rig.vertices(who, torch.zeros(1, rig.n_expression))[0]
        moves = torch.cat([rig.expression, rig.eyelids * rig.lid_scale(who)[0, :, None, None]])
        motion = skin.on(moves)  # [K + 2, N, 3]
        lips = motion[:, skin.lips].flatten(1).double()
        self.held_lips = (lips @ lips.T / max(1, int(skin.lips.sum()))).numpy()
        self._moves = len(moves)
        self._base, self._motion = _blocks(skin.on(neutral)[None]), _blocks(motion)
        self._normals = skin.blocks

    def align(
        self,
        pictures: np.ndarray,
        start: Start,
        camera: np.ndarray,
        values: np.ndarray,
        weights: np.ndarray,
        prior: np.ndarray,
    ) -> np.ndarray:
        """Corrections ``[T, P]`` float32 that align frames to a texture, ``values [2, N]`` and ``weights [N]``.

        Args:
            pictures: ``[T, 6, SIDE, SIDE]``.
            camera: focal length and principal point, px of the pictures, ``[3]`` float32.
            prior: ``[P, P]`` float64, the precision that draws corrections towards zero.
        """
        out = np.empty((len(pictures), POSE + self._moves), np.float32)
        limits, texture = np.array([GRAZING, FACING], np.float32), (self._padded(values), self._padded(weights))
        align(
            *self._of(pictures, start),
            *texture,
            camera,
            limits,
            np.float32(ROBUST),
            prior,
            LINEARISATIONS,
            out.reshape(-1),
        )
        return out

    def look(
        self, pictures: np.ndarray, start: Start, camera: np.ndarray, corrections: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """What frames show where corrected tracks put the points: luma and redness ``[T, 2, N]``, and weights ``[T, N]``."""
        count, padded = len(pictures), self._padded_n
        shown, facing = np.empty((count, CHANNELS, padded), np.float32), np.empty((count, padded), np.float32)
        limits, flat = np.array([GRAZING, FACING], np.float32), np.ascontiguousarray(corrections).reshape(-1)
        look(*self._of(pictures, start), camera, limits, flat, shown.reshape(-1), facing.reshape(-1))
        return shown[..., : self.n], facing[:, : self.n]

    @property
    def _padded_n(self) -> int:
        return -(-self.n // BLOCK) * BLOCK

    def _padded(self, values: np.ndarray) -> np.ndarray:
        """Numbers ``[..., N]`` of the points as the kernels take them."""
        out = np.zeros((*values.shape[:-1], self._padded_n), np.float32)
        out[..., : self.n] = values
        return out.reshape(-1)

    def _of(self, pictures: np.ndarray, start: Start) -> tuple:
        """What both kernels take first."""
        coefficients = np.concatenate([start.expression, start.eyelids], 1)
        tracks = (
            np.ascontiguousarray(x, np.float32).reshape(-1) for x in (start.rotation, start.translation, coefficients)
        )
        surface = (self._base, self._normals, self._motion, self._padded_n)
        return (pictures.reshape(-1), SIDE, *tracks, self._moves, *surface)


class _Skin:
    """Texels on the skin of a rig."""

    def __init__(self, rig: Rig) -> None:
        uv = UVGaussians(rig, TEXELS)
        labels = torch.tensor([rig.regions[name] for name in REGIONS if name in rig.regions])
        kept = torch.isin(uv.regions, labels).nonzero()[:, 0]
        self._corners, self._weights = rig.faces[uv.triangles[kept]], uv.barycentric[kept]
        a, b, c = rig.mean[self._corners].unbind(1)
        self.lips = uv.regions[kept] == rig.regions.get("lips", -1)
        self.normals = F.normalize(torch.linalg.cross(b - a, c - a), dim=-1)  # [N, 3] of the mean head
        self.blocks = _blocks(self.normals[None])

    def on(self, vertices: Tensor) -> Tensor:
        """``[..., N, 3]`` of vertices or a basis ``[..., V, 3]``."""
        return (vertices[..., self._corners, :] * self._weights[..., None]).sum(-2)


@lru_cache(maxsize=2)
def _skin(rig: Rig) -> _Skin:
    return _Skin(rig)


def _blocks(points: Tensor) -> np.ndarray:
    """Vectors ``[K, N, 3]`` in blocks of points, flat: ``[N / BLOCK, 3, K, BLOCK]``."""
    padded = F.pad(points, (0, 0, 0, -points.shape[1] % BLOCK)).unflatten(1, (-1, BLOCK))
    return padded.permute(1, 3, 0, 2).contiguous().float().flatten().numpy()
