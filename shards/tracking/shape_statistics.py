"""Statistics of tracked faces: mean, eyelid, identity and expression bases, as functions of arrays.

Identity is a Gaussian-process morphable model (Luethi et al. 2018): the sample covariance of the people plus a smooth
kernel, so that it also fits unseen faces. Expression is a weighted PCA of the displacements of frames from their person's
neutral face, with mirrored copies, so that no side is preferred.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from heads.rig import facemesh
from shards.tracking.pose import head_pose, intrinsics_for

STABLE = np.array(facemesh.STABLE)
SURFACE = facemesh.N_SURFACE
LIP_WEIGHT, EYE_WEIGHT, DEPTH_WEIGHT = 4.0, 2.0, 0.5  # factors on a landmark's displacement


@dataclass(frozen=True)
class LandmarkClip:
    """Landmarks ``[T, 478, 3]`` px of one clip in a square of ``size`` px, and the person's name."""

    identity: str
    landmarks: np.ndarray
    size: int


@dataclass(frozen=True)
class Person:
    """One person's neutral face ``[478, 3]`` and frames ``[T, 478, 3]``, all in head space."""

    neutral: np.ndarray
    frames: np.ndarray


@dataclass(frozen=True)
class Bases:
    """What a rig is assembled from; identity and expression per standard deviation."""

    mean: np.ndarray  # [478, 3]
    identity: np.ndarray  # [K_id, 478, 3]
    expression: np.ndarray  # [K_exp, 478, 3]
    eyelids: np.ndarray  # [2, 478, 3]


def landmark_weights(lips: float = LIP_WEIGHT, eyes: float = EYE_WEIGHT, depth: float = DEPTH_WEIGHT) -> np.ndarray:
    """Weights ``[468, 3]`` of an error over landmarks: lips and eyes count more, depth less."""
    weights = np.ones(SURFACE)
    weights[list(facemesh.LIPS_OUTER) + list(facemesh.LIPS_INNER)] = lips
    weights[list(facemesh.EYE_LEFT) + list(facemesh.EYE_RIGHT)] = eyes
    return weights[:, None] * np.array([1.0, 1.0, depth])


def lid_gap(points: np.ndarray) -> np.ndarray:
    """Opening ``[..., 2]`` of left and right eye of landmarks ``[..., 478, 3]``, in the points' units."""
    gaps = [
        np.stack([points[..., lo, 1] - points[..., up, 1] for up, lo in eye], -1).mean(-1) for eye in facemesh.LID_PAIRS
    ]
    return np.stack(gaps, -1)


def mouth_gap(points: np.ndarray) -> np.ndarray:
    """Distance ``[...]`` between the inner lips."""
    return np.linalg.norm(points[..., 13, :] - points[..., 14, :], axis=-1)


def neutral_face(frames: np.ndarray) -> np.ndarray:
    """The median ``[478, 3]`` over frames ``[T, 478, 3]`` with the mouth nearly closed and the eyes open as usual."""
    mouth, lids = mouth_gap(frames), lid_gap(frames).mean(-1)
    quiet = (mouth <= np.quantile(mouth, 0.2)) & (lids >= np.quantile(lids, 0.3)) & (lids <= np.quantile(lids, 0.9))
    if quiet.sum() < 3:
        quiet = np.ones(len(frames), bool)
    face = np.median(frames[quiet], axis=0)
    usual = np.median(frames, axis=0)
    eyes = list(facemesh.EYE_LEFT) + list(facemesh.EYE_RIGHT)
    face[eyes] = usual[eyes]  # eyelids are measured from the person's median
    return face


def align(clips: list[LandmarkClip], rounds: int = 4) -> tuple[np.ndarray, np.ndarray, list[Person]]:
    """Generalised Procrustes: symmetric mean ``[478, 3]``, mirror partners ``[478]``, people in head space.

    The mean's frame defines head space: stable points centred, forehead above chin, irises one unit apart.
    """
    mean = _level(np.median(clips[0].landmarks, axis=0).astype(float))
    partner = facemesh.mirror_pairs(mean)
    mean = _normalised(mean, partner)
    for _ in range(rounds):
        people = [posed([c for c in clips if c.identity == who], mean) for who in _names(clips)]
        mean = _normalised(_level(np.mean([p.neutral for p in people], axis=0)), partner)
    return mean, partner, [posed([c for c in clips if c.identity == who], mean) for who in _names(clips)]


