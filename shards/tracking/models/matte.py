"""The matte of the tracked person alone.

Pictures on the wall, people in the background and patterned chairs come as islands in a segmenter's matte. As part of the person
they would move the torso's track and be learned as hair.
"""

from __future__ import annotations

import numpy as np

from heads.masks import region_masks
from heads.rig.facemesh import CHIN
from shards.tracking.models.solutions import solution
from shards.tracking.shrinking import shrunk

MATTE_SIZE = 256  # px, input of the matting network
SIDE = 64  # px in which islands are found: a hand, seen beside the torso, is 8 px wide
PERSON = 127  # of 255, from which on a pixel is taken for a person
NEAR = 2  # px of ``SIDE`` around an island that its soft edge takes · guess


class PersonMatte:
    """Alpha of the person in the foreground, picture by picture."""

    def __init__(self) -> None:
        self._segmenter = solution("selfie_segmentation", "SelfieSegmentation", model_selection=0)

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        """``[H, W]`` uint8 alpha of a picture ``[H, W, 3]`` uint8 RGB."""
        import cv2  # MediaPipe's own dependency: resizes ten times as fast as Pillow

        height, width = picture.shape[:2]
        alpha = self._segmenter(shrunk(picture, MATTE_SIZE)).segmentation_mask
        levels = (np.clip(alpha, 0, 1) * 255 + 0.5).astype(np.uint8)
        return np.asarray(cv2.resize(levels, (width, height), interpolation=cv2.INTER_LINEAR))


def own_matte(matte: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """A person's alpha ``[T, H, W]`` uint8 without islands that neither the face nor what is below it belongs to.

    Args:
        matte: ``[T, H, W]`` uint8; frames without islands are not copied.
        landmarks: ``[T, 478, 2 or 3]`` px of the frames.
    """
    import cv2

    result, (height, width) = matte, matte.shape[1:]
    scale = np.array([SIDE / width, SIDE / height], np.float32)
    for k, alpha in enumerate(matte):
        small = (shrunk(alpha, SIDE) > PERSON).astype(np.uint8)
        count, labels = cv2.connectedComponents(small, connectivity=8)
        if count <= 2:  # the first is what is no person
            continue
        own = np.isin(labels, np.setdiff1d(labels[_below(landmarks[k, :, :2] * scale)], [0])).astype(np.uint8)
        if not own.any() or np.array_equal(own, small):
            continue
        islands = np.minimum(cv2.dilate(small - own, _square(NEAR)), 1 - cv2.dilate(own, _square(1)))
        shown = cv2.resize(255 * (1 - islands), (width, height), interpolation=cv2.INTER_LINEAR)
        result = result.copy() if result is matte else result
        result[k] = cv2.multiply(alpha, shown, scale=1 / 255)
    return result


def _below(points: np.ndarray) -> np.ndarray:
    """``[SIDE, SIDE]`` bool: the face and, as wide as it, all that is below the chin; from landmarks ``[478, 2]``."""
    face = region_masks(points[None], SIDE, SIDE, ("face",))["face"][0] > 0.5
    below = np.zeros_like(face)
    columns = np.flatnonzero(face.any(0))
    if len(columns):
        below[max(0, int(points[CHIN, 1])) :, columns[0] : columns[-1] + 1] = True
    return np.asarray(face | below)


def _square(reach: int) -> np.ndarray:
    return np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
