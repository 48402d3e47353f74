"""Face boxes, and whether a face is upside down."""

from __future__ import annotations

from typing import Any

import numpy as np

from shards.tracking.models.solutions import solution

# Scores of the face detector, measured on 267 frames of 89 people: a face that stands on its head is found too, with at
# most 0.82, and the same picture turned scores at least 0.07 more.
CERTAIN, MARGIN = 0.85, 0.03
# Height of the largest face, of the picture's, from which on the detector of far faces is left out: others that matter beside it
# are large enough for that of near ones (guess).
NEAR = 0.3

Detection = Any  # MediaPipe's; protobuf's classes have no types


class FaceFinder:
    """Boxes of all faces in a picture, near and far."""

    def __init__(self) -> None:
        self._near, self._far = (
            solution("face_detection", "FaceDetection", min_detection_confidence=0.5, model_selection=k) for k in (0, 1)
        )
        self._score = 0.0  # the highest of the last picture

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        """``[N, 4]`` px x0, y0, x1, y1 of faces, largest first, without duplicates.

        Beside a large face, which the detector of near faces is certain of, small ones far behind it are not looked for.
        """
        height, width = picture.shape[:2]
        found = list(self._near(picture).detections or ())
        tall = max((box[3] - box[1] for box in _boxes(found, width, height)), default=0.0)
        if _best(found) < CERTAIN or tall < NEAR * height:
            found += self._far(picture).detections or ()
        self._score = _best(found)
        boxes = _boxes(found, width, height)
        return _distinct(boxes[np.argsort(-_areas(boxes))])

    def upside_down(self, picture: np.ndarray) -> bool:
        """Whether the picture that was just searched shows its face upside down.

        Detector and landmarks both take such a face for an upright one, with the mouth on the forehead.
        """
        if self._score >= CERTAIN:
            return False
        return _best(self._detections(picture[::-1, ::-1])) > self._score + MARGIN

    def _detections(self, picture: np.ndarray) -> list[Detection]:
        return [one for finder in (self._near, self._far) for one in finder(picture).detections or ()]


def _boxes(detections: list[Detection], width: int, height: int) -> np.ndarray:
    """``[N, 4]`` px x0, y0, x1, y1."""
    boxes = [detection.location_data.relative_bounding_box for detection in detections]
    places = [(box.xmin, box.ymin, box.xmin + box.width, box.ymin + box.height) for box in boxes]
    return np.array(places, np.float32).reshape(-1, 4) * np.array([width, height, width, height], np.float32)


def _best(detections: list[Detection]) -> float:
    """The highest score, 0 for none."""
    return max((float(one.score[0]) for one in detections), default=0.0)


def _areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _distinct(boxes: np.ndarray) -> np.ndarray:
    """Drops boxes whose centre lies in a larger one that is kept."""
    kept: list[np.ndarray] = []
    for box in boxes:
        x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        if not any(k[0] <= x <= k[2] and k[1] <= y <= k[3] for k in kept):
            kept.append(box)
    return np.array(kept, np.float32).reshape(-1, 4)
