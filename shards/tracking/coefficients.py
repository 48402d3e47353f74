"""From landmarks in head space to the rig's parameters: identity, expression, eyelids, gaze."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch

from heads.rig import Rig, load_rig
from heads.rig.completion import EYEBALL_RADIUS
from heads.rig.facemesh import IRIS_LEFT, IRIS_RIGHT, N_SURFACE, STABLE
from shards.tracking.pose import head_pose
from shards.tracking.shape_statistics import landmark_weights, lid_gap, neutral_face

DEFAULT_RIG = "mediapipe"
IDENTITY_NOISE = 0.006  # rig units, standard deviation of a landmark of a neutral face
EXPRESSION_NOISE = 0.006  # rig units, standard deviation of a landmark of a frame
CLOSURE_LIMITS = (-0.6, 1.15)  # of an eyelid's closure; 0 open as in the neutral face, 1 closed
GAZE_LIMIT = 0.75  # radians


class Fitter:
    """Solves for one rig's parameters; arrays are in rig units and head space unless stated otherwise."""

    def __init__(self, rig: Rig | None = None) -> None:
        self.rig = rig or load_rig()
        self._mean = self._landmarks_of(self.rig.mean)
        self._identity = self._landmarks_of(self.rig.identity)
        self._eyelids = self._landmarks_of(self.rig.eyelids)
        self._weights = landmark_weights()
        self._solve_identity = _ridge(self._identity[:, :N_SURFACE], self._weights, IDENTITY_NOISE)
        expression = self._landmarks_of(self.rig.expression)[:, :N_SURFACE]
        self._solve_expression = _ridge(expression, self._weights, EXPRESSION_NOISE)
        moves = np.concatenate([expression, self._eyelids[:, :N_SURFACE]])
        self._moves = moves.reshape(len(moves), -1).astype(np.float32)  # [K + 2, 468 * 3]

    def _landmarks_of(self, vertices: torch.Tensor) -> np.ndarray:
        """Landmarks ``[..., 478, 3]`` float64 among vertices or rows of a basis ``[..., V, 3]``."""
        return self.rig.landmarks(vertices.detach().cpu()).numpy().astype(np.float64)

    def identity_of(self, landmarks: np.ndarray, intrinsics: np.ndarray, rounds: int = 3) -> np.ndarray:
        """Identity ``[K_id]`` of a person from landmarks ``[T, 478, 3]`` px of frames spread over a shot."""
        identity = np.zeros(self.rig.n_identity)
        for _ in range(rounds):
            local = head_pose(landmarks, intrinsics, self.neutral(identity), np.array(STABLE))[2]
            identity = self._solve_identity @ (neutral_face(local) - self._mean)[:N_SURFACE].ravel()
        return identity.astype(np.float32)

    def neutral(self, identity: np.ndarray) -> np.ndarray:
        """The rig's neutral landmarks ``[478, 3]`` of an identity ``[K_id]``."""
        return self._mean + np.tensordot(identity, self._identity, 1)

    def expression_of(self, local: np.ndarray, identity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Expression ``[T, K_exp]`` and eyelids ``[T, 2]`` of landmarks in head space ``[T, 478, 3]``."""
        neutral = self.neutral(identity)
        closure = np.clip(1 - lid_gap(local) / lid_gap(neutral), *CLOSURE_LIMITS)
        scale = self.rig.lid_scale(torch.from_numpy(np.float32(identity))[None])[0].numpy()
        change = local - neutral - np.tensordot(closure * scale, self._eyelids, 1)
        expression = change[:, :N_SURFACE].reshape(len(local), -1) @ self._solve_expression.T
        return expression.astype(np.float32), closure.astype(np.float32)

    def gaze_of(
        self,
        landmarks: np.ndarray,
        rotation: np.ndarray,
        translation: np.ndarray,
        intrinsics: np.ndarray,
        identity: np.ndarray,
        eyelids: np.ndarray,
    ) -> np.ndarray:
        """Gaze ``[T, 2, 2]`` (eye; yaw, pitch) in radians: where the ray through the iris centre meets the eyeball.

        Closed eyes take the gaze of the frames around.

        Args:
            landmarks: ``[T, 478, 3]`` px.
            rotation, translation: head to camera, ``[T, 3, 3]`` and ``[T, 3]``.
            intrinsics: ``[3, 3]`` px.
            identity: ``[K_id]``.
            eyelids: ``[T, 2]`` closure.
        """
        iris = landmarks[:, [IRIS_LEFT[0], IRIS_RIGHT[0]], :2].astype(np.float64)
        centres = self.rig.eyeball_positions(torch.from_numpy(np.float32(identity))[None])[0].numpy()
        ray = np.concatenate([(iris - intrinsics[:2, 2]) / intrinsics[0, 0], np.ones((*iris.shape[:2], 1))], -1)
        ray = np.einsum("tji,tej->tei", rotation, ray / np.linalg.norm(ray, axis=-1, keepdims=True))
        origin = -np.einsum("tji,tj->ti", rotation, translation)[:, None] - centres
        along = -(origin * ray).sum(-1)
        foot = origin + along[..., None] * ray
        depth = np.sqrt(np.maximum(EYEBALL_RADIUS**2 - (foot**2).sum(-1), 0))
        look = foot - depth[..., None] * ray
        look /= np.maximum(np.linalg.norm(look, axis=-1, keepdims=True), 1e-9)
        gaze = np.stack([np.arctan2(look[..., 0], -look[..., 2]), np.arcsin(np.clip(look[..., 1], -1, 1))], -1)
        return _held_while_closed(np.clip(gaze, -GAZE_LIMIT, GAZE_LIMIT), eyelids).astype(np.float32)

    def surface_of(self, identity: np.ndarray, expression: np.ndarray, eyelids: np.ndarray) -> np.ndarray:
        """Landmarks ``[T, 468, 3]`` of the face's surface, float32: those of :meth:`vertices` without the irises."""
        scale = self.rig.lid_scale(torch.from_numpy(np.float32(identity))[None])[0].numpy()
        moves = np.concatenate([expression, eyelids * scale], 1, dtype=np.float32)
        neutral = self.neutral(identity)[:N_SURFACE].astype(np.float32)
        return neutral + (moves @ self._moves).reshape(len(moves), N_SURFACE, 3)

    def vertices(
        self, identity: np.ndarray, expression: np.ndarray, eyelids: np.ndarray, gaze: np.ndarray
    ) -> np.ndarray:
        """The rig's landmarks ``[T, 478, 3]`` for an identity ``[K_id]`` and the other parameters of T frames."""
        with torch.no_grad():
            one = torch.from_numpy(np.float32(identity))[None]
            rest = (torch.from_numpy(np.ascontiguousarray(x, np.float32)) for x in (expression, eyelids, gaze))
            return self.rig.landmarks(self.rig.vertices(one, *rest)).numpy()


@lru_cache(maxsize=2)
def fitter_of(rig: str = DEFAULT_RIG) -> Fitter:
    """The fitter of a rig by name or path, made once per process.

    Raises:
        InputError: no such rig, or one without landmarks.
    """
    return Fitter(load_rig(rig))


def _ridge(basis: np.ndarray, weights: np.ndarray, noise: float) -> np.ndarray:
    """The matrix ``[K, N * 3]`` that gives the most probable coefficients of unit variance under the noise."""
    weighted = (basis * weights).reshape(len(basis), -1)
    system = weighted @ weighted.T + noise**2 * np.eye(len(basis))
    return np.linalg.solve(system, weighted * weights.ravel())


def _held_while_closed(gaze: np.ndarray, eyelids: np.ndarray, limit: float = 0.55) -> np.ndarray:
    """Interpolate the gaze ``[T, 2, 2]`` over frames in which an eye's closure is at least ``limit``, which hides the iris."""
    times = np.arange(len(gaze))
    held = gaze.copy()
    for eye in (0, 1):
        seen = eyelids[:, eye] < limit
        if seen.any() and not seen.all():
            for axis in (0, 1):
                held[:, eye, axis] = np.interp(times, times[seen], gaze[seen, eye, axis])
    return held