def _names(clips: list[LandmarkClip]) -> list[str]:
    return sorted({clip.identity for clip in clips})


def posed(clips: list[LandmarkClip], mean: np.ndarray) -> Person:
    """One person's clips in the head space of ``mean`` ``[478, 3]``.

    Poses are found by the mean first, then by the person's own neutral face, which leaves less of identity in them.
    """
    frames = [head_pose(c.landmarks, intrinsics_for(c.size), mean, STABLE)[2] for c in clips]
    neutral = neutral_face(np.concatenate(frames))
    frames = [head_pose(c.landmarks, intrinsics_for(c.size), neutral, STABLE)[2] for c in clips]
    joined = np.concatenate(frames)
    return Person(neutral_face(joined), joined)


def _level(points: np.ndarray) -> np.ndarray:
    """Turns landmarks upright: x from the person's right to the left, y from forehead to chin."""
    x = points[263] - points[33] + points[454] - points[234] + points[291] - points[61]
    x = x / np.linalg.norm(x)
    y = points[facemesh.CHIN] - points[facemesh.FOREHEAD]
    y = y - (y @ x) * x
    y = y / np.linalg.norm(y)
    return points @ np.stack([x, y, np.cross(x, y)]).T


def _normalised(points: np.ndarray, partner: np.ndarray) -> np.ndarray:
    """Symmetric, centred on the stable points, irises one unit apart."""
    points = points - [points[:, 0].mean(), 0, 0]
    points = (points + mirrored(points, partner)) / 2
    points = points - points[STABLE].mean(0)
    return points / np.linalg.norm(points[facemesh.IRIS_LEFT[0]] - points[facemesh.IRIS_RIGHT[0]])


def mirrored(points: np.ndarray, partner: np.ndarray) -> np.ndarray:
    """The mirror image of landmarks or displacements ``[..., 478, 3]``."""
    return points[..., partner, :] * [-1, 1, 1]


def closures(frames: np.ndarray, neutral: np.ndarray) -> np.ndarray:
    """Eyelid closure ``[T, 2]`` of frames ``[T, 478, 3]``: 0 open as in the neutral face, 1 closed."""
    return 1 - lid_gap(frames) / lid_gap(neutral)


def eyelid_basis(people: list[Person], mean: np.ndarray, partner: np.ndarray) -> np.ndarray:
    """Displacements ``[2, 478, 3]`` that close each eye: regressed on blinks, symmetric, confined to the eyes.

    Scaled so that the lids of the mean face meet at a closure of one.
    """
    change = np.concatenate([p.frames - p.neutral for p in people])
    closed = np.concatenate([closures(p.frames, p.neutral) for p in people])
    use = np.abs(closed).max(1) > 0.15
    change, closed = change[use], np.clip(closed[use], -0.6, 1.2)
    both = np.concatenate([change, mirrored(change, partner)]).reshape(2 * len(change), -1)
    regressor = np.concatenate([closed, closed[:, ::-1]])
    basis = np.linalg.solve(regressor.T @ regressor, regressor.T @ both).reshape(2, -1, 3)
    for k, eye in enumerate((facemesh.EYE_LEFT, facemesh.EYE_RIGHT)):
        distance = np.linalg.norm(mean[:, None] - mean[None, list(eye)], axis=-1).min(1)
        basis[k] *= np.exp(-((distance / 0.16) ** 2))[:, None]
        basis[k, SURFACE:] = 0
        basis[k] *= lid_gap(mean)[k] / -lid_gap(basis[k])[k]
    return basis


