"""The background's track: where a camera that moves shows it, by registration to a reference picture of the shot.

The region is what the person's matte leaves of the frame. A camera that stands still costs a probe of every eighth frame.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from heads.person.image_registration import Reference, align, mean_reference
from shards.tracking.body import CHUNK, LEAST_REGION, SIDE, bridged
from shards.tracking.shrinking import shrunk

PROBED = 8  # frames from one that tells whether the camera moves to the next · guess
# Half pictures (half a pixel of 256): less than this, of the probed frames' corners, is no motion · guess.
STILL = 1 / 256
APART = SIDE // 16  # px by which the region keeps away from the matte: hair, and hands that mattes cut off · guess
WORSE = 0.02  # of the correlation: a motion that agrees less by this than no motion is not believed · guess
# Of the reference's region: a motion that leaves less of it in view is not believed, of the first frame of a test · guess.
LEAST_SHARE, FIRST_SHARE = 0.05, 0.15
# Half pictures (a pixel of 256) from their mean by which a frame's corners have moved with the camera, the share of such frames,
# and their median quality, from which a camera counts as moving: 9 % of the two-second segments of 178 real clips.
MOVED, MOVED_FRAMES, LEAST_QUALITY = 1 / 128, 0.1, 0.25
# (1, x, y) of the frame's corners.
CORNERS = ((1.0, -1.0, -1.0), (1.0, 1.0, -1.0), (1.0, -1.0, 1.0), (1.0, 1.0, 1.0))


class BackgroundTracker:
    """Tracks the background through consecutive frames of one shot.

    Args:
        reference: what frames are registered to, ``SIDE`` px square; its ``starts`` are where the first frame is looked for. By
            default the mean of the first aligned frames.
    """

    def __init__(self, reference: Reference | None = None) -> None:
        self._given = reference
        self._reference: Reference | None = None
        self._last = torch.zeros(2, 3)

    def __call__(self, brightness: Tensor, matte: np.ndarray) -> dict[str, np.ndarray]:
        """``background [T, 6]`` and ``background_quality [T]`` of the next frames, see ``docs/dataset-format.md``.

        Args:
            brightness: :func:`shards.tracking.body.brightness_of` the frames.
            matte: ``[T, H, W]`` uint8 person alpha.
        """
        with torch.no_grad():
            region = _around(matte)
            if self._reference is None:
                self._reference = self._first(brightness[:CHUNK], region[:CHUNK])
            if float(self._reference.weight.mean()) < LEAST_REGION:
                parts = [(np.zeros((len(matte), 6), np.float32), np.zeros(len(matte), np.float32))]
            else:
                parts = [self._chunk(*part) for part in zip(brightness.split(CHUNK), region.split(CHUNK), strict=True)]
        motion, quality = (np.concatenate(rows) for rows in zip(*parts, strict=True))
        return {"background": motion, "background_quality": quality}

    def _chunk(self, brightness: Tensor, region: Tensor) -> tuple[np.ndarray, np.ndarray]:
        assert self._reference is not None
        if not bool(self._last.any()):
            probed, _ = align(brightness[::PROBED], region[::PROBED], self._reference, levels=2)
            if float(corner_shifts(probed.flatten(1)).max()) < STILL:
                return np.zeros((len(brightness), 6), np.float32), np.zeros(len(brightness), np.float32)
        motion, _ = align(brightness, region, self._reference, self._last)
        moving, share = self._reference.compared(brightness, region, motion)
        still, _ = self._reference.compared(brightness, region, torch.zeros_like(motion))
        believed = (moving > still - WORSE) & (share > LEAST_SHARE)
        moved = bridged(motion.flatten(1).numpy(), believed.numpy(), self._last.flatten().numpy())
        self._last = torch.from_numpy(moved[-1]).view(2, 3)
        explained = 1 - (1 - moving) / (1 - still).clamp_min(1e-3)
        return moved, (explained.clamp(0, 1) * believed).numpy()

    def _first(self, brightness: Tensor, region: Tensor) -> Reference:
        if self._given is None:
            first = Reference(brightness[0], region[0], outlined=False)
            return mean_reference(brightness, region, align(brightness, region, first)[0], outlined=False)
        # An avatar does not say which part of its background was seen: what the first frames show is compared.
        reference = Reference(self._given.picture, self._given.weight * region.mean(0), outlined=False)
        if self._given.starts is not None:
            starts = torch.cat([self._last[None], self._given.starts])
            earliest, around = (rows[:1].expand(len(starts), -1, -1) for rows in (brightness, region))
            found, _ = align(earliest, around, reference, starts)
            correlation, share = reference.compared(earliest, around, found)
            self._last = found[(correlation * (share > FIRST_SHARE)).argmax()]
        return reference


def camera_moves(track: Mapping[str, np.ndarray]) -> bool:
    """Whether a clip's background moves as a whole, by the fields of :class:`BackgroundTracker`, if its track has them."""
    if "background" not in track:
        return False
    shifts = corner_shifts(torch.from_numpy(track["background"] - track["background"].mean(0)))
    far = shifts.numpy() > MOVED
    return bool(far.mean() > MOVED_FRAMES and np.median(track["background_quality"][far]) > LEAST_QUALITY)


def corner_shifts(background: Tensor) -> Tensor:
    """How far a displacement ``[T, 6]`` moves the frame's corners, root of the mean square ``[T]``, in half pictures."""
    corners = background.new_tensor(CORNERS)
    return (background.view(-1, 2, 3) @ corners.T).square().sum(1).mean(1).sqrt()


def _around(matte: np.ndarray) -> Tensor:
    """What mattes ``[T, H, W]`` leave of the frames, ``[T, SIDE, SIDE]`` in [0, 1]."""
    import cv2

    near = np.ones((2 * APART + 1, 2 * APART + 1), np.uint8)
    person = np.stack([cv2.dilate(shrunk(alpha, SIDE), near) for alpha in matte])
    return 1 - torch.from_numpy(person).float() / 255
