"""Photometric refinement of a shot's tracks: pose, expression and eyelids that put the face's skin on one common texture.

Landmarks are found in each picture by itself, so they jitter and err with pose and expression. Here the rig's surface is
moved until brightness and redness under its points agree with the mean over the shot: Gauss-Newton on the pixels, with
the landmarks' values as the prior, robust weights, and per channel a gain, an offset and a gradient of light across the
surface. Sources: Blanz & Vetter (1999) for fitting a face model to pixels, Lucas & Kanade (1981) for the step, Geman &
McClure (1987) for the weights. docs/rig.md has what it gains.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from heads.rig.facemesh import N_SURFACE
from shards.tracking.coefficients import Fitter
from shards.tracking.pose import reprojected
from shards.tracking.refinement.alignment_kernels import POSE
from shards.tracking.refinement.picture_kernels import PLANES, prepare
from shards.tracking.refinement.surface import SIDE, PersonsSurface, Start
from shards.tracking.shrinking import shrunk

FIRST, ROUNDS = 25, 2  # frames whose mean is the texture, spread over the first ones; rounds of aligning and averaging
NOISE = 0.03  # difference of a point that is aligned · guess
CORRELATED = 2  # points whose differences count as one · guess
# Prior spread of the corrections: radians, rig units (depth is seen least), standard deviations, closure · guess.
ROTATION, SHIFT, DEPTH, EXPRESSION, CLOSURE = 0.01, 0.02, 0.08, 0.6, 0.1
# Rig units, prior spread of the lips' motion: landmarks know them better than their changing texture · guess
LIPS = 0.002
LUMA, REDNESS = (0.3, 0.59, 0.11), (2.0, -2.0, 0.0)  # of RGB; redness tells lips from skin, doubled to weigh like luma
BLUR = np.array([0.5, 0.25], np.float32)  # weights of a pixel and of its neighbours, along each axis


@dataclass(frozen=True)
class FaceTexture:
    """What the face of a shot looks like, at the points that are compared.

    Attributes:
        values: ``[2, N]`` float32 luma and redness.
        weights: ``[N]`` float32 in [0, 1], how much of the shot shows the point.
    """

    values: np.ndarray
    weights: np.ndarray


class PhotometricRefiner:
    """Refines the tracks of consecutive frames of one shot.

    Args:
        fitter: of the rig of the tracks.
        identity: ``[K_id]`` coefficients of the person.
        intrinsics: ``[3, 3]`` of frames of ``size`` px.
        texture: of an earlier shot of the same person and place; by default the mean of the first frames that come, whose
            corrections then have zero mean.
    """

    def __init__(
        self,
        fitter: Fitter,
        identity: np.ndarray,
        intrinsics: np.ndarray,
        size: int,
        texture: FaceTexture | None = None,
    ) -> None:
        self._fitter, self._intrinsics = fitter, intrinsics
        self._identity: np.ndarray = np.asarray(identity, np.float32)
        self._surface = PersonsSurface(fitter.rig, self._identity)
        self._camera = np.array([intrinsics[0, 0], *intrinsics[:2, 2]], np.float32) * np.float32(SIDE / size)
        spread = [ROTATION] * 3 + [SHIFT] * 2 + [DEPTH] + [EXPRESSION] * fitter.rig.n_expression + [CLOSURE] * 2
        prior = np.diag(1 / np.square(spread))
        prior[POSE:, POSE:] += self._surface.held_lips / LIPS**2
        self._prior = NOISE**2 * CORRELATED * prior
        self.texture = texture

    def __call__(self, frames: np.ndarray, track: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Refined ``rotation, translation, expression, eyelids`` of the next frames, and ``landmarks`` and ``gaze`` that follow.

        Args:
            frames: ``[T, H, W, 3]`` uint8 RGB.
            track: their ``landmarks, rotation, translation, expression, eyelids, gaze``, float32, as the result is.
        """
        pictures = _pictures(frames)
        start = Start.of(track)
        if self.texture is None:
            every = slice(None, None, -(-len(frames) // FIRST))
            self.texture = self._mean_texture(pictures[every], start.pick(every))
        return self._with_followers(track, start.moved(self._corrections(self.texture, pictures, start)))

    def _with_followers(self, track: Mapping[str, np.ndarray], refined: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Landmarks move as the rig does, irises stay where they were measured, and gaze follows both."""
        before, after = ({**track, **values} for values in ({}, refined))
        landmarks = track["landmarks"].copy()
        landmarks[:, :N_SURFACE] += self._shown(after) - self._shown(before)
        gaze = track["gaze"] + self._gaze(landmarks, after) - self._gaze(landmarks, before)
        return {**refined, "landmarks": landmarks, "gaze": gaze}

    def _shown(self, track: Mapping[str, np.ndarray]) -> np.ndarray:
        """The surface's landmarks ``[T, 468, 3]`` px of the rig as tracked."""
        local = self._fitter.surface_of(self._identity, track["expression"], track["eyelids"])
        return reprojected(local, track["rotation"], track["translation"], self._intrinsics).astype(np.float32)

    def _gaze(self, landmarks: np.ndarray, track: Mapping[str, np.ndarray]) -> np.ndarray:
        """``[T, 2, 2]`` of the irises among the landmarks."""
        pose, lids = (track["rotation"], track["translation"]), track["eyelids"]
        return self._fitter.gaze_of(landmarks, *pose, self._intrinsics, self._identity, lids)

    def _mean_texture(self, pictures: np.ndarray, start: Start) -> FaceTexture:
        """The texture that the frames share, whose corrections from it have zero mean."""
        corrections = np.zeros((len(pictures), len(self._prior)), np.float32)
        for _ in range(ROUNDS):
            texture = self._texture(pictures, start, corrections)
            corrections = self._corrections(texture, pictures, start)
            corrections -= corrections.mean(0)
        return self._texture(pictures, start, corrections)

    def _texture(self, pictures: np.ndarray, start: Start, corrections: np.ndarray) -> FaceTexture:
        shown, facing = self._surface.look(pictures, start, self._camera, corrections)
        total = facing.sum(0)
        seen = np.maximum(facing.sum(-1), 1e-3)[:, None, None]
        level = (shown * facing[:, None]).sum(-1, keepdims=True) / seen
        even = ((shown - level + level.mean(0)) * facing[:, None]).sum(0) / np.maximum(total, 1e-3)
        return FaceTexture(even.astype(np.float32), (total / len(shown)).astype(np.float32))

    def _corrections(self, texture: FaceTexture, pictures: np.ndarray, start: Start) -> np.ndarray:
        """Corrections ``[T, P]`` that align frames to a texture; zero where that makes the pictures agree less."""
        return self._surface.align(pictures, start, self._camera, texture.values, texture.weights, self._prior)


def _pictures(frames: np.ndarray) -> np.ndarray:
    """Luma and redness, blurred, and their slopes along x, then y: ``[T, 6, SIDE, SIDE]`` of ``[T, H, W, 3]`` uint8 RGB."""
    mix = (np.array([LUMA, REDNESS], np.float32) / 255).ravel()
    out, work = np.empty((len(frames), PLANES, SIDE, SIDE), np.float32), np.empty(SIDE * SIDE, np.float32)
    for planes, frame in zip(out, frames, strict=True):
        prepare(shrunk(frame, SIDE).reshape(-1), mix, BLUR, SIDE, work, planes.reshape(-1))
    return out
