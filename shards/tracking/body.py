"""The body's own track: where the torso is in each frame, by registration to a reference picture of the shot.

Shoulders do not follow the head. The region is the person's matte outside the head (:mod:`heads.masks`), at 128 px.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from heads.masks import region_masks
from heads.person.image_registration import Reference, align, mean_reference
from heads.rig import facemesh
from shards.tracking.shrinking import shrunk

SIDE = 128  # px of the registered pictures
CHUNK = 25  # frames that start from the last one before them, and, of a shot, those whose mean is the reference
DOUBTED = 0.6  # quality below which a frame is registered again, from where the head says that the torso is · guess
GAIN = 0.1  # of the quality, from which on a second registration replaces the first: ties would jitter · guess
LEAST_QUALITY = 0.3  # below which a frame's own registration is not believed · guess
BESIDE = 4  # px of SIDE around the head in which an outline is the neck's or hair's · guess
LEAST_REGION = 0.02  # share of the picture that the torso must cover · guess


class BodyTracker:
    """Tracks the torso through consecutive frames of one shot.

    Args:
        reference: what frames are registered to, ``SIDE`` px square; by default the mean of the first aligned frames.
    """

    def __init__(self, reference: Reference | None = None) -> None:
        self._reference = reference
        self._last = torch.zeros(2, 3)
        self._last_head: Tensor | None = None

    def __call__(self, brightness: Tensor, matte: np.ndarray, landmarks: np.ndarray) -> dict[str, np.ndarray]:
        """``body [T, 6]`` and ``body_quality [T]`` (:data:`shards.format.fields.OPTIONAL_TRACK_SHAPES`) of the next frames.

        Args:
            brightness: :func:`brightness_of` the frames.
            matte: ``[T, H, W]`` uint8 person alpha.
            landmarks: ``[T, 478, 3]`` px of the frames.
        """
        region, outline = torso(matte, landmarks)
        with torch.no_grad():
            if self._reference is None:
                self._reference = _first_reference(brightness[:CHUNK], region[:CHUNK], outline[:CHUNK])
            if float(self._reference.weight.mean()) < LEAST_REGION:
                return {
                    "body": np.zeros((len(matte), 6), np.float32),
                    "body_quality": np.zeros(len(matte), np.float32),
                }
            heads = _heads(landmarks, matte.shape[1:])
            parts = [
                self._chunk(*part)
                for part in zip(*(rows.split(CHUNK) for rows in (brightness, region, outline, heads)))
            ]
        motion, quality = (np.concatenate(rows) for rows in zip(*parts))
        return {"body": motion, "body_quality": quality}

    def _chunk(
        self, brightness: Tensor, region: Tensor, outline: Tensor, heads: Tensor
    ) -> tuple[np.ndarray, np.ndarray]:
        assert self._reference is not None
        if self._last_head is None:
            self._last = self._first(brightness[:1], region[:1], heads[:1])
        motion, agreement = align(brightness, region, self._reference, self._last, outline=outline)
        doubted = agreement < DOUBTED
        if doubted.any():
            before = heads[:1] if self._last_head is None else self._last_head
            start = _carried(torch.cat([self._last[None], motion]), torch.cat([before, heads]), ~doubted)[doubted]
            again, found = align(brightness[doubted], region[doubted], self._reference, start, outline=outline[doubted])
            better = found > agreement[doubted] + GAIN
            motion[doubted] = torch.where(better[:, None, None], again, motion[doubted])
            agreement[doubted] = torch.where(better, found, agreement[doubted])
        body = bridged(motion.flatten(1).numpy(), agreement.numpy() >= LEAST_QUALITY, self._last.flatten().numpy())
        self._last, self._last_head = torch.from_numpy(body[-1]).view(2, 3), heads[-1:]
        return body, agreement.numpy()

    def _first(self, brightness: Tensor, region: Tensor, heads: Tensor) -> Tensor:
        """Where to begin, ``[2, 3]``: at the reference, or where the head of the first frame says that the torso is.

        Args:
            brightness, region: ``[1, SIDE, SIDE]``; heads: ``[1, 2]``.
        """
        assert self._reference is not None
        starts = torch.zeros(2, 2, 3)
        if self._reference.guide is None:
            return starts[0]
        starts[1, :, 0] = heads[0] - self._reference.guide
        _, agreement = align(brightness.expand(2, -1, -1), region.expand(2, -1, -1), self._reference, starts)
        return starts[int(agreement[1] > agreement[0] + GAIN)]


def head_beside(landmarks: np.ndarray, body: np.ndarray, size: int) -> Tensor:
    """Where the head is, ``[2]``, when the torso is where the reference has it: the mean over a clip.

    Args:
        landmarks: ``[T, 478, 3]`` px of square frames of side ``size``; body: ``[T, 6]`` their torso's displacement.
    """
    return (_heads(landmarks, (size, size)) - torch.from_numpy(body[:, [0, 3]].astype(np.float32))).mean(0)


def _heads(landmarks: np.ndarray, size: tuple[int, ...]) -> Tensor:
    """Middles ``[T, 2]`` (x, y) of the faces, in half pictures."""
    middle = landmarks[:, facemesh.OVAL, :2].mean(1) / np.array(size[::-1]) * 2 - 1
    return torch.from_numpy(middle.astype(np.float32))


def _carried(motion: Tensor, heads: Tensor, known: Tensor) -> Tensor:
    """Where torsos may be, ``[T, 2, 3]``: as in the nearest known frame, moved as far as the head has moved since.

    Args:
        motion: ``[1 + T, 2, 3]`` displacements, those of the frame before first; heads: ``[1 + T, 2]``.
        known: ``[T]`` bool; the frame before counts as known.
    """
    rows = torch.cat([torch.zeros(1, dtype=torch.long), 1 + known.nonzero()[:, 0]])
    frames = torch.arange(1, len(motion))
    nearest = rows[(frames[:, None] - rows).abs().argmin(1)]
    start = motion[nearest].clone()
    start[..., 0] += heads[frames] - heads[nearest]
    return start


def outline_beside(landmarks: np.ndarray, body: np.ndarray, size: int) -> Tensor:
    """Where the torso's outline is not the head's, ``[SIDE, SIDE]``, when the torso is where the reference has it.

    Arguments as of :func:`head_beside`; from at most ``CHUNK`` frames of the clip.
    """
    some = np.linspace(0, len(body) - 1, CHUNK).astype(int)
    places = landmarks[some][..., :2] - body[some][:, None, [0, 3]] * (size / 2)
    return _apart(_head(places, (size, size))).amin(0)


def torso(matte: np.ndarray, landmarks: np.ndarray) -> tuple[Tensor, Tensor]:
    """The torso, and where its outline is not the head's, ``[T, SIDE, SIDE]`` in [0, 1]; arguments as of :class:`BodyTracker`."""
    person = np.stack([shrunk(alpha, SIDE) for alpha in matte])
    head = _head(landmarks, matte.shape[1:])
    return torch.from_numpy(person.astype(np.float32) / 255 * (1 - head)), _apart(head)


