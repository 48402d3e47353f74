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
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from heads.gaussians.uv import UVGaussians
from heads.geometry.rotation import rotation_matrix
from heads.rig import Rig
from heads.rig.facemesh import N_SURFACE
from shards.tracking.coefficients import Fitter
from shards.tracking.pose import reprojected

SIDE = 128  # px, side of the pictures that are compared
TEXELS = 64  # side of the UV map whose texels are compared
REGIONS = ("face", "lips", "eye_left", "eye_right")
CHUNK = 25  # frames refined at once
LINEARISATIONS = 2  # a second one changes the corrections by a quarter, two more by a tenth
FIRST, ROUNDS = 25, 2  # frames whose mean is the texture, spread over the first ones; rounds of aligning and averaging
ROBUST = 0.08  # difference, of 1, at which a point's weight falls to a quarter · guess
NOISE = 0.03  # difference of a point that is aligned · guess
CORRELATED = 2  # points whose differences count as one · guess
# Prior spread of the corrections: radians, rig units (depth is seen least), standard deviations, closure · guess.
ROTATION, SHIFT, DEPTH, EXPRESSION, CLOSURE = 0.01, 0.02, 0.08, 0.6, 0.1
# Rig units, prior spread of the lips' motion: landmarks know them better than their changing texture · guess
LIPS = 0.002
GRAZING, FACING = 0.2, 0.5  # cosines between which a point's weight rises from none to all · guess
LUMA, REDNESS = (0.3, 0.59, 0.11), (2.0, -2.0, 0.0)  # of RGB; redness tells lips from skin, doubled to weigh like luma
LIGHTS = 4  # columns that explain light: offset, gradient over the normal's x and y, gain
CHANNELS = 2
POSE = 6


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
        rig = fitter.rig
        self._fitter, self._surface = fitter, _surface(rig)
        self._intrinsics = intrinsics
        self._identity = torch.from_numpy(np.float32(identity))[None]
        self._focal = float(intrinsics[0, 0]) * SIDE / size
        self._center = torch.from_numpy(np.float32(intrinsics[:2, 2]) * SIDE / size)
        self._motion = self._surface.motion(rig, self._identity)
        spread = [ROTATION] * 3 + [SHIFT] * 2 + [DEPTH] + [EXPRESSION] * rig.n_expression + [CLOSURE] * 2
        prior = torch.diag(1 / torch.tensor(spread).square())
        prior[POSE:, POSE:] += self._surface.held_lips(self._motion) / LIPS**2
        self._prior = NOISE**2 * CORRELATED * prior
        self.texture = texture

    @torch.no_grad()
    def __call__(self, frames: np.ndarray, track: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Refined ``rotation, translation, expression, eyelids`` of the next frames, and ``landmarks`` and ``gaze`` that follow.

        Args:
            frames: ``[T, H, W, 3]`` uint8 RGB.
            track: their ``landmarks, rotation, translation, expression, eyelids, gaze``, float32, as the result is.
        """
        pictures = _pictures(frames)
        start = _Track(
            *(torch.from_numpy(track[name]) for name in ("rotation", "translation", "expression", "eyelids"))
        )
        points = self._surface.points(self._fitter.rig, self._identity, start)
        if self.texture is None:
            every = slice(None, None, -(-len(frames) // FIRST))
            self.texture = self._mean_texture(pictures[every], start.pick(every), points[every])
        parts = zip(pictures.split(CHUNK), start.split(CHUNK), points.split(CHUNK), strict=True)
        moved = start.moved(torch.cat([self._corrections(self.texture, *part) for part in parts]))
        return self._with_followers(track, {name: value.numpy() for name, value in vars(moved).items()})

    def _with_followers(self, track: Mapping[str, np.ndarray], refined: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Landmarks move as the rig does, irises stay where they were measured, and gaze follows both."""
        before, after = ({**track, **values} for values in ({}, refined))
        landmarks = track["landmarks"].copy()
        landmarks[:, :N_SURFACE] += (self._shown(after) - self._shown(before))[:, :N_SURFACE]
        gaze = track["gaze"] + self._gaze(landmarks, after) - self._gaze(landmarks, before)
        return {**refined, "landmarks": landmarks, "gaze": gaze}

    def _shown(self, track: Mapping[str, np.ndarray]) -> np.ndarray:
        """Landmarks ``[T, 478, 3]`` px of the rig as tracked."""
        rest = (track[name] for name in ("expression", "eyelids", "gaze"))
        local = self._fitter.vertices(self._identity[0].numpy(), *rest)
        return reprojected(local, track["rotation"], track["translation"], self._intrinsics).astype(np.float32)

    def _gaze(self, landmarks: np.ndarray, track: Mapping[str, np.ndarray]) -> np.ndarray:
        """``[T, 2, 2]`` of the irises among the landmarks."""
        pose, lids = (track["rotation"], track["translation"]), track["eyelids"]
        return self._fitter.gaze_of(landmarks, *pose, self._intrinsics, self._identity[0].numpy(), lids)

    def _mean_texture(self, pictures: Tensor, start: _Track, points: Tensor) -> FaceTexture:
        """The texture that the frames share, whose corrections from it have zero mean."""
        corrections = start.zero()
        for _ in range(ROUNDS):
            texture = self._texture(pictures, start, points, corrections)
            corrections = self._corrections(texture, pictures, start, points)
            corrections = corrections - corrections.mean(0)
        return self._texture(pictures, start, points, corrections)

    def _texture(self, pictures: Tensor, start: _Track, points: Tensor, corrections: Tensor) -> FaceTexture:
        seen = self._seen(start, points, corrections)
        values = _sampled(pictures[:, :CHANNELS], seen.pixels)
        total = seen.facing.sum(0)
        shown = seen.facing.sum(-1)[:, None, None].clamp_min(1e-3)
        level = (values * seen.facing[:, None]).sum(-1, keepdim=True) / shown
        even = ((values - level + level.mean(0)) * seen.facing[:, None]).sum(0) / total.clamp_min(1e-3)
        return FaceTexture(even.numpy(), (total / len(values)).numpy())

    def _corrections(self, texture: FaceTexture, pictures: Tensor, start: _Track, points: Tensor) -> Tensor:
        """Corrections ``[T, P]`` that align frames to a texture; zero where that makes the pictures agree less."""
        values, weights = torch.from_numpy(texture.values), torch.from_numpy(texture.weights)
        corrections, before = start.zero(), torch.zeros(0)
        for _ in range(LINEARISATIONS):
            seen = self._seen(start, points, corrections)
            system = _Normal(seen, _sampled(pictures, seen.pixels), values, weights, self._motion, self._focal)
            before = before if len(before) else system.cost
            corrections = system.step(corrections, self._prior)
        seen = self._seen(start, points, corrections)
        after = _Normal(seen, _sampled(pictures, seen.pixels), values, weights, None, self._focal).cost
        return torch.where((after < before)[:, None], corrections, 0)

    def _seen(self, start: _Track, points: Tensor, corrections: Tensor) -> _Seen:
        """Where corrected tracks put the surface's points."""
        now = start.moved(corrections)
        change = (corrections[:, POSE:] @ self._motion.flatten(1)).view_as(points)
        turned = (points + change) @ now.rotation.transpose(1, 2)
        camera = turned + now.translation[:, None]
        pixels = camera[..., :2] * (self._focal / camera[..., 2:]) + self._center
        normals = self._surface.normals @ now.rotation.transpose(1, 2)
        cosine = -(normals * camera).sum(-1) / camera.norm(dim=-1)
        facing = ((cosine - GRAZING) / (FACING - GRAZING)).clamp(0, 1)
        return _Seen(now.rotation, turned, camera, pixels, normals, facing)


@dataclass
class _Track:
    rotation: Tensor  # [T, 3, 3]
    translation: Tensor  # [T, 3]
    expression: Tensor  # [T, K]
    eyelids: Tensor  # [T, 2]

    def zero(self) -> Tensor:
        """No corrections ``[T, P]``: rotation vector, translation, expression, eyelids."""
        return self.translation.new_zeros(len(self.translation), POSE + self.expression.shape[1] + 2)

    def moved(self, corrections: Tensor) -> _Track:
        turn, shift, expression, eyelids = corrections.split([3, 3, self.expression.shape[1], 2], 1)
        return _Track(
            rotation_matrix(turn) @ self.rotation,
            self.translation + shift,
            self.expression + expression,
            self.eyelids + eyelids,
        )

    def pick(self, rows: slice) -> _Track:
        return _Track(*(value[rows] for value in vars(self).values()))

    def split(self, size: int) -> list[_Track]:
        return [_Track(*rows) for rows in zip(*(value.split(size) for value in vars(self).values()), strict=True)]


@dataclass
class _Seen:
    rotation: Tensor  # [T, 3, 3]
    turned: Tensor  # [T, N, 3] points turned as the head is
    camera: Tensor  # [T, N, 3] points in camera space
    pixels: Tensor  # [T, N, 2]
    normals: Tensor  # [T, N, 3] in camera space
    facing: Tensor  # [T, N] weight in [0, 1]


class _Surface:
    """Points on the skin of a rig."""

    def __init__(self, rig: Rig) -> None:
        uv = UVGaussians(rig, TEXELS)
        labels = torch.tensor([rig.regions[name] for name in REGIONS if name in rig.regions])
        kept = torch.isin(uv.regions, labels).nonzero()[:, 0]
        self._corners, self._weights = rig.faces[uv.triangles[kept]], uv.barycentric[kept]
        a, b, c = rig.mean[self._corners].unbind(1)
        self._lips = uv.regions[kept] == rig.regions.get("lips", -1)
        self.normals = F.normalize(torch.linalg.cross(b - a, c - a), dim=-1)  # [N, 3] of the mean head

    def _on(self, vertices: Tensor) -> Tensor:
        """``[..., N, 3]`` of vertices or a basis ``[..., V, 3]``."""
        return (vertices[..., self._corners, :] * self._weights[..., None]).sum(-2)

    def points(self, rig: Rig, identity: Tensor, track: _Track) -> Tensor:
        """``[T, N, 3]`` in head space."""
        return self._on(rig.vertices(identity, track.expression, track.eyelids))

    def motion(self, rig: Rig, identity: Tensor) -> Tensor:
        """``[K + 2, N, 3]``: how the points move with each expression component and eyelid."""
        return self._on(torch.cat([rig.expression, rig.eyelids * rig.lid_scale(identity)[0, :, None, None]]))

    def held_lips(self, motion: Tensor) -> Tensor:
        """``[K + 2, K + 2]``: the mean square motion of the lips as a quadratic form of expression and eyelids."""
        lips = motion[:, self._lips].flatten(1)
        return lips @ lips.T / max(1, int(self._lips.sum()))


@lru_cache(maxsize=2)
def _surface(rig: Rig) -> _Surface:
    return _Surface(rig)


class _Normal:
    """The weighted normal equations of one linearisation, and the cost there.

    Args:
        sampled: ``[T, 6, N]`` both channels and their slopes along x and y under the points.
        values, weights: of the texture, ``[2, N]`` and ``[N]``.
        motion: ``[K + 2, N, 3]``; ``None``: the cost alone.
    """

    def __init__(
        self, seen: _Seen, sampled: Tensor, values: Tensor, weights: Tensor, motion: Tensor | None, focal: float
    ) -> None:
        base = seen.facing * weights
        self.cost: Tensor = base.new_zeros(len(base))
        self._systems = []
        for channel in range(CHANNELS):
            lights = torch.stack(
                [torch.ones_like(base), *seen.normals[..., :2].unbind(-1), values[channel].expand_as(base)], -1
            )
            difference = sampled[:, channel] - values[channel]
            plain = difference - (lights @ _fitted(lights, base, difference)[..., None])[..., 0]
            robust = (plain / ROBUST).square()
            self.cost = self.cost + (base * robust / (1 + robust)).sum(1) / base.sum(1).clamp_min(1e-6)
            if motion is None:
                continue
            slopes = _slopes(seen, sampled[:, CHANNELS + channel :: CHANNELS], motion, lights, focal)
            weighted = (slopes * (base / (1 + robust).square())[..., None]).transpose(1, 2)
            self._systems.append((weighted @ slopes, (weighted @ difference[..., None])[..., 0]))

    def step(self, corrections: Tensor, prior: Tensor) -> Tensor:
        """Corrections ``[T, P]`` after one step; the precision ``prior [P, P]`` draws them towards zero."""
        size = len(prior)
        matrix, right = prior.expand(len(corrections), size, size), corrections @ prior
        for normal, projected in self._systems:
            # The lights of a channel are eliminated: a Schur complement.
            across, own = normal[:, :size, size:], normal[:, size:, size:] + 1e-3 * torch.eye(LIGHTS)
            solved = torch.linalg.solve(own, torch.cat([across.transpose(1, 2), projected[:, size:, None]], -1))
            matrix = matrix + normal[:, :size, :size] - across @ solved[..., :-1]
            right = right + projected[:, :size] - (across @ solved[..., -1:])[..., 0]
        return corrections - torch.linalg.solve(matrix, right[..., None])[..., 0]


def _slopes(seen: _Seen, gradient: Tensor, motion: Tensor, lights: Tensor, focal: float) -> Tensor:
    """``[T, N, P + 4]``: how one channel under the points changes with each correction, and the lights.

    Args:
        gradient: ``[T, 2, N]`` of the picture along x and y under the points.
    """
    x, y, z = seen.camera.unbind(-1)
    across, down = gradient.unbind(1)
    pull = torch.stack([across, down, -(across * x + down * y) / z], -1) * (focal / z)[..., None]  # per camera point
    moves = motion.shape[0]
    slopes = pull.new_empty(*pull.shape[:2], POSE + moves + LIGHTS)
    slopes[..., :3] = torch.linalg.cross(seen.turned, pull)
    slopes[..., 3:POSE] = pull
    local, by = pull @ seen.rotation, motion.permute(2, 1, 0)
    part = slopes[..., POSE : POSE + moves]
    torch.mul(local[..., :1], by[0], out=part)
    part.addcmul_(local[..., 1:2], by[1]).addcmul_(local[..., 2:], by[2])
    slopes[..., POSE + moves :] = lights
    return slopes


def _fitted(lights: Tensor, weights: Tensor, difference: Tensor) -> Tensor:
    """Coefficients ``[T, 4]`` of the lights that explain most of a difference ``[T, N]``."""
    weighted = (lights * weights[..., None]).transpose(1, 2)
    normal = weighted @ lights + 1e-3 * torch.eye(LIGHTS)
    return torch.linalg.solve(normal, weighted @ difference[..., None])[..., 0]


def _sampled(pictures: Tensor, pixels: Tensor) -> Tensor:
    """Channels ``[T, C, N]`` of pictures ``[T, C, SIDE, SIDE]`` at pixels ``[T, N, 2]``, linear between them."""
    grid = pixels[:, None] * (2 / SIDE) - 1
    return F.grid_sample(pictures, grid, padding_mode="border", align_corners=False)[:, :, 0]


def _pictures(frames: np.ndarray) -> Tensor:
    """Luma and redness, blurred, and their slopes along x, then y: ``[T, 6, SIDE, SIDE]`` of ``[T, H, W, 3]`` uint8 RGB."""
    import cv2

    mix = np.array([LUMA, REDNESS], np.float32) / 255
    out = np.empty((len(frames), 3 * CHANNELS, SIDE, SIDE), np.float32)
    for picture, frame in zip(out, frames, strict=True):
        small = cv2.resize(frame, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        both = cv2.GaussianBlur(cv2.transform(small.astype(np.float32), mix), (3, 3), 0.85)
        across = cv2.filter2D(both, -1, np.array([[-0.5, 0, 0.5]], np.float32))
        down = cv2.filter2D(both, -1, np.array([[-0.5], [0], [0.5]], np.float32))
        picture[:] = np.concatenate([both, across, down], -1).transpose(2, 0, 1)
    return torch.from_numpy(out)