@dataclass(frozen=True)
class Moments:
    """Second moments of one person's motion, from which the basis without that person follows at once."""

    motion: np.ndarray  # [D, D] of the weighted displacements, D = 468 * 3
    mixed: np.ndarray  # [D, 2] of displacements and the eyelids' closure
    closure: np.ndarray  # [2, 2] of the closure

    def without_lids(self, lids: np.ndarray) -> np.ndarray:
        """``[D, D]`` of the displacements less the eyelids' closing by ``lids`` ``[2, D]``."""
        cross = self.mixed @ lids
        return self.motion - cross - cross.T + lids.T @ self.closure @ lids


def moments(person: Person, mean: np.ndarray) -> Moments:
    """Second moments per frame, so that every person counts the same."""
    change = ((person.frames - person.neutral)[:, :SURFACE] * landmark_weights()).reshape(len(person.frames), -1)
    closed = closures(person.frames, person.neutral) * (lid_gap(person.neutral) / lid_gap(mean))
    count = len(person.frames)
    return Moments(change.T @ change / count, change.T @ closed / count, closed.T @ closed / count)


def expression_basis(people: list[Moments], eyelids: np.ndarray, partner: np.ndarray, size: int) -> np.ndarray:
    """Weighted PCA ``[size, 478, 3]`` of expressions without the eyelids' closing, unit variance per coefficient."""
    from scipy.linalg import eigh

    weights = landmark_weights()
    lids = (eyelids[:, :SURFACE] * weights).reshape(2, -1)
    covariance = np.sum([person.without_lids(lids) for person in people], axis=0) / len(people)
    covariance = (covariance + _mirrored_moments(covariance, partner)) / 2
    top = (SURFACE * 3 - size, SURFACE * 3 - 1)
    values, vectors = eigh(covariance, subset_by_index=top)
    basis = np.zeros((size, len(partner), 3))
    basis[:, :SURFACE] = (vectors * np.sqrt(values)).T[::-1].reshape(size, SURFACE, 3) / weights
    return _signed(basis)


def _mirrored_moments(covariance: np.ndarray, partner: np.ndarray) -> np.ndarray:
    """The second moments ``[D, D]`` of the mirrored motion."""
    index = (partner[:SURFACE, None] * 3 + np.arange(3)).ravel()
    sign = np.tile([-1.0, 1.0, 1.0], SURFACE)
    return covariance[np.ix_(index, index)] * sign[:, None] * sign


def identity_basis(people: list[Person], mean: np.ndarray, partner: np.ndarray, size: int) -> np.ndarray:
    """Gaussian-process shape model ``[size, 478, 3]``: sample covariance plus a smooth kernel of 1 mm, 20 mm wide."""
    change = np.stack([p.neutral - mean for p in people])
    data = np.concatenate([change, mirrored(change, partner)])[:, :SURFACE].reshape(2 * len(people), -1)
    distance = np.linalg.norm(mean[:SURFACE, None] - mean[None, :SURFACE], axis=-1)
    kernel = 0.016**2 * np.exp(-0.5 * (distance / 0.32) ** 2)
    covariance = data.T @ data / len(data) + np.kron(kernel, np.eye(3))
    values, vectors = np.linalg.eigh(covariance)
    top = slice(-1, -size - 1, -1)
    basis = np.zeros((size, len(mean), 3))
    basis[:, :SURFACE] = (vectors[:, top] * np.sqrt(values[top])).T.reshape(size, SURFACE, 3)
    return _signed(basis)


def _signed(basis: np.ndarray) -> np.ndarray:
    """Fixes each component's sign, which a decomposition leaves open, by its largest entry."""
    flat = basis.reshape(len(basis), -1)
    largest = np.take_along_axis(flat, np.abs(flat).argmax(1)[:, None], 1)
    return basis * np.sign(largest)[:, :, None]


def learn(clips: list[LandmarkClip], n_identity: int = 64, n_expression: int = 32) -> Bases:
    """All bases from tracked clips."""
    mean, partner, people = align(clips)
    eyelids = eyelid_basis(people, mean, partner)
    expression = expression_basis([moments(person, mean) for person in people], eyelids, partner, n_expression)
    return Bases(mean, identity_basis(people, mean, partner, n_identity), expression, eyelids)