def _head(landmarks: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Heads ``[T, SIDE, SIDE]`` in [0, 1] by landmarks ``[T, 478, 2+]`` px of frames of a size (height, width)."""
    points = landmarks[..., :2] * np.array([SIDE / size[1], SIDE / size[0]], np.float32)
    masks = region_masks(points, SIDE, SIDE, ("head", "sure_head"))
    return np.maximum(masks["head"], masks["sure_head"])


def _apart(head: np.ndarray) -> Tensor:
    """What is not at a head ``[T, SIDE, SIDE]`` or beside it."""
    import cv2

    near = np.ones((2 * BESIDE + 1, 2 * BESIDE + 1), np.uint8)
    return 1 - torch.from_numpy(np.stack([cv2.dilate(mask.astype(np.float32), near) for mask in head]))


def brightness_of(frames: np.ndarray) -> Tensor:
    """Brightness ``[T, SIDE, SIDE]`` in [0, 1] of frames ``[T, H, W, 3]``."""
    import cv2

    grey = np.stack([cv2.cvtColor(shrunk(frame, SIDE), cv2.COLOR_RGB2GRAY) for frame in frames])
    return torch.from_numpy(grey.astype(np.float32) / 255)


def _first_reference(brightness: Tensor, region: Tensor, outline: Tensor) -> Reference:
    first = Reference(brightness[0], region[0], outline=outline[0])
    motion, _ = align(brightness, region, first, outline=outline)
    return mean_reference(brightness, region, motion, outline=outline)


def bridged(body: np.ndarray, believed: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Rows ``[T, 6]``; those not believed are interpolated between their neighbours, the last ones repeated."""
    if believed.all():
        return body
    rows, known = np.concatenate([before[None], body]), np.concatenate([[0], 1 + np.flatnonzero(believed)])
    times = np.arange(1, len(rows))
    return np.stack([np.interp(times, known, rows[known, k]) for k in range(body.shape[1])], 1).astype(np.float32)
