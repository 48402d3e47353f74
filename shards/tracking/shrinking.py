"""Small copies of frames, as registration and the matting network take them."""

from __future__ import annotations

import numpy as np


def shrunk(picture: np.ndarray, height: int, width: int | None = None) -> np.ndarray:
    """A picture ``[H, W, ...]`` uint8 scaled to ``height`` x ``width`` px (``None``: a square), as means over areas.

    It is halved as often as possible first, since OpenCV does that four times as fast as any other scaling.
    """
    import cv2  # MediaPipe's own dependency

    width = width or height
    while (
        picture.shape[0] % 2 == picture.shape[1] % 2 == 0
        and picture.shape[0] >= 2 * height
        and picture.shape[1] >= 2 * width
    ):
        half = picture.shape[1] // 2, picture.shape[0] // 2
        picture = cv2.resize(picture, half, interpolation=cv2.INTER_AREA)
    if picture.shape[:2] == (height, width):
        return np.ascontiguousarray(picture)
    return np.asarray(cv2.resize(np.ascontiguousarray(picture), (width, height), interpolation=cv2.INTER_AREA))
